"""Numbers of rows that decode steps are captured for."""

import pytest

from rapidd.engine.graphs import bucket_for, buckets


@pytest.mark.parametrize(
    ("max_rows", "wanted"),
    [
        (1, (1,)),
        (3, (1, 2, 3)),
        (64, (1, 2, 4, 8, 16, 24, 32, 48, 64)),
        (600, (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 600)),
    ],
)
def test_buckets_end_with_the_most_rows_there_can_be(max_rows: int, wanted: tuple[int, ...]) -> None:
    assert buckets(max_rows) == wanted


def test_a_batch_takes_the_smallest_bucket_that_holds_it() -> None:
    sizes = buckets(64)
    assert [bucket_for(rows, sizes) for rows in (1, 3, 4, 33, 64)] == [1, 4, 4, 48, 64]
