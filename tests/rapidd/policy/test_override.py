"""Control state: epochs, overrides with an end, guards, and two operators who cannot overwrite each other unseen."""

import pytest
from msgspec.structs import replace

from rapidctl.wire import PlanRequest
from rapidd.ipc import Predict, SetPlan, SetPolicy, SloReport
from rapidd.partition.table import PartitionTable
from rapidd.policy.options import Predictor
from rapidd.policy.override import BOUNDS, GUARD_NS, Control
from rapidd.policy.plan import Plan
from support.control import SECOND, TABLE, mode, release, split, state
from support.h100 import BUSY, SPLITS, TOTAL, cost_model


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
    assert control.foresees <= foreseen, "before there is a plan"
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


def test_the_bounds_of_overrides_are_the_documented_ones() -> None:
    assert (BOUNDS.guard_itl, BOUNDS.guard_ttft, BOUNDS.guard_after_s, BOUNDS.change_every_s) == (1.5, 2.0, 10.0, 2.0)


@pytest.mark.parametrize("name", ["itl", "ttft"])
@pytest.mark.parametrize(("beyond", "held"), [(0.0, True), (0.01, False)])
def test_the_published_bounds_are_what_the_guard_goes_by(name: str, beyond: float, held: bool) -> None:
    control = Control("auto", TABLE)
    split(control)
    itl, ttft = BOUNDS.guard_itl + beyond, BOUNDS.guard_ttft + beyond
    report = SloReport(itl, None) if name == "itl" else SloReport(None, ttft)
    end_ns = int(BOUNDS.guard_after_s * SECOND)
    control.observe(report, 0)
    control.observe(report, end_ns - 1)
    assert control.override is not None
    control.observe(report, end_ns)
    assert (control.override is not None) is held


@pytest.mark.parametrize("report", [SloReport(None, 2.1), SloReport(1.51, None)])
def test_without_a_guard_a_breach_is_the_operators_business(report: SloReport) -> None:
    control = Control("auto", TABLE)
    split(control, guard=False)
    for second in range(30):
        control.observe(report, second * SECOND)
    assert control.override is not None


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
    assert (narrow.legal, narrow.breaches_slo, narrow.prefill_units) == (True, False, 108)
    assert (narrow.ttft_p95_s or 0.0) > 8192 / (narrow.prefill_tokens_per_s or 1.0), "after all that wait now"
    strict = replace(busy, itl_slo_s=0.012)
    assert control.predict(Predict(1, PlanRequest(mode="split", decode_units=24)), strict).breaches_slo
    hurried = replace(busy, needed_tokens_per_s=40_000.0)
    assert control.predict(Predict(1, PlanRequest(mode="split", decode_units=64)), hurried).breaches_slo
    just = replace(busy, itl_slo_s=wide.itl_p95_s or 0.0, needed_tokens_per_s=wide.prefill_tokens_per_s or 0.0)
    assert not control.predict(Predict(1, PlanRequest(mode="split", decode_units=64)), just).breaches_slo


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
