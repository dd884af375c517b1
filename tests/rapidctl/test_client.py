"""The client against a scripted daemon on real sockets: connecting, calls, refusals, leases, waiting."""

import os
import socket
import threading
from itertools import count
from pathlib import Path

import pytest
from msgspec.structs import replace

from rapidctl import client as client_module
from rapidctl import wire
from rapidctl.client import Client, wait
from rapidctl.errors import NotPermitted, ProtocolMismatch, Refused, TimedOut, Unreachable
from rapidctl.wire import Accepted, Failed, Finished, Generate, GetStatus
from support import samples
from support.peer import Peer


def finished(id_: str) -> Finished:
    return replace(samples.FINISHED, id=id_)


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


def test_a_client_that_was_held_up_itself_takes_what_came_meanwhile(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the processor for a second it said "no daemon answers" of one whose answer it had not looked at."""
    client = Client(peer.endpoint)
    client.open()
    assert wait(client, timeout_s=10)
    monkeypatch.setattr(client_module, "CONNECT_TIMEOUT_S", 0.0)
    client.connect()
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
    client = Client(peer.endpoint, timeout_s=0.1)
    client.open()
    while peer.heard.empty():
        client.poll(0.05)
    with pytest.raises(TimedOut, match="does not answer"):
        client.connect()
    client.close()


def test_a_daemon_that_takes_connections_and_gets_no_processor_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that said nothing for a second was told as none, with the hint to start one."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "request.sock"))
        silent.listen()
        client = Client(f"ipc://{tmp_path}/request.sock", timeout_s=0.1)
        client.open()
        while client._link.state != "taken":
            client.poll(1.0)
        monkeypatch.setattr(client_module, "CONNECT_TIMEOUT_S", 0.0)
        with pytest.raises(TimedOut, match="takes connections but does not answer"):
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


def test_an_answer_that_comes_too_late_does_not_answer_the_next_question(peer: Peer, client: Client) -> None:
    asked: list[int] = []

    def late(ask: GetStatus) -> list[wire.Reply] | None:
        asked.append(ask.call)
        if len(asked) == 1:
            return None
        return [replace(samples.STATUS, call=call, detail=str(call)) for call in asked]

    peer.script[GetStatus] = late
    with pytest.raises(TimedOut):
        client.call(GetStatus(call=0), timeout_s=0.1)
    assert client.call(GetStatus(call=0)).detail == str(asked[1])


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
    peer.script[Generate] = lambda ask: [Accepted(id=ask.id, prompt_tokens=3, seed=42)]
    pings = count(1)

    def pong(ping: wire.Ping) -> list[wire.Reply]:
        answer: list[wire.Reply] = [wire.Pong(call=ping.call, at_mono_ns=1)]
        return [*answer, finished("r-1")] if next(pings) == 3 else answer

    peer.script[wire.Ping] = pong
    with Client(peer.endpoint) as client:
        events = list(client.generate(Generate(id="r-1", prompt="x")))
    assert isinstance(events[-1], Finished)


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
