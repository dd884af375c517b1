"""What one lane did: device time and counted work by phase, and the host time of handing batches over."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, NamedTuple

from msgspec import Struct

from rapidctl.wire import PhaseWork, Quantiles
from rapidd.engine.batch import Batch, BatchResult
from rapidd.engine.work import Costs, Work
from rapidd.policy.plan import WorkKind
from rapidd.telemetry.recent import Recent

WINDOW_NS: Final = 1_000_000_000
"""Over which shares and rates are taken."""
SPANS_KEPT: Final = 4096
"""Batches that are remembered: a chunk of seconds on the other lane must find all that ran beside it."""
ENQUEUES_KEPT: Final = 256
SWITCHES_KEPT: Final = 8
PHASES: Final[tuple[WorkKind, ...]] = ("decode", "prefill", "mixed")


class Peaks(Struct, frozen=True):
    """What a whole device reaches, measured; null: not known."""

    flops_per_s: float | None = None
    bytes_per_s: float | None = None


class _Span(NamedTuple):
    started_ns: int
    ended_ns: int
    phase: WorkKind
    work: Work


@dataclass(slots=True)
class _Total:
    batches: int = 0
    busy_ns: int = 0
    flops: int = 0
    bytes: int = 0


class Meter:
    """``costs``: how to count work; None counts none. ``peaks``: None where they are not known."""

    def __init__(self, costs: Costs | None = None, peaks: Peaks | None = None) -> None:
        self._costs = costs
        self._peaks = peaks or Peaks()
        self._spans: deque[_Span] = deque(maxlen=SPANS_KEPT)
        self._totals: Mapping[WorkKind, _Total] = {phase: _Total() for phase in PHASES}
        self._enqueues, self._switches = Recent(ENQUEUES_KEPT), Recent(SWITCHES_KEPT)
        self.tokens = 0

    def enqueued(self, host_ns: int, switched: bool) -> None:
        """So long was the host busy handing a batch over; ``switched``: to another stream than the one before."""
        (self._switches if switched else self._enqueues).record(host_ns)

    def ended(self, batch: Batch, result: BatchResult) -> None:
        """A batch's results were collected."""
        self.tokens += batch.num_tokens
        work = self._costs.count(batch) if self._costs is not None and result.error is None else Work(0, 0)
        total = self._totals[batch.kind]
        total.batches += 1
        total.busy_ns += result.ended_ns - result.started_ns
        total.flops += work.flops
        total.bytes += work.bytes
        self._spans.append(_Span(result.started_ns, result.ended_ns, batch.kind, work))

    @property
    def batches(self) -> int:
        """Since the start."""
        return sum(total.batches for total in self._totals.values())

    def busy(self, now_ns: int) -> float | None:
        """Share of the window in which batches ran that have ended, each spread over its time; null: none ended."""
        start = now_ns - WINDOW_NS
        if not (spans := self._after(start)):
            return None
        return min(1.0, sum(span.ended_ns - max(span.started_ns, start) for span in spans) / WINDOW_NS)

    def share(self, start_ns: int, end_ns: int, since_ns: int | None) -> float:
        """Of a time, how much batches ran; ``since_ns``: one that has not ended could begin then."""
        spans = [(span.started_ns, span.ended_ns) for span in self._after(start_ns)]
        if since_ns is not None:
            spans.append((max(since_ns, self._spans[-1].ended_ns if self._spans else 0), end_ns))
        ran = sum(max(0, min(end, end_ns) - max(begin, start_ns)) for begin, end in spans)
        return ran / max(end_ns - start_ns, 1)

    def busy_s(self, phase: WorkKind) -> float:
        """Device time since the start."""
        return self._totals[phase].busy_ns / 1e9

    def work(self, now_ns: int) -> list[PhaseWork]:
        """By phase; only what has run. Empty where nothing is counted."""
        spans = self._after(now_ns - WINDOW_NS)
        return [self._phase_work(phase, spans) for phase in PHASES if self._totals[phase].flops]

    def enqueues(self) -> Quantiles:
        """Host time of enqueuing on the same stream as before."""
        return self._enqueues.quantiles()

    def switches(self) -> Quantiles:
        """Host time of enqueuing on another stream than before."""
        return self._switches.quantiles()

    def _after(self, ns: int) -> list[_Span]:
        """Of batches that ended after it, the newest first: they end in order."""
        return list(takewhile(lambda span: span.ended_ns > ns, reversed(self._spans)))

    def _phase_work(self, phase: WorkKind, recent: Sequence[_Span]) -> PhaseWork:
        total = self._totals[phase]
        spans = [span for span in recent if span.phase == phase]
        seconds = sum(span.ended_ns - span.started_ns for span in spans) / 1e9
        flops_per_s = sum(span.work.flops for span in spans) / seconds if seconds else None
        bytes_per_s = sum(span.work.bytes for span in spans) / seconds if seconds else None
        return PhaseWork(
            phase=phase,
            n=len(spans),
            flops_per_s=flops_per_s,
            bytes_per_s=bytes_per_s,
            mfu=_share(flops_per_s, self._peaks.flops_per_s),
            mbu=_share(bytes_per_s, self._peaks.bytes_per_s),
            flops_total=float(total.flops),
            bytes_total=float(total.bytes),
            batches_total=total.batches,
        )


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole
