"""Chunk sizes that leave no tile of a product, and no captured batch, part empty."""

from hypothesis import given
from hypothesis import strategies as st

from rapidd.policy.tiles import (
    MIXED_ROWS,
    MIXED_TOTALS,
    ODD_TOTAL,
    TILE_TOKENS,
    beside_rows,
    padded_rows,
    padded_total,
    whole_tiles,
)

TOKENS = st.integers(1, 4096)
ROWS = st.integers(1, 300)


@given(TOKENS)
def test_a_chunk_alone_is_the_longest_of_whole_tiles(tokens: int) -> None:
    chunk = whole_tiles(tokens)
    assert tokens - TILE_TOKENS < chunk <= tokens
    assert chunk % TILE_TOKENS == 0 or chunk == tokens < TILE_TOKENS


@given(ROWS)
def test_rows_are_padded_to_the_fewest_that_hold_them(rows: int) -> None:
    held = padded_rows(rows)
    assert held >= rows
    assert not any(rows <= count < held for count in MIXED_ROWS)
    assert held in MIXED_ROWS or held == rows > MIXED_ROWS[-1]


def totals(most: int) -> list[int]:
    """Every total that a mixed batch may have, up to ``most``."""
    return [total for total in range(TILE_TOKENS, most + 1, TILE_TOKENS) if total <= ODD_TOTAL or total % 128 == 0]


@given(TOKENS, ROWS)
def test_a_chunk_beside_rows_is_the_longest_that_fills_a_total_with_them(tokens: int, rows: int) -> None:
    held, chunk = padded_rows(rows), beside_rows(tokens, rows)
    fitting = [total - held for total in totals(tokens + held) if total > held]
    assert chunk == (fitting[-1] if fitting else tokens)


@given(TOKENS)
def test_a_batch_is_padded_to_the_next_total(tokens: int) -> None:
    padded = padded_total(tokens)
    assert padded in totals(tokens + 128)
    assert not any(tokens <= total < padded for total in totals(tokens + 128))


def test_beyond_384_tokens_no_batch_is_an_odd_number_of_tiles_long() -> None:
    """A batch of 448 tokens took 16.8 ms on an H200 where one of 512 took 13.7, so prompts were late that had gone in
    chunks of 432."""
    assert MIXED_TOTALS == (64, 128, 192, 256, 320, 384, 512, 640, 768, 896, 1024)


def test_rows_take_their_part_of_the_last_tile() -> None:
    assert [beside_rows(512, rows) for rows in (1, 16, 17, 65)] == [496, 496, 480, 416]
