"""Predicted against measured: what finished batches teach the correction, and the rows that chunks are sized for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rapidd.engine.batch import Batch, BatchResult
from rapidd.engine.lanes import LaneExecutor
from rapidd.engine.request import Lane
from rapidd.engine.scheduler import Scheduler
from rapidd.policy.calibration import Calibration
from rapidd.policy.cost import CostModel
from rapidd.policy.margin import GapMargin
from rapidd.policy.pace import Load

BESIDE: Final = 0.9
"""A batch ran beside the other lane when that one ran for so much of its time, and alone ..."""
ALONE: Final = 0.1
"""... when it ran for so little; anything between teaches nothing."""
OTHER: Final[dict[Lane, Lane]] = {"decode": "prefill", "prefill": "decode"}


def learn(
    calibration: Calibration,
    batch: Batch,
    result: BatchResult,
    lanes: Mapping[Lane, LaneExecutor],
    scheduler: Scheduler,
) -> None:
    """Correct predictions by a batch that ended well, before the scheduler moves on."""
    if calibration.cost is None:
        return
    share = lanes[OTHER[batch.lane]].share(result.started_ns, result.ended_ns)
    if ALONE < share < BESIDE:
        return
    beside = share >= BESIDE
    other = load_of(scheduler) if beside and batch.lane == "prefill" else Load()
    predicted = predict(calibration.cost, batch, beside, other)
    calibration.correction.observe(batch.mode, batch.kind, predicted, (result.ended_ns - result.started_ns) / 1e9)


def watch_gap(margin: GapMargin, batch: Batch, result: BatchResult, itl_slo_s: float, *, sized: bool) -> None:
    """Tell the margin of the gap that a batch ended. One that failed ends none.

    All rows that decode are in every step, so who has a second output had its last step in the batch before.
    ``sized``: whether predictions sized it. Gaps under other plans say nothing of these.
    """
    if batch.num_decode and result.error is None:
        goes_on = sized and any(row.start > row.prompt_len for row in batch.rows[: batch.num_decode])
        margin.step_ended(result.ended_ns, itl_slo_s, goes_on=goes_on)


def predict(cost: CostModel, batch: Batch, beside: bool, other: Load) -> float:
    """Seconds that the cost model says to a batch, alone or ``beside`` the other lane; ``other``: what decodes there.

    Several prompts in one chunk count as one whose attention is as much work: its context may be negative.
    """
    rows, tokens = batch.num_decode, batch.num_prefill_tokens
    kv_tokens = sum([row.start for row in batch.rows[:rows]])
    if not tokens:
        return cost.decode_s(rows, kv_tokens, batch.units, beside)
    work = sum(row.count * (row.start + row.count / 2) for row in batch.rows[rows:])
    context = work / tokens - tokens / 2
    if rows:
        alone_s = cost.hybrid_s(rows, kv_tokens, tokens, context)
        if not beside:
            return alone_s
        step_s = [cost.decode_s(rows, kv_tokens, cost.units_total, at) for at in (False, True)]
        return alone_s * step_s[1] / step_s[0]
    return cost.prefill_s(tokens, context, batch.units, beside, other.rows, other.kv_tokens)


def load_of(scheduler: Scheduler) -> Load:
    """What decodes."""
    return Load(scheduler.num_decoding, scheduler.decode_tokens, scheduler.short_share)
