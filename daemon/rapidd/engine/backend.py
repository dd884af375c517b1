"""What the assembly of an engine asks of a device, whatever its kind: one small interface, one implementation a kind.

`cpu.py` implements it with worker threads, `gpu.py` with streams and graphs. Everything else is the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from msgspec import Struct

from rapid_kernels import KVCache
from rapidctl.wire import DeviceInfo
from rapidd.engine.defaults import Defaults
from rapidd.engine.lanes import LaneExecutor
from rapidd.engine.meter import Peaks
from rapidd.engine.request import Lane
from rapidd.model.llama import Llama
from rapidd.partition.table import PartitionTable
from rapidd.policy.plan import Plan
from rapidd.policy.profile import PromptWave

Report = Callable[[str, float | None], None]
"""What is being done, and how far it is in percent."""


class Sizes(Struct, frozen=True, kw_only=True):
    """Of what is served."""

    num_slots: int
    """Requests running at once, and so rows of a decode step."""
    max_model_len: int
    block_tokens: int


class Backend(Protocol):
    """An opened device."""

    defaults: Defaults
    table: PartitionTable
    info: DeviceInfo
    row_buckets: tuple[int, ...]
    """Decode steps are padded to so many rows; empty: to none. Known once there are lanes."""
    prompt_wave: PromptWave | None
    """How the kernels fill all units with a prompt chunk's attention; null: not in waves, as far as is known. Known
    likewise."""

    def choose_dtype(self, file_dtype: str | None) -> torch.dtype:
        """What "auto" means for weights of this type (None: random ones)."""

    def peaks(self, dtype: torch.dtype) -> Peaks:
        """What the device reaches at best, measured now: before anything is loaded."""

    def load(self, load: Callable[[torch.device], Llama]) -> Llama:
        """Run ``load`` where the model will live. Raises ConfigError when it does not fit."""

    def kv_blocks(self, model: Llama, sizes: Sizes) -> int:
        """How many blocks of KV cache there is memory for, block 0 not counted; may be none."""

    def make_lanes(self, model: Llama, sizes: Sizes, kv_blocks: int, report: Report) -> dict[Lane, LaneExecutor]:
        """The cache of so many blocks (block 0 not counted), a runner over it, and both lanes, not yet warmed up."""

    def fill_cache(self) -> None:
        """Finite values in every block of the cache, for batches whose result nobody looks at."""

    def warm_up_plans(self) -> tuple[Sequence[Plan], Sequence[Plan]]:
        """Plans under which what is made on first use gets made, then plans whose speed counts as well."""

    def memory_used(self) -> int | None:
        """Bytes, as `DeviceInfo.memory_used_bytes`."""


def fill(cache: KVCache) -> None:
    """Values of order one, the same in each block."""
    layout = cache.layout
    for layer in cache.layers:
        block = torch.randn((layout.block_tokens, *layer.shape[1:]), device=layer.device).to(layer.dtype)
        layer.view(layout.num_blocks, *block.shape).copy_(block)
