"""A batch's description, and the public surface of the package."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rapid_kernels
from rapid_kernels import DUMMY_BLOCK, CacheLayout, make_ragged, select


def test_public_surface() -> None:
    assert sorted(rapid_kernels.__all__) == [
        "CacheLayout",
        "DUMMY_BLOCK",
        "KVCache",
        "Kernels",
        "Matrix",
        "Ragged",
        "RopeTable",
        "Scratch",
        "make_ragged",
        "select",
    ]
    assert all(hasattr(rapid_kernels, name) for name in rapid_kernels.__all__)


def test_a_mixed_batch_token_by_token() -> None:
    ragged = make_ragged([1, 4, 1], [10, 4, 6], [[7, 3, 5, 9], [2], [4, 8]], block_tokens=4, units=3)
    assert ragged.positions.tolist() == [9, 0, 1, 2, 3, 5]
    assert ragged.slot_mapping.tolist() == [5 * 4 + 1, 8, 9, 10, 11, 8 * 4 + 1]
    assert ragged.block_tables.tolist() == [[7, 3, 5], [2, 0, 0], [4, 8, 0]]
    assert ragged.query_start.tolist() == ragged.query_start_cpu == [0, 1, 5, 6]
    assert ragged.kv_lens.tolist() == ragged.kv_lens_cpu == [10, 4, 6]
    assert (ragged.num_rows, ragged.num_tokens, ragged.units) == (3, 6, 3)
    assert ragged.positions.dtype == ragged.slot_mapping.dtype == torch.int64
    assert ragged.block_tables.dtype == ragged.query_start.dtype == ragged.kv_lens.dtype == torch.int32
    assert DUMMY_BLOCK == 0


@pytest.mark.parametrize(
    ("query_lens", "num_decode"), [([1], 1), ([4], 0), ([1, 1, 1], 3), ([1, 1, 4, 1], 2), ([2, 1], 0)]
)
def test_decode_rows_are_the_leading_rows_with_one_new_token(query_lens: list[int], num_decode: int) -> None:
    ragged = make_ragged(query_lens, [9] * len(query_lens), [[1, 2, 3]] * len(query_lens), block_tokens=4, units=1)
    assert ragged.num_decode == ragged.num_decode == num_decode


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_every_tensor_starts_at_16_bytes(rows: int) -> None:
    """Triton compiles a kernel anew for another alignment: no batch may make it do so while it serves."""
    ragged = make_ragged([3] * rows, [5] * rows, [[1, 2]] * rows, block_tokens=4, units=1)
    for tensor in (ragged.positions, ragged.slot_mapping, ragged.block_tables, ragged.query_start, ragged.kv_lens):
        assert tensor.data_ptr() % 16 == 0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=8), st.integers(1, 17))
def test_every_token_has_its_position_and_slot(rows: list[tuple[int, int]], block_tokens: int) -> None:
    # Huge block ids: a slot is more than 32 bits.
    tables = [[2**30 + 1000 * r + i for i in range(101)] for r in range(len(rows))]
    ragged = make_ragged([new for _, new in rows], [old + new for old, new in rows], tables, block_tokens, units=1)
    expected = [
        (p, tables[r][p // block_tokens] * block_tokens + p % block_tokens)
        for r, (old, new) in enumerate(rows)
        for p in range(old, old + new)
    ]
    assert list(zip(ragged.positions.tolist(), ragged.slot_mapping.tolist(), strict=True)) == expected


@pytest.mark.parametrize(
    ("query_lens", "kv_lens", "tables"),
    [([], [], []), ([0], [4], [[1]]), ([5], [4], [[1, 2]]), ([1, 1], [4], [[1]]), ([1], [5], [[1]])],
)
def test_contradictions_are_refused(query_lens: list[int], kv_lens: list[int], tables: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"fit together|need"):
        make_ragged(query_lens, kv_lens, tables, block_tokens=4, units=1)


def test_cache_has_the_size_it_says() -> None:
    layout = CacheLayout(3, 5, 16, 2, 8, torch.bfloat16)
    cache = select("cpu").allocate_cache(layout)
    assert len(cache.layers) == 3
    assert cache.layers[0].shape == (5 * 16, 2, 2, 8)
    assert sum(layer.nbytes for layer in cache.layers) == 5 * layout.bytes_per_block
