"""Counted work: against a count of every product and byte one by one, and by hand for the 8B shape."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from rapidd.config import ModelConfig
from rapidd.engine.batch import Batch, Row
from rapidd.engine.request import Request, SamplingParams
from rapidd.engine.work import Costs, Work
from rapidd.model.llama import tensor_shapes
from rapidd.model.resolve import load_model
from support.tiny import MODEL

TINY = load_model(ModelConfig(path=str(MODEL))).spec
LLAMA_8B = load_model(ModelConfig(weights="random", shape="llama-3.1-8b")).spec

Rows = list[tuple[int, int, bool]]
"""Start, count, whether it samples."""


def batch(rows: Rows, num_decode: int = 0) -> Batch:
    request = Request(1, array("I", [1]), array("I"), max_output=9, sampling=SamplingParams())
    made = [
        Row(request, 0, 1, start, count, [1], samples, 0, array("I"), 1, request.sampling)
        for start, count, samples in rows
    ]
    return Batch(1, "decode", 1, "hybrid", made, num_decode, sum(count for _, count, _ in rows[num_decode:]), 0)


def counted_one_by_one(rows: Rows, itemsize: int, windows: list[int | None]) -> Work:
    """The tiny model's products and bytes, from the shapes of its tensors."""
    shapes = tensor_shapes(TINY)
    head = shapes["model.embed_tokens.weight"]
    layers = {name: shape for name, shape in shapes.items() if name.startswith("model.layers")}
    in_layers = sum(shape[0] * shape[1] for shape in layers.values() if len(shape) == 2)
    norms = sum(shape[0] for shape in layers.values() if len(shape) == 1) + shapes["model.norm.weight"][0]
    tokens, samples = sum(count for _, count, _ in rows), [row for row in rows if row[2]]
    flops = 2 * tokens * in_layers + 2 * len(samples) * head[0] * head[1]
    moved = (in_layers + norms + tokens * head[1] + (head[0] * head[1] if samples else 0)) * itemsize
    for window in windows:
        for start, count, _ in rows:
            seen: set[int] = set()
            for query in range(start, start + count):
                keys = range(max(0, query - window + 1) if window else 0, query + 1)
                flops += len(keys) * TINY.num_heads * TINY.head_dim * 4
                seen |= set(keys)
            moved += (len(seen) + count) * 2 * TINY.num_kv_heads * TINY.head_dim * itemsize
    return Work(flops, moved)


@given(
    decode=st.lists(st.tuples(st.integers(0, 60), st.just(1), st.just(True)), max_size=3),
    rows=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30), st.booleans()), min_size=1, max_size=4),
    windows=st.lists(st.none() | st.integers(1, 50), min_size=TINY.num_layers, max_size=TINY.num_layers),
    itemsize=st.sampled_from([2, 4]),
)
def test_every_product_and_every_byte_is_counted_once(
    decode: Rows, rows: Rows, windows: list[int | None], itemsize: int
) -> None:
    costs = Costs.of(replace(TINY, windows=tuple(windows)), itemsize)
    every = decode + rows
    assert costs.count(batch(every, len(decode))) == counted_one_by_one(every, itemsize, windows)


def test_a_decode_step_of_the_8b_shape_reads_its_weights_and_its_cache() -> None:
    """15.0 GB of weights without the embedding's table, and 131,072 bytes a token of 64 contexts of 1,024."""
    work = Costs.of(LLAMA_8B, 2).count(batch([(1023, 1, True)] * 64, num_decode=64))
    assert work.bytes == pytest.approx(15.01e9 + 64 * 1024 * 131_072, rel=1e-3)
    assert work.flops == pytest.approx(64 * (2 * 7.505e9 + 1024 * 32 * 4 * 4096), rel=1e-3)


def test_a_chunk_that_does_not_sample_does_not_need_the_head() -> None:
    costs = Costs.of(LLAMA_8B, 2)
    last, other = (costs.count(batch([(0, 512, samples)])) for samples in (True, False))
    assert last.flops - other.flops == 2 * 128_256 * 4096
    assert last.bytes - other.bytes == 128_256 * 4096 * 2
