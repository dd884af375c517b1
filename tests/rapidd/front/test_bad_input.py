"""Whatever comes in on the request socket gets a typed answer, and the next request is served."""

import random
from pathlib import Path

import msgspec
import pytest
import zmq

from rapidctl import wire
from rapidd import ipc
from rapidd.config import PolicyConfig, ServerConfig
from rapidd.front import clients, server
from support.bad_frames import BAD_FRAMES, INFINITE, NAN, generate, sampling
from support.front import CONTEXT, START_NS, VOCAB, Peer, Rig, ScriptedEngine

FRAMES: dict[str, tuple[bytes, wire.ErrorCode]] = {
    **BAD_FRAMES,
    "no kind": (msgspec.msgpack.encode({"id": "x"}), "malformed"),
    "n over its bound": (generate(n=17), "invalid_request"),
    "an empty stop": (generate(stop=[""]), "invalid_request"),
    "infinite penalty": (sampling(presence_penalty=INFINITE), "invalid_request"),
    "NaN deadline": (generate(deadline_s=NAN), "invalid_request"),
    "max_tokens of 0": (sampling(max_tokens=0), "invalid_request"),
    "min over max": (sampling(max_tokens=1, min_tokens=2), "invalid_request"),
    "min over the context": (sampling(min_tokens=CONTEXT), "invalid_request"),
    "max over the context": (sampling(max_tokens=CONTEXT), "invalid_request"),
    "two prompts": (generate(prompt_ids=b"\1\0\0\0"), "invalid_request"),
    "no prompt": (generate(prompt=None), "invalid_request"),
    "no ids": (generate(prompt=None, prompt_ids=b""), "empty_prompt"),
    "five bytes of ids": (generate(prompt=None, prompt_ids=b"12345"), "invalid_request"),
    "an id beyond the vocabulary": (
        generate(prompt=None, prompt_ids=wire.pack_ids([VOCAB])),
        "invalid_request",
    ),
    "a long prompt": (generate(prompt="x" * CONTEXT), "prompt_too_long"),
    "resume_ids of another n": (generate(resume_ids=[b"", b""]), "invalid_request"),
    "odd resume_ids": (generate(resume_ids=[b"123"]), "invalid_request"),
    "tool_choice": (generate(tool_choice="auto"), "unsupported"),
}


@pytest.mark.parametrize("case", FRAMES)
def test_a_bad_frame_is_answered_with_its_code(rig: Rig, case: str) -> None:
    bad, code = FRAMES[case]
    peer, _ = rig.ready()
    peer.raw(bad)
    failed = peer.fails()
    assert failed.code == code
    assert failed.message
    if code not in ("malformed", "unknown_kind"):
        assert failed.id == "bad"
    rig.serves()


def test_a_prompt_that_is_too_long_is_told_both_numbers(rig: Rig) -> None:
    peer, _ = rig.ready()
    peer.raw(generate(prompt="x" * 70))
    message = peer.fails().message
    assert "70" in message
    assert str(CONTEXT) in message


@pytest.mark.parametrize("field", wire.UNSUPPORTED_FIELDS)
def test_unsupported_fields_are_named_with_what_to_do(rig: Rig, field: str) -> None:
    peer, _ = rig.ready()
    peer.raw(generate(**{field: None}))
    failed = peer.fails()
    assert failed.code == "unsupported"
    assert field in failed.message
    assert failed.hint


def test_a_message_of_several_frames_is_refused(rig: Rig) -> None:
    peer, _ = rig.ready()
    peer.raw(b"", generate())
    assert peer.fails().code == "malformed"
    peer.raw(*[b"x"] * 1000)
    assert peer.fails().code == "malformed"
    rig.serves()


def test_an_oversized_frame_cuts_only_its_sender(rig: Rig) -> None:
    peer, _ = rig.ready()
    giant = Peer(rig)
    giant.hello()
    cut = giant.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    try:
        giant.raw(b"x" * (wire.MAX_FRAME_BYTES + 1))
        rig.until(lambda: cut.poll(0) > 0)
    finally:
        giant.socket.disable_monitor()
        cut.close()
    rig.serves()
    assert peer.ask(wire.Ping(call=2), wire.Pong).call == 2


@pytest.mark.parametrize("message", [wire.Ping(call=4), wire.GetStatus(call=4), wire.Generate(id="r", prompt="x")])
def test_hello_comes_first(rig: Rig, message: wire.Request) -> None:
    rig.ready()
    peer = Peer(rig)
    peer.send(message)
    failed = peer.fails()
    assert failed.code == "hello_required"
    assert (failed.call, failed.id) == ((4, None) if not isinstance(message, wire.Generate) else (None, "r"))
    peer.hello()
    assert peer.ask(wire.Ping(call=5), wire.Pong).call == 5


def test_a_client_of_another_protocol_is_told_the_range(rig: Rig) -> None:
    peer = Peer(rig)
    peer.send(wire.Hello(protocol_min=wire.PROTOCOL_MAX + 1, protocol_max=wire.PROTOCOL_MAX + 3))
    assert peer.fails().code == "protocol"
    assert peer.ask(wire.Hello(protocol_max=wire.PROTOCOL_MAX + 3), wire.Welcome).protocol == wire.PROTOCOL_MAX


@pytest.mark.parametrize("phase", ["queued", "prefilling", "decoding"])
def test_a_vanished_client_frees_its_requests(rig: Rig, phase: str) -> None:
    peer, engine = rig.ready()
    peer.generate()
    rid = engine.submitted().rid
    if phase == "prefilling":
        engine.state([ipc.RequestState(rid, "prefilling", 0, 3, 1, 0, rig.clock())])
    if phase == "decoding":
        engine.say(rid, "a")
        peer.expect(wire.Deltas)
    peer.vanish()
    if phase == "decoding":  # noticed at the first send after it left, long before the lease
        rig.until(lambda: bool(engine.inbox), engine, meanwhile=lambda: engine.say(rid, "b"))
    else:
        rig.until(lambda: not rig.front.serving.journal.choices, meanwhile=lambda: rig.pass_time(0.5))
    assert engine.expect(ipc.Abort).rids == [rid]
    assert not rig.front.serving.journal.choices
    rig.serves()


def test_a_client_that_left_while_its_request_waits_is_noticed_before_its_lease_ends(rig: Rig) -> None:
    """Nothing is sent to it meanwhile: the front asks whether it is still there once its ping is late."""
    peer, engine = rig.ready()
    peer.generate()
    rid = engine.submitted().rid
    peer.vanish()
    rig.until_unreachable([client.identity for client in rig.front.clients])
    rig.until(lambda: not rig.front.serving.journal.streams, meanwhile=lambda: rig.pass_time(0.25))
    assert engine.expect(ipc.Abort).rids == [rid]
    assert rig.clock() - START_NS < 5e9 + 1e9 / 4


def test_a_client_that_is_frozen_is_noticed_within_its_lease(rig: Rig) -> None:
    """It takes what it is sent, and says nothing."""
    peer, engine = rig.ready()
    peer.generate()
    rid = engine.submitted().rid
    rig.until(lambda: not rig.front.serving.journal.streams, engine, meanwhile=lambda: rig.pass_time(0.25))
    assert engine.expect(ipc.Abort).rids == [rid]
    assert 5e9 < rig.clock() - START_NS <= 6e9


def test_a_front_that_was_stopped_listens_before_it_judges(rig: Rig) -> None:
    """It dropped every stream after 6 s without processor, though the clients' pings lay in its socket."""
    peer, engine = rig.ready()
    peer.generate()
    rid = engine.submitted().rid
    rig.pass_time(60)
    assert rig.front.serving.journal.streams
    peer.ask(wire.Ping(), wire.Pong)
    for _ in range(8):
        rig.pass_time(0.5)
    engine.say(rid, "ok", "length")
    assert peer.expect(wire.Finished).choices[0].text == "ok"


def test_who_is_silent_after_that_is_noticed_soon(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate()
    rid = engine.submitted().rid
    rig.pass_time(60)
    stopped_ns = rig.clock()
    rig.until(lambda: not rig.front.serving.journal.streams, engine, meanwhile=lambda: rig.pass_time(0.25))
    assert engine.expect(ipc.Abort).rids == [rid]
    assert rig.clock() - stopped_ns <= 3e9


def test_a_lease_is_renewed_by_any_message(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate()
    rid = engine.submitted().rid
    for _ in range(4):
        rig.pass_time(4)
        peer.ask(wire.Ping(), wire.Pong)
    engine.say(rid, "ok", "length")
    assert peer.expect(wire.Finished).choices[0].text == "ok"


def test_clients_without_streams_are_forgotten_only_when_they_left(rig: Rig) -> None:
    stays, _ = rig.ready()
    leaves = Peer(rig)
    leaves.hello()
    leaves.vanish()
    rig.until(lambda: len(rig.front.clients) == 1, meanwhile=lambda: rig.pass_time(31))
    assert stays.ask(wire.GetSnapshot(call=1), wire.SnapshotReply).snapshot.clients == 1


def test_a_client_that_never_reads_is_dropped_and_told_when_it_reads_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "OWED_NS", 10**15)  # no clock says how fast this machine reads: not the front's,
    monkeypatch.setattr(server, "HEARTBEAT_MS", 0)  # nor ZeroMQ's, whose pings wait behind what is not read
    rig = Rig(tmp_path, send_hwm=5)
    try:
        peer, engine = rig.ready()
        sleeper = Peer(rig, receive_hwm=5)
        sleeper.hello()
        sleeper.generate("sleepy", sampling=wire.Sampling(logprobs=20))
        submit = engine.submitted()
        top = [(token, -1.0) for token in range(20)] * 500  # fill the kernel's buffers in few steps
        for _ in range(200):
            engine.step(ipc.Token(submit.rid, 65, None, -1.0, top))
        assert engine.expect(ipc.Abort).rids == [submit.rid]
        rig.serves()
        events = peer.ask(wire.GetEvents(call=1), wire.EventList).events
        assert events[-1].kind == "slow_consumer"
        rig.until(
            lambda: any(isinstance(m, wire.Failed) for m in sleeper.inbox), sleeper, meanwhile=lambda: rig.pass_time(1)
        )
        failed = next(message for message in sleeper.inbox if isinstance(message, wire.Failed))
        assert (failed.code, failed.id) == ("slow_consumer", "sleepy")
    finally:
        rig.close()


def test_the_queue_is_bounded(tmp_path: Path) -> None:
    rig = Rig(tmp_path, ServerConfig(max_waiting_requests=3))
    try:
        peer, engine = rig.ready()
        peer.generate("a", n=2)
        peer.send(wire.Generate(id="b", prompt="x", n=2))
        failed = peer.fails()
        assert (failed.code, failed.id) == ("queue_full", "b")
        assert failed.retry_after_s is not None
        engine.step(ipc.Token(engine.submitted().rid, 65))  # one is waiting no longer
        peer.expect(wire.Deltas)
        peer.generate("b", n=2)
    finally:
        rig.close()


def test_what_the_queue_can_never_hold_is_not_told_to_come_again(tmp_path: Path) -> None:
    """It was, in 60 s, for ever."""
    rig = Rig(tmp_path, ServerConfig(max_waiting_requests=3))
    try:
        peer, _ = rig.ready()
        peer.send(wire.Generate(id="a", prompt="x", n=4))
        failed = peer.fails()
        assert (failed.code, failed.id, failed.retry_after_s) == ("invalid_request", "a", None)
        rig.serves()
    finally:
        rig.close()


def hopeful(rig: Rig, tokens_per_s: float) -> Peer:
    """A client of an engine that says it computes so many prompt tokens a second."""
    peer, engine = rig.ready()
    engine.state(prefill_tokens_per_s=tokens_per_s)
    rig.until(lambda: rig.front.link.state is not None)
    return peer


def hopeless_total(peer: Peer) -> int:
    return peer.ask(wire.GetStatus(call=1), wire.Status).requests.hopeless_total


@pytest.mark.parametrize("refuse", [False, True])
def test_a_request_without_hope_is_counted_and_refused_only_if_so_configured(tmp_path: Path, refuse: bool) -> None:
    """50 tokens at 10 a second: 5 s, where the objective is 2 s."""
    rig = Rig(tmp_path, policy=PolicyConfig(refuse_hopeless=refuse))
    try:
        peer = hopeful(rig, 10.0)
        peer.generate("short", prompt="x" * 20)
        peer.send(wire.Generate(id="long", prompt="x" * 30))
        if refuse:
            failed = peer.fails()
            assert (failed.code, failed.id) == ("queue_full", "long")
            assert failed.retry_after_s == pytest.approx(3.0, abs=0.1)
        else:
            assert peer.expect(wire.Accepted).id == "long"
        assert hopeless_total(peer) == 1
        peer.generate("later", prompt="x" * 30, slo_class="batch")
        assert hopeless_total(peer) == 1, "batch work has time"
    finally:
        rig.close()


def test_without_predictions_nothing_is_hopeless(tmp_path: Path) -> None:
    rig = Rig(tmp_path, policy=PolicyConfig(refuse_hopeless=True))
    try:
        peer, engine = rig.ready()
        engine.state()
        rig.until(lambda: rig.front.link.state is not None)
        for index in range(20):
            peer.generate(f"r{index}", prompt="x" * 50)
        assert hopeless_total(peer) == 0
    finally:
        rig.close()


def test_a_request_that_can_never_fit_the_cache_is_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    try:
        engine = ScriptedEngine(rig, kv_blocks=3)  # of four tokens each
        engine.hello()
        peer = Peer(rig)
        peer.hello()
        peer.send(wire.Generate(id="a", prompt="x" * 12))
        assert peer.fails().code == "kv_too_small"
        peer.send(wire.Generate(id="b", prompt="x", sampling=wire.Sampling(max_tokens=12)))
        assert peer.fails().code == "kv_too_small"
        peer.generate("c", prompt="x")
        assert engine.submitted().max_tokens == 11
    finally:
        rig.close()


def mutate(data: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(damaged) + 1)
        match chance.randrange(4):
            case 0:
                damaged[at : at + 1] = chance.randbytes(1)
            case 1:
                damaged[at:at] = chance.randbytes(chance.randint(1, 8))
            case 2:
                del damaged[at : at + chance.randint(1, 8)]
            case _:
                damaged[at : at + 1] = bytes([chance.choice((0x80, 0x90, 0xC0, 0xCB, 0xDB, 0xDD, 0xDF, 0xFF))])
    return bytes(damaged)


def test_mutated_frames_are_all_answered_and_none_ends_the_process(rig: Rig) -> None:
    """Every mutated frame is followed by a ping whose answer proves that the front got past it."""
    peer, engine = rig.ready()
    chance = random.Random(20261122)
    seeds = [
        wire.encode(message)
        for message in (
            wire.Hello(client="fuzz"),
            wire.Ping(call=1),
            wire.Generate(id="f", prompt="abc", sampling=wire.Sampling(seed=1, max_tokens=4), stop=["x"], n=2),
            wire.Generate(id="g", messages=[wire.ChatMessage("user", "hi")], deadline_s=2.0),
            wire.Generate(id="h", prompt_ids=wire.pack_ids([1, 2, 3]), resume_ids=[wire.pack_ids([1])]),
            wire.Cancel(call=2, id="f"),
            wire.GetRequests(call=3, id="f"),
            wire.GetEvents(call=4),
            wire.PredictPartition(call=5, plan=wire.PlanRequest(mode="split", decode_units=1)),
            wire.SetPartition(call=6, plan=wire.PlanRequest(mode="serial", chunk="all")),
        )
    ]
    for batch in range(60):
        for _ in range(50):
            peer.raw(mutate(chance.choice(seeds), chance))
        peer.send(wire.Ping(call=1000 + batch))
        rig.until(lambda: any(isinstance(m, wire.Pong) and m.call == 1000 + batch for m in peer.inbox), peer)  # noqa: B023
        assert not any(isinstance(m, wire.Failed) and m.code == "internal_error" for m in peer.inbox)
        peer.inbox.clear()
        rig.clock.advance(0.5)
    for stream_id in list(rig.front.serving.journal.streams):
        peer.ask(wire.Cancel(call=7, id=stream_id), wire.ControlReply)
    engine.inbox.clear()
    engine.read()
    engine.inbox.clear()
    rig.serves()


def test_a_flood_of_connections_that_never_speak_does_no_harm(rig: Rig) -> None:
    rig.ready()
    silent = [rig.context.socket(zmq.DEALER) for _ in range(50)]
    for sock in silent:
        sock.set(zmq.LINGER, 0)
        sock.connect(rig.runtime.endpoint)
    rig.serves()
    for sock in silent:
        sock.close()
