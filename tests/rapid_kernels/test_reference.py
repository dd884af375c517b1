"""Every kernel against an independent float64 computation, on ragged batches over shuffled, poisoned blocks."""

import itertools
import math
import random
import sys
import threading
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rapid_kernels import CacheLayout, Kernels, KVCache, Ragged, RopeTable, make_ragged, reference, select
from rapid_kernels.layout import Layout
from rapid_kernels.packed import is_intel, multiply, pack_as
from rapid_kernels.reference import LEAST_PIECES, PADDING_RATIO, QUERY_TILE, ReferenceKernels, _groups, rope_and_cache
from support.choices import wrong_choices
from support.process import run

BLOCK_TOKENS = 4
EPS = 1e-5


@dataclass
class Scene:
    """A batch, a cache that holds the earlier tokens of its sequences, and those sequences in float64."""

    kernels: Kernels
    ragged: Ragged
    cache: KVCache
    q: Tensor
    keys: list[Tensor]
    values: list[Tensor]


def make_scene(
    rows: list[tuple[int, int]], kv_heads: int, group: int, dim: int, seed: int, dtype: torch.dtype = torch.float32
) -> Scene:
    """rows: (tokens already cached, new tokens). Slots that no row has written hold NaN."""
    generator = torch.Generator().manual_seed(seed)
    kernels = select("cpu")
    counts = [-(-(cached + new) // BLOCK_TOKENS) for cached, new in rows]
    blocks = list(range(1, sum(counts) + 5))
    random.Random(seed).shuffle(blocks)
    tables = [[blocks.pop() for _ in range(count)] for count in counts]
    cache = kernels.allocate_cache(CacheLayout(2, sum(counts) + 5, BLOCK_TOKENS, kv_heads, dim, dtype))
    for layer in cache.layers:
        layer.fill_(math.nan)
    keys, values = [], []
    for (cached, new), table in zip(rows, tables, strict=True):
        kv = torch.randn((cached + new, 2, kv_heads, dim), generator=generator).to(dtype)
        for position, token in enumerate(kv):
            cache.layers[1][table[position // BLOCK_TOKENS] * BLOCK_TOKENS + position % BLOCK_TOKENS] = token
        keys.append(kv[:, 0].double())
        values.append(kv[:, 1].double())
    new_lens = [new for _, new in rows]
    ragged = make_ragged(new_lens, [sum(row) for row in rows], tables, BLOCK_TOKENS, units=2)
    q = torch.randn((sum(new_lens), kv_heads * group, dim), generator=generator).to(dtype)
    return Scene(kernels, ragged, cache, q, keys, values)


def exact_attention(scene: Scene, window: int | None) -> Tensor:
    """One query and one head at a time, straight from the definition."""
    out = torch.empty(scene.q.shape, dtype=torch.float64)
    group = scene.q.shape[1] // scene.keys[0].shape[1]
    starts = scene.ragged.query_start_cpu
    for row, (keys, values) in enumerate(zip(scene.keys, scene.values, strict=True)):
        for token in range(starts[row], starts[row + 1]):
            last = len(keys) - (starts[row + 1] - token)
            seen = slice(max(0, last + 1 - window) if window else 0, last + 1)
            for head in range(scene.q.shape[1]):
                logits = keys[seen, head // group] @ scene.q[token, head].double() / math.sqrt(scene.q.shape[2])
                out[token, head] = logits.softmax(0) @ values[seen, head // group]
    return out.flatten(1)


decode_row = st.tuples(st.integers(0, 40), st.just(1))
prompt_row = st.tuples(st.just(0), st.integers(1, 20))
later_chunk_row = st.tuples(st.integers(1, 30), st.integers(1, 12))
batches = st.one_of(
    st.lists(decode_row, min_size=1, max_size=8),
    st.lists(prompt_row | later_chunk_row, min_size=1, max_size=3),
    st.lists(decode_row | prompt_row | later_chunk_row, min_size=2, max_size=8),
)


@settings(max_examples=60, deadline=None)
@given(
    rows=batches,
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 5),
    dim=st.sampled_from([8, 64, 80, 128]),
    window=st.one_of(st.none(), st.integers(1, 24)),
    seed=st.integers(0, 1000),
)
def test_attention_reads_each_row_s_own_tokens_and_nothing_else(
    rows: list[tuple[int, int]], kv_heads: int, group: int, dim: int, window: int | None, seed: int
) -> None:
    scene = make_scene(rows, kv_heads, group, dim, seed)
    out = scene.kernels.attention(scene.q, scene.cache, 1, scene.ragged, window)
    torch.testing.assert_close(out.double(), exact_attention(scene, window), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [None, 50])
def test_attention_of_a_chunk_longer_than_a_tile_of_queries(window: int | None) -> None:
    scene = make_scene([(20, QUERY_TILE + 3), (6, 1), (0, QUERY_TILE + 2)], 1, 2, 8, seed=3)
    out = scene.kernels.attention(scene.q, scene.cache, 1, scene.ragged, window)
    torch.testing.assert_close(out.double(), exact_attention(scene, window), rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 5000), max_size=24),
    kv_heads=st.integers(1, 9),
    units=st.integers(1, 64),
    gathered_bytes=st.sampled_from([1, 1 << 14, 1 << 20]),
)
def test_decode_rows_share_calls_with_little_padding_that_gather_little(
    lengths: list[int], kv_heads: int, units: int, gathered_bytes: int
) -> None:
    kv = torch.empty((1, 2, kv_heads, 8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "GATHERED_BYTES", gathered_bytes)
        groups = list(_groups([(length, row) for row, length in enumerate(lengths)], any_ragged(units), kv))
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    # Fewer rows would leave threads idle.
    few = next(rows for rows in itertools.count(1) if rows * kv_heads % units == 0)
    for group in groups:
        longest = max(lengths[row] for row in group)
        assert longest <= PADDING_RATIO * min(lengths[row] for row in group) + BLOCK_TOKENS
        assert len(group) <= few or len(group) * longest * kv[0].nbytes <= gathered_bytes * units


def test_attention_in_several_calls_of_similar_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls gather into the same memory, one after the other."""
    monkeypatch.setattr(reference, "GATHERED_BYTES", 1)
    scene = make_scene([(30, 1), (31, 1), (29, 1), (0, 5), (33, 1), (7, 4), (30, 1)], 2, 2, 8, seed=6)
    out = scene.kernels.attention(scene.q, scene.cache, 1, scene.ragged, None)
    assert len(scene.ragged.derived["attention", None]) == len(scene.keys)
    torch.testing.assert_close(out.double(), exact_attention(scene, None), rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    cached=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    piece=st.integers(1, 8),
    window=st.one_of(st.none(), st.integers(1, 50)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 1000),
)
def test_a_long_row_is_attended_to_in_pieces(
    cached: list[int], piece: int, window: int | None, dtype: torch.dtype, seed: int
) -> None:
    scene = make_scene([(count, 1) for count in cached], 2, 3, 16, seed, dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "GATHERED_BYTES", piece * scene.cache.layers[1][0].nbytes)
        out = scene.kernels.attention(scene.q, scene.cache, 1, scene.ragged, window)
    seen = [min(count + 1, window or count + 1) for count in cached]
    long = [call for call in scene.ragged.derived["attention", window] if isinstance(call, reference._LongCall)]
    assert len(long) == sum(keys > LEAST_PIECES * piece for keys in seen)
    rtol, atol = (1e-4, 1e-5) if dtype == torch.float32 else (0.02, 0.02)
    torch.testing.assert_close(out.double(), exact_attention(scene, window), rtol=rtol, atol=atol)


def test_layers_gather_keys_into_the_same_memory() -> None:
    scene = make_scene([(30, 1), (7, 4)], 2, 2, 8, seed=7)
    addresses = set()
    for layer in (0, 1):
        scene.kernels.attention(scene.q, scene.cache, layer, scene.ragged, None)
        addresses.add(scene.ragged.derived["room", None].data_ptr())
    assert len(addresses) == 1


@pytest.mark.parametrize("window", [None, 3, 9])
def test_attention_in_bfloat16(window: int | None) -> None:
    scene = make_scene([(0, 12), (30, 1), (8, 5), (31, 1), (2, 1)], 3, 3, 64, seed=1, dtype=torch.bfloat16)
    out = scene.kernels.attention(scene.q, scene.cache, 1, scene.ragged, window)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), exact_attention(scene, window), rtol=0.02, atol=0.02)


def test_attention_derives_its_calls_once_for_each_window() -> None:
    """Layers with and without a sliding window share one `Ragged` and must not see each other's masks."""
    scene = make_scene([(20, 1), (3, 7)], 1, 2, 8, seed=2)
    for window in (None, 4, None, 4):
        out = scene.kernels.attention(scene.q, scene.cache, 1, scene.ragged, window)
        torch.testing.assert_close(out.double(), exact_attention(scene, window), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_attention_from_another_thread(threads: int) -> None:
    scene = make_scene([(20, 1), (3, 7), (40, 1)], 3, 3, 64, seed=3)
    results: list[Tensor] = []

    def work() -> None:
        torch.set_num_threads(threads)
        results.append(scene.kernels.attention(scene.q, scene.cache, 1, scene.ragged, None))

    before = torch.get_num_threads()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    torch.set_num_threads(before)
    torch.testing.assert_close(results[0].double(), exact_attention(scene, None), rtol=1e-4, atol=1e-5)


def exact_rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    x = x.double()
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight.double()


def exact_rotation(x: Tensor, rope: RopeTable, positions: Tensor) -> Tensor:
    """Each pair (i, i + D/2) of x [T, heads, D] turned as a complex number."""
    first, second = x.double().chunk(2, -1)
    turn = torch.complex(rope.cos.double(), rope.sin.double())[positions][:, None]
    turned = torch.complex(first, second) * turn
    return torch.cat((turned.real, turned.imag), -1)


def make_rope(dim: int, positions: int = 64) -> RopeTable:
    angles = torch.outer(torch.arange(positions).double(), 100.0 ** (-torch.arange(dim // 2).double() * 2 / dim))
    return RopeTable(angles.cos().float(), angles.sin().float())


@pytest.mark.parametrize("dim", [8, 64, 80, 128])
@pytest.mark.parametrize("with_norm", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_rope_and_cache(dim: int, with_norm: bool, transposed: bool) -> None:
    rows, kv_heads, group = [(9, 1), (0, 6), (5, 3)], 2, 3
    scene = make_scene(rows, kv_heads, group, dim, seed=4)
    heads = kv_heads * group
    qkv = torch.randn(scene.ragged.num_tokens, (heads + 2 * kv_heads) * dim)
    q, k, v = torch.split(qkv.clone().view(len(qkv), -1, dim), [heads, kv_heads, kv_heads], 1)
    rope, positions = make_rope(dim), scene.ragged.positions
    q_weight, k_weight = torch.rand(dim) + 0.5, torch.rand(dim) + 0.5
    if with_norm:
        q, k = exact_rms_norm(q, q_weight), exact_rms_norm(k, k_weight)
    given_qkv = qkv.t().contiguous().t() if transposed else qkv
    before = [layer.clone() for layer in scene.cache.layers]
    out = rope_and_cache(
        given_qkv, rope, (q_weight, k_weight, EPS) if with_norm else None, scene.cache, 1, scene.ragged
    )
    torch.testing.assert_close(out.double(), exact_rotation(q, rope, positions), rtol=1e-4, atol=1e-5)
    slots = scene.ragged.slot_mapping
    written = scene.cache.layers[1][slots].double()
    torch.testing.assert_close(written[:, 0], exact_rotation(k, rope, positions), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(written[:, 1], v.double())
    # Nothing else changed.
    before[1][slots] = scene.cache.layers[1][slots]
    for layer, expected in zip(scene.cache.layers, before, strict=True):
        assert torch.equal(layer.nan_to_num(7.0), expected.nan_to_num(7.0))


@pytest.mark.parametrize("tokens", [1, 2, 3, 8, 64, 65, 100, 513])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_linear(tokens: int, with_bias: bool, pack: bool, dtype: torch.dtype) -> None:
    kernels = ReferenceKernels(pack=pack)
    x, weight = torch.randn(48, tokens).to(dtype).t(), torch.randn(72, 48).to(dtype)
    bias = torch.randn(72).to(dtype) if with_bias else None
    out = kernels.linear(x, kernels.prepare(weight), bias, any_ragged())
    expected = x.double() @ weight.double().t() + (bias.double() if bias is not None else 0)
    tolerance = {torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.3}[dtype]
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), expected, rtol=tolerance / 10, atol=tolerance)


@pytest.mark.parametrize("tokens", [1, 3, 64, 257])
@pytest.mark.parametrize("layout", ["mkl", "onednn", "plain"])
def test_every_layout_of_float32_multiplies_the_same(tokens: int, layout: Layout) -> None:
    x, weight, bias = torch.randn(tokens, 48), torch.randn(72, 48), torch.randn(72)
    matrix = pack_as(weight, layout)
    assert matrix.like.shape == weight.shape
    expected = x.double() @ weight.double().t() + bias.double()
    torch.testing.assert_close(multiply(x, matrix, bias).double(), expected, rtol=1e-5, atol=1e-4)


ALL_LENGTHS = """
from pathlib import Path
import torch
from rapid_kernels.packed import KEPT_KERNELS, bound_kernel_caches, multiply, pack_as

def mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "VmSwap"))) / 1024

torch.set_num_threads(1)
bound_kernel_caches()
matrix = pack_as(torch.randn(72, 48), "onednn")
for tokens in range(1, 3 * KEPT_KERNELS):
    if tokens == KEPT_KERNELS:
        full = mib()
    multiply(torch.ones(tokens, 48), matrix, None)
print(mib() - full)
"""


def test_products_of_all_lengths_do_not_fill_the_memory_with_kernels() -> None:
    """An engine grew by 600 MiB: oneDNN makes a kernel for every number of tokens, and kept a thousand twice."""
    grown = run([sys.executable, "-P", "-c", ALL_LENGTHS])
    assert float(grown.stdout) < 60, grown.stderr  # 150 without a bound, some 20 with it


NO_NEW_CODE = """
import ctypes
import torch
from rapid_kernels.packed import multiply, pack

PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None).prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
    print("skip")
else:
    x, weight = torch.randn(9, 48), torch.randn(72, 48)
    torch.testing.assert_close(multiply(x, pack(weight), None), x @ weight.t())
    print("equal")
"""


def test_float32_is_multiplied_where_no_code_may_be_written() -> None:
    """systemd's MemoryDenyWriteExecute=: oneDNN could not make its kernels, and no engine started."""
    done = run([sys.executable, "-P", "-c", NO_NEW_CODE])
    if done.stdout == "skip\n":
        pytest.skip("needs Linux 6.3")
    assert done.stdout == "equal\n", done.stderr


@pytest.mark.parametrize(
    ("cpu_info", "intel"),
    [
        ("processor\t: 0\nvendor_id\t: GenuineIntel\n", True),
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\n", False),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", True),
        (None, True),
    ],
)
def test_a_processor_of_unknown_make_counts_as_intels(tmp_path: Path, cpu_info: str | None, intel: bool) -> None:
    file = tmp_path / "cpuinfo"
    if cpu_info is not None:
        file.write_text(cpu_info)
    assert is_intel(file) == intel


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 5])
def test_norms(dtype: torch.dtype, tokens: int) -> None:
    # A transposed x is what `linear` gives for few tokens.
    x, residual = torch.randn(96, tokens).to(dtype).t(), torch.randn(tokens, 96).to(dtype)
    weight = (torch.rand(96) + 0.5).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    kernels, ragged = select("cpu"), any_ragged()
    torch.testing.assert_close(
        kernels.rms_norm(x, weight, EPS, ragged).double(), exact_rms_norm(x, weight), rtol=tolerance, atol=tolerance
    )
    total = x.double() + residual.double()
    normed, new_residual = kernels.add_rms_norm(x, residual, weight, EPS, ragged)
    torch.testing.assert_close(new_residual.double(), total, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(normed.double(), exact_rms_norm(new_residual, weight), rtol=tolerance, atol=tolerance)


def test_rms_norm_of_large_activations_does_not_overflow() -> None:
    x = torch.full((2, 64), 1000.0, dtype=torch.float16)
    out = select("cpu").rms_norm(x, torch.ones(64, dtype=torch.float16), EPS, any_ragged())
    torch.testing.assert_close(out, torch.ones_like(out))


@pytest.mark.parametrize("tokens", [1, 7])
@pytest.mark.parametrize("with_bias", [False, True])
def test_gated_linear(tokens: int, with_bias: bool) -> None:
    kernels = select("cpu")
    x, weight, bias = torch.randn(tokens, 48), torch.randn(40, 48), torch.randn(40) if with_bias else None
    gate_up = x.double() @ weight.double().t() + (bias.double() if bias is not None else 0)
    gate, up = gate_up.chunk(2, 1)
    out = kernels.gated_linear(x, kernels.prepare(weight), bias, any_ragged())
    torch.testing.assert_close(out.double(), gate / (1 + (-gate).exp()) * up, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rows", "vocab"), [(1, 1), (13, 33), (30, 4097)])
def test_the_first_of_the_highest_finite_logits_is_chosen(rows: int, vocab: int, dtype: torch.dtype) -> None:
    choose = partial(select("cpu").choose, ragged=any_ragged())
    assert not wrong_choices(choose, rows, vocab, dtype)
    assert not wrong_choices(lambda logits, *rest: choose(logits.t().contiguous().t(), *rest), rows, vocab, dtype)


def any_ragged(units: int = 1) -> Ragged:
    return make_ragged([1], [1], [[1]], BLOCK_TOKENS, units)


def test_the_unit_count_does_not_change_results() -> None:
    scene = make_scene([(20, 1), (0, 7)], 2, 2, 64, seed=5)
    one = scene.kernels.attention(scene.q, scene.cache, 1, replace(scene.ragged, units=1, derived={}), None)
    assert torch.equal(one, scene.kernels.attention(scene.q, scene.cache, 1, scene.ragged, None))
