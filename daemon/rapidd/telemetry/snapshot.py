"""What of a `wire.Snapshot` has to be reckoned, and `wire.Status` from it. Pure: no clocks, sockets and sensors."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from rapidctl import wire

KV_TREND_NS: Final = 10_000_000_000
KV_TREND_MIN_NS: Final = 1_000_000_000
"""A rate over less than this is noise."""

_STATUS_FIELDS: Final = frozenset(wire.Status.__struct_fields__) & frozenset(wire.Snapshot.__struct_fields__)


class KvTrend:
    """How fast the KV cache fills: used blocks over the last 10 s."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int]] = deque()

    def add(self, at_ns: int, used: int) -> None:
        """One reading."""
        self._samples.append((at_ns, used))
        while self._samples[0][0] < at_ns - KV_TREND_NS:
            self._samples.popleft()

    def clear(self) -> None:
        """The cache is another one."""
        self._samples.clear()

    def headroom_s(self, blocks_total: int) -> float | None:
        """Seconds until no block is free at this rate; null when it is not filling or not known yet."""
        if not self._samples:
            return None
        (begin_ns, begin), (end_ns, end) = self._samples[0], self._samples[-1]
        if end <= begin or end_ns - begin_ns < KV_TREND_MIN_NS:
            return None
        return max(0, blocks_total - end) * (end_ns - begin_ns) / 1e9 / (end - begin)


def status(call: int, snapshot: wire.Snapshot, slo_met: bool | None) -> wire.Status:
    """The head of a snapshot."""
    shared = {name: getattr(snapshot, name) for name in _STATUS_FIELDS}
    return wire.Status(call=call, slo_met=slo_met, **shared)


def with_headroom(kv: wire.KvStats, trend: KvTrend) -> wire.KvStats:
    """The engine's figures and the time until the cache is full."""
    return msgspec.structs.replace(kv, headroom_s=trend.headroom_s(kv.blocks_total))


def by_socket(counts: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """Counts by socket and error code as they are published."""
    found: dict[str, dict[str, int]] = {}
    for (socket, code), count in counts.items():
        found.setdefault(socket, {})[code] = count
    return found


def count_phases(phases: Iterable[wire.Phase]) -> dict[wire.Phase, int]:
    """How many are in each phase, zeros included."""
    counts: dict[wire.Phase, int] = {"waiting": 0, "prefilling": 0, "decoding": 0}
    for phase in phases:
        counts[phase] += 1
    return counts
