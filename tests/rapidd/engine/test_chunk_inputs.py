"""The inputs of a captured batch with prompt chunks: what `make_ragged` says of its rows, and padding around it."""

from array import array

import torch
from hypothesis import given
from hypothesis import strategies as st

from rapid_kernels import make_ragged
from rapidd.engine.batch import Batch, Row
from rapidd.engine.block_tables import BlockTables
from rapidd.engine.chunk_inputs import CHUNKS, ChunkInputs, size_for, sizes
from rapidd.engine.request import Request, SamplingParams
from rapidd.policy.tiles import CHUNK_ROWS, MIXED_TOTALS, beside_rows, padded_rows

BLOCK_TOKENS, WIDTH, STRIDE = 4, 40, 200
ROWS = st.tuples(
    st.lists(st.integers(0, 60), max_size=5),
    st.lists(st.tuples(st.integers(0, 60), st.integers(2, 20)), min_size=1, max_size=3),
)


def make_rows(lengths: list[tuple[int, int]]) -> list[Row]:
    """(tokens cached, new tokens) of each row; slots and blocks of their own."""
    rows = []
    for slot, (start, count) in enumerate(lengths, 1):
        request = Request(slot, array("I", [1] * (start + count)), array("I"), max_output=9, sampling=SamplingParams())
        blocks = [100 * slot + index for index in range(-(-(start + count) // BLOCK_TOKENS))]
        rows.append(
            Row(request, 0, slot, start, count, blocks, True, start, array("I"), start + count, request.sampling)
        )
    return rows


@given(ROWS)
def test_rows_stand_as_in_a_plain_batch_with_padding_between_and_behind(
    lengths: tuple[list[int], list[tuple[int, int]]],
) -> None:
    decode, chunks = lengths
    rows = make_rows([(start, 1) for start in decode] + chunks)
    inputs, tables = ChunkInputs((6, 64), STRIDE), BlockTables(8, WIDTH, BLOCK_TOKENS, torch.device("cpu"))
    tables.sync(rows)
    host = torch.full((inputs.nbytes,), 255, dtype=torch.uint8)
    inputs.fill(host, rows, len(decode), tables)
    positions, slot_mapping, source, starts, lens, cells = inputs.parts(host)
    counts = [row.count for row in rows]
    plain = make_ragged(counts, [row.start + row.count for row in rows], [row.blocks for row in rows], BLOCK_TOKENS, 1)

    n, tokens = len(decode), sum(count for _, count in chunks)
    real = [*range(n), *range(6, 6 + tokens)]
    assert positions[real].tolist() == plain.positions.tolist()
    assert slot_mapping[real].tolist() == plain.slot_mapping.tolist()
    slots = torch.tensor([row.slot for row in rows]).repeat_interleave(torch.tensor(counts))
    assert source[real].tolist() == (slots * STRIDE + plain.positions).tolist()
    padding = sorted(set(range(inputs.tokens)) - set(real))
    for part in (positions, slot_mapping, source, cells.at, cells.blocks):
        assert not part[padding].any()
    assert (cells.blocks * BLOCK_TOKENS + positions % BLOCK_TOKENS).tolist() == slot_mapping.tolist()
    assert cells.at[real].tolist() == (slots * WIDTH + plain.positions // BLOCK_TOKENS).tolist()

    assert starts[:7].tolist() == list(range(7))
    assert starts[6:].diff()[: len(chunks)].tolist() == [count for _, count in chunks]
    assert not starts[6:].diff()[len(chunks) :].any()
    real_rows = [*range(n), *range(6, 6 + len(chunks))]
    assert lens[real_rows].tolist() == plain.kv_lens.tolist()
    assert (lens[n:6] == 1).all()
    assert cells.slots[real_rows].tolist() == [row.slot for row in rows]
    assert cells.slots.count_nonzero() == len(rows), "padding has none"
    places = inputs.places(len(rows), n).tolist()
    assert places == real_rows
    assert positions[starts[1:][places].long() - 1].tolist() == [row.start + row.count - 1 for row in rows]


def batch(num_decode: int, chunks: list[int]) -> Batch:
    rows = make_rows([(5, 1)] * num_decode + [(0, count) for count in chunks])
    return Batch(1, "decode", 4, "hybrid", rows, num_decode, sum(chunks), 0)


def test_a_batch_takes_the_smallest_size_that_holds_it() -> None:
    mixed = sizes(40, mixed=True)
    assert size_for(batch(0, [3]), mixed) == (0, 64)
    assert size_for(batch(1, [49]), mixed) == (16, 112)
    assert size_for(batch(17, [200, 280]), mixed) == (32, 480)
    assert size_for(batch(17, [200, 281]), mixed) == (32, 608)
    assert size_for(batch(33, [2]), mixed) == (40, 24)
    assert size_for(batch(0, [129]), sizes(40, mixed=False)) == (0, 256)


@given(rows=st.integers(1, 64), fits=st.integers(64, 1100))
def test_a_chunk_that_was_sized_for_it_leaves_no_padding_behind_it(rows: int, fits: int) -> None:
    chunk = beside_rows(fits, rows)
    size = size_for(batch(rows, [chunk]), sizes(64, mixed=True))
    assert size == ((padded_rows(rows), chunk) if padded_rows(rows) + chunk <= MIXED_TOTALS[-1] else None)


def test_what_fits_no_size_is_launched_kernel_by_kernel() -> None:
    mixed, alone = sizes(40, mixed=True), sizes(40, mixed=False)
    assert size_for(batch(0, [CHUNKS[-1] + 1]), alone) is None
    assert size_for(batch(1, [MIXED_TOTALS[-1] - 15]), mixed) is None
    assert size_for(batch(0, [2] * (CHUNK_ROWS + 1)), mixed) is None
    assert size_for(batch(41, [2]), mixed) is None
    assert size_for(batch(1, [2]), alone) is None
    assert size_for(batch(0, [2]), []) is None


def test_the_largest_size_is_captured_first() -> None:
    """The memory of the others is then part of its own."""
    for mixed in (False, True):
        assert sizes(40, mixed=mixed)[0] == max(sizes(40, mixed=mixed), key=sum)


@given(st.integers(1, 1024))
def test_no_captured_batch_has_more_rows_than_tokens(num_slots: int) -> None:
    """The GPU's kernels take 1,024 rows: with 1,010 requests at once, 1,010 decode rows beside 14 tokens were 1,026."""
    found = sizes(num_slots, mixed=True)
    assert all(decode + CHUNK_ROWS <= decode + chunk <= MIXED_TOTALS[-1] for decode, chunk in found)


def test_chunks_alone_take_sizes_that_mixed_batches_have_too() -> None:
    """They share the inputs' layouts."""
    assert set(sizes(40, mixed=False)) < set(sizes(40, mixed=True))
