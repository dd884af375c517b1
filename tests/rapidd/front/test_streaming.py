"""A request's way through the front, at wire level: accepted, streamed, ended exactly once."""

import pytest

from rapidctl import wire
from rapidctl.wire import Sampling
from rapidd import ipc
from support.front import EOS, Peer, Rig


def test_streams_text_and_ids_as_the_engine_produces_them(rig: Rig) -> None:
    peer, engine = rig.ready()
    accepted = peer.generate(prompt="abc", sampling=Sampling(seed=7))
    assert (accepted.prompt_tokens, accepted.seed, accepted.resumed) == (3, 7, False)
    submit = engine.submitted()
    assert wire.unpack_ids(submit.prompt_ids) == list(b"abc")
    engine.say(submit.rid, "xyz", "length")
    text, ids, finished = peer.stream()
    assert text == finished.choices[0].text == "xyz"
    assert ids == wire.unpack_ids(finished.choices[0].token_ids) == list(b"xyz")
    assert finished.choices[0].finish_reason == "length"
    assert (finished.prompt_tokens, finished.output_tokens, finished.mode) == (3, 3, "hybrid")
    assert not rig.front.serving.journal.choices


def test_one_message_a_client_a_step(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate("a")
    peer.generate("b")
    a, b = engine.submitted(), engine.submitted()
    engine.step(ipc.Token(a.rid, 65), ipc.Token(b.rid, 66))
    deltas = peer.expect(wire.Deltas)
    assert [(item.id, item.text) for item in deltas.items] == [("a", "A"), ("b", "B")]


def test_a_drawn_seed_is_told_and_journalled(rig: Rig) -> None:
    peer, engine = rig.ready()
    accepted = peer.generate()
    assert engine.submitted().seed == accepted.seed


def test_default_max_tokens_is_what_the_context_leaves(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate(prompt="x" * 10)
    assert engine.submitted().max_tokens == 54


def test_chat_messages_go_through_the_template(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate(messages=[wire.ChatMessage("user", "hi")])
    assert bytes(wire.unpack_ids(engine.submitted().prompt_ids)) == b"user:hi;"


def test_eos_ends_without_text_and_without_a_stop_reason(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate()
    rid = engine.submitted().rid
    engine.say(rid, "a")
    engine.step(ipc.Token(rid, EOS, "stop"))
    text, ids, finished = peer.stream()
    assert (text, ids) == ("a", [ord("a"), EOS])
    assert (finished.choices[0].finish_reason, finished.choices[0].stop) == ("stop", None)


def test_a_stop_token_is_named(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate(sampling=Sampling(stop_token_ids=[42]))
    engine.step(ipc.Token(engine.submitted().rid, 42, "stop"))
    text, ids, finished = peer.stream()
    assert (text, ids, finished.choices[0].stop) == ("", [42], 42)


def test_a_stop_string_over_tokens_is_never_shown_and_the_engine_is_told(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate(stop=["END"])
    rid = engine.submitted().rid
    engine.say(rid, "a EN EEND and what follows")
    text, ids, finished = peer.stream()
    assert text == finished.choices[0].text == "a EN E"
    assert bytes(ids) == b"a EN EEND"
    assert (finished.choices[0].finish_reason, finished.choices[0].stop) == ("stop", "END")
    assert engine.expect(ipc.Abort).rids == [rid]


def test_a_stop_string_before_min_tokens_is_text(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate(stop=["b"], sampling=Sampling(min_tokens=4))
    engine.say(engine.submitted().rid, "abcb")
    text, _, finished = peer.stream()
    assert (text, finished.choices[0].stop) == ("abc", "b")


def test_held_back_text_is_delivered_when_the_output_ends(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate(stop=["END"])
    engine.say(engine.submitted().rid, "aEN", "length")
    text, _, finished = peer.stream()
    assert text == finished.choices[0].text == "aEN"


def test_choices_are_separate_and_finish_together(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate(n=2)
    first, second = engine.submitted(), engine.submitted()
    assert (first.choice, second.choice) == (0, 1)
    assert first.rid != second.rid
    engine.say(first.rid, "no", "length")
    assert [peer.expect(wire.Deltas).items[0].finish_reason for _ in "no"] == [None, "length"]
    engine.say(second.rid, "yes", "length")
    finished = peer.expect(wire.Finished)
    assert [choice.text for choice in finished.choices] == ["no", "yes"]
    assert finished.output_tokens == 5


def test_logprobs_reach_the_client(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate(sampling=Sampling(logprobs=1))
    engine.step(ipc.Token(engine.submitted().rid, 65, None, -0.5, [(66, -1.5)]))
    (delta,) = peer.expect(wire.Deltas).items
    assert delta.logprobs == [wire.TokenLogprob(65, -0.5, [(66, -1.5)], b"A", [b"B"])]


def test_times_are_the_engines(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate(sampling=Sampling(max_tokens=3))
    rid = engine.submitted().rid
    rig.clock.advance(0.5)
    for gap_s in (0.1, 0.2, 0.0):
        engine.say(rid, "x", None if gap_s else "length")
        rig.clock.advance(gap_s)
    finished = peer.expect(wire.Finished)
    assert finished.timing.ttft_s == pytest.approx(0.5)
    assert finished.timing.itl_s.n == 2
    assert finished.timing.itl_s.max == pytest.approx(0.2)
    assert finished.slo_met is True


def test_the_first_token_tells_when_its_prompt_was_begun(rig: Rig) -> None:
    """States tell it too, but a short request is over before the next one comes."""
    peer, engine = rig.ready()
    peer.generate(sampling=Sampling(max_tokens=1))
    rid = engine.submitted().rid
    rig.clock.advance(0.5)
    began_ns = rig.clock()
    rig.clock.advance(0.25)
    engine.step(ipc.Token(rid, 65, "length", cached=0, prefill_start_mono_ns=began_ns))
    timing = peer.expect(wire.Finished).timing
    assert timing.queued_s == pytest.approx(0.5)
    assert timing.prefill_s == pytest.approx(0.25)


def test_a_gap_over_the_slo_is_a_miss(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate()
    rid = engine.submitted().rid
    engine.say(rid, "x")
    peer.expect(wire.Deltas)
    rig.clock.advance(0.4)
    engine.say(rid, "x", "length")
    assert peer.expect(wire.Finished).slo_met is False


def test_cancel_ends_with_what_there_is(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate(stop=["ab"])
    rid = engine.submitted().rid
    engine.say(rid, "xa")
    peer.expect(wire.Deltas)
    peer.send(wire.Cancel(call=3, id="r"))
    finished = peer.expect(wire.Finished)
    assert (finished.choices[0].finish_reason, finished.choices[0].text) == ("cancelled", "xa")
    assert peer.expect(wire.ControlReply).call == 3
    assert engine.expect(ipc.Abort).rids == [rid]
    engine.say(rid, "late")
    rig.serves()


def test_only_the_owner_or_an_operator_cancels(rig: Rig) -> None:
    peer, _ = rig.ready()
    peer.generate()
    stranger, operator = Peer(rig), Peer(rig)
    stranger.hello(control=False)
    operator.hello()
    stranger.send(wire.Cancel(call=1, id="r"))
    refused = stranger.fails()
    assert (refused.code, refused.call, refused.id) == ("not_permitted", 1, None)
    assert operator.ask(wire.Cancel(call=1, id="r"), wire.ControlReply).text == "cancelled r"
    operator.send(wire.Cancel(call=2, id="r"))
    assert operator.fails().code == "not_found"


def test_a_deadline_ends_a_running_request(rig: Rig) -> None:
    """The front alone keeps it: the engine did too, and who was first decided what the client read."""
    peer, engine = rig.ready()
    peer.generate(deadline_s=3.0)
    submit = engine.submitted()
    rig.pass_time(2.9)
    assert rig.front.serving.journal.streams
    rig.pass_time(0.1)
    failed = peer.expect(wire.Failed)
    assert (failed.code, failed.message) == ("deadline_exceeded", "not finished 3.0 s after its arrival")
    assert engine.expect(ipc.Abort).rids == [submit.rid]


@pytest.mark.parametrize(("deadline_s", "told"), [(0.0005, "0.5 ms"), (0.04, "40 ms"), (1.5, "1.5 s")])
def test_a_short_deadline_is_told_in_milliseconds(rig: Rig, deadline_s: float, told: str) -> None:
    """It was "not finished 0.0 s after its arrival"."""
    peer, _ = rig.ready()
    peer.generate(deadline_s=deadline_s)
    rig.pass_time(deadline_s)
    assert peer.expect(wire.Failed).message == f"not finished {told} after its arrival"


def test_what_the_engine_drops_fails(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate(n=2)
    first, second = engine.submitted(), engine.submitted()
    engine.send(ipc.Dropped(first.rid, "out_of_memory", "the batch did not fit"))
    failed = peer.fails()
    assert (failed.id, failed.code, failed.message) == ("r", "out_of_memory", "the batch did not fit")
    assert set(engine.expect(ipc.Abort).rids) >= {second.rid}
    rig.serves()


def test_sending_a_running_request_again_re_attaches(rig: Rig) -> None:
    peer, engine = rig.ready()
    first = peer.generate()
    again = peer.generate()
    assert again.resumed
    assert again.seed == first.seed
    engine.say(engine.submitted().rid, "once", "length")
    text, _, _ = peer.stream()
    assert text == "once"


def test_a_running_id_is_refused_for_another_request_and_another_client(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate(prompt="one")
    peer.send(wire.Generate(id="r", prompt="two"))
    assert peer.fails().code == "duplicate_id"
    other = Peer(rig)
    other.hello()
    other.send(wire.Generate(id="r", prompt="one"))
    assert other.fails().code == "duplicate_id"
    engine.say(engine.submitted().rid, "fine", "length")
    assert peer.expect(wire.Finished).choices[0].text == "fine"


def test_a_client_that_reconnects_takes_its_stream_over(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate()
    rid = engine.submitted().rid
    engine.say(rid, "seen")
    for _ in "seen":
        peer.expect(wire.Deltas)
    peer.vanish()
    rig.until_unreachable([client.identity for client in rig.front.clients])
    again = Peer(rig)
    again.hello()
    again.send(wire.Generate(id="r", prompt="hello", resume_ids=[wire.pack_ids(list(b"se"))]))
    assert again.expect(wire.Accepted).resumed
    replay = again.expect(wire.Deltas).items[0]
    assert (replay.index, replay.text, bytes(wire.unpack_ids(replay.token_ids))) == (2, "en", b"en")
    engine.say(rid, "!", "length")
    assert again.expect(wire.Finished).choices[0].text == "seen!"


def test_after_a_front_restart_the_ids_a_client_has_count_as_output(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate(resume_ids=[wire.pack_ids(list(b"abc"))], sampling=Sampling(max_tokens=5))
    submit = engine.submitted()
    assert bytes(wire.unpack_ids(submit.output_ids)) == b"abc"
    engine.say(submit.rid, "de", "length")
    deltas = peer.expect(wire.Deltas)
    assert (deltas.items[0].index, deltas.items[0].text) == (3, "d")
    assert peer.expect(wire.Finished).choices[0].text == "abcde"


def test_resumed_ids_that_already_end_the_output_finish_it_at_once(rig: Rig) -> None:
    peer, _ = rig.ready()
    peer.generate(resume_ids=[wire.pack_ids(list(b"a.b"))], stop=["."])
    choice = peer.expect(wire.Finished).choices[0]
    assert (choice.text, choice.stop, wire.unpack_ids(choice.token_ids)) == ("a", ".", list(b"a."))
