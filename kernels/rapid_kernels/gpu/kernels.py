"""`Kernels` on a GPU: the Triton kernels where they are the fastest measured, torch's libraries elsewhere.

Attention is ours, by one kernel for decode rows and another for prompt chunks; so are the matmuls of decode rows, sized
by the partition. Prompt chunks are multiplied by the library. A batch of decode rows only waits for nothing on the host
and makes no size depend on the rows' lengths, so a graph may hold it once it ran with the same shapes: with a `Ragged`
of its own, because what is derived from a batch is launched with its first layer. Keeps nothing between calls: a lane's
buffers are its `GpuScratch`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from rapid_kernels.gpu.attention import attend_decode, merge_decode
from rapid_kernels.gpu.choice import choose
from rapid_kernels.gpu.decode_call import DecodeCall, fits_hopper
from rapid_kernels.gpu.decode_plan import DecodePlan, make_plan, plan_decode
from rapid_kernels.gpu.elementwise import add_rms_norm, rope_and_cache, silu_mul
from rapid_kernels.gpu.heads import MAX_HEAD_DIM, padded_sizes
from rapid_kernels.gpu.matmul import Tile, finish_matmul, skinny_product
from rapid_kernels.gpu.matmul_hopper import SlimTile, slim_product
from rapid_kernels.gpu.prefill import prompt_attention
from rapid_kernels.gpu.prefill_hopper import hopper_prompt_attention
from rapid_kernels.gpu.product import Product
from rapid_kernels.gpu.prompt_plan import PromptPlan, make_prompt_plan
from rapid_kernels.gpu.tuning import (
    AMD,
    AMD_DECODE,
    CHAINED_ROWS,
    CHAINED_UNITS,
    HOPPER_PROMPT,
    PROMPT,
    PROMPTS_PER_UNIT,
    decode_tile_for,
    tile_for,
)
from rapid_kernels.gpu.workspace import Workspace
from rapid_kernels.layout import CacheLayout, KVCache, Matrix, Ragged, RopeTable, Scratch

DTYPES = (torch.bfloat16, torch.float16)
BULK_NUMBERS = 8
"""The bulk copy engine reads rows whose length is a multiple of so many numbers (16 bytes)."""
DECODE_BYTES = 32 << 20
"""What decode attention leaves in parts: 2 of 16 queries by at most 258 numbers for each of up to 960 programs."""


@dataclass(frozen=True, slots=True)
class GpuScratch(Scratch):
    """What the kernels of one lane share, one after another. Never resized, so graphs may hold it."""

    workspace: Workspace
    plan: DecodePlan
    decode_workspace: Workspace
    """Of the decode rows' attention in a mixed batch, while that of the prompts has the other one."""


class GpuKernels:
    """``bulk``: tiles by the bulk copy engine and chained launches, as tuned on Hopper; else tiles by pointers.

    ``hopper``: also the kernels that only Hopper runs, for prompt chunks without a window and for the fewest rows.
    """

    def __init__(self, *, bulk: bool, hopper: bool) -> None:
        self._bulk = bulk
        self._hopper = hopper

    @classmethod
    def on(cls, device: torch.device) -> "GpuKernels":
        """As a CUDA device of compute capability 8 or more, or a HIP device, can.

        Bulk tiles want the shared memory of capability 9 and 10.
        """
        if torch.version.hip is not None:
            return cls(bulk=False, hopper=False)
        major = torch.cuda.get_device_capability(device)[0]
        return cls(bulk=major in (9, 10), hopper=major == 9)

    def allocate_cache(self, layout: CacheLayout, device: torch.device | str = "cuda") -> KVCache:
        """See `Kernels`. Zeros: whole tiles are read, and what is not finite would spoil them."""
        _check_layout(layout)
        slots = layout.num_blocks * layout.block_tokens
        shape = (layout.num_layers, slots, 2, layout.num_kv_heads, layout.head_dim)
        return KVCache(layout, torch.zeros(shape, dtype=layout.dtype, device=device).unbind(0))

    def make_scratch(
        self, layout: CacheLayout, max_rows: int, max_tokens: int, device: torch.device | str
    ) -> GpuScratch:
        """See `Kernels`. At most 1,024 rows."""
        _check_layout(layout)
        plan = make_plan(layout.block_tokens, layout.head_dim, layout.dtype.itemsize, max_rows, max_tokens, device)
        return GpuScratch(Workspace(device), plan, Workspace(device, DECODE_BYTES))

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, ragged: Ragged) -> Tensor:
        """See `Kernels`."""
        return add_rms_norm(x.contiguous(), None, weight, eps, self._chained(ragged))

    def add_rms_norm(
        self, x: Tensor, residual: Tensor, weight: Tensor, eps: float, ragged: Ragged
    ) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        residual = residual.contiguous()
        return add_rms_norm(x.contiguous(), residual, weight, eps, self._chained(ragged)), residual

    def prepare(self, weight: Tensor) -> Matrix:
        """See `Kernels`. Raises ValueError for a type that these kernels do not compute in."""
        _check_dtype(weight.dtype)
        weight = weight.contiguous()
        return Matrix("plain", weight, weight)

    def linear(self, x: Tensor, weight: Matrix, bias: Tensor | None, ragged: Ragged) -> Tensor:
        """See `Kernels`."""
        tile = self._tile(x, weight, ragged, gated=False)
        if tile is None:
            return linear(x, weight.data, bias)
        chained = self._chained(ragged)
        product = multiply(x, weight.data, ragged.units, _scratch(ragged).workspace, tile, False, chained)
        y = finish_matmul(product, False, chained)
        return y if bias is None else y.add_(bias)

    def gated_linear(self, x: Tensor, weight: Matrix, bias: Tensor | None, ragged: Ragged) -> Tensor:
        """See `Kernels`."""
        chained = self._chained(ragged)
        tile = self._tile(x, weight, ragged, gated=True) if bias is None else None
        if tile is None:
            return silu_mul(self.linear(x, weight, bias, ragged), chained)
        product = multiply(x, weight.data, ragged.units, _scratch(ragged).workspace, tile, True, chained)
        return finish_matmul(product, True, chained)

    def linear_add_rms_norm(
        self, x: Tensor, weight: Matrix, bias: Tensor | None, residual: Tensor, norm: Tensor, eps: float, ragged: Ragged
    ) -> tuple[Tensor, Tensor]:
        """See `Kernels`. The norm adds up what the product leaves in parts."""
        product = self._product(x, weight, bias, ragged)
        residual = residual.contiguous()
        return add_rms_norm(product, residual, norm, eps, self._chained(ragged)), residual

    def linear_rope_and_cache(
        self,
        x: Tensor,
        weight: Matrix,
        bias: Tensor | None,
        rope: RopeTable,
        qk_norm: tuple[Tensor, Tensor, float] | None,
        cache: KVCache,
        layer: int,
        ragged: Ragged,
    ) -> Tensor:
        """See `Kernels`. The rotation adds up what the product leaves in parts."""
        return rope_and_cache(
            self._product(x, weight, bias, ragged), rope.cos, rope.sin, ragged.positions, ragged.slot_mapping,
            cache.layers[layer], self._chained(ragged), qk_norm,
        )  # fmt: skip

    def _product(self, x: Tensor, weight: Matrix, bias: Tensor | None, ragged: Ragged) -> Product:
        """For a kernel that adds its parts up; a bias wants the whole."""
        tile = self._tile(x, weight, ragged, gated=False, parts=True) if bias is None else None
        if tile is None:
            return Product.whole(self.linear(x, weight, bias, ragged))
        return multiply(x, weight.data, ragged.units, _scratch(ragged).workspace, tile, False, self._chained(ragged))

    def attention(self, q: Tensor, cache: KVCache, layer: int, ragged: Ragged, window: int | None) -> Tensor:
        """See `Kernels`. At most 16 query heads a key head.

        Decode rows wait for memory and prompt chunks for arithmetic, so those of one batch attend at the same time
        (arXiv 2410.18038, by two launches): a program of each fits a unit, and prompts start once all of decode's have.
        """
        decode = ragged.num_decode
        out = torch.empty((q.shape[0], q.shape[1] * q.shape[2]), dtype=q.dtype, device=q.device)
        kv = cache.layers[layer]
        if decode:
            self._plan_decode(decode, ragged, window)
        if decode == 0:
            self._chunk_attention(q, kv, ragged, window, out)
        elif decode == ragged.num_rows:
            call = self._decode_call(q, kv, ragged, out, _scratch(ragged).workspace)
            attend_decode(call)
            merge_decode(call)
        else:
            beside = self._bulk_chunks(q, window)
            self._prompt_plan(q, kv, ragged, window)  # nothing comes between the two launches
            call = self._decode_call(q[:decode], kv, ragged, out[:decode], _scratch(ragged).decode_workspace)
            attend_decode(call, leads=beside)
            self._chunk_attention(q[decode:], kv, ragged, window, out[decode:], follows=beside)
            merge_decode(call)
        return out

    def choose(
        self, logits: Tensor, out: Tensor, chosen: Tensor, tokens: Tensor, target: Tensor, ragged: Ragged
    ) -> None:
        """See `Kernels`."""
        choose(logits.contiguous(), out, chosen, tokens, target, self._chained(ragged))

    def _plan_decode(self, rows: int, ragged: Ragged, window: int | None) -> None:
        """Once a batch, of its first ``rows`` rows; layers with and without a window share one plan."""
        if ragged.derived.get("planned") == (window,):
            return
        plan = _scratch(ragged).plan
        if rows >= len(plan.first):
            raise ValueError(f"scratch for {len(plan.first) - 1} decode rows, not {rows}")
        kv_lens, block_tables = ragged.kv_lens[:rows], ragged.block_tables[:rows]
        plan_decode(plan, kv_lens, block_tables, ragged.block_tokens, window, self._chained(ragged))
        ragged.derived["planned"] = (window,)

    def _decode_call(self, q: Tensor, kv: Tensor, ragged: Ragged, out: Tensor, workspace: Workspace) -> DecodeCall:
        """Of the planned rows."""
        bulk = self._bulk and q.shape[2] % BULK_NUMBERS == 0
        alone = ragged.num_decode == ragged.num_rows
        plan = _scratch(ragged).plan
        _, padded = padded_sizes(q.shape[1] // kv.shape[2], q.shape[2])
        hopper = self._hopper and fits_hopper(plan.tile_tokens, padded)
        tile = decode_tile_for(ragged.units, alone, hopper) if bulk else AMD_DECODE
        return DecodeCall(q, kv, out, plan, ragged.units, workspace, tile, self._chained(ragged))

    def _bulk_chunks(self, q: Tensor, window: int | None) -> bool:
        """Whether Hopper's kernel takes a batch's chunks."""
        return self._hopper and window is None and q.shape[2] % BULK_NUMBERS == 0

    def _chunk_attention(
        self, q: Tensor, kv: Tensor, ragged: Ragged, window: int | None, out: Tensor, follows: bool = False
    ) -> None:
        """Of the rows after the decode rows. Both kernels take the same tiles, so layers share a plan.

        None but those with a window, whose tiles are not cut. ``follows``: beside the launch before, from its start on.
        """
        plan = self._prompt_plan(q, kv, ragged, window)
        workspace = _scratch(ragged).workspace
        if self._bulk_chunks(q, window):
            hopper_prompt_attention(q, kv, ragged, plan, HOPPER_PROMPT, workspace, out, follows)
        else:
            prompt_attention(q, kv, ragged, plan, PROMPT, workspace, window, out)

    def _prompt_plan(self, q: Tensor, kv: Tensor, ragged: Ragged, window: int | None) -> PromptPlan:
        """Once a batch."""
        plan: PromptPlan | None = ragged.derived.get(("prompt plan", window is None))
        if plan is None:
            padded_heads, _ = padded_sizes(q.shape[1] // kv.shape[2], q.shape[2])
            wave = ragged.units * PROMPTS_PER_UNIT // kv.shape[2] if window is None else 0
            plan = make_prompt_plan(ragged, PROMPT.queries // padded_heads, wave)
            ragged.derived["prompt plan", window is None] = plan
        return plan

    def _chained(self, ragged: Ragged) -> bool:
        """Long kernels gain nothing by it."""
        few = ragged.units < CHAINED_UNITS or (self._hopper and ragged.num_rows <= CHAINED_ROWS)
        return self._bulk and ragged.num_decode == ragged.num_rows and few

    def _tile(
        self, x: Tensor, weight: Matrix, ragged: Ragged, *, gated: bool, parts: bool = False
    ) -> Tile | SlimTile | None:
        """How to multiply; None: by the library. Triton 3.6 cannot pipeline a loop over a single step of a row."""
        rows, columns = x.shape
        if not self._bulk:
            tile: Tile | SlimTile | None = AMD if rows <= AMD.block_m else None
        elif columns % BULK_NUMBERS == 0:
            tile = tile_for(rows, len(weight.data), ragged.units, gated, self._hopper, parts)
        else:
            tile = None
        return tile if tile is not None and columns > tile.block_k else None


def multiply(
    x: Tensor, weight: Tensor, units: int, workspace: Workspace, tile: Tile | SlimTile, gated: bool, chained: bool
) -> Product:
    """By the kernel that the tile is for; some of it may be left in parts."""
    if isinstance(tile, SlimTile):
        return slim_product(x, weight, units, workspace, tile, gated, chained)
    return skinny_product(x, weight, units, workspace, tile, gated, chained)


def _scratch(ragged: Ragged) -> GpuScratch:
    if not isinstance(ragged.scratch, GpuScratch):
        raise ValueError("a batch on a GPU needs its lane's scratch: give make_ragged what make_scratch gave")
    return ragged.scratch


def _check_dtype(dtype: torch.dtype) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"the GPU kernels compute in bfloat16 and float16, not {dtype}: choose one, or plain torch")


def _check_layout(layout: CacheLayout) -> None:
    """What the decode kernels can read."""
    _check_dtype(layout.dtype)
    if layout.head_dim > MAX_HEAD_DIM or layout.head_dim % 2:
        raise ValueError(f"the GPU kernels take even head sizes up to {MAX_HEAD_DIM}, not {layout.head_dim}")
    if layout.block_tokens < 16 or layout.block_tokens & (layout.block_tokens - 1):
        raise ValueError(f"block_tokens must be a power of two of at least 16, not {layout.block_tokens}")
