# ruff: noqa: N803 (constants of a Triton kernel are upper case)
"""The end of a greedy decode step: of each row the highest logit, in float32 for whoever samples otherwise.

Contract: rows contiguous; logits are widened, so exact; of equal logits the first counts, so that the same step chooses
the same token however it is cut. One program a piece of a row, then one a row: a single row of a large vocabulary
already gives every unit work. Graph-safe.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rapid_kernels.gpu.chain import options, wait_for_previous

PIECE = 2048
"""Logits of a program, 16 bytes a load: 63 programs for a row of 128,256, each with 4 KiB on its way."""


@triton.jit
def best_of_piece_kernel(
    logits,  # [rows, VOCAB]
    out,  # [rows, VOCAB] float32
    bests,  # [rows, ceil(VOCAB / PIECE)] float32
    firsts,  # [rows, ceil(VOCAB / PIECE)] int32
    VOCAB: tl.constexpr,
    PIECE: tl.constexpr,
    CHAINED: tl.constexpr,
):
    """Grid: ceil(VOCAB / PIECE) x rows. Leaves each piece's highest logit, and the first place that has it."""
    columns = tl.program_id(0) * PIECE + tl.arange(0, PIECE)
    row = tl.program_id(1).to(tl.int64)
    inside = columns < VOCAB
    wait_for_previous(CHAINED)
    value = tl.load(logits + row * VOCAB + columns, mask=inside, other=float("-inf")).to(tl.float32)
    tl.store(out + row * VOCAB + columns, value, mask=inside)
    # A maximum may pass over NaN. A row that holds inf fails as well, so NaN may become that.
    value = tl.where(value < float("inf"), value, float("inf"))
    best = tl.max(value, 0)
    at = row * tl.num_programs(0) + tl.program_id(0)
    tl.store(bests + at, best)
    tl.store(firsts + at, tl.min(tl.where(value == best, columns, VOCAB), 0))


@triton.jit
def choose_kernel(
    bests,  # [rows, PIECES] float32
    firsts,  # [rows, PIECES] int32
    chosen,  # [2, rows] int32: ids, then whether the row failed
    tokens,  # [any] int32
    target,  # [rows] int64: where in tokens the id goes
    VOCAB: tl.constexpr,
    PIECES: tl.constexpr,
    PADDED: tl.constexpr,
    CHAINED: tl.constexpr,
):
    """Grid: rows."""
    pieces = tl.arange(0, PADDED)
    row = tl.program_id(0)
    wait_for_previous(CHAINED)
    best = tl.load(bests + row * PIECES + pieces, mask=pieces < PIECES, other=float("-inf"))
    # Pieces lie in order, so the least index is in the first piece that has the highest logit.
    first = tl.load(firsts + row * PIECES + pieces, mask=pieces < PIECES, other=VOCAB)
    highest = tl.max(best, 0)
    failed = tl.abs(highest) == float("inf")
    token = tl.where(failed, 0, tl.min(tl.where(best == highest, first, VOCAB), 0))
    tl.store(chosen + row, token)
    tl.store(chosen + tl.num_programs(0) + row, failed.to(tl.int32))
    tl.store(tokens + tl.load(target + row), token)


def choose(logits: Tensor, out: Tensor, chosen: Tensor, tokens: Tensor, target: Tensor, chained: bool = False) -> None:
    """See `Kernels.choose`. Raises ValueError for tensors that are not contiguous or do not fit together."""
    rows, vocab = logits.shape
    _check(logits, out, chosen, tokens, target)
    pieces = triton.cdiv(vocab, PIECE)
    bests = torch.empty((rows, pieces), dtype=torch.float32, device=logits.device)
    firsts = torch.empty((rows, pieces), dtype=torch.int32, device=logits.device)
    best_of_piece_kernel[(pieces, rows)](
        logits, out, bests, firsts, vocab, PIECE, chained, num_warps=4, **options(chained)
    )  # fmt: skip
    choose_kernel[(rows,)](
        bests, firsts, chosen, tokens, target, vocab, pieces, triton.next_power_of_2(pieces), chained,
        num_warps=1, **options(chained),
    )  # fmt: skip


def _check(logits: Tensor, out: Tensor, chosen: Tensor, tokens: Tensor, target: Tensor) -> None:
    """The kernels go by pointers and sizes alone."""
    rows, vocab = logits.shape
    wanted = (
        ("logits", logits, (rows, vocab), logits.dtype),
        ("out", out, (rows, vocab), torch.float32),
        ("chosen", chosen, (2, rows), torch.int32),
        ("tokens", tokens, (tokens.numel(),), torch.int32),
        ("target", target, (rows,), torch.int64),
    )
    for name, tensor, shape, dtype in wanted:
        if tensor.shape != shape or tensor.dtype != dtype or not tensor.is_contiguous():
            found = f"{list(tensor.shape)} {tensor.dtype} with strides {list(tensor.stride())}"
            raise ValueError(f"{name} must be {list(shape)} {dtype} and contiguous, not {found}")
