"""The live source over real sockets: a scripted daemon that comes, goes and refuses."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace

from rapidctl import wire
from rapidctl.errors import NotPermitted, RapidctlError, TimedOut, Unreachable
from rapidctl.source import Answer, Connection, LiveSource, Received, Streamed, Update
from support import samples
from support.peer import Peer
from support.process import WAIT_S

T = TypeVar("T")
LINE_S = 0.2
"""There and back, to a daemon that is far away."""


class Reader:
    """Takes updates until the one asked for comes."""

    def __init__(self, source: LiveSource) -> None:
        self.source = source
        self._updates: deque[Update] = deque()
        """That came with the one that was asked for, behind it."""
        self._answers: dict[int, object] = {}
        """By ticket: they come in between whatever else is waited for."""
        self._pause = threading.Event()

    def until(self, wanted: Callable[[Update], bool]) -> Update:
        for _ in range(int(WAIT_S / 0.01)):
            self._updates += self.source.poll()
            while self._updates:
                update = self._updates.popleft()
                if isinstance(update, Answer):
                    self._answers[update.ticket] = update.result
                if wanted(update):
                    return update
            self._pause.wait(0.01)
        raise AssertionError("it never came")

    def connection(self, connected: bool) -> None:
        self.until(lambda update: isinstance(update, Connection) and update.connected is connected)

    def answer(self, ticket: int) -> object:
        if ticket not in self._answers:
            self.until(lambda update: isinstance(update, Answer) and update.ticket == ticket)
        return self._answers.pop(ticket)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    found = Peer(tmp_path)
    yield found
    found.stop()


@pytest.fixture
def reader(peer: Peer) -> Iterator[Reader]:
    source = LiveSource(peer.endpoint)
    source.start()
    yield Reader(source)
    source.close()


def test_snapshots_and_events_come_from_a_daemon_that_starts_later(peer: Peer, reader: Reader) -> None:
    assert reader.source.poll() in ([], [Connection(peer.endpoint, connected=False)])
    peer.start()
    reader.connection(True)
    peer.subscribed(2)
    peer.publish(samples.SNAPSHOT)
    received = reader.until(lambda update: isinstance(update, Received))
    assert isinstance(received, Received)
    assert received.snapshot == samples.SNAPSHOT
    peer.publish(replace(samples.EVENT, seq=4))
    reader.until(lambda update: isinstance(update, wire.Event) and update.seq == 4)


def test_events_from_before_the_console_started_are_replayed(peer: Peer, reader: Reader) -> None:
    """They used to wait for the next snapshot when the first one came before the connection stood."""
    peer.start()
    reader.until(lambda update: update == samples.EVENT)


def test_events_of_a_daemon_that_is_far_away_are_replayed_too(peer: Peer, reader: Reader) -> None:
    """An answer that took more than 50 ms was too late, each time anew: over a long line the console and `rapidctl
    record` had no events at all, for those that are published wait for the replay of those before them.
    """
    answer = peer.script[wire.GetEvents]

    def late(ask: wire.GetEvents) -> Sequence[wire.Reply] | None:
        threading.Event().wait(LINE_S)
        return answer(ask)

    peer.script[wire.GetEvents] = late
    peer.start()
    reader.until(lambda update: update == samples.EVENT)


def test_it_survives_the_daemons_death_and_return(peer: Peer, reader: Reader) -> None:
    peer.start()
    reader.connection(True)
    peer.stop()
    reader.connection(False)
    peer.start()
    reader.connection(True)
    peer.subscribed(2)
    again = replace(samples.SNAPSHOT, front_boot_id="front-2")
    peer.publish(again)
    reader.until(lambda update: isinstance(update, Received) and update.snapshot.front_boot_id == "front-2")


def test_commands_go_over_a_connection_of_their_own_that_asked_for_control(peer: Peer, reader: Reader) -> None:
    peer.start()
    reader.connection(True)
    assert isinstance(reader.answer(reader.source.ask(wire.GetPartition(call=0))), wire.PartitionInfo)
    ticket = reader.source.ask(wire.ReleasePartition(call=0, by="ana"), control=True)
    assert isinstance(reader.answer(ticket), wire.ControlReply)
    reader.source.lock()
    ticket = reader.source.ask(wire.ReleasePartition(call=0, by="ana"), control=True)
    assert isinstance(reader.answer(ticket), wire.ControlReply)
    heard = [peer.heard.get_nowait() for _ in range(peer.heard.qsize())]
    commands = [message for message in heard if isinstance(message, wire.ReleasePartition)]
    assert [command.deadline_unix_s is None for command in commands] == [False, False]
    hellos = [message for message in heard if isinstance(message, wire.Hello)]
    assert [hello.control for hello in hellos] == [False, False, True, True]


def test_a_refusal_is_an_answer(peer: Peer, reader: Reader) -> None:
    peer.script[wire.ReleasePartition] = lambda ask: [
        wire.Failed(code="not_permitted", message="read-only", call=ask.call)
    ]
    peer.start()
    result = reader.answer(reader.source.ask(wire.ReleasePartition(call=0), control=True))
    assert isinstance(result, NotPermitted)


def test_without_a_daemon_calls_and_prompts_end_in_errors_and_the_source_goes_on(peer: Peer, reader: Reader) -> None:
    assert isinstance(reader.answer(reader.source.ask(wire.GetStatus(call=0))), Unreachable)
    reader.source.generate(wire.Generate(id="r-1", prompt="why"))
    ended = reader.until(lambda update: isinstance(update, Streamed))
    assert isinstance(ended, Streamed)
    assert isinstance(ended.event, RapidctlError)
    peer.start()
    reader.connection(True)


def test_a_daemon_that_is_slow_to_answer_does_not_look_dead(peer: Peer, reader: Reader) -> None:
    """Calls used to be made in the thread of the feed, which stood still meanwhile."""
    peer.script[wire.GetRequests] = lambda ask: None
    peer.start()
    reader.connection(True)
    peer.subscribed(2)
    assert isinstance(reader.answer(reader.source.ask(wire.GetStatus(call=0))), wire.Status)
    calls = reader.source._reader._client
    assert calls is not None
    calls.timeout_s = 0.5
    ticket = reader.source.ask(wire.GetRequests(call=0))
    for seq in range(5):
        peer.publish(replace(samples.SNAPSHOT, seq=seq))
        reader.until(lambda update, seq=seq: isinstance(update, Received) and update.snapshot.seq == seq)  # type: ignore[misc]
    assert isinstance(reader.answer(ticket), TimedOut)


def test_a_prompt_streams_to_its_end(peer: Peer, reader: Reader) -> None:
    peer.start()
    reader.connection(True)
    reader.source.generate(wire.Generate(id="r-1", prompt="why"))
    kinds: list[type] = []

    def ended(update: Update) -> bool:
        if isinstance(update, Streamed):
            kinds.append(type(update.event))
        return bool(kinds) and kinds[-1] is wire.Finished

    reader.until(ended)
    assert kinds == [wire.Accepted, wire.Delta, wire.Finished]


def test_stopping_a_prompt_cancels_it_and_its_end_is_the_daemons_to_tell(peer: Peer, reader: Reader) -> None:
    peer.script[wire.Generate] = lambda ask: [wire.Accepted(id=ask.id, prompt_tokens=14, seed=42)]
    peer.script[wire.Cancel] = lambda ask: [
        wire.ControlReply(call=ask.call, epoch=6, text="cancelled"),
        replace(samples.FINISHED, id=ask.id),
    ]
    peer.start()
    reader.connection(True)
    reader.source.generate(wire.Generate(id="r-1", prompt="why"))
    reader.until(lambda update: isinstance(update, Streamed) and isinstance(update.event, wire.Accepted))
    reader.source.abandon("r-1")
    reader.until(lambda update: isinstance(update, Streamed) and isinstance(update.event, wire.Finished))
    assert peer.hear(wire.Cancel).id == "r-1"


def test_an_unreadable_daemon_is_a_problem_with_words_and_not_the_end(peer: Peer, reader: Reader) -> None:
    peer.start()
    reader.connection(True)
    peer.send_raw(b"\xc1")
    found = reader.until(lambda update: isinstance(update, Connection) and bool(update.problem))
    assert isinstance(found, Connection)
    assert "cannot read" in found.problem
