# ruff: noqa: N803 (constants of a Triton kernel are upper case)
"""Attention of prompt chunks: keys and values gathered from the paged cache, then torch's flash attention.

The rows' cached tokens are copied to one dense tensor, row after row, which costs little beside the products of a
chunk. What only a batch decides, `Chunks`, is made once and serves every layer. Sizes are on the host, so it is not
for graphs.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

from rapid_kernels.layout import Ragged

GATHERED_NUMBERS = 8192
"""A program's share, 16 KiB."""


@dataclass(frozen=True, slots=True)
class Chunks:
    """The C rows of a batch that are not decode rows: they follow those."""

    first_row: int
    block_tables: Tensor
    """[R, max_blocks] int32, of all rows."""
    block_tokens: int
    query_start: Tensor
    """[C + 1] int32, from 0."""
    kv_start: Tensor
    """[C + 1] int32: where each row's tokens begin in the dense tensor."""
    num_kv: int
    max_query: int
    max_kv: int


def make_chunks(ragged: Ragged) -> Chunks:
    """Of a batch that has some. Waits for nothing."""
    first = ragged.num_decode  # rows and tokens alike
    starts = ragged.query_start_cpu[first:]
    kv_lens = ragged.kv_lens_cpu[first:]
    return Chunks(
        first_row=first,
        block_tables=ragged.block_tables,
        block_tokens=ragged.block_tokens,
        query_start=ragged.query_start[first:] - first,
        kv_start=pad(ragged.kv_lens[first:].cumsum(0, dtype=torch.int32), (1, 0)),
        num_kv=sum(kv_lens),
        max_query=max(end - start for start, end in pairwise(starts)),
        max_kv=max(kv_lens),
    )


@triton.jit(do_not_specialize=["first_row", "table_stride"])
def gather_kernel(
    kv,  # [slots, WIDTH]
    out,  # [kv_start[C], WIDTH]
    block_tables,  # [first_row + C, table_stride] int32
    kv_start,  # [C + 1] int32
    first_row,
    table_stride,
    BLOCK_TOKENS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Copy the tokens of each row from its blocks. Grid: ceil(longest row / TOKENS) x C."""
    row = tl.program_id(1)
    begin = tl.load(kv_start + row)
    length = tl.load(kv_start + row + 1) - begin
    first = tl.program_id(0) * TOKENS
    if first < length:
        token = first + tl.arange(0, TOKENS)
        columns = tl.arange(0, PADDED)
        own = token < length
        inside = own[:, None] & (columns < WIDTH)[None, :]
        table = block_tables + (first_row + row).to(tl.int64) * table_stride
        block = tl.load(table + token // BLOCK_TOKENS, mask=own, other=0)
        slot = block.to(tl.int64) * BLOCK_TOKENS + token % BLOCK_TOKENS
        value = tl.load(kv + slot[:, None] * WIDTH + columns[None, :], mask=inside)
        to = out + (begin + token).to(tl.int64)[:, None] * WIDTH + columns[None, :]
        tl.store(to, value, mask=inside)


def gather(kv: Tensor, chunks: Chunks) -> Tensor:
    """The cached tokens of the chunks' rows, out of kv [slots, 2, K, D]: [num_kv, 2, K, D]."""
    width = kv[0].numel()
    padded = triton.next_power_of_2(width)
    tokens = max(1, GATHERED_NUMBERS // padded)
    out = torch.empty((chunks.num_kv, *kv.shape[1:]), dtype=kv.dtype, device=kv.device)
    gather_kernel[(triton.cdiv(chunks.max_kv, tokens), len(chunks.kv_start) - 1)](
        kv, out, chunks.block_tables, chunks.kv_start, chunks.first_row, chunks.block_tables.stride(0),
        chunks.block_tokens, width, padded, tokens,
        num_warps=4,
    )  # fmt: skip
    return out


def flash_attention(q: Tensor, kv: Tensor, chunks: Chunks) -> Tensor:
    """Causal attention of the chunks' tokens q [T, H, D] over their rows in the cache: [T, H * D]. Scale 1/sqrt(D).

    Causal from the end (a row's last token sees all of it), as flash attention is since its version 2.1. 16-bit types,
    D a multiple of 8 up to 256.
    """
    keys, values = gather(kv, chunks).unbind(1)
    out: Tensor = torch.ops.aten._flash_attention_forward(
        q, keys, values, chunks.query_start, chunks.kv_start, chunks.max_query, chunks.max_kv, 0.0, True, False
    )[0]
    return out.reshape(q.shape[0], -1)
