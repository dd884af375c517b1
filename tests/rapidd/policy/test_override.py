"""Control state: epochs, overrides with an end, guards, and two operators who cannot overwrite each other unseen."""

import pytest
from msgspec.structs import replace

from rapidctl.wire import PlanRequest
from rapidd.ipc import ControlDone, FrontHello, Predict, SetPlan, SetPolicy, SloReport, Undo
from rapidd.partition.table import PartitionTable
from rapidd.policy.options import Predictor
from rapidd.policy.override import BOUNDS, GUARD_NS, Control
from rapidd.policy.plan import Plan, State
from support.h100 import BUSY, SPLITS, TOTAL, cost_model

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


def test_an_override_stands_above_the_policy_until_it_expires() -> None:
    control = Control("hybrid:32", TABLE)
    assert mode(control) == "hybrid:32"
    assert split(control, ttl_s=60.0).epoch == 1
    assert mode(control, 59) == "split 2/2"
    info = control.override_info(59 * SECOND)
    assert info is not None
    assert (info.ttl_s, info.by, info.reason) == (1.0, "ana", "test")
    assert mode(control, 60) == "hybrid:32"
    assert (control.epoch, control.decision) == (2, 3)
    assert [notice.kind for notice in control.notices] == ["decision", "override", "decision", "ttl", "decision"]


def test_whose_override_it_is_why_and_for_how_long_is_told_where_it_begins() -> None:
    control = Control("hybrid:32", TABLE)
    split(control, ttl_s=60.0)
    mode(control)
    split(control, units=3, ttl_s=None, reason="")
    mode(control)
    assert [notice.text for notice in control.notices] == [
        "ana: split 2/2 for 60 s (test)",
        "split 2/2: test",
        "ana: split 3/1 until released, instead of ana's split 2/2",
        "split 3/1 (was split 2/2): override by ana",
    ]


@pytest.mark.parametrize(
    ("policy", "foreseen"),
    [("auto", True), ("rapid", True), ("hybrid", True), ("hybrid:32", False), ("shared", False), ("atom", False)],
)
def test_steps_are_foreseen_where_predictions_size_them(policy: str, foreseen: bool) -> None:
    control = Control(policy, TABLE)
    control.know(Predictor(cost_model()))
    mode(control)
    assert control.foresees == foreseen
    split(control)
    mode(control)
    assert not control.foresees


def test_a_policy_has_predictions_from_when_the_device_is_calibrated() -> None:
    control = Control("auto", PartitionTable(units_total=TOTAL, unit_name="SM", splits=SPLITS))
    assert "no profile" in control.decide(BUSY, 0).reason
    control.know(Predictor(cost_model()))
    assert "no profile" not in control.decide(BUSY, 1).reason


def test_release_and_releasing_nothing() -> None:
    control = Control("auto", TABLE)
    split(control, ttl_s=None)
    assert release(control).epoch == 2
    assert release(control).epoch == 2
    assert mode(control) == "hybrid"


def test_an_unexpected_epoch_changes_nothing() -> None:
    control = Control("auto", TABLE)
    split(control)
    for refused in (
        split(control, if_epoch=0),
        release(control, if_epoch=0),
        control.set_policy(SetPolicy(3, "shared", "bo", 0)),
    ):
        assert (refused.code, refused.epoch) == ("epoch_conflict", 1)
    assert mode(control) == "split 2/2"
    assert split(control, units=3, if_epoch=1).code is None


def test_an_illegal_override_is_refused_and_the_old_one_stays() -> None:
    control = Control("auto", TABLE)
    split(control)
    refused = split(control, units=4)
    assert (refused.code, control.epoch) == ("invalid_request", 1)
    assert "legal: 1, 2, 3" in refused.text


def test_the_guard_releases_after_ten_seconds_of_breach_without_a_pause() -> None:
    control = Control("auto", TABLE)
    split(control)
    breach, fine = SloReport(1.6, None), SloReport(1.4, 1.9)
    control.observe(breach, 0)
    control.observe(fine, GUARD_NS // 2)
    control.observe(breach, GUARD_NS)
    control.observe(breach, 2 * GUARD_NS - 1)
    assert control.override_info(0) is not None
    control.observe(breach, 2 * GUARD_NS)
    assert control.override_info(0) is None
    assert control.notices[-1].kind == "guard"
    control.observe(breach, 3 * GUARD_NS)
    assert (control.epoch, len(control.notices)) == (2, 2), "nothing is left to release"


@pytest.mark.parametrize("name", ["itl", "ttft"])
@pytest.mark.parametrize(("beyond", "held"), [(0.0, True), (0.01, False)])
def test_the_published_bounds_are_what_the_guard_goes_by(name: str, beyond: float, held: bool) -> None:
    control = Control("auto", TABLE)
    split(control)
    itl, ttft = BOUNDS.guard_itl + beyond, BOUNDS.guard_ttft + beyond
    report = SloReport(itl, None) if name == "itl" else SloReport(None, ttft)
    control.observe(report, 0)
    control.observe(report, int(BOUNDS.guard_after_s * SECOND))
    assert (control.override is not None) is held


@pytest.mark.parametrize("report", [SloReport(None, 2.1), SloReport(1.51, None)])
def test_without_a_guard_a_breach_is_the_operators_business(report: SloReport) -> None:
    control = Control("auto", TABLE)
    split(control, guard=False)
    for second in range(30):
        control.observe(report, second * SECOND)
    assert control.override is not None


def test_the_policy_can_change_at_run_time_and_survives_the_engine() -> None:
    control = Control("auto", TABLE)
    assert control.set_policy(SetPolicy(1, "split:3", "ana", None)).epoch == 1
    assert mode(control) == "split 3/1"
    assert control.set_policy(SetPolicy(1, "split:9", "ana", None)).code == "invalid_request"
    successor = Control("auto", TABLE)
    successor.restore(FrontHello("front", control.epoch, control.policy))
    assert (mode(successor), successor.policy, successor.epoch) == ("split 3/1", "split:3", 1)
    successor.restore(FrontHello("front", 7, None))
    assert (mode(successor), successor.policy, successor.epoch) == ("split 3/1", "split:3", 7)


def test_an_override_survives_the_engine_with_what_is_left_of_its_time() -> None:
    """It used to vanish with the engine: no event, the same epoch, and nobody told the operator."""
    control = Control("auto", TABLE)
    split(control, ttl_s=60.0)
    told = control.override_info(20 * SECOND)
    successor = Control("auto", TABLE)
    successor.restore(FrontHello("front", control.epoch, control.policy, told, 20 * SECOND))
    assert (mode(successor, 59), successor.epoch) == ("split 2/2", 1)
    assert mode(successor, 60) == "hybrid"


def test_an_override_without_an_end_survives_the_engine_without_one() -> None:
    control = Control("auto", TABLE)
    split(control, ttl_s=None, reason="")
    successor = Control("auto", TABLE)
    successor.restore(FrontHello("front", control.epoch, None, control.override_info(0), 0))
    assert mode(successor, 10**6) == "split 2/2"
    assert successor.notices[-1].text == "split 2/2: override by ana"
    assert successor.override_info(0) == control.override_info(0)


def test_what_the_new_engines_device_cannot_do_is_not_restored_and_said() -> None:
    """It raised in the engine's loop, and would have in every engine after it."""
    control = Control("auto", TABLE)
    split(control, units=3, ttl_s=None)
    smaller = PartitionTable(units_total=2, unit_name="core", splits=(1,))
    for known in (FrontHello("front", 1, "split:3"), FrontHello("front", 1, "auto", control.override_info(0), 0)):
        successor = Control("auto", smaller)
        successor.restore(known)
        assert (mode(successor), successor.policy, successor.epoch) == ("hybrid", "auto", 2)
        assert successor.notices[0].kind == "warning"


def test_an_engine_that_lives_on_is_not_changed_by_a_new_front() -> None:
    control = Control("auto", TABLE)
    split(control)
    control.restore(FrontHello("front", 0, None))
    control.restore(FrontHello("front", 1, "shared"))
    assert (mode(control), control.policy) == ("split 2/2", "auto")


def test_a_new_front_is_told_the_decision_in_force_once() -> None:
    control = Control("auto", TABLE)
    mode(control)
    control.tell_again()
    assert (mode(control), len(control.notices)) == ("hybrid", 1), "the first decision is still to be told"
    control.notices.clear()
    control.tell_again()
    assert (mode(control), mode(control)) == ("hybrid", "hybrid")
    assert [(notice.kind, notice.decision) for notice in control.notices] == [("decision", 1)]
    assert control.notices[0].text.startswith("hybrid goes on: ")


def test_plans_of_before_a_restoration_are_not_told() -> None:
    """They have the first engine's epochs, which an operator's change may have had."""
    successor = Control("auto", TABLE)
    mode(successor)
    successor.restore(FrontHello("front", 7, "split:3"))
    successor.tell_again()
    mode(successor)
    assert [(notice.kind, notice.epoch, notice.decision) for notice in successor.notices] == [("decision", 7, 2)]
    assert "split 3/1 (was hybrid)" in successor.notices[0].text


def test_predictions_need_a_profile_and_say_what_is_illegal() -> None:
    control = Control("auto", TABLE)
    legal = control.predict(Predict(1, PlanRequest(mode="split", decode_units=1)), state())
    assert (legal.legal, legal.prefill_units, legal.itl_p95_s) == (True, 3, None)
    assert "no profile" in legal.note
    assert not control.predict(Predict(1, PlanRequest(mode="split", decode_units=9)), state()).legal
    assert (control.epoch, control.notices) == (0, [])


def test_predictions_are_of_the_load_at_this_moment() -> None:
    device = PartitionTable(units_total=TOTAL, unit_name="SM", splits=SPLITS)
    control = Control("auto", device)
    control.know(Predictor(cost_model()))
    busy = replace(
        state(), units_total=TOTAL, splits=SPLITS, num_decoding=32, decode_tokens=40_000, prefill_tokens=8192
    )
    narrow, wide = (
        control.predict(Predict(1, PlanRequest(mode="split", decode_units=units)), busy) for units in (24, 64)
    )
    assert (narrow.itl_p95_s or 0.0) > (wide.itl_p95_s or 1.0)
    assert (narrow.ttft_p95_s or 9.0) < (wide.ttft_p95_s or 0.0)
    assert (narrow.breaches_slo, narrow.prefill_units) == (False, 108)
    strict = replace(busy, itl_slo_s=0.012)
    assert control.predict(Predict(1, PlanRequest(mode="split", decode_units=24)), strict).breaches_slo
    hurried = replace(busy, needed_tokens_per_s=40_000.0)
    assert control.predict(Predict(1, PlanRequest(mode="split", decode_units=64)), hurried).breaches_slo


@pytest.mark.parametrize(
    "plan",
    [
        PlanRequest(mode="hybrid", chunk=1024),
        PlanRequest(mode="hybrid"),
        PlanRequest(mode="shared"),
        PlanRequest(mode="split", decode_units=24),
        PlanRequest(mode="serial", chunk="all"),
    ],
)
def test_predictions_are_of_the_chunks_that_memory_leaves(plan: PlanRequest) -> None:
    """After a batch ran out of memory they were of chunks that no batch could hold any more."""
    control = Control("auto", PartitionTable(units_total=TOTAL, unit_name="SM", splits=SPLITS))
    control.know(Predictor(cost_model()))
    free = replace(BUSY, itl_slo_s=0.05)
    whole, bounded = (
        control.predict(Predict(1, plan), replace(free, max_chunk_tokens=most)) for most in (free.max_chunk_tokens, 64)
    )
    assert (bounded.prefill_tokens_per_s or 1e9) < 0.7 * (whole.prefill_tokens_per_s or 0.0)
    assert (bounded.ttft_p95_s or 0.0) > (whole.ttft_p95_s or 1e9)


def undo(control: Control, now_s: int = 0, if_epoch: int | None = None) -> ControlDone:
    return control.undo(Undo(9, "bo", if_epoch), now_s * SECOND)


def test_undo_brings_back_what_the_last_change_replaced_and_undone_again_it_is_redone() -> None:
    control = Control("auto", TABLE)
    assert undo(control).code == "not_found"
    split(control, units=1)
    split(control, units=3)
    assert "instead of ana's split 1/3" in control.notices[-1].text
    assert undo(control).epoch == 3
    assert mode(control) == "split 1/3"
    undo(control)
    assert mode(control) == "split 3/1"
    release(control)
    undo(control)
    assert mode(control) == "split 3/1"
    control.set_policy(SetPolicy(3, "shared", "ana", None))
    undo(control)
    assert (control.policy, mode(control)) == ("auto", "split 3/1")


def test_undo_says_what_it_brought_back_and_an_override_without_an_end_has_none_again() -> None:
    control = Control("hybrid:32", TABLE)
    control.set_policy(SetPolicy(3, "shared", "ana", None))
    undo(control)
    assert control.notices[-1].text == "bo: back to policy hybrid:32"
    assert mode(control) == "hybrid:32"
    split(control, ttl_s=None)
    release(control)
    undo(control)
    assert control.notices[-1].text == "bo: back to policy hybrid:32 and ana's split 2/2"
    assert mode(control, 10**6) == "split 2/2"


def test_the_guard_of_an_override_that_comes_back_starts_anew() -> None:
    """What it had seen before it was replaced counted, and its first breach after that ended it."""
    control = Control("auto", TABLE)
    split(control, units=1)
    control.observe(SloReport(1.6, None), SECOND)
    release(control)
    undo(control, 20)
    control.observe(SloReport(1.6, None), 21 * SECOND)
    assert control.override is not None
    control.observe(SloReport(1.6, None), 21 * SECOND + GUARD_NS)
    assert control.override is None


def test_undo_does_not_bring_back_an_override_whose_time_is_over_nor_act_on_a_stale_epoch() -> None:
    control = Control("auto", TABLE)
    split(control, ttl_s=10.0)
    release(control)
    assert undo(control, 5, if_epoch=1).code == "epoch_conflict"
    assert undo(control, 10).code is None
    assert control.override is None


def test_undoing_a_change_of_policy_does_not_bring_back_what_the_guard_released_since() -> None:
    """The split that had broken the objectives stood again, for the ten seconds that its guard needs."""
    control = Control("auto", TABLE)
    split(control, units=1, ttl_s=None)
    control.set_policy(SetPolicy(3, "shared", "bo", None))
    for second in (1, 12):
        control.observe(SloReport(1.6, None), second * SECOND)
    assert control.override is None
    assert undo(control, 13).code is None
    assert (control.policy, control.override) == ("auto", None)


def test_what_an_override_replaced_comes_back_when_its_guard_released_it() -> None:
    control = Control("auto", TABLE)
    split(control, units=1, ttl_s=None)
    split(control, units=3, ttl_s=None)
    for second in (1, 12):
        control.observe(SloReport(1.6, None), second * SECOND)
    assert control.override is None
    undo(control, 13)
    assert mode(control, 13) == "split 1/3"


def test_the_guard_of_an_override_of_before_the_engine_began_releases_it_too() -> None:
    control = Control("auto", TABLE)
    split(control, ttl_s=None)
    successor = Control("auto", TABLE)
    successor.restore(FrontHello("front", control.epoch, None, control.override_info(0), 0))
    for second in (1, 12):
        successor.observe(SloReport(1.6, None), second * SECOND)
    assert (successor.override, successor.epoch) == (None, 2)


def test_the_place_counts_from_when_mode_units_or_pause_changed_and_the_units_from_their_own_change() -> None:
    """And with the load of that moment: a policy goes by both, so that it does not move with every step."""
    control = Control("auto", TABLE)
    plans = [Plan("hybrid", 4, 4, chunk) for chunk in (None, 64, 0, 64)] + [Plan("split", 1, 3, None)]
    following = iter(plans)
    control._decide = lambda state: next(following)
    since = []
    for now in range(1, len(plans) + 1):
        control.decide(replace(state(), num_decoding=now, prefill_tokens=now % 2), now)
        since.append((control.place_since_ns, control.moved_since_ns, control.place_rows, control.place_backlog))
    assert since == [(1, 1, 1, True), (1, 1, 1, True), (3, 1, 3, True), (4, 1, 4, False), (5, 5, 5, True)]


def test_an_operators_change_is_a_decision_where_it_changes_the_work() -> None:
    control = Control("hybrid:32", TABLE)
    mode(control)
    for chunk in (32, 64):
        control.set_plan(SetPlan(1, PlanRequest(mode="hybrid", chunk=chunk), None, False, "", "ana", None), 0)
        mode(control)
    decisions = [notice for notice in control.notices if notice.kind == "decision"]
    assert [(notice.text, notice.source) for notice in decisions] == [
        ("hybrid:32: policy hybrid:32", "policy"),
        ("hybrid:64 (was hybrid:32): override by ana", "operator"),
    ]


def test_a_policys_new_chunk_is_followed_without_a_decision() -> None:
    """Chunks follow the load from tick to tick: as decisions they would push everything else out of the log."""
    control = Control("auto", TABLE)
    chunks = iter((64, 128, 192))
    control._decide = lambda state: Plan("hybrid", 4, 4, next(chunks))
    assert [control.decide(state(), now).chunk for now in (1, 2, 3)] == [64, 128, 192]
    assert (control.decision, control.plan_since_ns, len(control.notices)) == (1, 1, 1)
