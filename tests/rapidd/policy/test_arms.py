"""What others do: the paper's rule, ATOM's and SGLang's, at loads on both sides of their thresholds."""

import pytest
from msgspec.structs import replace

from rapidd.policy.arms import atom, pdmux, rapid
from rapidd.policy.options import Predictor
from support.h100 import BUSY, SPLITS, cost_model

PREDICT = Predictor(cost_model())


def test_rapid_over_allocates_while_a_step_beside_prompts_keeps_the_objective_on_all_units() -> None:
    assert rapid(replace(BUSY, itl_slo_s=0.05), PREDICT).mode == "shared"


def test_rapid_gives_decode_the_fewest_units_of_the_table_otherwise() -> None:
    state = replace(BUSY, itl_slo_s=0.0155)
    plan = rapid(state, PREDICT)
    steps = {units: PREDICT.at(state).beside("split", units).itl_s for units in SPLITS}
    assert plan.mode == "split"
    assert steps[plan.decode_units] <= 0.0155
    assert all(steps[units] > 0.0155 for units in SPLITS if units < plan.decode_units)


def test_rapid_gives_decode_the_most_units_when_none_are_enough() -> None:
    assert rapid(replace(BUSY, itl_slo_s=0.002), PREDICT).decode_units == SPLITS[-1]


@pytest.mark.parametrize(("rows", "described"), [(63, "shared"), (64, "split 64/68")])
def test_atom_masks_half_from_64_rows_on(rows: int, described: str) -> None:
    assert atom(replace(BUSY, num_decoding=rows)).describe() == described


@pytest.mark.parametrize(("rows", "units"), [(1, 16), (9, 24), (10, 32), (15, 48), (20, 64), (200, 64)])
def test_pdmux_looks_rows_up_in_the_documented_table(rows: int, units: int) -> None:
    assert pdmux(replace(BUSY, num_decoding=rows)).decode_units == units


@pytest.mark.parametrize("lonely", [{"num_decoding": 0}, {"prefill_tokens": 0}, {"splits": ()}])
def test_a_phase_that_is_alone_has_all_units(lonely: dict[str, object]) -> None:
    state = replace(BUSY, **lonely)
    assert {rapid(state, PREDICT).mode, pdmux(state).mode} == {"shared"}
