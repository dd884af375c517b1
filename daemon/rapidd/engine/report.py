"""What the front is told of the engine: the parts of an `ipc.EngineState`. No torch, no sockets."""

from collections.abc import Mapping

from rapidctl.wire import KvStats, LanePlacement, PartitionInfo, Placement, PlanInfo
from rapidd import ipc
from rapidd.engine.batch import Batch
from rapidd.engine.lanes import LaneExecutor
from rapidd.engine.request import LANES, Lane
from rapidd.engine.scheduler import Scheduler
from rapidd.policy.calibration import Calibration
from rapidd.policy.override import BOUNDS, Control
from rapidd.policy.plan import Plan, State


def placement(lanes: Mapping[Lane, LaneExecutor], *, transition: bool) -> Placement:
    """Where the lanes run now; ``transition``: batches of the plan before have not all ended."""
    seen = {name: lanes[name].placement() for name in LANES}
    return Placement(
        lanes=[LanePlacement(lane=name, units=units, measured=bool(units)) for name, (units, _) in seen.items()],
        overlap=len(set(seen["decode"].units) & set(seen["prefill"].units)),
        transition=transition,
        probed_unix_s=min((at_unix_s for units, at_unix_s in seen.values() if units), default=None),
    )


def kv_stats(scheduler: Scheduler, bytes_total: int) -> KvStats:
    """The cache's blocks, and how much of the prompts was found in it."""
    pool = scheduler.pool
    return KvStats(
        block_tokens=pool.block_tokens,
        blocks_total=pool.total,
        blocks_used=pool.num_used,
        blocks_cached=pool.num_cached,
        bytes_total=bytes_total,
        prefix_hit_tokens_total=scheduler.prefix_hits,
        prefix_query_tokens_total=scheduler.prefix_queries,
        evicted_blocks_total=pool.evicted,
    )


def request_states(scheduler: Scheduler) -> list[ipc.RequestState]:
    """Every live choice."""
    return [
        ipc.RequestState(r.rid, r.phase, r.cached, r.computed, len(r.blocks), r.preemptions, r.prefill_start_ns)
        for r in scheduler.requests
    ]


def prefill_tokens_per_s(control: Control, state: State) -> float | None:
    """Predicted rate of prompts under the plan in force; null without a profile or a plan."""
    if control.predictor is None or control.plan is None:
        return None
    return control.predictor.at(state).of_plan(control.plan).tokens_per_s or None


def partition_info(
    control: Control, calibration: Calibration, measured: Placement | None, chunk_limit: int | None, now_ns: int
) -> PartitionInfo:
    """The plan in force, who chose it, and what it is chosen from."""
    table = control.table
    plan = control.plan or Plan("hybrid", table.units_total, table.units_total, None, "starting")
    return PartitionInfo(
        policy=control.policy,
        units_total=table.units_total,
        unit_name=table.unit_name,
        splits=list(table.splits),
        unsupported=table.unsupported,
        epoch=control.epoch,
        source="override" if control.override else "policy",
        plan=PlanInfo(
            mode=plan.mode,
            decode_units=plan.decode_units,
            prefill_units=plan.prefill_units,
            chunk=plan.chunk,
            decision=control.decision,
            reason=plan.reason,
            age_s=(now_ns - control.plan_since_ns) / 1e9,
        ),
        override=control.override_info(now_ns),
        measured=measured,
        profile=calibration.name,
        calibration=calibration.info(),
        groups=None if table.groups is None else list(table.groups),
        bounds=BOUNDS,
        chunk_limit=chunk_limit,
    )


def limited(batch: Batch, limit: int | None) -> str:
    """What an operator should know of memory that ran out, whatever became of the requests."""
    return (
        f"a batch of {batch.num_prefill_tokens} prompt tokens ran out of memory: "
        f"batches hold at most {limit} until the engine is restarted"
    )
