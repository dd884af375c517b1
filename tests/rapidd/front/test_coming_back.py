"""Clients that come back, to the same front or the next one: they have every token, and nobody pays for them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from msgspec import Struct
from msgspec.structs import replace

from rapidctl import wire
from rapidctl.client import Client
from rapidctl.errors import Refused
from rapidctl.wire import Sampling
from rapidd import ipc
from rapidd.config import AccessConfig, ServerConfig
from rapidd.front.control import MAX_ASKED
from support.front import Peer, Rig, ScriptedEngine

TOKENS = Sampling(max_tokens=20)


class Polled:
    """The product's client, as one of those that the rig lets read."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def read(self) -> None:
        self.client.poll(0.0)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path, server=ServerConfig(max_waiting_requests=4))
    yield rig
    rig.close()


def client_of(rig: Rig) -> tuple[Client, Polled]:
    client = Client(rig.runtime.endpoint)
    client.open()
    polled = Polled(client)
    rig.until(lambda: client.connected, polled)
    return client, polled


def engine_of(rig: Rig) -> ScriptedEngine:
    engine = ScriptedEngine(rig)
    engine.hello()
    return engine


def restart(rig: Rig, **sections: Struct) -> None:
    """A front with other settings, and an engine that it greets."""
    rig.server.close()
    rig.config = replace(rig.config, **sections)
    rig.start()
    engine_of(rig)


def test_streams_that_ran_are_let_in_by_the_next_front_however_many_they_are(rig: Rig) -> None:
    """Each counted as waiting there, and those beyond the queue's bounds were refused for good."""
    engine = engine_of(rig)
    client, polled = client_of(rig)
    streams = []
    for number in range(6):
        request = wire.Generate(id=f"r{number}", prompt="hello", sampling=TOKENS)
        streams.append(client.submit(request, resume=True))
        rig.until(lambda: streams[-1].accepted is not None, polled)
        engine.say(engine.submitted().rid, "ab")
        rig.until(lambda: streams[-1].output_tokens == 2, polled)
    engine.die()
    rig.server.close()
    rig.start()
    engine_of(rig)
    rig.until(lambda: len(rig.front.serving.journal.streams) == 6, polled)
    assert [stream.ended for stream in streams] == [None] * 6
    client.close()


def test_a_client_that_says_what_it_has_gets_the_rest_also_under_its_old_name(rig: Rig) -> None:
    """Only a client with a new routing id did: one that names itself lost what was on its way."""

    class Named(Peer):
        def connect(self) -> None:
            self.socket.set(zmq.ROUTING_ID, b"worker-1")
            super().connect()

    engine = engine_of(rig)
    peer = Named(rig)
    peer.hello()
    peer.generate("r", sampling=TOKENS)
    rid = engine.submitted().rid
    engine.say(rid, "abcd")
    rig.until(lambda: rig.front.serving.journal.streams["r"].output_tokens == 4)
    peer.vanish()
    rig.until(lambda: rig.server.to_client(b"worker-1", b"") == "gone")
    rig.serves()  # by then ZeroMQ's thread, which had to agree, has given the name free
    back = Named(rig)
    back.hello()
    has = [wire.pack_ids(list(b"ab"))]
    back.send(wire.Generate(id="r", prompt="hello", sampling=TOKENS, resume_ids=has))
    assert back.expect(wire.Accepted).resumed
    (rest,) = back.expect(wire.Deltas).items
    assert (rest.index, wire.unpack_ids(rest.token_ids)) == (2, list(b"cd"))


def test_who_says_that_he_was_let_in_before_passes_the_queue_of_a_new_front_only(rig: Rig) -> None:
    """Whoever sent `resume_ids` was refused by no full queue and no drain, for ever."""
    restart(rig, server=ServerConfig(max_waiting_requests=1))
    peer = Peer(rig)
    peer.hello()
    for number in range(3):
        peer.generate(f"early {number}", resume_ids=[b""])
    for _ in range(60):
        rig.pass_time(1)
        peer.ask(wire.Ping(), wire.Pong)
    peer.send(wire.Generate(id="late", prompt="hello", resume_ids=[b""]))
    assert peer.fails().code == "queue_full"
    peer.ask(wire.Drain(call=1), wire.ControlReply)
    peer.send(wire.Generate(id="later", prompt="hello", resume_ids=[b""]))
    assert peer.fails().code == "draining"


def test_logprobs_are_replayed_behind_ids_that_came_back_without_them(rig: Rig) -> None:
    """Ids of before a front's death have no logprobs, and were counted as if they had."""
    engine = engine_of(rig)
    peer = Peer(rig)
    peer.hello()
    sampling = Sampling(max_tokens=20, logprobs=0)
    resumed = [wire.pack_ids(list(b"abc"))]
    peer.send(wire.Generate(id="r", prompt="hello", sampling=sampling, resume_ids=resumed))
    peer.expect(wire.Accepted)
    rid = engine.submitted().rid
    for token in b"de":
        engine.step(ipc.Token(rid, token, None, -0.5, []))
    rig.until(lambda: rig.front.serving.journal.streams["r"].output_tokens == 5)
    peer.vanish()
    rig.until_unreachable([client.identity for client in rig.front.clients])
    back = Peer(rig)
    back.hello()
    back.send(wire.Generate(id="r", prompt="hello", sampling=sampling, resume_ids=[wire.pack_ids(list(b"abcd"))]))
    back.expect(wire.Accepted)
    (rest,) = back.expect(wire.Deltas).items
    assert (rest.index, wire.unpack_ids(rest.token_ids)) == (4, list(b"e"))
    assert rest.logprobs is not None
    assert [chr(one.token_id) for one in rest.logprobs] == ["e"]


def test_last_words_of_a_lost_stream_do_not_end_the_one_that_was_opened_in_its_place(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client forgot the new one, and the engine went on for nobody."""
    engine = engine_of(rig)
    client, polled = client_of(rig)
    stream = client.submit(wire.Generate(id="r", prompt="hello", sampling=TOKENS))
    rig.until(lambda: stream.accepted is not None, polled)
    rid = engine.submitted().rid
    (identity,) = [one.identity for one in rig.front.clients]
    really = rig.server.to_client
    reads = [False]
    monkeypatch.setattr(
        rig.server, "to_client", lambda to, frame: "full" if to == identity and not reads[0] else really(to, frame)
    )
    engine.step(ipc.Token(rid, 99))
    rig.until(lambda: rig.front.serving.totals.failed["slow_consumer"] == 1)
    reads[0] = True
    client._lease_due_s = 0.0  # as after a pause
    rig.until(lambda: "r" in rig.front.serving.journal.streams, polled)
    again = engine.submitted()
    rig.clock.advance(1.1)
    engine.say(again.rid, "xy")
    rig.until(lambda: stream.output_tokens == 2, polled)
    assert stream.ended is None
    client.close()


def test_a_client_that_was_refused_is_greeted_when_it_asks_again(rig: Rig) -> None:
    """It stayed mute for ever: `rapidd http`, started while too many others were there, answered nobody any more."""
    restart(rig, access=AccessConfig(max_clients=1))
    other = Peer(rig)
    other.hello()
    client = Client(rig.runtime.endpoint)
    client.open()
    polled = Polled(client)
    with pytest.raises(Refused, match="clients are connected"):
        rig.until(lambda: client.connected, polled)
    rig.front.calls._access = AccessConfig(max_clients=2)
    rig.until(lambda: client.connected, polled)
    client.close()


def test_one_connection_has_so_many_calls_for_the_engine_and_others_still_have_theirs(rig: Rig) -> None:
    """Whoever sent them by the thousand kept the engine from its steps until it was taken for hung, and killed."""
    engine = engine_of(rig)
    greedy, other = Peer(rig), Peer(rig)
    for peer in (greedy, other):
        peer.hello(control=False)
    for call in range(MAX_ASKED + 1):
        greedy.send(wire.GetProfile(call=call))
    assert greedy.fails().code == "quota_exceeded"
    other.send(wire.GetProfile(call=1))
    asked = [engine.expect(ipc.AskProfile) for _ in range(MAX_ASKED + 1)]
    assert len({one.token for one in asked}) == MAX_ASKED + 1


def test_a_request_keeps_its_deadline_and_its_place_in_line_when_the_front_dies(rig: Rig) -> None:
    """Both began anew: who had allowed seven seconds waited for seven more, behind all who came meanwhile."""
    engine = engine_of(rig)
    client, polled = client_of(rig)
    client._now = lambda: rig.clock() / 1e9  # type: ignore[method-assign]
    stream = client.submit(wire.Generate(id="r", prompt="hello", sampling=TOKENS, deadline_s=7), resume=True)
    rig.until(lambda: stream.accepted is not None, polled)
    arrived_ns = engine.submitted().arrival_mono_ns
    rig.clock.advance(4)
    engine.die()
    rig.server.close()
    rig.start()
    engine = engine_of(rig)
    rig.until(lambda: "r" in rig.front.serving.journal.streams, polled)
    assert engine.submitted().arrival_mono_ns == arrived_ns
    rig.clock.advance(2.9)
    rig.server.turn(longest_ms=0)
    assert "r" in rig.front.serving.journal.streams
    rig.clock.advance(0.1)
    rig.until(lambda: stream.ended is not None, polled)
    assert isinstance(stream.ended, wire.Failed)
    assert stream.ended.code == "deadline_exceeded"
    client.close()
