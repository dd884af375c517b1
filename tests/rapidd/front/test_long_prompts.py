"""Prompts that take long to encode are encoded beside the loop; to their client nothing looks different."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from msgspec.structs import replace

from rapidctl import wire
from rapidd import ipc
from rapidd.front import admission
from support.front import Peer, Rig, ScriptedEngine


@contextmanager
def busy_encoder(rig: Rig) -> Iterator[None]:
    """The encoder's thread has something else to do meanwhile."""
    gate = threading.Event()
    rig.server._encoder.submit(gate.wait)
    try:
        yield
    finally:
        gate.set()


LONG = "x" * (admission.LONG_CHARS + 1)


@pytest.fixture
def pair(rig: Rig) -> tuple[Peer, ScriptedEngine]:
    """An engine whose context takes long prompts, and a client."""
    engine = ScriptedEngine(rig, kv_blocks=4000)
    engine.hello_message = replace(engine.hello_message, max_model_len=10_000)
    engine.hello()
    peer = Peer(rig)
    peer.hello()
    return peer, engine


def test_a_long_prompt_is_served_like_a_short_one(pair: tuple[Peer, ScriptedEngine]) -> None:
    peer, engine = pair
    assert peer.generate(prompt=LONG).prompt_tokens == len(LONG)
    submit = engine.submitted()
    assert wire.unpack_ids(submit.prompt_ids) == list(LONG.encode())
    engine.say(submit.rid, "ok", "length")
    assert peer.stream()[0] == "ok"


def test_its_latency_counts_from_its_arrival(rig: Rig, pair: tuple[Peer, ScriptedEngine]) -> None:
    peer, engine = pair
    with busy_encoder(rig):
        peer.send(wire.Generate(id="r", prompt=LONG))
        peer.ask(wire.Ping(), wire.Pong)
        rig.clock.advance(1)
    peer.expect(wire.Accepted)
    engine.say(engine.submitted().rid, "a", "length")
    assert peer.expect(wire.Finished).timing.ttft_s == pytest.approx(1)


def test_a_long_prompt_that_does_not_fit_is_refused(rig: Rig) -> None:
    peer, _ = rig.ready()
    for fields in ({"prompt": LONG}, {"messages": [wire.ChatMessage("user", LONG)]}):
        peer.send(wire.Generate(id="r", **fields))
        failed = peer.fails()
        assert (failed.code, failed.id) == ("prompt_too_long", "r")
    rig.serves()


@pytest.mark.parametrize("is_chat", [False, True])
def test_of_a_prompt_that_is_far_too_long_the_beginning_is_read_and_no_more(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, is_chat: bool
) -> None:
    """A text of four million characters took four seconds to refuse, and every long prompt behind it waited."""
    peer, engine = rig.ready()
    tokenizer = rig.server._text.tokenizer
    encoded: list[str] = []

    def encode(text: str, *, add_special: bool) -> list[int]:
        encoded.append(text)
        return type(tokenizer).encode(tokenizer, text, add_special=add_special)

    monkeypatch.setattr(tokenizer, "encode", encode)
    text = "far too long " * 100_000
    peer.send(
        wire.Generate(id="r", **({"messages": [wire.ChatMessage("user", text)]} if is_chat else {"prompt": text}))
    )
    assert peer.fails().code == "prompt_too_long"
    assert [len(text) for text in encoded] == [admission.CHARS_A_TOKEN * engine.hello_message.max_model_len]
    rig.serves()


def test_its_id_is_taken_and_it_can_be_cancelled_meanwhile(rig: Rig, pair: tuple[Peer, ScriptedEngine]) -> None:
    peer, engine = pair
    with busy_encoder(rig):
        peer.send(wire.Generate(id="r", prompt=LONG))
        peer.send(wire.Generate(id="r", prompt="short"))
        assert peer.fails().code == "duplicate_id"
        assert peer.ask(wire.Cancel(call=1, id="r"), wire.ControlReply).call == 1
    peer.expect(wire.Accepted)
    assert peer.expect(wire.Finished).choices[0].finish_reason == "cancelled"
    assert engine.expect(ipc.Abort).rids
    rig.serves()


def test_a_client_that_lost_its_connection_meanwhile_still_gets_it(rig: Rig, pair: tuple[Peer, ScriptedEngine]) -> None:
    """It was told ``duplicate_id``, and nobody got what was encoded."""
    peer, engine = pair
    with busy_encoder(rig):
        peer.send(wire.Generate(id="r", prompt=LONG))
        peer.ask(wire.Ping(), wire.Pong)
        left = [client.identity for client in rig.front.clients]
        peer.vanish()
        rig.until_unreachable(left)
        back = Peer(rig)
        back.hello()
        back.send(wire.Generate(id="r", prompt=LONG))
        back.ask(wire.Ping(), wire.Pong)
    back.expect(wire.Accepted)
    engine.say(engine.submitted().rid, "ok", "length")
    assert back.stream()[0] == "ok"


def test_nobody_else_gets_it_while_its_client_is_there(rig: Rig, pair: tuple[Peer, ScriptedEngine]) -> None:
    peer, _ = pair
    other = Peer(rig)
    other.hello()
    with busy_encoder(rig):
        peer.send(wire.Generate(id="r", prompt=LONG))
        peer.ask(wire.Ping(), wire.Pong)
        other.send(wire.Generate(id="r", prompt=LONG))
        assert other.fails().code == "duplicate_id"
    assert peer.expect(wire.Accepted).id == "r"


def test_it_counts_in_the_queue_meanwhile(rig: Rig, pair: tuple[Peer, ScriptedEngine]) -> None:
    """A thousand prompts of megabytes each could wait to be encoded, where the queue's tokens were bounded."""
    peer, _ = pair
    bound = len(LONG) // admission.CHARS_A_TOKEN
    rig.front.reload(replace(rig.config, server=replace(rig.config.server, max_waiting_tokens=2 * bound)))
    with busy_encoder(rig):
        for name in ("a", "b"):
            peer.send(wire.Generate(id=name, prompt=LONG))
        peer.send(wire.Generate(id="c", prompt="short"))
        failed = peer.fails()
        assert (failed.code, failed.id) == ("queue_full", "c")
    assert {peer.expect(wire.Accepted).id for _ in range(2)} == {"a", "b"}


def test_its_client_may_leave_meanwhile(rig: Rig, pair: tuple[Peer, ScriptedEngine]) -> None:
    peer, engine = pair
    with busy_encoder(rig):
        peer.send(wire.Generate(id="r", prompt=LONG))
        peer.ask(wire.Ping(), wire.Pong)
        peer.vanish()
        rig.until(lambda: len(rig.front.clients) == 0, meanwhile=lambda: rig.pass_time(31))
    rig.until(lambda: not rig.front.calls.encoding)
    rig.serves()
    assert not [message for message in engine.inbox if isinstance(message, ipc.Submit)]


def test_a_stop_waits_for_it_and_then_ends_it(rig: Rig, pair: tuple[Peer, ScriptedEngine]) -> None:
    peer, _ = pair
    with busy_encoder(rig):
        peer.send(wire.Generate(id="r", prompt=LONG))
        peer.ask(wire.Ping(), wire.Pong)
        rig.front.stop()
        assert not rig.front.stopped
        rig.front.stop()
        assert rig.front.stopped
        failed = peer.fails()
        assert (failed.code, failed.id) == ("draining", "r")
