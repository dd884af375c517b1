"""The one definition of percentiles, against itself written out."""

from hypothesis import given
from hypothesis import strategies as st

from rapidctl.ranks import rank


@given(st.integers(1, 100), st.integers(1, 10_000))
def test_it_is_the_first_with_that_share_at_or_before_it(percent: int, count: int) -> None:
    index = rank(percent, count)
    assert 0 <= index < count
    assert 100 * (index + 1) >= percent * count
    assert index == 0 or 100 * index < percent * count


def test_no_share_is_the_first() -> None:
    assert rank(0, 10) == 0
