"""What a run is summed up to, whole or as seen by somebody who left before its end."""

from array import array

import pytest

from rapidctl.wire import Slo
from rapidd.simulate.machine import Record, Run
from rapidd.simulate.metrics import Summary, summarize

SLO = Slo(itl_s=0.5, ttft_floor_s=2.0, ttft_per_1k_s=1.0)


def record(arrival_s: float, *token_s: float) -> Record:
    return Record(arrival_s, 100, len(token_s), array("d", token_s))


def run(*records: Record) -> Run:
    seconds = max((record.token_s[-1] for record in records if record.token_s), default=0.0)
    return Run(
        records=list(records), seconds=seconds, places={"hybrid": seconds}, changes=0, decisions=0, steps=0,
        prefix_hit_tokens=0, preempted=0,
    )  # fmt: skip


def shares(summary: Summary) -> tuple[float, float, float]:
    return summary.ttft_met, summary.itl_met, summary.met


WHOLE = run(record(0.0, 1.0, 1.4, 1.8), record(1.0, 2.0, 2.4, 4.0), record(2.0, 3.0, 3.4, 3.8), record(3.0, 6.0, 6.4))
"""In time; a late gap at its end; in time; late, and first seen at 6 s."""


def test_to_its_end_every_token_counts() -> None:
    summary = summarize(WHOLE, SLO)
    assert shares(summary) == (0.75, 0.75, 0.5)
    assert summary.seconds == 6.4
    assert summary.output_tokens_per_s == pytest.approx(11 / 6.4)


def test_whoever_leaves_sees_no_later_tokens_and_takes_what_is_open_for_missed() -> None:
    """The third was in time and had one token left, the second's late gap had not ended, the fourth had no token."""
    summary = summarize(WHOLE, SLO, until_s=3.5)
    assert shares(summary) == (0.75, 0.25, 0.25)
    assert (summary.requests, summary.refused, summary.itl_s.n) == (4, 0, 4)
    assert summary.seconds == 3.4, "until the last token that was seen"
    assert summary.output_tokens_per_s == pytest.approx(7 / 3.4)
    assert summary.prompt_tokens_per_s == pytest.approx(300 / 3.4)


def test_whoever_leaves_behind_the_last_token_sees_everything() -> None:
    assert summarize(WHOLE, SLO, until_s=6.4) == summarize(WHOLE, SLO, until_s=60.0) == summarize(WHOLE, SLO)


@pytest.mark.parametrize("warmup_s", [0.0, 0.5])
def test_whoever_leaves_before_the_first_token_sees_nothing_that_was_met(warmup_s: float) -> None:
    summary = summarize(WHOLE, SLO, warmup_s, until_s=0.5)
    assert shares(summary) == (0.0, 0.0, 0.0)
    assert (summary.seconds, summary.output_tokens_per_s, summary.refused) == (0.5, 0.0, 0)


def test_a_run_of_nothing_and_a_refused_request_are_no_error() -> None:
    assert summarize(run(), SLO, until_s=1.0).requests == 0
    refused = summarize(run(record(0.0)), SLO, until_s=1.0)
    assert (refused.refused, refused.met) == (1, 0.0)
