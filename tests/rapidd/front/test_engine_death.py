"""The engine may die; the requests go on. At wire level, with a scripted engine on the real private socket."""

import pytest
from msgspec.structs import replace

from rapidctl import wire
from rapidctl.wire import Sampling
from rapidd import ipc
from support import samples
from support.front import Peer, Rig, ScriptedEngine, note


def state_of(peer: Peer) -> wire.Status:
    return peer.ask(wire.GetStatus(call=1), wire.Status)


def test_before_the_first_engine_requests_are_told_to_come_back(rig: Rig) -> None:
    peer = Peer(rig)
    peer.hello()
    assert state_of(peer).state == "starting"
    peer.send(wire.Generate(id="r", prompt="hello"))
    failed = peer.fails()
    assert (failed.code, failed.id) == ("starting", "r")
    assert failed.retry_after_s is not None
    ScriptedEngine(rig).hello()
    assert state_of(peer).state == "serving"
    rig.serves()


def test_a_front_that_just_started_asks_for_an_engine(rig: Rig) -> None:
    """An engine that survived the last front cannot know that there is a new one."""
    engine = ScriptedEngine(rig)
    rig.until(lambda: bool(engine.inbox), engine, meanwhile=lambda: rig.pass_time(0.2))
    assert engine.inbox[0] == ipc.Ping(0)


def test_streams_go_on_in_the_next_engine_without_losing_or_repeating_a_token(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate(n=2, stop=["!"], sampling=Sampling(max_tokens=9, temperature=1.0))
    first, second = engine.submitted(), engine.submitted()
    engine.say(first.rid, "one")
    engine.say(second.rid, "two", "length")
    for _ in range(6):
        peer.expect(wire.Deltas)
    engine.die()
    rig.until(lambda: state_of(peer).state == "engine_lost", meanwhile=lambda: rig.pass_time(0.5))

    heir = ScriptedEngine(rig, "boot-2")
    heir.hello()
    again = heir.submitted()
    assert again.rid not in (first.rid, second.rid)
    assert (again.choice, bytes(wire.unpack_ids(again.output_ids)), again.seed) == (0, b"one", first.seed)
    heir.step(ipc.Token(first.rid, ord("?")))  # a number of the engine that died
    heir.say(again.rid, " more!")
    deltas = peer.expect(wire.Deltas)
    assert (deltas.items[0].index, deltas.items[0].text) == (3, " ")
    finished = peer.expect(wire.Finished)
    assert [choice.text for choice in finished.choices] == ["one more", "two"]
    assert finished.resubmissions == 1
    events = peer.ask(wire.GetEvents(call=2), wire.EventList).events
    assert [event.kind for event in events if event.kind != "front_ready"] == [
        "engine_ready", "engine_lost", "engine_ready", "resubmitted",
    ]  # fmt: skip


def next_engine(rig: Rig, engine: ScriptedEngine, boot: int) -> ScriptedEngine:
    """The engine dies, and another one comes."""
    engine.die()
    engine = ScriptedEngine(rig, f"boot-{boot}")
    engine.hello()
    return engine


def test_requests_that_saw_three_engines_die_fail_and_nobody_knows_which_is_to_blame(rig: Rig) -> None:
    peer, engine = rig.ready()
    for stream_id in ("a", "b"):
        peer.generate(stream_id)
        engine.submitted()
    for boot in (2, 3):
        engine = next_engine(rig, engine, boot)
        for _ in "ab":
            engine.submitted()
    next_engine(rig, engine, 4)
    assert {peer.fails().code, peer.fails().code} == {"engine_lost"}
    rig.serves("a")


def test_a_request_that_kills_the_engine_twice_is_refused_from_then_on_whoever_sends_it(rig: Rig) -> None:
    """It was alone both times, so it is known. Another one is served, as before."""
    peer, engine = rig.ready()
    peer.generate("poison", prompt="die!")
    engine.submitted()
    engine = next_engine(rig, engine, 2)
    engine.submitted()
    next_engine(rig, engine, 3)
    failed = peer.fails()
    assert (failed.code, failed.id) == ("quarantined", "poison")
    other = Peer(rig)
    other.hello()
    for fields in ({"prompt": "die!"}, {"prompt": "die!", "priority": 5, "deadline_s": 60.0}):
        other.send(wire.Generate(id="again", **fields))
        assert other.fails().code == "quarantined"
    other.generate("harmless", prompt="live!")
    events = other.ask(wire.GetEvents(call=1), wire.EventList).events
    assert any("killed the engine 2 times" in event.text and event.request_id == "poison" for event in events)


def test_a_request_that_only_waited_is_not_suspected(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate("running")
    engine.step(ipc.Token(engine.submitted().rid, ord("x")))
    peer.expect(wire.Deltas)
    peer.generate("waiting")
    engine.submitted()
    next_engine(rig, engine, 2).submitted()
    streams = rig.front.serving.journal.streams
    assert (streams["running"].kills, streams["waiting"].kills) == (1, 0)


def test_while_the_engine_restarts_requests_are_accepted_and_wait(rig: Rig) -> None:
    peer, engine = rig.ready()
    rig.front.note(note(4242))
    engine.die()
    rig.front.note(note(None, "restarting", "loading weights"))
    status = state_of(peer)
    assert (status.state, status.detail, status.engine.pid) == ("engine_lost", "loading weights", None)
    peer.generate()
    heir = ScriptedEngine(rig, "boot-2")
    heir.hello()
    heir.say(heir.submitted().rid, "ok", "length")
    finished = peer.expect(wire.Finished)
    assert (finished.choices[0].text, finished.resubmissions) == ("ok", 0)


def test_a_late_note_about_the_old_process_does_not_lose_the_new_engine(rig: Rig) -> None:
    peer, engine = rig.ready()
    rig.front.note(note(4242))
    engine.die()
    heir = ScriptedEngine(rig, "boot-2")
    heir.hello_message.pid = 4343
    heir.hello()
    rig.front.note(note(None, "restarting"))
    rig.front.note(note(4343, "restarting"))
    assert state_of(peer).state == "serving"


def test_an_engine_that_says_nothing_is_called_lost_but_keeps_its_requests(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate()
    rid = engine.submitted().rid
    for _ in range(14):
        peer.send(wire.Ping())
        peer.expect(wire.Pong)
        rig.pass_time(1)
    assert state_of(peer).state == "engine_lost"
    engine.state()
    rig.until(lambda: state_of(peer).state == "serving")
    engine.say(rid, "ok", "length")
    finished = peer.expect(wire.Finished)
    assert (finished.choices[0].text, finished.resubmissions) == ("ok", 0)


def test_an_engine_that_says_hello_twice_at_its_start_is_given_nothing_twice(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate()
    rid = engine.submitted().rid
    engine.hello()
    engine.say(rid, "ok", "length")
    assert peer.expect(wire.Finished).choices[0].text == "ok"
    assert not [message for message in engine.inbox if isinstance(message, ipc.Submit)]


def test_an_engine_that_forgot_us_is_told_everything_again(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate()
    first = engine.submitted()
    engine.say(first.rid, "a")
    peer.expect(wire.Deltas)
    rig.pass_time(2.5)  # pings
    engine.hello()
    assert engine.expect(ipc.Abort).rids == [first.rid]
    engine.say(engine.submitted().rid, "b", "length")
    finished = peer.expect(wire.Finished)
    assert (finished.choices[0].text, finished.resubmissions) == ("ab", 0)


def test_the_next_engine_learns_the_epoch_and_the_policy(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.send(wire.SetPolicy(call=1, policy="hybrid:256"))
    engine.send(ipc.ControlDone(engine.expect(ipc.SetPolicy).token, 17, "policy hybrid:256", None, ""))
    assert peer.expect(wire.ControlReply).epoch == 17
    engine.die()
    front_hello = ScriptedEngine(rig, "boot-2").hello()
    assert front_hello == ipc.FrontHello(rig.front.boot_id, 17, "hybrid:256")


def test_the_next_engine_learns_the_override_and_when_it_was_told(rig: Rig) -> None:
    """An override used to vanish with the engine, silently and under the same epoch."""
    _, engine = rig.ready()
    partition = replace(samples.PARTITION, epoch=17)
    assert partition.override is not None
    engine.state(partition=partition)
    rig.until(lambda: rig.front.link.override is not None)
    told_ns = rig.clock()
    engine.die()
    rig.pass_time(2)
    front_hello = ScriptedEngine(rig, "boot-2").hello()
    assert (front_hello.override, front_hello.override_mono_ns) == (partition.override, told_ns)


def test_a_policy_chosen_before_this_front_began_is_told_to_the_next_engine(rig: Rig) -> None:
    """Only the front that had passed the choice on used to know of it."""
    peer, engine = rig.ready()
    engine.state(partition=replace(samples.PARTITION, override=None, policy="serial:all"))
    rig.until(lambda: rig.front.link.state is not None and rig.front.link.state.partition.policy == "serial:all")
    engine.die()
    assert ScriptedEngine(rig, "boot-2").hello().policy == "serial:all"
    assert state_of(peer).state == "serving"


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x91\xa4Nope", ipc.encode(ipc.Ping(1))])
def test_nonsense_on_the_engine_socket_is_reported_and_survived(rig: Rig, frame: bytes) -> None:
    peer, engine = rig.ready()
    engine.socket.send(frame)
    rig.until(lambda: any(e.kind == "warning" for e in peer.ask(wire.GetEvents(call=1), wire.EventList).events))
    rig.serves()


def test_an_engine_of_another_build_is_refused(rig: Rig) -> None:
    peer = Peer(rig)
    peer.hello()
    engine = ScriptedEngine(rig)
    engine.hello_message.build = "0.0.0"
    engine.send(engine.hello_message)
    rig.until(lambda: any(e.kind == "warning" for e in peer.ask(wire.GetEvents(call=1), wire.EventList).events))
    assert state_of(peer).state == "starting"
