"""Distributions of latency, and the objectives they are held against."""

from typing import Annotated, Final

from msgspec import Meta, Struct

LATENCY_EDGES_S: Final = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5,
    0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
"""Upper ends (inclusive) of the buckets of `BucketCounts`: finest where objectives are, 10 to 50 ms and 0.1 to 2 s."""
MIN_GAPS_FOR_P95: Final = 20
"""Of a request's own gaps between tokens: of fewer the largest is held against the objective, not the p95."""
GOODPUT_SHARE: Final = 0.9
"""Share of the requests that must meet both objectives for a load to count as served."""


class Quantiles(Struct, kw_only=True):
    """Of one distribution over one window. All null when ``n`` is 0."""

    n: int
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


class LatencyWindow(Struct, kw_only=True):
    """Latency of the last ``window_s`` seconds. Met shares are of finished requests, null without any."""

    window_s: float
    ttft_s: Quantiles
    itl_s: Quantiles
    tpot_s: Quantiles
    e2e_s: Quantiles
    ttft_met: float | None = None
    itl_met: float | None = None
    both_met: float | None = None
    arrived_per_s: float = 0.0
    finished_per_s: float = 0.0
    output_tokens_per_s: float = 0.0
    prompt_tokens_per_s: float = 0.0


class BucketCounts(Struct, kw_only=True):
    """One distribution since the front's boot. ``counts[i]``: values in the i-th bucket of `LATENCY_EDGES_S` alone,
    not below; the last one counts what is beyond the last edge. ``total``: sum of the values."""

    n: int
    total: float
    counts: list[int]


class LatencyTotals(Struct, kw_only=True):
    """Latencies and tokens since the front's boot: what a collector needs that scrapes at its own pace."""

    ttft_s: BucketCounts
    itl_s: BucketCounts
    tpot_s: BucketCounts
    e2e_s: BucketCounts
    prompt_tokens: int
    output_tokens: int
    queued_s: BucketCounts | None = None
    """From arrival to the first chunk of the prompt, and from there to the first token, of requests that ended well or
    were cancelled; null: an older daemon."""
    prefill_s: BucketCounts | None = None


class Slo(Struct, kw_only=True):
    """What a request should experience: see `ttft_limit_s`; ``itl_s`` is for its gaps (`MIN_GAPS_FOR_P95`)."""

    itl_s: Annotated[float, Meta(gt=0, le=1e300)]
    ttft_floor_s: Annotated[float, Meta(gt=0, le=1e300)]
    ttft_per_1k_s: float

    def ttft_limit_s(self, prompt_tokens: int) -> float:
        """TTFT objective of a prompt of this length."""
        return max(self.ttft_floor_s, self.ttft_per_1k_s * prompt_tokens / 1000)
