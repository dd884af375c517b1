"""What a console knows about one daemon: the latest snapshot, half an hour of history, and the log of events.

Pure arithmetic: no sockets, no threads, no clock of its own. Every ``now`` is the console's monotonic clock in
seconds and never goes back; the daemon's wall clock may jump without harm. Memory is bounded by construction: one
slot a quarter of a second for the history (half an hour unless a recording is longer), a bounded log. Every question
takes the time it is asked for, so the same book answers for now and for any moment of its past.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from rapidctl.wire import (
    DeviceInfo,
    Event,
    LaneStats,
    LatencyWindow,
    OverrideInfo,
    PhaseWork,
    PlanInfo,
    Snapshot,
)

HISTORY_S: Final = 1800.0
SLOT_S: Final = 0.25
"""One sample is kept a slot: the period of the daemon's snapshots. Faster feeds overwrite within it."""
HOLD_S: Final = 1.5
"""A chart column without a sample repeats the last one for this long, half more than the period of an idle daemon."""
STALE_AFTER_S: Final = 2.0
"""Eight snapshots missed in a row: the feed is dead, whatever the socket says."""
LOG_LINES: Final = 2000

Series = Literal[
    "decode_busy", "prefill_busy", "ttft_p95_s", "itl_p95_s", "waiting", "prefilling", "decoding", "kv_used",
    "decode_units", "mode", "utilization", "power_w", "temperature_c", "clock_hz",
]  # fmt: skip
MODES: Final = ("serial", "hybrid", "shared", "split")
"""The series ``mode`` holds an index into these."""
Counter = Literal["preempted", "evicted", "hit_tokens", "query_tokens"]


class Ring:
    """Samples of a few named columns over time; the oldest is overwritten. NaN or infinite: unknown."""

    def __init__(self, columns: tuple[str, ...], capacity: int) -> None:
        self._capacity = capacity
        self._start = 0
        self._times = array("d")
        self._values = {name: array("d") for name in columns}

    def __len__(self) -> int:
        return len(self._times)

    def put(self, time: float, values: dict[str, float | None]) -> None:
        """Keep one sample; a second one in the same slot replaces the first."""
        row = {name: math.nan if (value := values[name]) is None else float(value) for name in self._values}
        newest = (self._start - 1) % len(self) if self._times else 0
        if self._times and math.floor(self._times[newest] / SLOT_S) == math.floor(time / SLOT_S):
            self._set(newest, time, row)
        elif len(self) < self._capacity:
            self._times.append(time)
            for name, column in self._values.items():
                column.append(row[name])
        else:
            self._set(self._start, time, row)
            self._start = (self._start + 1) % self._capacity

    def since(self, time: float, column: str, until: float = math.inf) -> list[tuple[float, float | None]]:
        """Samples of one column at or after ``time`` and not after ``until``, oldest first."""
        found: list[tuple[float, float | None]] = []
        values = self._values[column]
        # Two runs, each in order: what was written before the ring closed, and what overwrote the oldest.
        for first, last in ((self._start, len(self)), (0, self._start)):
            low = bisect_left(self._times, time, first, last)
            high = bisect_right(self._times, until, low, last)
            pairs = zip(self._times[low:high], values[low:high], strict=True)
            found.extend((at, value if math.isfinite(value) else None) for at, value in pairs)
        return found

    def _set(self, index: int, time: float, row: dict[str, float]) -> None:
        self._times[index] = time
        for name, column in self._values.items():
            column[index] = row[name]


class LogLine(NamedTuple):
    """One line of the log: an event, or what the console itself noticed (``event`` null)."""

    at_unix_s: float
    level: Literal["info", "warn", "error"]
    kind: str
    text: str
    event: Event | None = None


class Control(NamedTuple):
    """Control state: what an operator set, as against what the policy decided."""

    policy: str
    override: OverrideInfo | None


class _Monotone:
    """Makes a counter that restarts with its process into one that never goes back."""

    def __init__(self) -> None:
        self._base = 0
        self._last = 0
        self._boot = ""

    def add(self, raw: int, boot: str) -> float:
        if boot != self._boot or raw < self._last:
            self._base += self._last
        self._boot, self._last = boot, raw
        return float(self._base + raw)


class Book:
    """History of one daemon. ``version`` changes whenever something shown may have changed."""

    def __init__(self, history_s: float = HISTORY_S, log_lines: int = LOG_LINES) -> None:
        self.version = 0
        self.snapshot: Snapshot | None = None
        self.received_s: float | None = None
        self.log: deque[LogLine] = deque(maxlen=log_lines)
        self.lost_events = 0
        self.previous: Control | None = None
        """Control state before the last change of epoch, for undo."""
        self._ring = Ring((*_SERIES, *_COUNTERS), math.ceil(history_s / SLOT_S))
        self._counters = {name: _Monotone() for name in _COUNTERS}
        self._engine = ""
        """Boot id of the last engine seen: there may be none for a while between two."""
        self._event_boot = ""
        self._event_seq = -1

    def add(self, snapshot: Snapshot, now: float) -> None:
        """Take one snapshot, received at ``now``."""
        self._note_changes(self.snapshot, snapshot)
        self.snapshot = snapshot
        self.received_s = now
        self.version += 1
        values: dict[str, float | None] = {name: read(snapshot) for name, read in _SERIES.items()}
        for name, count in _COUNTERS.items():
            found = count(snapshot)
            values[name] = None if found is None else self._counters[name].add(*found)
        self._ring.put(now, values)

    def add_event(self, event: Event) -> None:
        """Take one event; repeats are dropped and gaps in the numbering become a line of the log."""
        if event.front_boot_id != self._event_boot:
            self._event_boot, self._event_seq = event.front_boot_id, event.seq - 1
        if event.seq <= self._event_seq:
            return
        missed = event.seq - self._event_seq - 1
        if missed:
            self.lost_events += missed
            self.log.append(LogLine(event.at_unix_s, "warn", "gap", f"{missed} events were lost"))
        self._event_seq = event.seq
        self.log.append(LogLine(event.at_unix_s, event.level, event.kind, event.text, event))
        self.version += 1

    def note(self, at_unix_s: float, level: Literal["info", "warn", "error"], text: str) -> None:
        """A line of the console's own: lost connection, a command's end."""
        self.log.append(LogLine(at_unix_s, level, "console", text))
        self.version += 1

    def age_s(self, now: float) -> float | None:
        """Seconds since the last snapshot; null before the first."""
        return None if self.received_s is None else max(0.0, now - self.received_s)

    def stale(self, now: float) -> bool:
        """Whether the values on the screen are old (or there are none yet)."""
        age = self.age_s(now)
        return age is None or age > STALE_AFTER_S

    def series(self, name: Series, now: float, window_s: float, columns: int) -> list[float | None]:
        """The last ``window_s`` seconds in ``columns`` equal parts, oldest first; null where unknown.

        Parts are aligned to multiples of their width, so that a chart moves by whole columns and never shimmers.
        A part is the mean of its samples, for latencies their largest, for the mode the last.
        """
        width = window_s / columns
        first = math.floor(now / width) - columns + 1
        parts: list[list[float]] = [[] for _ in range(columns)]
        seen: list[float | None] = [None] * columns
        known: list[float | None] = [None] * columns
        last: tuple[float, float | None] | None = None
        for time, value in self._ring.since(first * width - HOLD_S, name, (first + columns) * width):
            column = math.floor(time / width) - first
            if column < 0:
                last = (time, value)
            elif column < columns:
                seen[column] = time
                known[column] = value
                if value is not None:
                    parts[column].append(value)
        reduce = max if name in _LATENCIES else _newest if name == "mode" else _mean
        result: list[float | None] = []
        for column, values in enumerate(parts):
            at = seen[column]
            if at is not None:
                last = (at, known[column])
            held = last is not None and (first + column) * width - last[0] <= HOLD_S
            result.append(reduce(values) if values else last[1] if at is None and held and last else None)
        return result

    def increase(self, name: Counter, now: float, window_s: float) -> float | None:
        """By how much a counter grew within the window, restarts of the daemon included; null when unknown."""
        values = [value for _, value in self._ring.since(now - window_s, name, now) if value is not None]
        return values[-1] - values[0] if len(values) > 1 else None

    def _note_changes(self, old: Snapshot | None, new: Snapshot) -> None:
        if old is None:
            return
        self._engine = self._engine or old.boot_id
        if new.boot_id and self._engine and new.boot_id != self._engine:
            self._engine = new.boot_id
            self.note(new.at_unix_s, "warn", "the engine restarted: weights and KV were loaded again")
        if old.front_boot_id != new.front_boot_id:
            self.note(new.at_unix_s, "warn", "the front restarted: streams were ended")
        was, now = old.partition, new.partition
        if was is not None and now is not None and was.epoch != now.epoch:
            self.previous = Control(was.policy, was.override)


def latency_window(snapshot: Snapshot, window_s: float) -> LatencyWindow | None:
    """The window of this length, null when the daemon does not publish it."""
    return next((window for window in snapshot.latency if window.window_s == window_s), None)


def lane(snapshot: Snapshot, name: Literal["decode", "prefill"]) -> LaneStats | None:
    """One lane's figures, null while there is no engine."""
    return next((stats for stats in snapshot.lanes if stats.lane == name), None)


def main_work(stats: LaneStats) -> PhaseWork | None:
    """What the lane's own phase computed, or else its mixed batches; null where nobody counts."""
    for phase in (stats.lane, "mixed"):
        for found in stats.work:
            if found.phase == phase:
                return found
    return None


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _newest(values: list[float]) -> float:
    return values[-1]


def _busy(name: Literal["decode", "prefill"]) -> Callable[[Snapshot], float | None]:
    def read(snapshot: Snapshot) -> float | None:
        stats = lane(snapshot, name)
        return None if stats is None else stats.busy

    return read


def _shortest(snapshot: Snapshot) -> LatencyWindow | None:
    return min(snapshot.latency, key=lambda window: window.window_s, default=None)


def _ttft(snapshot: Snapshot) -> float | None:
    window = _shortest(snapshot)
    return None if window is None else window.ttft_s.p95


def _itl(snapshot: Snapshot) -> float | None:
    window = _shortest(snapshot)
    return None if window is None else window.itl_s.p95


def kv_used(snapshot: Snapshot) -> float | None:
    """Share of KV blocks that requests hold (0-1)."""
    kv = snapshot.kv
    return kv.blocks_used / kv.blocks_total if kv is not None and kv.blocks_total else None


def _plan(read: Callable[[PlanInfo], float]) -> Callable[[Snapshot], float | None]:
    return lambda snapshot: None if snapshot.partition is None else read(snapshot.partition.plan)


def _sensor(read: Callable[[DeviceInfo], float | None]) -> Callable[[Snapshot], float | None]:
    return lambda snapshot: None if snapshot.device is None else read(snapshot.device)


_LATENCIES: Final = ("ttft_p95_s", "itl_p95_s")
_SERIES: Final[dict[str, Callable[[Snapshot], float | None]]] = {
    "decode_busy": _busy("decode"),
    "prefill_busy": _busy("prefill"),
    "ttft_p95_s": _ttft,
    "itl_p95_s": _itl,
    "waiting": lambda snapshot: snapshot.requests.waiting,
    "prefilling": lambda snapshot: snapshot.requests.prefilling,
    "decoding": lambda snapshot: snapshot.requests.decoding,
    "kv_used": kv_used,
    "decode_units": _plan(lambda plan: plan.decode_units),
    "mode": _plan(lambda plan: MODES.index(plan.mode)),
    "utilization": _sensor(lambda device: device.utilization),
    "power_w": _sensor(lambda device: device.power_w),
    "temperature_c": _sensor(lambda device: device.temperature_c),
    "clock_hz": _sensor(lambda device: device.clock_hz),
}
_COUNTERS: Final[dict[str, Callable[[Snapshot], tuple[int, str] | None]]] = {
    "preempted": lambda s: (s.requests.preempted_total, s.front_boot_id),
    "evicted": lambda s: None if s.kv is None else (s.kv.evicted_blocks_total, s.boot_id),
    "hit_tokens": lambda s: None if s.kv is None else (s.kv.prefix_hit_tokens_total, s.boot_id),
    "query_tokens": lambda s: None if s.kv is None else (s.kv.prefix_query_tokens_total, s.boot_id),
}
