"""What records say: percentiles, throughput, and which requests met their objectives. Pure arithmetic.

A request meets its SLO when TTFT <= max(floor, s x prompt tokens / 1000) and the p95 of its own gaps (the largest, when
there are fewer than 20) <= the ITL SLO. Shares are of the requests offered: one that was refused, failed or did not
finish misses both. Percentiles are nearest ranks over all values at once, never means of percentiles.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from msgspec import Struct

from rapidctl.bench.records import Record
from rapidctl.ranks import rank
from rapidctl.wire import MIN_GAPS_FOR_P95, Slo


class Percentiles(Struct, frozen=True):
    """Of ``n`` values; all null when there are none."""

    n: int
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


def percentiles(values: Iterable[float]) -> Percentiles:
    """Nearest ranks: the smallest value that at least that share of the values does not exceed."""
    ordered = sorted(values)
    if not ordered:
        return Percentiles(0)
    p50, p90, p95, p99 = (ordered[rank(share, len(ordered))] for share in (50, 90, 95, 99))
    return Percentiles(len(ordered), p50, p90, p95, p99, ordered[-1])


class Verdict(NamedTuple):
    """Which objectives a request met."""

    ttft: bool
    itl: bool

    @property
    def both(self) -> bool:
        """Counts towards goodput."""
        return self.ttft and self.itl


def judge(record: Record, slo: Slo) -> Verdict:
    """Judge one request by what its client saw."""
    ttft_s = record.ttft_s
    if record.outcome != "finished" or ttft_s is None:
        return Verdict(False, False)
    gaps = sorted(record.gaps_s)
    judged = 0.0
    if gaps:
        judged = gaps[-1] if len(gaps) < MIN_GAPS_FOR_P95 else gaps[rank(95, len(gaps))]
    return Verdict(ttft_s <= slo.ttft_limit_s(record.request.prompt_tokens), judged <= slo.itl_s)


def has_missed(record: Record, slo: Slo, now_s: float) -> bool:
    """Whether a request can no longer meet its TTFT, or has ended badly; looks at no gap, so it is cheap."""
    if record.outcome not in ("open", "finished"):
        return True
    until = record.stamps[0] if record.stamps else now_s
    return until - record.sent_s > slo.ttft_limit_s(record.request.prompt_tokens)


class Summary(Struct, frozen=True, kw_only=True):
    """Of the measured requests of one run. Rates are over ``duration_s``: from the first one sent to the last token."""

    offered: int
    finished: int
    refused: int
    failed: int
    unfinished: int
    short: int
    """Finished with fewer tokens than were asked for: the server does not ignore its end-of-sequence token."""
    errors: dict[str, int]
    """Refusals and failures by code."""
    said: dict[str, str]
    """What the server said with the first of each."""
    met: int
    """Requests that met both objectives."""
    ttft_met: float | None
    itl_met: float | None
    both_met: float | None
    ttft_s: Percentiles
    itl_s: Percentiles
    tpot_s: Percentiles
    e2e_s: Percentiles
    longest_wait_s: float | None
    """For a first token, or in vain."""
    duration_s: float
    requests_per_s: float | None
    output_tokens_per_s: float | None
    total_tokens_per_s: float | None
    """Output tokens, and the prompts of the requests that have a first token."""
    preemptions: int | None
    cached_tokens: int | None
    prompt_tokens: int


def summarize(records: Sequence[Record], slo: Slo) -> Summary:
    """The figures of a run; records of the warm-up are left out."""
    measured = [record for record in records if record.measured]
    outcomes = Counter(record.outcome for record in measured)
    verdicts = [judge(record, slo) for record in measured]
    finished = [record for record in measured if record.outcome == "finished"]
    started = [record for record in measured if record.stamps]
    duration_s = 0.0
    if started:
        duration_s = max(record.stamps[-1] for record in started) - min(record.sent_s for record in measured)
    output_tokens = sum(len(record.stamps) for record in started)
    prompt_tokens = sum(record.request.prompt_tokens for record in started)
    return Summary(
        offered=len(measured),
        finished=len(finished),
        refused=outcomes["refused"],
        failed=outcomes["failed"],
        unfinished=outcomes["unfinished"] + outcomes["open"],
        short=sum(len(record.stamps) < record.request.output_tokens for record in finished),
        errors=dict(Counter(record.error for record in measured if record.error)),
        said={record.error: record.said for record in reversed(measured) if record.said},
        met=sum(verdict.both for verdict in verdicts),
        ttft_met=_share([verdict.ttft for verdict in verdicts]),
        itl_met=_share([verdict.itl for verdict in verdicts]),
        both_met=_share([verdict.both for verdict in verdicts]),
        ttft_s=percentiles(record.ttft_s for record in started if record.ttft_s is not None),
        itl_s=percentiles(gap for record in started for gap in record.gaps_s),
        tpot_s=percentiles(record.tpot_s for record in finished if record.tpot_s is not None),
        e2e_s=percentiles(record.ended_s - record.sent_s for record in finished if record.ended_s is not None),
        longest_wait_s=max((record.wait_s for record in measured), default=None),
        duration_s=duration_s,
        requests_per_s=_per_s(len(finished), duration_s),
        output_tokens_per_s=_per_s(output_tokens, duration_s),
        total_tokens_per_s=_per_s(output_tokens + prompt_tokens, duration_s),
        preemptions=_known_sum(record.preemptions for record in finished),
        cached_tokens=_known_sum(record.cached_tokens for record in finished),
        prompt_tokens=prompt_tokens,
    )


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None


def _per_s(count: int, seconds: float) -> float | None:
    return count / seconds if seconds > 0 else None


def _known_sum(values: Iterable[int | None]) -> int | None:
    """Null when nobody told any of them."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def geometric_mean(values: Sequence[float]) -> float | None:
    """Null without values, or when one of them is not more than 0."""
    if not values or min(values) <= 0:
        return None
    return math.exp(math.fsum(map(math.log, values)) / len(values))
