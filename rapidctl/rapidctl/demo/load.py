"""Requests that come, wait, are prefilled, decode and go: a small queueing model on a virtual clock.

Rates are those of a made-up accelerator of `UNITS` compute units with an 8B model; nothing here was measured. The
same seed gives the same history.
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from rapidctl.wire import LatencyWindow, Mode, Phase, Quantiles, RequestRow, Slo

UNITS: Final = 304
SPLITS: Final = tuple(range(32, UNITS - 31, 16))
BLOCK_TOKENS: Final = 16
BLOCKS: Final = 60_000
MAX_BATCH: Final = 600
MAX_PREFILLING: Final = 16
SLO: Final = Slo(itl_s=0.05, ttft_floor_s=0.5, ttft_per_1k_s=1.0)
WINDOWS_S: Final = (10.0, 60.0, 300.0)
MAX_VALUES: Final = 150
_SHARES: Final = (0.5, 0.95, 0.99)
CLIENTS: Final = ("api/ana", "api/batch", "rapidctl/prompt", "api/search", "eval/nightly")


def step_s(batch: int, units: int, mode: Mode, prefilling: bool) -> float:
    """Seconds of a decode step: memory-bound until few units are left, and slower beside a prompt on the same units."""
    reach = min(1.0, units / 176)
    alone = (0.011 + 0.000085 * batch) / math.pow(reach, 0.8)
    shared = {"serial": 2.6, "hybrid": 1.9, "shared": 1.35, "split": 1.04}[mode]
    return alone * (shared if prefilling else 1.0)


def prefill_tokens_per_s(units: int, mode: Mode) -> float:
    """Prompt tokens a second: compute-bound, so nearly in proportion to the units."""
    share = {"serial": 0.6, "hybrid": 0.9, "shared": 0.75, "split": 1.0}[mode]
    return 46_000 * share * math.pow(units / UNITS, 0.9)


@dataclass
class Job:
    """One request."""

    id: str
    client: str
    prompt: int
    cached: int
    max_tokens: int
    arrived_s: float
    computed: int = 0
    out: float = 0.0
    first_s: float | None = None
    gap_s: float | None = None

    @property
    def phase(self) -> Phase:
        """As the wire says it."""
        if self.first_s is not None:
            return "decoding"
        return "prefilling" if self.computed > self.cached else "waiting"

    @property
    def blocks(self) -> int:
        """Of the cache."""
        return 0 if self.phase == "waiting" else math.ceil((self.computed + int(self.out)) / BLOCK_TOKENS)

    def row(self, now_s: float) -> RequestRow:
        """As an operator sees it."""
        return RequestRow(
            id=self.id, choice=0, client=self.client, phase=self.phase, age_s=now_s - self.arrived_s,
            prompt_tokens=self.prompt, cached_tokens=self.cached, computed_tokens=self.computed,
            output_tokens=int(self.out), max_tokens=self.max_tokens,
            ttft_s=None if self.first_s is None else self.first_s - self.arrived_s,
            itl_p95_s=self.gap_s, tokens_per_s=None if not self.gap_s else 1 / self.gap_s, kv_blocks=self.blocks,
            priority=0, slo_class="batch" if "batch" in self.client else "interactive", preemptions=0,
        )  # fmt: skip


@dataclass
class Load:
    """The model. ``live``: hold about so many requests; null: an arrival rate that ebbs and flows."""

    seed: int = 1
    live: int | None = None
    now_s: float = 0.0
    jobs: list[Job] = field(default_factory=list)
    accepted: int = 0
    finished: int = 0
    decoded: int = 0
    prefilled: int = 0
    queried: int = 0
    hits: int = 0
    evicted: int = 0
    decode_busy: float = 0.0
    prefill_busy: float = 0.0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._windows: dict[float, tuple[float, LatencyWindow]] = {}
        self._ttft: deque[tuple[float, float, bool]] = deque()
        self._steps: deque[tuple[float, float, int]] = deque()
        self._ends: deque[tuple[float, float, bool, bool]] = deque()
        self._flow: deque[tuple[float, int, int, int]] = deque()

    def tick(self, dt_s: float, mode: Mode, decode_units: int, prefill_units: int) -> None:
        """Let ``dt_s`` seconds pass under a plan."""
        self.now_s += dt_s
        before, made = self.prefilled, self.decoded
        self._prefill(dt_s, mode, prefill_units)
        self._decode(dt_s, mode, decode_units)
        came = self._arrive(dt_s)
        self._flow.append((self.now_s, came, self.prefilled - before, self.decoded - made))
        for past in (self._ttft, self._steps, self._ends, self._flow):
            while past and past[0][0] < self.now_s - WINDOWS_S[-1]:
                past.popleft()

    @property
    def backlog(self) -> int:
        """Prompt tokens still to compute."""
        return sum(job.prompt - job.computed for job in self.jobs if job.first_s is None)

    @property
    def batch(self) -> int:
        """Requests that decode."""
        return sum(job.first_s is not None for job in self.jobs)

    def window(self, window_s: float) -> LatencyWindow:
        """What a daemon would publish of the last ``window_s`` seconds; made anew every fiftieth of it."""
        made_s, made = self._windows.get(window_s, (-math.inf, None))
        if made is None or self.now_s >= made_s + window_s / 50:
            made = self._window(window_s)
            self._windows[window_s] = (self.now_s, made)
        return made

    def _window(self, window_s: float) -> LatencyWindow:
        since = self.now_s - window_s
        ttft = [(value, 1) for at, value, _ in self._ttft if at >= since]
        ends = [end for end in self._ends if end[0] >= since]
        flow = [found for found in self._flow if found[0] >= since]
        span = min(window_s, max(self.now_s, 0.25))
        gaps = quantiles([(value, n) for at, value, n in self._steps if at >= since])
        return LatencyWindow(
            window_s=window_s, ttft_s=quantiles(ttft), itl_s=gaps,
            tpot_s=Quantiles(n=len(ends), p50=gaps.p50, p95=gaps.p50, p99=gaps.p95, max=gaps.p95)
            if ends else Quantiles(n=0),
            e2e_s=quantiles([(end[1], 1) for end in ends]),
            ttft_met=_share([end[2] for end in ends]), itl_met=_share([end[3] for end in ends]),
            both_met=_share([end[2] and end[3] for end in ends]),
            arrived_per_s=sum(found[1] for found in flow) / span, finished_per_s=len(ends) / span,
            prompt_tokens_per_s=sum(found[2] for found in flow) / span,
            output_tokens_per_s=sum(found[3] for found in flow) / span,
        )  # fmt: skip

    def _arrive(self, dt_s: float) -> int:
        if self.live is not None:
            count = self.live - len(self.jobs)
        else:
            tide = 17.0 + 9.0 * math.sin(2 * math.pi * self.now_s / 90)
            burst = 25.0 if self.now_s % 47 < 4 else 0.0
            count = self._poisson((tide + burst) * dt_s)
        for _ in range(count):
            self.accepted += 1
            prompt = min(12_000, int(self._random.lognormvariate(6.6, 0.9)) + 16)
            cached = prompt // 2 // BLOCK_TOKENS * BLOCK_TOKENS if self._random.random() < 0.3 else 0
            self.queried, self.hits = self.queried + prompt, self.hits + cached
            self.jobs.append(
                Job(
                    f"r-{self.accepted:05x}", self._random.choice(CLIENTS), prompt, cached,
                    int(self._random.lognormvariate(4.9, 0.7)) + 4, self.now_s, computed=cached,
                )
            )  # fmt: skip
        return max(0, count)

    def _poisson(self, mean: float) -> int:
        limit, count, product = math.exp(-mean), 0, self._random.random()
        while product > limit:
            count, product = count + 1, product * self._random.random()
        return count

    def _prefill(self, dt_s: float, mode: Mode, units: int) -> None:
        capacity = budget = prefill_tokens_per_s(units, mode) * dt_s
        queue = [job for job in self.jobs if job.first_s is None][:MAX_PREFILLING]
        for job in queue:
            if budget < 1 or self.batch >= MAX_BATCH:
                break
            done = min(int(budget), job.prompt - job.computed)
            job.computed += done
            budget -= done
            self.prefilled += done
            if job.computed >= job.prompt:
                job.first_s, job.out = self.now_s - dt_s * budget / capacity, 1.0
                ttft = job.first_s - job.arrived_s
                self._ttft.append((self.now_s, ttft, ttft <= SLO.ttft_limit_s(job.prompt)))
        self.prefill_busy = 1.0 - budget / capacity if capacity else 0.0

    def _decode(self, dt_s: float, mode: Mode, units: int) -> None:
        batch = [job for job in self.jobs if job.first_s is not None]
        if not batch:
            self.decode_busy = 0.0
            return
        step = step_s(len(batch), units, mode, self.prefill_busy > 0.05) * (1 + 0.12 * abs(self._random.gauss(0, 1)))
        self.decode_busy = min(1.0, 0.55 + 0.0012 * len(batch))
        for job in batch:
            job.gap_s = step if job.gap_s is None else 0.9 * job.gap_s + 0.1 * step
            made = min(dt_s / step, job.max_tokens - job.out)
            self.decoded += int(job.out + made) - int(job.out)
            job.out += made
            if job.out >= job.max_tokens:
                self._end(job)
        self._steps.append((self.now_s, step, max(1, round(len(batch) * dt_s / step))))

    def _end(self, job: Job) -> None:
        self.jobs.remove(job)
        self.finished += 1
        self.evicted += job.blocks // 40
        assert job.first_s is not None
        in_time = job.first_s - job.arrived_s <= SLO.ttft_limit_s(job.prompt)
        smooth = job.gap_s is None or job.gap_s <= SLO.itl_s
        self._ends.append((self.now_s, self.now_s - job.arrived_s, in_time, smooth))


def quantiles(weighted: list[tuple[float, int]]) -> Quantiles:
    """Of values that each stand for so many samples; of many values some `MAX_VALUES` are looked at."""
    if not weighted:
        return Quantiles(n=0)
    looked_at = sorted(weighted[:: len(weighted) // MAX_VALUES + 1])
    total = sum(count for _, count in looked_at)
    found: list[float] = []
    seen = 0
    for value, count in looked_at:
        seen += count
        while len(found) < len(_SHARES) and seen >= _SHARES[len(found)] * total:
            found.append(value)
    n = sum(count for _, count in weighted)
    return Quantiles(n=n, p50=found[0], p95=found[1], p99=found[2], max=looked_at[-1][0])


def _share(verdicts: list[bool]) -> float | None:
    return sum(verdicts) / len(verdicts) if verdicts else None
