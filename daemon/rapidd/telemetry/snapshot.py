"""Assembling `wire.Snapshot` and `wire.Status` from what the front knows. Pure: no clocks, no sockets, no sensors."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from msgspec import Struct

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


class EngineView(Struct, frozen=True):
    """The engine's part of a snapshot; all null or empty while there is none. ``model`` and ``device`` stay."""

    process: wire.Process
    boot_id: str = ""
    model: wire.ModelInfo | None = None
    device: wire.DeviceInfo | None = None
    partition: wire.PartitionInfo | None = None
    lanes: tuple[wire.LaneStats, ...] = ()
    kv: wire.KvStats | None = None
    mode_seconds: dict[str, float] = {}
    scheduling_s: wire.Quantiles | None = None


class FrontView(Struct, frozen=True):
    """The front's part of a snapshot."""

    boot_id: str
    version: str
    endpoint: str
    state: wire.DaemonState
    detail: str
    uptime_s: float
    """The daemon's."""
    own_uptime_s: float
    process: wire.Process
    supervisor: wire.Process
    clients: int
    slo: wire.Slo
    requests: wire.RequestCounts
    latency: list[wire.LatencyWindow]
    latency_totals: wire.LatencyTotals
    decisions: list[wire.Decision]
    rows: list[wire.RequestRow]
    rows_total: int
    cpu_s: float
    streamed_tokens_total: int
    loop_lag_s: wire.BucketCounts | None
    last_step_age_s: float | None
    unreadable: dict[str, dict[str, int]]


def assemble(seq: int, at_unix_s: float, at_mono_ns: int, front: FrontView, engine: EngineView) -> wire.Snapshot:
    """One self-contained snapshot."""
    return wire.Snapshot(
        seq=seq,
        boot_id=engine.boot_id,
        front_boot_id=front.boot_id,
        at_unix_s=at_unix_s,
        at_mono_ns=at_mono_ns,
        state=front.state,
        detail=front.detail,
        version=front.version,
        uptime_s=front.uptime_s,
        front_uptime_s=front.own_uptime_s,
        endpoint=front.endpoint,
        model=engine.model,
        device=engine.device,
        supervisor=front.supervisor,
        front=front.process,
        engine=engine.process,
        clients=front.clients,
        slo=front.slo,
        partition=engine.partition,
        lanes=list(engine.lanes),
        kv=engine.kv,
        requests=front.requests,
        latency=front.latency,
        mode_seconds=engine.mode_seconds,
        decisions=front.decisions,
        rows=front.rows,
        rows_total=front.rows_total,
        front_cpu_s=front.cpu_s,
        streamed_tokens_total=front.streamed_tokens_total,
        scheduling_s=engine.scheduling_s,
        latency_totals=front.latency_totals,
        loop_lag_s=front.loop_lag_s,
        last_step_age_s=front.last_step_age_s,
        unreadable=front.unreadable,
    )


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
