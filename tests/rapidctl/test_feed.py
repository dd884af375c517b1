"""The published side: only the newest snapshot, every event once and in order, and never old data in disguise."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from rapidctl import wire
from rapidctl.client import Client, Feed
from rapidctl.errors import ProtocolMismatch
from rapidctl.wire import Event, Snapshot
from support import samples
from support.peer import Peer


def event(seq: int, boot: str = "front-1") -> Event:
    return replace(samples.EVENT, seq=seq, front_boot_id=boot)


def snapshot(seq: int, boot: str = "front-1") -> Snapshot:
    return replace(samples.SNAPSHOT, seq=seq, front_boot_id=boot)


def keep(peer: Peer, oldest: int, newest: int, boot: str = "front-1") -> None:
    """The scripted daemon replays these events."""
    kept = [event(seq, boot) for seq in range(oldest, newest + 1)]
    peer.script[wire.GetEvents] = lambda ask: [
        wire.EventList(
            call=ask.call,
            oldest_seq=oldest,
            next_seq=newest + 1,
            events=[event for event in kept if event.seq >= ask.from_seq][: ask.limit],
        )
    ]


def take(feed: Feed, number: int) -> list[int]:
    taken: list[int] = []
    while len(taken) < number:
        feed.poll(1.0)
        taken += [event.seq for event in feed.take_events()]
    return taken


def test_nothing_is_known_before_the_first_snapshot(tmp_path: Path) -> None:
    with Feed(f"ipc://{tmp_path}/request.sock") as feed:
        assert not feed.poll(0)
        assert feed.snapshot is None
        assert feed.age_s is None
        assert feed.take_events() == []


@pytest.mark.parametrize("topic", [wire.SNAPSHOT_TOPIC, wire.EVENT_TOPIC])
def test_what_cannot_be_read_is_another_protocol(topic: bytes, peer: Peer) -> None:
    """As on the other socket. It was an error that no command knew: a traceback, and a bug to report."""
    with Feed(peer.endpoint) as feed:
        peer.subscribed(2)
        peer.publish_raw(topic + b"\xc1")
        with pytest.raises(ProtocolMismatch) as caught:
            feed.poll(10.0)
        assert caught.value.hint == "use the rapidctl that came with this daemon"


def test_after_a_stall_only_the_newest_snapshot_is_left(peer: Peer) -> None:
    with Feed(peer.endpoint) as feed:
        peer.subscribed(2)
        peer.publish(*(snapshot(seq) for seq in range(100)), event(0))
        seen = set()
        while feed.snapshot is None or feed.snapshot.seq < 99:
            feed.poll(1.0)
            seen.add(feed.snapshot.seq if feed.snapshot else -1)
        assert len(seen) < 100
        assert feed.age_s is not None


def test_of_a_feed_faster_than_wanted_the_newest_is_taken_when_it_is_time(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("rapidctl.feed.time.monotonic", lambda: now[0])
    with Feed(peer.endpoint, gap_s=0.1) as feed:
        peer.subscribed(2)
        peer.publish(snapshot(0))
        while not feed.poll(1.0):
            pass
        assert len(feed.sockets) == 1, "snapshots are not waited for: whoever sleeps on it sleeps on"
        peer.publish(*(snapshot(seq) for seq in range(1, 9)), event(7))
        assert take(feed, 1) == [7], "events always come"
        now[0] += 0.04
        assert not feed.poll(0)
        assert feed.held_s == pytest.approx(0.06)
        now[0] += 0.07
        while feed.snapshot is None or feed.snapshot.seq < 8:
            feed.poll(1.0)
            now[0] += 0.11
        assert len(feed.sockets) == 2


def test_a_dead_daemon_shows_as_age(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("rapidctl.feed.time.monotonic", lambda: now[0])
    with Feed(peer.endpoint) as feed:
        peer.subscribed(2)
        peer.publish(snapshot(1))
        while not feed.poll(1.0):
            pass
        assert feed.age_s == 0.0
        peer.stop()
        now[0] = 107.5
        feed.poll(0)
        assert feed.age_s == 7.5
        assert feed.snapshot is not None


def test_events_come_in_order_and_are_taken_once(peer: Peer) -> None:
    with Feed(peer.endpoint) as feed:
        peer.subscribed(2)
        peer.publish(event(7), event(8), event(9))
        assert take(feed, 3) == [7, 8, 9]
        assert feed.take_events() == []


def test_a_hole_is_filled_by_a_replay(peer: Peer) -> None:
    keep(peer, 1, 9)
    with Client(peer.endpoint) as client, Feed(peer.endpoint, client=client) as feed:
        peer.subscribed(2)
        peer.publish(event(5), event(9))
        assert take(feed, 5) == [5, 6, 7, 8, 9]
        assert feed.lost_events == 0


def test_what_is_no_longer_kept_is_counted(peer: Peer) -> None:
    keep(peer, 8, 9)
    with Client(peer.endpoint) as client, Feed(peer.endpoint, client=client) as feed:
        peer.subscribed(2)
        peer.publish(event(5), event(9))
        assert take(feed, 3) == [5, 8, 9]
        assert feed.lost_events == 2


def test_without_a_client_a_hole_is_only_counted(peer: Peer) -> None:
    with Feed(peer.endpoint) as feed:
        peer.subscribed(2)
        peer.publish(event(5), event(9))
        assert take(feed, 2) == [5, 9]
        assert feed.lost_events == 3


def test_a_replay_may_begin_in_the_past(peer: Peer) -> None:
    keep(peer, 3, 5)
    with Client(peer.endpoint) as client, Feed(peer.endpoint, client=client, since=4) as feed:
        assert take(feed, 2) == [4, 5]
        peer.subscribed(2)
        peer.publish(event(5), event(6))
        assert take(feed, 1) == [6]
        assert feed.lost_events == 0


def test_all_that_is_kept_can_be_asked_for(peer: Peer) -> None:
    keep(peer, 3, 5)
    with Client(peer.endpoint) as client, Feed(peer.endpoint, client=client, since=0) as feed:
        assert take(feed, 3) == [3, 4, 5]
        assert feed.lost_events == 0


def test_a_replay_waits_for_a_daemon_that_is_away(peer: Peer) -> None:
    with Client(peer.endpoint) as client:
        peer.stop()
        while client.connected:
            client.poll(1.0)
        with Feed(peer.endpoint, client=client, since=4) as feed:
            feed.poll(0)
            keep(peer, 3, 5)
            peer.start()
            assert take(feed, 2) == [4, 5]


def test_a_restarted_front_numbers_its_events_anew(peer: Peer) -> None:
    keep(peer, 0, 1, boot="front-2")
    with Client(peer.endpoint) as client, Feed(peer.endpoint, client=client) as feed:
        peer.subscribed(2)
        peer.publish(event(70), event(71))
        assert take(feed, 2) == [70, 71]
        peer.publish(snapshot(1, "front-2"))
        assert take(feed, 2) == [0, 1]
        assert feed.front_boots == 2
        assert feed.lost_events == 0


def test_numbers_of_an_earlier_boot_do_not_hide_new_events(peer: Peer) -> None:
    keep(peer, 0, 1)
    with Client(peer.endpoint) as client, Feed(peer.endpoint, client=client, since=500) as feed:
        peer.subscribed(2)
        feed.poll(0.1)
        seen = []
        for seq in range(2, 12):
            keep(peer, 0, seq)
            peer.publish(event(seq))
            feed.poll(1.0)
            if seen := feed.take_events():
                break
        assert seen, "ten events went by unseen"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arriving=st.sets(st.integers(1, 30), min_size=1), oldest=st.integers(1, 30))
def test_whatever_arrives_each_event_is_seen_once_or_counted(arriving: set[int], oldest: int) -> None:
    """Against a client at the transport seam: events up to the newest are delivered in order, or counted as lost."""

    class Daemon:
        """Keeps the events from ``oldest`` up to the newest that was published."""

        connected = True
        newest = 0

        def open(self) -> None: ...

        def poll(self, timeout_s: float) -> bool:
            return False

        def call(self, ask: wire.GetEvents, timeout_s: float) -> wire.EventList:
            first = min(oldest, self.newest)
            events = [event(seq) for seq in range(max(first, ask.from_seq), self.newest + 1)][:7]
            return wire.EventList(call=0, oldest_seq=first, next_seq=self.newest + 1, events=events)

    daemon = Daemon()
    with Feed("ipc:///tmp/nobody.sock", client=daemon, since=1) as feed:  # type: ignore[arg-type]
        seen: list[int] = []
        for seq in sorted(arriving):
            daemon.newest = seq
            feed._take(event(seq))
            for _ in range(8):
                feed.poll(0)
            seen += [taken.seq for taken in feed.take_events()]
        assert seen == sorted(set(seen))
        assert seen[-1] == max(arriving)
        assert len(seen) + feed.lost_events == max(arriving)
