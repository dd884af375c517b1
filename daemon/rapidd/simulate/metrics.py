"""What a run gave, by the project's definitions: TTFT, gaps, who met the SLO, throughput, waits. Pure.

A request meets its SLO when its TTFT keeps the limit of its length and the p95 of its own gaps (its largest gap when
it has fewer than 20) keeps the ITL objective. Requests that were refused miss it.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect
from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from rapidctl.ranks import rank
from rapidctl.wire import MIN_GAPS_FOR_P95, Quantiles, Slo
from rapidd.simulate.machine import Record, Run


class Summary(Struct, frozen=True, kw_only=True):
    """Seconds, tokens a second, shares of all offered requests."""

    requests: int
    refused: int
    seconds: float
    met: float
    """Share of the offered requests that met both objectives; goodput asks for 0.9."""
    ttft_met: float
    itl_met: float
    ttft_s: Quantiles
    itl_s: Quantiles
    longest_wait_s: float
    """For a first token, of any request."""
    output_tokens_per_s: float
    prompt_tokens_per_s: float
    preempted: int
    prefix_hit_tokens: int
    changes_per_s: float
    """Of mode or units."""
    decisions_per_s: float
    """Times the policy was asked."""
    places: dict[str, float]
    """Shares of the time."""


def summarize(run: Run, slo: Slo, warmup_s: float = 0.0, until_s: float = math.inf) -> Summary:
    """The run, judged by ``slo``, without the requests that arrived within ``warmup_s`` and the time until the next.

    As seen by who leaves at ``until_s``: later tokens do not count, and a request that is not finished then has missed.
    What is not of single requests (`preempted`, `changes_per_s`, `places`, ...) is of the whole run.
    """
    records = [record for record in run.records if record.arrival_s >= warmup_s]
    served = [(record, seen) for record in records if (seen := record.token_s[: bisect(record.token_s, until_s)])]
    ttft = array("d", (seen[0] - record.arrival_s for record, seen in served))
    gaps = array("d")
    ttft_met = itl_met = both = 0
    for (record, seen), wait_s in zip(served, ttft, strict=True):
        own = _gaps(seen)
        gaps += own
        in_time = wait_s <= slo.ttft_limit_s(record.prompt_tokens)
        steady = len(seen) == len(record.token_s) and judged_gap(own) <= slo.itl_s
        ttft_met += in_time
        itl_met += steady
        both += in_time and steady
    whole_s = run.seconds or 1.0
    if until_s < whole_s:
        whole_s = max((seen[-1] for _, seen in served), default=until_s)
    offered = len(records) or 1
    seconds = whole_s - records[0].arrival_s if warmup_s and served else whole_s
    return Summary(
        requests=len(records),
        refused=sum(not record.token_s for record in records),
        seconds=seconds,
        met=both / offered,
        ttft_met=ttft_met / offered,
        itl_met=itl_met / offered,
        ttft_s=_quantiles(ttft),
        itl_s=_quantiles(gaps),
        longest_wait_s=max(ttft, default=0.0),
        output_tokens_per_s=sum(len(seen) for _, seen in served) / seconds,
        prompt_tokens_per_s=sum(record.prompt_tokens for record, _ in served) / seconds,
        preempted=run.preempted,
        prefix_hit_tokens=run.prefix_hit_tokens,
        changes_per_s=run.changes / (run.seconds or 1.0),
        decisions_per_s=run.decisions / (run.seconds or 1.0),
        places={place: spent / (run.seconds or 1.0) for place, spent in sorted(run.places.items())},
    )


def gaps_of(record: Record) -> array[float]:
    """Seconds between its tokens."""
    return _gaps(record.token_s)


def _gaps(token_s: Sequence[float]) -> array[float]:
    return array("d", (later - earlier for earlier, later in pairwise(token_s)))


def judged_gap(gaps: Sequence[float]) -> float:
    """The gap that the ITL objective is compared with; 0 of a single token."""
    if len(gaps) < MIN_GAPS_FOR_P95:
        return max(gaps, default=0.0)
    return sorted(gaps)[rank(95, len(gaps))]


def _quantiles(values: array[float]) -> Quantiles:
    if not values:
        return Quantiles(n=0)
    ordered = sorted(values)
    p50, p95, p99 = (ordered[rank(percent, len(ordered))] for percent in (50, 95, 99))
    return Quantiles(n=len(ordered), p50=p50, p95=p95, p99=p99, max=ordered[-1])
