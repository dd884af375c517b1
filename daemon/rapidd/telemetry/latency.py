"""Latency objectives, and the windows of what requests experienced.

A request meets its SLO when TTFT <= max(floor, s x prompt tokens / 1000) and the p95 of its own gaps (the largest,
when there are fewer than 20) <= the ITL SLO. Knows no sockets and no requests: callers say what happened and when.
"""

from collections.abc import Iterable
from typing import Final, Literal

from msgspec import Struct

from rapidctl.wire import GOODPUT_SHARE, MIN_GAPS_FOR_P95, LatencyTotals, LatencyWindow, Slo
from rapidd.config import SloConfig
from rapidd.telemetry.histogram import (
    SLICE_NS,
    BucketCounter,
    Histogram,
    SlidingCounter,
    SlidingHistogram,
    bucket_of,
)

WINDOWS_S: Final = (10, 60, 300)

_CPU: Final = Slo(itl_s=0.3, ttft_floor_s=2.0, ttft_per_1k_s=10.0)
_GPU: Final = Slo(itl_s=0.05, ttft_floor_s=0.25, ttft_per_1k_s=1.0)


class Verdict(Struct, frozen=True):
    """Whether one finished request met each objective."""

    ttft: bool
    itl: bool

    @property
    def both(self) -> bool:
        """Counts towards goodput."""
        return self.ttft and self.itl


def resolve_slo(config: SloConfig, kind: Literal["cpu", "cuda", "hip"]) -> Slo:
    """The objectives in force: configured values over the device kind's defaults."""
    default = _CPU if kind == "cpu" else _GPU
    return Slo(
        itl_s=default.itl_s if config.itl_s is None else config.itl_s,
        ttft_floor_s=default.ttft_floor_s if config.ttft_floor_s is None else config.ttft_floor_s,
        ttft_per_1k_s=default.ttft_per_1k_s if config.ttft_per_1k_s is None else config.ttft_per_1k_s,
    )


def judge(slo: Slo, prompt_tokens: int, ttft_s: float, gaps: list[Histogram]) -> Verdict:
    """Judge a finished request; ``gaps`` holds each choice's inter-token gaps in seconds."""
    return Verdict(
        ttft=ttft_s <= slo.ttft_limit_s(prompt_tokens),
        itl=all(_judged_gap(gap) <= slo.itl_s for gap in gaps),
    )


def _judged_gap(gaps: Histogram) -> float:
    if gaps.n < MIN_GAPS_FOR_P95:
        return gaps.max
    return gaps.quantile(0.95) or 0.0


class _Totals:
    """Everything since the start."""

    def __init__(self) -> None:
        self.ttft, self.itl, self.tpot, self.e2e, self.queued, self.prefill = (BucketCounter() for _ in range(6))
        self.prompt_tokens = 0
        self.output_tokens = 0


class LatencyRecorder:
    """What the front saw over the last 10, 60 and 300 s and since its start. The device may change ``slo``."""

    def __init__(self, slo: Slo, now_ns: int) -> None:
        self.slo = slo
        self._start_ns = now_ns
        self._ttft = SlidingHistogram(WINDOWS_S)
        self._itl = SlidingHistogram(WINDOWS_S)
        self._tpot = SlidingHistogram(WINDOWS_S)
        self._e2e = SlidingHistogram(WINDOWS_S)
        self._ttft_ratio = SlidingHistogram(WINDOWS_S[:1])
        longest = WINDOWS_S[-1]
        self._arrived, self._finished = SlidingCounter(longest), SlidingCounter(longest)
        self._prompt_tokens, self._output_tokens = SlidingCounter(longest), SlidingCounter(longest)
        self._totals = _Totals()
        self._steps: list[tuple[int, dict[int, int], int]] = []
        """Tokens, gaps and time of each step that is not counted yet."""
        self._longer: list[LatencyWindow] = []
        self._longer_slice = -1
        self._ttft_met, self._itl_met, self._both_met = (SlidingCounter(longest) for _ in range(3))

    def arrived(self, now_ns: int) -> None:
        """A request was accepted."""
        self._arrived.add(1, now_ns)

    def first_token(self, ttft_s: float, prompt_tokens: int, now_ns: int) -> None:
        """A request's first token was seen: its prompt is computed."""
        self._ttft.record(ttft_s, now_ns)
        self._totals.ttft.add(ttft_s)
        self._totals.prompt_tokens += prompt_tokens
        self._ttft_ratio.record(ttft_s / self.slo.ttft_limit_s(prompt_tokens), now_ns)
        self._prompt_tokens.add(prompt_tokens, now_ns)

    def step(self, tokens: int, gaps: dict[int, int], now_ns: int) -> None:
        """Output tokens that a step brought; ``gaps``: how many came so many nanoseconds after their stream's last one.

        Sorted in by `sort_in`: a step has more to do, with colder caches.
        """
        self._steps.append((tokens, gaps, now_ns))

    def sort_in(self) -> None:
        """Count the steps noted since the last time. Done before anything is told; call it every second or so."""
        for tokens, gaps, now_ns in self._steps:
            self._output_tokens.add(tokens, now_ns)
            self._totals.output_tokens += tokens
            for gap_ns, count in gaps.items():
                gap_s = gap_ns / 1e9
                self._itl.add(bucket_of(gap_s), gap_s, count, now_ns)
                self._totals.itl.add(gap_s, count)
        self._steps.clear()

    def finished(self, e2e_s: float, tpot_s: list[float], verdict: Verdict, now_ns: int) -> None:
        """A request ended well; ``tpot_s``: mean seconds a token after the first, of each choice that has two."""
        self._e2e.record(e2e_s, now_ns)
        self._totals.e2e.add(e2e_s)
        for value in tpot_s:
            self._tpot.record(value, now_ns)
            self._totals.tpot.add(value)
        self._finished.add(1, now_ns)
        self._ttft_met.add(verdict.ttft, now_ns)
        self._itl_met.add(verdict.itl, now_ns)
        self._both_met.add(verdict.both, now_ns)

    def phases(self, queued_s: float | None, prefill_s: float | None) -> None:
        """Of a request that ended: from arrival to its first chunk, and on to its first token; as far as it came."""
        if queued_s is not None:
            self._totals.queued.add(queued_s)
        if prefill_s is not None:
            self._totals.prefill.add(prefill_s)

    def windows(self, now_ns: int) -> list[LatencyWindow]:
        """The published windows, shortest first; the longer ones are worked out once a second, which is their grain."""
        self.sort_in()
        shortest, *longer = WINDOWS_S
        if self._longer_slice != now_ns // SLICE_NS:
            self._longer_slice = now_ns // SLICE_NS
            self._longer = [self._window(seconds, now_ns) for seconds in longer]
        return [self._window(shortest, now_ns), *self._longer]

    def totals(self) -> LatencyTotals:
        """Since the start."""
        self.sort_in()
        totals = self._totals
        return LatencyTotals(
            ttft_s=totals.ttft.counts(),
            itl_s=totals.itl.counts(),
            tpot_s=totals.tpot.counts(),
            e2e_s=totals.e2e.counts(),
            queued_s=totals.queued.counts(),
            prefill_s=totals.prefill.counts(),
            prompt_tokens=totals.prompt_tokens,
            output_tokens=totals.output_tokens,
        )

    def slo_met(self, now_ns: int) -> bool | None:
        """Whether the goodput share of the last minute's finished requests met both; null without any."""
        finished = self._finished.total(60, now_ns)
        return self._both_met.total(60, now_ns) >= GOODPUT_SHARE * finished if finished else None

    def finished_per_s(self, now_ns: int) -> float:
        """Requests that ended well a second, over the last minute."""
        return self._finished.total(60, now_ns) / self._covered_s(60, now_ns)

    def p95_ratios(
        self, now_ns: int, waiting: Iterable[tuple[float, int]] = (), pausing: Iterable[float] = ()
    ) -> tuple[float | None, float | None]:
        """ITL and TTFT p95 of the last 10 s, each over its SLO. What lasts counts too: at a standstill nothing ends.

        ``waiting``: seconds so far, and prompt tokens, of requests without a first token; ``pausing``: seconds since
        the last token of streams that go on.
        """
        self.sort_in()
        itl, ttft = self._itl.window(10, now_ns), self._ttft_ratio.window(10, now_ns)
        itl.record_all(list(pausing))
        ttft.record_all([seconds / self.slo.ttft_limit_s(tokens) for seconds, tokens in waiting])
        gap_s = itl.quantile(0.95)
        return None if gap_s is None else gap_s / self.slo.itl_s, ttft.quantile(0.95)

    def _window(self, seconds: int, now_ns: int) -> LatencyWindow:
        covered = self._covered_s(seconds, now_ns)
        finished = self._finished.total(seconds, now_ns)

        def share(counter: SlidingCounter) -> float | None:
            return counter.total(seconds, now_ns) / finished if finished else None

        return LatencyWindow(
            window_s=seconds,
            ttft_s=self._ttft.window(seconds, now_ns).summary(),
            itl_s=self._itl.window(seconds, now_ns).summary(),
            tpot_s=self._tpot.window(seconds, now_ns).summary(),
            e2e_s=self._e2e.window(seconds, now_ns).summary(),
            ttft_met=share(self._ttft_met),
            itl_met=share(self._itl_met),
            both_met=share(self._both_met),
            arrived_per_s=self._arrived.total(seconds, now_ns) / covered,
            finished_per_s=finished / covered,
            output_tokens_per_s=self._output_tokens.total(seconds, now_ns) / covered,
            prompt_tokens_per_s=self._prompt_tokens.total(seconds, now_ns) / covered,
        )

    def _covered_s(self, seconds: int, now_ns: int) -> float:
        """Seconds that the window's slices really span: the running slice is not over, the daemon may be young."""
        first_ns = max((now_ns // SLICE_NS - seconds + 1) * SLICE_NS, self._start_ns)
        return max((now_ns - first_ns) / 1e9, 1.0)
