"""What the GPU kernels' functions refuse before they launch anything, and how they choose numbers of programs."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton", reason="triton is not installed: GPU kernels cannot be imported")

from rapid_kernels import CacheLayout, make_ragged, select
from rapid_kernels.gpu.attention import decode_attention
from rapid_kernels.gpu.choice import choose
from rapid_kernels.gpu.decode_call import DecodeTile
from rapid_kernels.gpu.decode_plan import make_plan
from rapid_kernels.gpu.heads import padded_sizes
from rapid_kernels.gpu.kernels import GpuKernels
from rapid_kernels.gpu.matmul import Tile, skinny_product, whole_programs
from rapid_kernels.gpu.matmul_hopper import SlimTile, slim_product
from rapid_kernels.gpu.prefill import prompt_attention
from rapid_kernels.gpu.prompt_plan import PromptPlan
from rapid_kernels.gpu.tuning import PROMPT
from rapid_kernels.gpu.workspace import Workspace
from rapid_kernels.reference import ReferenceKernels

TILE = Tile(16, 64, 32, 3, 4)


def test_matmul_refuses() -> None:
    workspace = Workspace("cpu", 1 << 20)
    x, weight = torch.zeros(4, 64), torch.zeros(128, 64)
    with pytest.raises(ValueError, match="17 rows do not fit a tile of 16"):
        skinny_product(torch.zeros(17, 64), weight, 2, workspace, TILE)
    with pytest.raises(ValueError, match="not contiguous"):
        skinny_product(x, torch.zeros(64, 128).t(), 2, workspace, TILE)
    with pytest.raises(ValueError, match="not contiguous"):
        skinny_product(torch.zeros(64, 4).t(), weight, 2, workspace, TILE)
    with pytest.raises(ValueError, match="workspace too small"):
        skinny_product(x, weight, 2, Workspace("cpu", 64), TILE)


@pytest.mark.parametrize(("rows", "block_n", "gated"), [(129, 128, False), (1, 64, True)])
def test_matmul_of_the_fewest_rows_refuses(rows: int, block_n: int, gated: bool) -> None:
    with pytest.raises(ValueError, match=f"{rows} rows in {1 + gated} sums do not fit SlimTile"):
        slim_product(
            torch.zeros(rows, 64), torch.zeros(128, 64), 2, Workspace("cpu", 64), SlimTile(block_n, 64, 1 << 16), gated
        )


@pytest.mark.parametrize("block_tokens", [0, 8, 24])
def test_plan_refuses_blocks(block_tokens: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        make_plan(block_tokens, 64, 2, 1, 100, "cpu")


def test_plan_refuses_more_rows_than_it_can_number() -> None:
    with pytest.raises(ValueError, match="at most 1024 rows"):
        make_plan(16, 64, 2, 1025, 100, "cpu")


@pytest.mark.parametrize(("heads", "dim"), [(17, 64), (1, 512)])
def test_attention_refuses_shapes(heads: int, dim: int) -> None:
    plan = make_plan(16, dim, 2, 1, 100, "cpu")
    with pytest.raises(ValueError, match="at most 16 query heads a KV head and head size 256"):
        decode_attention(
            torch.zeros(1, heads, dim), torch.zeros(16, 2, 1, dim), plan, 8, Workspace("cpu", 1 << 20), DecodeTile()
        )


def test_prompt_attention_refuses() -> None:
    q, kv = torch.zeros(16, 4, 64), torch.zeros(32, 2, 1, 64)
    ragged = make_ragged([16], [16], [[1]], 16, 1)
    plan = PromptPlan(16, torch.zeros((4, 8), dtype=torch.int32), most_cut=3)
    with pytest.raises(ValueError, match="tiles are not cut behind a window"):
        prompt_attention(q, kv, ragged, plan, PROMPT, Workspace("cpu", 1 << 20), 5)
    with pytest.raises(ValueError, match="workspace too small"):
        prompt_attention(q, kv, ragged, plan, PROMPT, Workspace("cpu", 64))


@given(tiles=st.integers(1, 4000), k_steps=st.integers(1, 300), most=st.integers(1, 300))
def test_whole_programs(tiles: int, k_steps: int, most: int) -> None:
    """Each has a step to do; programs are left out only so that no tile is cut."""
    programs = whole_programs(tiles, k_steps, most)
    assert 1 <= programs <= min(most, tiles * k_steps)
    if programs < min(most, tiles * k_steps):
        assert tiles % programs == 0
        assert programs >= min(64, most * 7 / 8)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"dtype": torch.float32}, "bfloat16 and float16, not torch.float32"),
        ({"head_dim": 288}, "head sizes up to 256, not 288"),
        ({"head_dim": 9}, "even head sizes"),
        ({"block_tokens": 24}, "power of two"),
    ],
)
def test_kernels_refuse_layouts_before_memory_is_taken(changes: dict[str, Any], problem: str) -> None:
    kernels = GpuKernels(bulk=False, hopper=False)
    layout = replace(CacheLayout(1, 4, 16, 1, 64, torch.bfloat16), **changes)
    with pytest.raises(ValueError, match=problem):
        kernels.allocate_cache(layout, "cpu")
    with pytest.raises(ValueError, match=problem):
        kernels.make_scratch(layout, 1, 1, "cpu")


def test_kernels_refuse_float32_weights() -> None:
    with pytest.raises(ValueError, match=r"not torch\.float32"):
        GpuKernels(bulk=True, hopper=True).prepare(torch.zeros(8, 8))


def test_a_batch_without_scratch_is_refused() -> None:
    kernels = GpuKernels(bulk=False, hopper=False)
    weight = kernels.prepare(torch.zeros(8, 256).half())
    with pytest.raises(ValueError, match="scratch"):
        kernels.linear(torch.zeros(1, 256).half(), weight, None, make_ragged([1], [1], [[1]], 16, 1))


def test_more_decode_rows_than_the_scratch_is_for_are_refused() -> None:
    kernels = GpuKernels(bulk=False, hopper=False)
    cache = kernels.allocate_cache(CacheLayout(1, 4, 16, 1, 64, torch.float16), "cpu")
    scratch = kernels.make_scratch(cache.layout, 1, 100, "cpu")
    ragged = make_ragged([1, 1], [1, 1], [[1], [2]], 16, 1, scratch=scratch)
    with pytest.raises(ValueError, match="scratch for 1 decode rows, not 2"):
        kernels.attention(torch.zeros(2, 1, 64).half(), cache, 0, ragged, None)


def test_float32_on_a_gpu_is_plain_torch() -> None:
    assert isinstance(select("cuda", torch.float32), ReferenceKernels)


@pytest.mark.parametrize(("group", "dim"), [(17, 64), (4, 257)])
def test_prompts_of_shapes_beyond_the_kernels_are_refused(group: int, dim: int) -> None:
    with pytest.raises(ValueError, match="at most 16 query heads a KV head and head size 256"):
        padded_sizes(group, dim)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"logits": torch.zeros(64, 3).half().t()}, "logits must be .* contiguous"),
        ({"out": torch.zeros(3, 64).half()}, "out must be .* torch.float32"),
        ({"out": torch.zeros(3, 128)[:, :64]}, "out must be .* contiguous"),
        ({"chosen": torch.zeros(2, 4, dtype=torch.int32)}, r"chosen must be \[2, 3\]"),
        ({"chosen": torch.zeros(2, 4, dtype=torch.int32)[:, :3]}, "chosen must be .* contiguous"),
        ({"tokens": torch.zeros(9, 9, dtype=torch.int32)}, r"tokens must be \[81\]"),
        ({"target": torch.zeros(3, dtype=torch.int32)}, "target must be .* torch.int64"),
    ],
)
def test_choice_refuses(changed: dict[str, Tensor], problem: str) -> None:
    tensors = {
        "logits": torch.zeros(3, 64).half(),
        "out": torch.zeros(3, 64),
        "chosen": torch.zeros(2, 3, dtype=torch.int32),
        "tokens": torch.zeros(9, dtype=torch.int32),
        "target": torch.zeros(3, dtype=torch.int64),
    }
    with pytest.raises(ValueError, match=problem):
        choose(**(tensors | changed), chained=False)
