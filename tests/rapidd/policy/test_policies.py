"""Policies by name: what they accept, what they plan, what they say when they cannot."""

import pytest

from rapidctl.wire import PlanRequest
from rapidd.policy.plan import Plan, State
from rapidd.policy.policies import NO_PROFILE, fixed, make, parse


def state(units_total: int = 8, splits: tuple[int, ...] = (2, 4, 6)) -> State:
    return State(
        units_total=units_total,
        splits=splits,
        num_decoding=3,
        prefill_tokens=100,
        running=None,
        running_age_s=0.0,
    )


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("serial:256", ("serial", 8, 8, 256)),
        ("serial:all", ("serial", 8, 8, "all")),
        ("hybrid", ("hybrid", 8, 8, None)),
        ("hybrid:512", ("hybrid", 8, 8, 512)),
        ("shared", ("shared", 8, 8, None)),
        ("shared:64", ("shared", 8, 8, 64)),
        ("split:2", ("split", 2, 6, None)),
        ("auto", ("hybrid", 8, 8, None)),
    ],
)
def test_a_name_gives_its_plan(text: str, plan: tuple[object, ...]) -> None:
    got = make(text, 8, (2, 4, 6))(state())
    assert (got.mode, got.decode_units, got.prefill_units, got.chunk) == plan


@pytest.mark.parametrize(
    "text",
    ["", "fast", "serial", "serial:", "serial:0", "split", "split:x", "hybrid:-1", "hybrid:1:2", "auto:1", "AUTO"],
)
def test_other_names_are_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(ValueError, match="use auto, rapid, atom, pdmux, serial:N"):
        parse(text)


def test_auto_without_a_profile_says_so() -> None:
    assert make("auto", 8, ())(state()).reason == NO_PROFILE


@pytest.mark.parametrize(
    ("request_", "splits", "message"),
    [
        (PlanRequest(mode="split", decode_units=3), (2, 4), "3 decode units are not a legal split here; legal: 2, 4"),
        (PlanRequest(mode="split", decode_units=2), (), "cannot be partitioned"),
        (PlanRequest(mode="hybrid", decode_units=2), (2,), "decode units belong to split"),
        (PlanRequest(mode="hybrid", chunk="all"), (2,), "serial mode only"),
    ],
)
def test_illegal_plans_are_explained(request_: PlanRequest, splits: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fixed(request_, 8, splits, "")


def test_a_split_without_decode_units_is_the_most_even_one() -> None:
    assert fixed(PlanRequest(mode="split"), 8, (2, 4, 6), "").describe() == "split 4/4"
    assert fixed(PlanRequest(mode="split"), 132, (16, 24, 48, 96), "").decode_units == 48


def test_plans_describe_themselves_as_an_operator_writes_them() -> None:
    assert Plan("split", 2, 6, None).describe() == "split 2/6"
    assert Plan("serial", 8, 8, "all").describe() == "serial:all"
