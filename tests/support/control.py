"""What operators do to a `Control` of four cores, for its tests."""

from rapidctl.wire import PlanRequest
from rapidd.ipc import ControlDone, SetPlan
from rapidd.partition.table import PartitionTable
from rapidd.policy.override import Control
from rapidd.policy.plan import State

TABLE = PartitionTable(units_total=4, unit_name="core", splits=(1, 2, 3))
SECOND = 1_000_000_000


def state() -> State:
    return State(
        units_total=4,
        splits=(1, 2, 3),
        num_decoding=0,
        prefill_tokens=0,
        running=None,
        running_age_s=0,
    )


def split(control: Control, now_s: int = 0, units: int = 2, **options: object) -> ControlDone:
    fields = {"ttl_s": 60.0, "guard": True, "reason": "test", "by": "ana", "if_epoch": None} | options
    plan = PlanRequest(mode="split", decode_units=units)
    return control.set_plan(SetPlan(1, plan, **fields), now_s * SECOND)  # type: ignore[arg-type]


def release(control: Control, if_epoch: int | None = None) -> ControlDone:
    return control.set_plan(SetPlan(2, None, None, False, "", "ana", if_epoch), 0)


def mode(control: Control, now_s: int = 0) -> str:
    control.tick(now_s * SECOND)
    return control.decide(state(), now_s * SECOND).describe()
