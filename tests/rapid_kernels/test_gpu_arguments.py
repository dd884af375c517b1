"""What the GPU kernels' functions refuse before they launch anything, and how they choose numbers of programs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("triton", reason="triton is not installed: GPU kernels cannot be imported")

from rapid_kernels.gpu.attention import DecodeTile, decode_attention, make_plan
from rapid_kernels.gpu.matmul import Tile, _programs, skinny_matmul
from rapid_kernels.gpu.workspace import Workspace

TILE = Tile(16, 64, 32, 3, 4)


def test_matmul_refuses() -> None:
    workspace = Workspace("cpu", 1 << 20)
    x, weight = torch.zeros(4, 64), torch.zeros(128, 64)
    with pytest.raises(ValueError, match="17 rows do not fit a tile of 16"):
        skinny_matmul(torch.zeros(17, 64), weight, 2, workspace, TILE)
    with pytest.raises(ValueError, match="not contiguous"):
        skinny_matmul(x, torch.zeros(64, 128).t(), 2, workspace, TILE)
    with pytest.raises(ValueError, match="not contiguous"):
        skinny_matmul(torch.zeros(64, 4).t(), weight, 2, workspace, TILE)
    with pytest.raises(ValueError, match="workspace too small"):
        skinny_matmul(x, weight, 2, Workspace("cpu", 64), TILE)


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


@given(tiles=st.integers(1, 4000), k_steps=st.integers(1, 300), most=st.integers(1, 300))
def test_programs(tiles: int, k_steps: int, most: int) -> None:
    """Each has a step to do; programs are left out only so that no tile is cut."""
    programs = _programs(tiles, k_steps, most)
    assert 1 <= programs <= min(most, tiles * k_steps)
    if programs < min(most, tiles * k_steps):
        assert tiles % programs == 0
        assert programs >= min(64, most * 7 / 8)
