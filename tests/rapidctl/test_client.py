"""The client against a scripted daemon on real sockets: answers, refusals, leases, streams, restarts."""

import os
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from msgspec.structs import replace

from rapidctl import client as client_module
from rapidctl import wire
from rapidctl.client import Client, new_id, wait
from rapidctl.errors import NotPermitted, ProtocolMismatch, Refused, TimedOut, Unreachable
from rapidctl.wire import Accepted, Delta, Deltas, Failed, Finished, Generate, GetStatus, pack_ids, unpack_ids
from support import samples
from support.peer import Peer


@pytest.fixture
def client(peer: Peer) -> Iterator[Client]:
    with Client(peer.endpoint) as connected:
        yield connected


def hasty(peer: Peer) -> Client:
    """A client that soon gives up on answers."""
    return Client(peer.endpoint, timeout_s=0.1)


def delta(id_: str, index: int, *ids: int, choice: int = 0) -> Delta:
    return Delta(id=id_, choice=choice, index=index, token_ids=pack_ids(ids), text="".join(f"<{id_}>" for id_ in ids))


def accept(ask: Generate) -> list[wire.Reply]:
    return [Accepted(id=ask.id, prompt_tokens=3, seed=42)]


def finished(id_: str) -> Finished:
    return replace(samples.FINISHED, id=id_)


def poll_until_ended(client: Client, *streams: client_module.Stream) -> None:
    while any(stream.ended is None for stream in streams):
        client.poll(1.0)


# --- connecting -------------------------------------------------------------------------------------------------


def test_hello_is_answered_by_welcome(peer: Peer) -> None:
    with Client(peer.endpoint, name="test", control=True) as client:
        assert client.connected
        assert client.lost_s is None
        assert client.welcome == samples.WELCOME
    assert peer.hear(wire.Hello) == wire.Hello(client="test", control=True)


def test_without_a_daemon_it_says_how_to_start_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "CONNECT_TIMEOUT_S", 0.05)
    client = Client(f"ipc://{tmp_path}/request.sock")
    with pytest.raises(Unreachable) as caught:
        client.connect()
    assert "rapidd serve" in caught.value.hint
    client.close()


def test_a_daemon_that_comes_later_is_found(tmp_path: Path) -> None:
    peer = Peer(tmp_path)
    client = Client(peer.endpoint)
    client.open()
    client.poll(0)
    assert client.lost_s is not None
    with peer:
        while not client.connected:
            client.poll(1.0)
        assert client.call(GetStatus(call=0)).state == "serving"
    client.close()


def test_a_daemon_that_never_answers_hello_times_out(peer: Peer) -> None:
    peer.script[wire.Hello] = lambda hello: None
    client = hasty(peer)
    client.open()
    while peer.heard.empty():
        client.poll(0.05)
    with pytest.raises(TimedOut, match="does not answer"):
        client.connect()
    client.close()


def test_no_common_protocol_version(peer: Peer) -> None:
    peer.script[wire.Hello] = lambda hello: [Failed(code="protocol", message="speaks 2 to 3", hint="upgrade")]
    client = Client(peer.endpoint)
    with pytest.raises(ProtocolMismatch, match="speaks 2 to 3") as caught, client:
        pass
    assert caught.value.hint == "upgrade"
    assert not client.sockets, "a client that could not connect keeps nothing open"


def test_a_message_it_cannot_read_is_a_protocol_error(peer: Peer, client: Client) -> None:
    peer.send_raw(b"\xc1")
    with pytest.raises(ProtocolMismatch):
        client.poll(5)


def test_poll_needs_an_open_client() -> None:
    with pytest.raises(Unreachable, match="closed"):
        Client("ipc:///tmp/nowhere.sock").poll(0)


# --- calls --------------------------------------------------------------------------------------------------------


def test_every_call_gets_its_own_kind_of_answer(client: Client) -> None:
    plan = samples.PLAN
    assert isinstance(client.call(wire.Ping()), wire.Pong)
    assert isinstance(client.call(GetStatus(call=0)), wire.Status)
    assert isinstance(client.call(wire.GetSnapshot(call=0)), wire.SnapshotReply)
    assert isinstance(client.call(wire.GetRequests(call=0)), wire.RequestList)
    assert isinstance(client.call(wire.GetEvents(call=0)), wire.EventList)
    assert isinstance(client.call(wire.GetPartition(call=0)), wire.PartitionInfo)
    assert isinstance(client.call(wire.PredictPartition(call=0, plan=plan)), wire.Prediction)
    for command in (wire.SetPartition(call=0, plan=plan), wire.ReleasePartition(call=0), wire.Drain(call=0)):
        assert isinstance(client.call(command), wire.ControlReply)


def test_only_the_answer_with_the_right_number_counts(peer: Peer, client: Client) -> None:
    def answer(ask: GetStatus) -> list[wire.Reply]:
        wrong = replace(samples.STATUS, call=ask.call + 1000, detail="another's")
        return [wrong, replace(samples.STATUS, call=ask.call, detail="mine"), wrong]

    peer.script[GetStatus] = answer
    assert [client.call(GetStatus(call=0)).detail for _ in range(3)] == ["mine"] * 3


def test_an_answer_that_comes_too_late_does_not_answer_the_next_question(peer: Peer) -> None:
    asked: list[int] = []

    def late(ask: GetStatus) -> list[wire.Reply] | None:
        asked.append(ask.call)
        if len(asked) == 1:
            return None
        return [replace(samples.STATUS, call=call, detail=str(call)) for call in asked]

    peer.script[GetStatus] = late
    with hasty(peer) as client:
        with pytest.raises(TimedOut):
            client.call(GetStatus(call=0))
        assert client.call(GetStatus(call=0), timeout_s=5).detail == str(asked[1])


def test_a_refused_call_raises_with_everything_the_daemon_said(peer: Peer, client: Client) -> None:
    peer.script[GetStatus] = lambda ask: [
        Failed(code="starting", message="loading", hint="wait", call=ask.call, retry_after_s=2.0)
    ]
    with pytest.raises(Refused) as caught:
        client.call(GetStatus(call=0))
    error = caught.value
    assert (error.code, error.message, error.hint, error.retry_after_s) == ("starting", "loading", "wait", 2.0)


def test_a_call_without_the_right_is_told_apart(peer: Peer, client: Client) -> None:
    peer.script[wire.Drain] = lambda ask: [Failed(code="not_permitted", message="no", call=ask.call)]
    with pytest.raises(NotPermitted):
        client.call(wire.Drain(call=0))


def test_a_refusal_without_a_number_answers_the_open_question(peer: Peer, client: Client) -> None:
    peer.script[GetStatus] = lambda ask: [Failed(code="malformed", message="unreadable")]
    with pytest.raises(Refused, match="unreadable"):
        client.call(GetStatus(call=0))


def test_a_command_carries_the_time_after_which_it_must_not_run(
    peer: Peer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    client.call(wire.SetPolicy(call=0, policy="shared"), timeout_s=3)
    assert peer.hear(wire.SetPolicy).deadline_unix_s == 1003.0


def test_a_command_is_not_sent_again_after_a_restart(peer: Peer, client: Client) -> None:
    peer.script[wire.Drain] = lambda ask: None

    def stop_when_asked() -> None:
        peer.hear(wire.Drain)
        peer.stop()

    stopper = threading.Thread(target=stop_when_asked)
    stopper.start()
    with pytest.raises(Unreachable, match="before the answer"):
        client.call(wire.Drain(call=0))
    stopper.join()
    peer.start()
    client.call(GetStatus(call=0))
    peer.stop()
    left = [peer.heard.get() for _ in range(peer.heard.qsize())]
    assert not [message for message in left if isinstance(message, wire.Drain)]


def test_hello_is_said_again_when_the_daemon_asks_for_it(peer: Peer, client: Client) -> None:
    answers = iter([[Failed(code="hello_required", message="who are you")]])
    scripted = peer.script[GetStatus]
    peer.script[GetStatus] = lambda ask: next(answers, None) or scripted(ask)
    with pytest.raises(Unreachable):
        client.call(GetStatus(call=0))
    assert client.call(GetStatus(call=0)).state == "serving"


# --- leases -------------------------------------------------------------------------------------------------------


def test_the_lease_is_renewed_while_a_stream_waits(peer: Peer) -> None:
    limits = wire.Limits(max_model_len=10, lease_interval_s=0.01)
    peer.script[wire.Hello] = lambda hello: [replace(samples.WELCOME, limits=limits)]
    peer.script[Generate] = accept
    pings = count(1)

    def pong(ping: wire.Ping) -> list[wire.Reply]:
        answer: list[wire.Reply] = [wire.Pong(call=ping.call, at_mono_ns=1)]
        return [*answer, finished("r-1")] if next(pings) == 3 else answer

    peer.script[wire.Ping] = pong
    with Client(peer.endpoint) as client:
        events = list(client.generate(Generate(id="r-1", prompt="x")))
    assert isinstance(events[-1], Finished)


# --- streams ------------------------------------------------------------------------------------------------------


def test_a_stream_yields_accepted_then_deltas_then_finished(peer: Peer, client: Client) -> None:
    events = list(client.generate(Generate(id="r-1", prompt="x")))
    assert [type(event) for event in events] == [Accepted, Delta, Finished]
    assert not client.streams


def test_streams_of_one_connection_do_not_mix(peer: Peer, client: Client) -> None:
    peer.script[Generate] = accept
    first, second = (client.submit(Generate(id=id_, prompt="x", n=2)) for id_ in ("a", "b"))
    peer.hear(Generate)
    peer.hear(Generate)
    peer.send(
        Deltas(items=[delta("a", 0, 1), delta("b", 0, 10, choice=1)]),
        Deltas(items=[delta("b", 1, 11, choice=1), delta("a", 1, 2, 3), delta("stranger", 0, 99)]),
        finished("b"),
        Deltas(items=[delta("a", 3, 4)]),
        finished("a"),
    )
    poll_until_ended(client, first, second)
    assert first.output_ids == [[1, 2, 3, 4], []]
    assert second.output_ids == [[], [10, 11]]
    assert all(isinstance(event, Accepted | Finished) or event.id == "b" for event in second.events)


def test_a_call_may_be_made_while_streams_run(peer: Peer, client: Client) -> None:
    peer.script[Generate] = accept
    stream = client.submit(Generate(id="a", prompt="x"))
    peer.script[GetStatus] = lambda ask: [
        Deltas(items=[delta("a", 0, 1)]),
        replace(samples.STATUS, call=ask.call),
        finished("a"),
    ]
    assert client.call(GetStatus(call=0)).state == "serving"
    poll_until_ended(client, stream)
    assert stream.output_ids == [[1]]


def test_a_failed_stream_raises_with_the_output_it_had(peer: Peer, client: Client) -> None:
    peer.script[Generate] = lambda ask: [
        *accept(ask),
        Deltas(items=[delta(ask.id, 0, 5, 6)]),
        Failed(code="deadline_exceeded", message="too late", id=ask.id),
    ]
    with pytest.raises(Refused) as caught:
        list(client.generate(Generate(id=new_id(), prompt="x")))
    assert caught.value.code == "deadline_exceeded"
    assert caught.value.output_ids == [[5, 6]]


def test_a_stream_that_is_never_accepted_times_out_and_is_cancelled(peer: Peer) -> None:
    peer.script[Generate] = lambda ask: None
    with hasty(peer) as client, pytest.raises(TimedOut, match="accept"):
        list(client.generate(Generate(id="r-1", prompt="x")))
    assert peer.hear(wire.Cancel).id == "r-1"


def test_leaving_a_stream_early_cancels_it(peer: Peer, client: Client) -> None:
    peer.script[Generate] = accept
    stream = client.generate(Generate(id="r-1", prompt="x"))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert peer.hear(wire.Cancel).id == "r-1"
    assert not client.streams


def test_output_that_was_skipped_ends_the_stream(peer: Peer, client: Client) -> None:
    peer.script[Generate] = lambda ask: [*accept(ask), Deltas(items=[delta(ask.id, 1, 5)])]
    with pytest.raises(Refused, match="skipped") as caught:
        list(client.generate(Generate(id="r-1", prompt="x")))
    assert caught.value.code == "internal_error"


# --- restarts -----------------------------------------------------------------------------------------------------


def restart(peer: Peer, boot_id: str) -> None:
    peer.stop()
    peer.script[wire.Hello] = lambda hello: [replace(samples.WELCOME, front_boot_id=boot_id)]
    peer.start()


def begin(peer: Peer, client: Client, request: Generate, *, resume: bool) -> client_module.Stream:
    """A stream that has the output ids 1 and 2."""
    peer.script[Generate] = lambda ask: [*accept(ask), Deltas(items=[delta(ask.id, 0, 1, 2)])]
    stream = client.submit(request, resume=resume)
    while stream.output_tokens < 2:
        client.poll(1.0)
    peer.hear(Generate)
    return stream


def test_a_restarted_front_ends_streams_with_the_ids_received(peer: Peer, client: Client) -> None:
    stream = begin(peer, client, Generate(id="r-1", prompt="x"), resume=False)
    restart(peer, "front-2")
    poll_until_ended(client, stream)
    assert isinstance(stream.ended, Failed)
    assert (stream.ended.code, stream.ended.output_tokens, stream.output_ids) == ("front_restarted", 2, [[1, 2]])


def test_a_stream_that_resumes_loses_and_repeats_nothing(peer: Peer, client: Client) -> None:
    request = Generate(id="r-1", prompt="x", sampling=wire.Sampling(temperature=1.0))
    stream = begin(peer, client, request, resume=True)

    def go_on(ask: Generate) -> list[wire.Reply]:
        assert ask.resume_ids is not None
        return [*accept(ask), Deltas(items=[delta(ask.id, 2, 3)]), finished(ask.id)]

    peer.script[Generate] = go_on
    restart(peer, "front-2")
    poll_until_ended(client, stream)
    assert isinstance(stream.ended, Finished)
    assert stream.output_ids == [[1, 2, 3]]
    again = peer.hear(Generate)
    assert [unpack_ids(ids) for ids in again.resume_ids or []] == [[1, 2]]
    assert again.sampling == wire.Sampling(temperature=1.0, seed=42)
    assert (again.id, again.prompt) == ("r-1", "x")


def test_a_resumed_stream_waits_for_a_front_that_is_still_starting(peer: Peer, client: Client) -> None:
    stream = begin(peer, client, Generate(id="r-1", prompt="x"), resume=True)
    refusals = iter([[Failed(code="starting", message="no engine yet", id="r-1", retry_after_s=0.01)]] * 2)
    peer.script[Generate] = lambda ask: (
        next(refusals, None)
        or [
            *accept(ask),
            Deltas(items=[delta(ask.id, 2, 3)]),
            finished(ask.id),
        ]
    )
    restart(peer, "front-2")
    poll_until_ended(client, stream)
    assert isinstance(stream.ended, Finished)
    assert stream.output_ids == [[1, 2, 3]]


def test_a_connection_lost_without_a_restart_goes_on_where_it_was(peer: Peer, client: Client) -> None:
    stream = begin(peer, client, Generate(id="r-1", prompt="x"), resume=False)
    peer.script[Generate] = lambda ask: [*accept(ask), Deltas(items=[delta(ask.id, 1, 2, 3)]), finished(ask.id)]
    restart(peer, samples.WELCOME.front_boot_id)
    poll_until_ended(client, stream)
    assert stream.output_ids == [[1, 2, 3]]
    assert peer.hear(Generate) == Generate(id="r-1", prompt="x", resume_ids=[pack_ids([1, 2])])


def test_streams_end_when_the_daemon_stays_away(peer: Peer) -> None:
    with Client(peer.endpoint, patience_s=0.05) as client:
        stream = begin(peer, client, Generate(id="r-1", prompt="x"), resume=True)
        peer.stop()
        poll_until_ended(client, stream)
        assert isinstance(stream.ended, Failed)
        assert stream.ended.code == "front_restarted"
        assert client.lost_s is not None
        with pytest.raises(Unreachable):
            client.submit(Generate(id="r-2", prompt="x"))


# --- waiting ------------------------------------------------------------------------------------------------------


def test_wait_wakes_for_a_file_descriptor(client: Client) -> None:
    reader, writer = os.pipe()
    try:
        assert not wait(client, timeout_s=0, fds=[reader])
        os.write(writer, b"x")
        assert wait(client, timeout_s=5, fds=[reader])
    finally:
        os.close(reader)
        os.close(writer)


def test_a_fresh_resuming_request_waits_too_and_then_says_why_it_was_refused(peer: Peer, client: Client) -> None:
    """Right after a restart of the front a new request was refused although the daemon was as good as there."""
    refused = Failed(code="starting", message="no engine yet", id="r-1", retry_after_s=0.01)
    peer.script[Generate] = lambda ask: [refused]
    client.timeout_s = 0.2
    with pytest.raises(Refused) as caught:
        list(client.generate(Generate(id="r-1", prompt="x"), resume=True))
    assert caught.value.code == "starting"
    assert peer.hear(Generate) == peer.hear(Generate)  # it asked more than once
