"""The request table: order, filter and columns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from rapidctl.console.widgets.rows import COLUMNS, FilterError, Order, arrange, draw, head, parse_filter, row_id
from rapidctl.wire import RequestRow
from support.snapshots import rows

ROWS = rows(0)


def ids(found: list[RequestRow]) -> list[str]:
    return [row_id(row) for row in found]


some_rows = st.lists(
    st.builds(
        lambda number, choice, age, ttft: replace(ROWS[0], id=f"r-{number}", choice=choice, age_s=age, ttft_s=ttft),
        st.integers(0, 99),
        st.integers(0, 3),
        st.floats(0, 100),
        st.none() | st.floats(0, 10),
    ),
    unique_by=row_id,
)


@given(some_rows, st.integers(0, len(COLUMNS) - 1), st.booleans(), st.randoms())
def test_order_is_total_and_does_not_depend_on_the_order_of_arrival(found, column, reverse, random) -> None:  # type: ignore[no-untyped-def]
    order = Order(column, reverse)
    arranged = arrange(found, [], order)
    random.shuffle(found)
    assert arrange(found, [], order) == arranged
    known = [value for row in arranged if (value := COLUMNS[column].value(row)) is not None]
    assert known == sorted(known, reverse=reverse)
    assert all(COLUMNS[column].value(row) is None for row in arranged[len(known) :])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["r-8f001", "r-8f002", "r-8f003", "r-8f004", "r-8f005"]),
        ("phase:dec", ["r-8f001", "r-8f002", "r-8f003"]),
        ("phase:dec client~ana", ["r-8f001"]),
        ("prompt>2000 age<17", ["r-8f004", "r-8f005"]),
        ("batch", ["r-8f002", "r-8f005"]),
        ("id=r-8f004", ["r-8f004"]),
    ],
)
def test_filters(text: str, expected: list[str]) -> None:
    assert sorted(ids(arrange(ROWS, parse_filter(text), Order()))) == expected


@pytest.mark.parametrize(("text", "words"), [("nope:x", "no field 'nope'"), ("age>old", "compares with a number")])
def test_a_bad_filter_says_what_would_do(text: str, words: str) -> None:
    with pytest.raises(FilterError, match=words):
        parse_filter(text)


@pytest.mark.parametrize("width", [40, 56, 60, 76, 78, 110, 116, 200])
@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_columns_line_up_with_their_heads(width: int, row: RequestRow) -> None:
    names, cells = head(width, Order()).plain, draw(row, width).plain
    assert len(names) == len(cells) <= max(width, 50)
    end = names.index("PROMPT") + len("PROMPT")
    assert cells[:end].endswith(str(row.prompt_tokens))


def test_choices_of_one_request_are_told_apart() -> None:
    assert row_id(replace(ROWS[0], choice=2)) == "r-8f001#2"
    assert draw(replace(ROWS[0], choice=2), 116).plain.startswith("r-8f001#2")


def test_a_hostile_client_name_cannot_break_the_table() -> None:
    drawn = draw(replace(ROWS[0], client="\x1b[2J\n名前名前名前名前名前名前"), 116)
    assert "\x1b" not in drawn.plain
    assert drawn.cell_length == draw(ROWS[0], 116).cell_length


def test_what_is_unknown_is_a_dash() -> None:
    assert draw(ROWS[4], 116).plain.count("—") == 3
