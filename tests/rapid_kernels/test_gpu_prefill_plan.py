"""Which tiles a batch's prompt chunks are cut into."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("triton", reason="triton is not installed: its kernels cannot be imported")

from rapid_kernels import make_ragged
from rapid_kernels.gpu.prefill import make_prompt_plan, padded_sizes

CHUNKS = st.lists(st.tuples(st.integers(0, 300), st.integers(2, 150)), min_size=1, max_size=6)


@given(decode=st.lists(st.integers(0, 100), max_size=4), chunks=CHUNKS, tile_tokens=st.sampled_from([4, 16, 64]))
def test_every_chunk_token_is_in_one_tile_at_its_position(
    decode: list[int], chunks: list[tuple[int, int]], tile_tokens: int
) -> None:
    rows = [(cached, 1) for cached in decode] + chunks
    lens = [cached + new for cached, new in rows]
    tables = [[1] * -(-length // 16) for length in lens]
    plan = make_prompt_plan(make_ragged([new for _, new in rows], lens, tables, 16, 8), tile_tokens)
    seen = {}
    for first, count, position, row in plan.tiles.tolist():
        assert 1 <= count <= tile_tokens
        for offset in range(count):
            assert first + offset not in seen
            seen[first + offset] = (row, position + offset)
    wanted = [(row, cached + i) for row, (cached, new) in enumerate(chunks, len(decode)) for i in range(new)]
    assert [seen[token] for token in range(len(wanted))] == wanted


def test_the_tiles_with_the_most_keys_start_first() -> None:
    plan = make_prompt_plan(make_ragged([40, 40], [40, 540], [[1] * 3, [2] * 34], 16, 8), 16)
    positions = [tile[2] for tile in plan.tiles.tolist()]
    assert positions == sorted(positions, reverse=True)


@pytest.mark.parametrize(("group", "dim"), [(17, 64), (4, 257)])
def test_shapes_beyond_the_kernels_are_refused(group: int, dim: int) -> None:
    with pytest.raises(ValueError, match="at most 16 query heads a KV head and head size 256"):
        padded_sizes(group, dim)
