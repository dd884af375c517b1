"""History: bounded, honest about what is unknown, indifferent to restarts and clock jumps."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from rapidctl.book import (
    HISTORY_S,
    HOLD_S,
    LOG_LINES,
    SLOT_S,
    STALE_AFTER_S,
    Book,
    Control,
    Ring,
)
from support.snapshots import event, moved, override_info, partition, snapshot

samples = st.lists(
    st.tuples(st.floats(0.01, 5.0), st.none() | st.floats(0, 1e6, allow_nan=False)), min_size=1, max_size=60
)


def at(tick: int) -> float:
    return 1000.0 + tick * SLOT_S


@given(samples, st.integers(1, 12))
def test_ring_keeps_the_newest_sample_of_each_of_the_newest_slots(
    steps: list[tuple[float, float | None]], size: int
) -> None:
    ring = Ring(("x",), size)
    slots: dict[int, tuple[float, float | None]] = {}
    now = 0.0
    for step, value in steps:
        now += step
        ring.put(now, {"x": value})
        slots[math.floor(now / SLOT_S)] = (now, value)
    assert ring.since(0, "x") == list(slots.values())[-size:]
    assert len(ring) <= size


def test_ring_gives_only_what_is_recent_enough() -> None:
    ring = Ring(("x",), 10)
    for tick in range(10):
        ring.put(at(tick), {"x": float(tick)})
    assert [value for _, value in ring.since(at(7), "x")] == [7, 8, 9]


def test_history_is_half_an_hour_however_long_the_console_runs() -> None:
    ring = Ring(("x",), int(HISTORY_S / SLOT_S))
    for tick in range(3 * int(HISTORY_S / SLOT_S)):
        ring.put(at(tick), {"x": 0.0})
    kept = ring.since(0, "x")
    assert kept[-1][0] - kept[0][0] == HISTORY_S - SLOT_S


@pytest.fixture(scope="module")
def long_book() -> Book:
    book = Book()
    for tick in range(500):
        book.add(snapshot(tick), at(tick))
    return book


@given(now=st.integers(300, 400), columns=st.integers(1, 80), window=st.sampled_from([10.0, 60.0, 75.0]))
def test_a_chart_only_ever_moves_by_whole_columns(long_book: Book, now: float, columns: int, window: float) -> None:
    width, now = window / columns, at(int(now))
    before = long_book.series("decode_busy", now, window, columns)
    after = long_book.series("decode_busy", now + width, window, columns)
    assert len(before) == len(after) == columns
    shift = math.floor((now + width) / width) - math.floor(now / width)
    assert after[: columns - shift] == before[shift:]


def test_a_column_is_the_mean_for_shares_and_the_worst_for_latencies() -> None:
    book = Book()
    for tick in range(4):
        book.add(snapshot(tick * 6), 1000.0 + tick * SLOT_S)
    found = [snapshot(tick * 6) for tick in range(4)]
    busy = [one.lanes[0].busy or 0 for one in found]
    worst = max(one.latency[0].itl_s.p95 or 0 for one in found)
    assert book.series("decode_busy", 1000.9, 1.0, 1) == pytest.approx([sum(busy) / 4])
    assert book.series("itl_p95_s", 1000.9, 1.0, 1) == [worst]


def test_columns_without_samples_are_unknown_and_never_zero() -> None:
    book = Book()
    assert book.series("decode_busy", 1000.0, 60.0, 5) == [None] * 5
    book.add(snapshot(1), 1000.0)
    silent = book.series("decode_busy", 1000.0 + 10, 10.0, 10)
    assert silent[0] is not None
    assert silent[2:] == [None] * 8


def test_fine_columns_repeat_a_sample_only_for_a_moment() -> None:
    book = Book()
    book.add(snapshot(1), 1000.0)
    course = book.series("decode_busy", 1004.95, 5.0, 50)
    held = [value for value in course if value is not None]
    assert len(held) == round(HOLD_S / 0.1) + 1
    assert course[-1] is None


def test_a_figure_the_daemon_does_not_know_stays_unknown() -> None:
    book = Book()
    book.add(replace(snapshot(1), lanes=[], kv=None, latency=[]), 1000.0)
    for name in ("decode_busy", "itl_p95_s", "kv_used"):
        assert book.series(name, 1000.0, 1.0, 1) == [None]
    assert book.increase("evicted", 1000.0, 60.0) is None


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=2, max_size=40))
def test_counters_never_run_backwards_over_restarts(steps: list[tuple[int, bool]]) -> None:
    book = Book()
    raw, boot, grown = 0, 0, 0
    for tick, (more, restart) in enumerate(steps):
        if restart and tick:
            boot, raw = boot + 1, 0
        raw += more
        grown += more if tick else 0
        found = snapshot(tick, front=f"f{boot}")
        counts = replace(found.requests, preempted_total=raw)
        book.add(replace(found, requests=counts), at(tick))
    assert book.increase("preempted", at(len(steps)), HISTORY_S) == grown


@given(st.floats(-1e9, 1e9))
def test_a_jump_of_the_daemons_wall_clock_changes_nothing(jump: float) -> None:
    steady, jumping = Book(), Book()
    for tick in range(20):
        found = snapshot(tick)
        steady.add(found, at(tick))
        jumping.add(replace(found, at_unix_s=found.at_unix_s + jump * (tick % 2)), at(tick))
    assert jumping.series("decoding", at(20), 10.0, 8) == steady.series("decoding", at(20), 10.0, 8)
    assert jumping.age_s(at(20)) == steady.age_s(at(20))


def test_a_frozen_view_counts_nothing_that_came_later() -> None:
    book = Book()
    for tick in range(9):
        found = snapshot(tick)
        book.add(replace(found, requests=replace(found.requests, preempted_total=tick)), at(tick))
    assert [book.increase("preempted", at(tick), 60.0) for tick in (0, 4, 8)] == [None, 4, 8]


def test_stale_is_judged_by_the_age_of_the_last_snapshot() -> None:
    book = Book()
    assert book.stale(0.0)
    assert book.age_s(0.0) is None
    book.add(snapshot(), 1000.0)
    assert not book.stale(1000.0 + STALE_AFTER_S)
    assert book.stale(1000.1 + STALE_AFTER_S)


def test_repeated_events_are_dropped_and_gaps_are_said() -> None:
    book = Book()
    for seq in (3, 4, 4, 3, 7):
        book.add_event(event(seq))
    assert [entry.kind for entry in book.log] == ["decision", "decision", "gap", "decision"]
    assert book.log[2].text == "2 events were lost"
    assert book.lost_events == 2


def test_a_restarted_front_numbers_its_events_anew() -> None:
    book = Book()
    book.add_event(event(500))
    book.add_event(replace(event(0), front_boot_id="f2"))
    assert [entry.kind for entry in book.log] == ["decision", "decision"]
    assert book.lost_events == 0


def test_the_log_is_bounded() -> None:
    book = Book()
    for seq in range(LOG_LINES + 10):
        book.add_event(event(seq))
    assert len(book.log) == LOG_LINES
    assert book.log[0].event == event(10)


def test_restarts_are_noted_in_the_log() -> None:
    book = Book()
    book.add(snapshot(1), 1.0)
    book.add(snapshot(2, boot=""), 2.0)  # no engine for a moment: not yet another one
    book.add(snapshot(3, boot="b2", front="f2"), 3.0)
    told = ["the engine restarted", "the front restarted"]
    assert [entry.text.split(":")[0] for entry in book.log] == told
    book.add(snapshot(4, boot="b2", front="f2"), 4.0)
    assert len(book.log) == 2


def test_the_control_state_before_the_last_change_is_kept_for_undo() -> None:
    book = Book()
    pinned = override_info()
    book.add(snapshot(1), 1.0)
    book.add(moved(snapshot(2), partition(epoch=1842, override=pinned)), 2.0)
    assert book.previous == Control("auto", None)
    book.add(moved(snapshot(3), partition(epoch=1843)), 3.0)
    assert book.previous == Control("auto", pinned)
