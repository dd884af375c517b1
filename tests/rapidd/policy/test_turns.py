"""Lanes that take turns on all units: what steps wait for chunks, and what they leave them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapidd.policy.cost import CostModel
from rapidd.policy.curve import Curve
from rapidd.policy.turns import LEAST_LEFT, ChunkBeside, StepBeside, Turns, fit_turns
from support.profiles import PROFILE

ROWS = (1, 16, 64, 96, 256)
LAW = Turns(1.2, Curve(ROWS, [3e-3, 3e-3, 4e-3, 16e-3, 27e-3]), 0.95)
ALONE = ((1, 4e-3), (1, 6e-3), (16, 5e-3), (64, 6e-3), (96, 8e-3), (256, 8e-3), (256, 26e-3))
"""Rows, and seconds of a step alone."""

quick = settings(deadline=None, max_examples=100, derandomize=True)
alone = st.floats(1e-3, 0.1)
laws = st.builds(
    lambda factor, values, share: Turns(factor, Curve(ROWS, sorted(values)), share),
    st.floats(1.0, 2.0),
    st.lists(st.floats(0.0, 0.05), min_size=len(ROWS), max_size=len(ROWS)),
    st.floats(0.0, 1.0),
)


def steps(law: Turns) -> list[StepBeside]:
    return [StepBeside(rows, seconds, law.step_s(rows, seconds)) for rows, seconds in ALONE]


def chunks(law: Turns) -> list[ChunkBeside]:
    return [ChunkBeside(rows, seconds, law.slowdown(rows, seconds)) for rows, seconds in ALONE]


def test_a_device_that_follows_the_law_is_found_out() -> None:
    found = fit_turns(steps(LAW), chunks(LAW))
    for rows, seconds in (*ALONE, (32, 5e-3), (200, 0.02)):
        assert found.step_s(rows, seconds) == pytest.approx(LAW.step_s(rows, seconds), rel=0.01)
        assert found.slowdown(rows, seconds) == pytest.approx(LAW.slowdown(rows, seconds), rel=0.02)


def test_where_nothing_was_measured_each_lane_has_half_of_the_time() -> None:
    found = fit_turns([], [])
    assert found.step_s(8, 0.01) == 0.02
    assert found.slowdown(8, 0.01) == 2.0


def test_steps_of_nearly_one_length_tell_of_no_factor() -> None:
    """Of a few percent between them noise makes a factor of four, by which long steps would wait in proportion."""
    near = [StepBeside(1, 4.0e-3, 7.0e-3), StepBeside(1, 4.2e-3, 7.8e-3), StepBeside(256, 8e-3, 35e-3)]
    found = fit_turns(near, [])
    assert found.factor == 1.0
    assert found.step_s(1, 40e-3) == pytest.approx(43e-3, rel=0.01)
    assert found.step_s(256, 26e-3) == pytest.approx(53e-3), "as an H200 does: 51.6 ms"


def test_of_one_number_of_rows_others_wait_in_proportion() -> None:
    """A line through what one row waits gave 256 rows 0.9 s."""
    found = fit_turns([StepBeside(1, 4e-3, 7.6e-3)], [ChunkBeside(1, 4e-3, 1.9)])
    assert found.step_s(256, 8e-3) == pytest.approx(15.2e-3)
    assert found.slowdown(256, 8e-3) == found.slowdown(1, 4e-3) == pytest.approx(1.9, rel=0.02)


def test_what_noise_would_add_is_left_out_where_one_factor_foretells_better() -> None:
    """Two CPU cores, calibrated for a minute: one row of 8,190 tokens was measured a quarter too long, all of which one
    row of 64 tokens was to wait, too: twice as long as it took."""
    rows = ((1, 30.4e-3, 59.4e-3), (64, 138e-3, 267e-3), (1, 80e-3, 202e-3), (64, 344e-3, 632e-3))
    found = fit_turns([StepBeside(*row) for row in rows], [])
    assert found.step_s(1, 30.4e-3) == pytest.approx(59.4e-3, rel=0.1)
    assert found.step_s(16, 58e-3) == pytest.approx(2 * 58e-3, rel=0.1)


def test_what_is_added_never_falls_with_rows() -> None:
    added = {1: 10e-3, 64: 3e-3, 96: 16e-3}
    found = fit_turns([StepBeside(n, own, own + added[n]) for n in added for own in (4e-3, 8e-3)], [])
    assert found.step_s(64, 6e-3) == pytest.approx(16e-3)
    assert found.step_s(96, 8e-3) == pytest.approx(24e-3)


def test_beside_steps_that_nobody_noted_chunks_take_as_long_as_was_measured() -> None:
    """Of profiles without the rows beside chunks nothing counted, and a chunk took 21 times as long where steps were
    hardly slower."""
    found = fit_turns([StepBeside(8, 10e-3, 10.5e-3)], [ChunkBeside(0, 0.0, 1.6), ChunkBeside(0, 0.0, 1.7)])
    assert found.slowdown(8, 10e-3) == pytest.approx(1.65, rel=0.02)


def test_rows_are_those_of_the_graph_that_holds_them() -> None:
    model = CostModel(msgspec.structs.replace(PROFILE, row_buckets=(1, 8, 32, 64)))
    assert model.decode_s(9, 5000, 4, True) == model.decode_s(32, 5000, 4, True) > model.decode_s(8, 5000, 4, True)
    assert model.prefill_s(64, 0, 4, True, 9, 5000) == model.prefill_s(64, 0, 4, True, 32, 5000)
    plain = CostModel(PROFILE)
    assert model.decode_s(32, 5000, 4, True) == pytest.approx(plain.decode_s(32, 5000, 4, True))


def test_what_steps_of_few_rows_leave_is_little_and_of_many_much() -> None:
    """As an H200 has it: one row beside prompts 7.6 ms for 4.0, 256 rows 35 for 7.6, whose kernels leave gaps."""
    found = fit_turns(
        [StepBeside(1, 4.05e-3, 7.59e-3), StepBeside(256, 7.58e-3, 35.1e-3)],
        [ChunkBeside(1, 4.05e-3, 1.81), ChunkBeside(256, 7.58e-3, 1.26)],
    )
    assert found.slowdown(256, 7.58e-3) < 1.4 < 1.7 < found.slowdown(1, 4.05e-3)
    assert 0.8 < found.share <= 1.0, "little runs at the same time"


@given(laws, st.integers(1, 300), st.integers(1, 300), alone, alone)
@quick
def test_longer_steps_of_more_rows_take_longer_beside_chunks(
    law: Turns, rows: int, more: int, seconds: float, longer: float
) -> None:
    assert seconds <= law.step_s(rows, seconds) <= law.step_s(rows + more, seconds) + 1e-12
    assert law.step_s(rows, seconds) <= law.step_s(rows, seconds + longer)


@given(laws, st.integers(1, 300), alone)
@quick
def test_chunks_get_on_beside_any_steps_and_are_no_faster_than_alone(law: Turns, rows: int, seconds: float) -> None:
    assert 1.0 <= law.slowdown(rows, seconds) <= 1 / LEAST_LEFT + 1e-9


@given(laws)
@quick
def test_what_was_measured_twice_is_predicted(law: Turns) -> None:
    """Behind a short and a long context."""
    seen = [StepBeside(n, own, law.step_s(n, own)) for n, first in ALONE for own in (first, 3 * first)]
    found = fit_turns(seen, chunks(law))
    for step in seen:
        assert found.step_s(step.rows, step.alone) == pytest.approx(step.beside, rel=0.02)
