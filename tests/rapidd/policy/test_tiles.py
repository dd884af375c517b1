"""Chunk sizes that leave no tile of a product, and no captured batch, part empty."""

from hypothesis import given
from hypothesis import strategies as st

from rapidd.policy.tiles import MIXED_ROWS, TILE_TOKENS, beside_rows, padded_rows, whole_tiles

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


@given(TOKENS, ROWS)
def test_a_chunk_beside_rows_is_the_longest_that_fills_whole_tiles_with_them(tokens: int, rows: int) -> None:
    held, chunk = padded_rows(rows), beside_rows(tokens, rows)
    fitting = [total - held for total in range(TILE_TOKENS, tokens + held + 1, TILE_TOKENS) if total > held]
    assert chunk == (fitting[-1] if fitting else tokens)


def test_rows_take_their_part_of_the_last_tile() -> None:
    assert [beside_rows(512, rows) for rows in (1, 16, 17, 65)] == [496, 496, 480, 480]
