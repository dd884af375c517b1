"""Cells: exact widths, unknown is a dash, nothing from outside can drive the terminal."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from rapidctl.console.text import (
    bar,
    chart,
    clip,
    decimal,
    fit,
    milliseconds,
    nice_ceiling,
    sparks,
    unit_map,
)
from rapidctl.out import printable

values = st.lists(st.none() | st.floats(0, 1000), max_size=80)


@given(st.text(), st.booleans())
def test_printable_text_holds_no_control_code(text: str, lines: bool) -> None:
    safe = printable(text, lines=lines)
    assert all(unicodedata.category(char) not in ("Cc", "Cf", "Cs") or (lines and char == "\n") for char in safe)


def test_escape_sequences_and_direction_overrides_lose_their_teeth() -> None:
    assert printable("a\x1b[2Jb\x9b1mc\u202ed\r\ne\tf") == "a[2Jb1mcd e f"
    assert printable("a\r\nb\tc\x00", lines=True) == "a\nb    c"


@given(st.text(), st.integers(1, 40))
def test_clipped_text_fits_and_fitted_text_is_exact(text: str, width: int) -> None:
    assert cell_len(clip(text, width)) <= width
    assert cell_len(fit(text, width)) == width


@given(st.none() | st.floats(-1, 3), st.integers(1, 100))
def test_bars_have_their_width(share: float | None, width: int) -> None:
    assert len(bar(share, width)) == width


def test_bars_show_eighths_and_unknown_is_not_empty() -> None:
    assert bar(0.5, 4) == "██░░"
    assert bar(0.5625, 4) == "██▎░"
    assert bar(0.0, 4) == "░░░░"
    assert bar(None, 4) == "····"


@given(values, st.floats(0.1, 1000), st.integers(1, 8))
def test_charts_are_rectangles(found: list[float | None], top: float, rows: int) -> None:
    drawn = chart(found, top, rows)
    assert [len(row) for row in drawn] == [len(found)] * rows
    assert len(sparks(found, top)) == len(found)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_value_never_draws_a_lower_bar(one: float, other: float) -> None:
    low, high = sorted((one, other))
    heights = [sum(" ▁▂▃▄▅▆▇█".index(cell) for row in chart([value], 1.0, 4) for cell in row) for value in (low, high)]
    assert heights[0] <= heights[1]


def test_charts_have_a_fixed_axis_and_mark_what_leaves_it() -> None:
    assert chart([0.0, 0.5, 1.0, 1.2, None], 1.0, 2) == ["  █! ", "▁███ "]


def test_sparks_tell_zero_from_unknown() -> None:
    assert sparks([None, 0, 4, 8], 8) == " ▁▄█"


@pytest.mark.parametrize(("peak", "top"), [(0, 8), (8, 8), (9, 16), (100, 128)])
def test_the_axis_of_counts_seldom_changes(peak: int, top: int) -> None:
    assert nice_ceiling(peak) == top


def test_numbers() -> None:
    assert [milliseconds(value) for value in (None, 0.0033, 0.0312, 1.49)] == ["—", "3.3", "31", "1490"]
    assert [decimal(None), decimal(12.25)] == ["—", "12.2"]


def test_the_unit_map_keeps_its_letters_whatever_the_colours() -> None:
    assert unit_map("DDPPB·").plain == "DDPPB·"
    assert len(unit_map("D" * 100 + "P" * 100).spans) == 2
