"""The CPU as a device: a worker thread for each lane and core set, weights and cache in the system's memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch

from rapid_kernels.packed import bound_kernel_caches
from rapidd.engine.backend import Report, Sizes, fill
from rapidd.engine.batch import Batch, BatchResult
from rapidd.engine.defaults import CPU_DEFAULTS, DEPTH
from rapidd.engine.lanes import LaneExecutor, Stream
from rapidd.engine.meter import Peaks
from rapidd.engine.peaks import cpu_peaks
from rapidd.engine.request import LANES, Lane
from rapidd.engine.runner import Runner
from rapidd.errors import ConfigError
from rapidd.model.llama import Llama
from rapidd.partition.cpu import PREFILL_NICE, Worker, cpu_table
from rapidd.partition.table import PartitionTable
from rapidd.policy.plan import Plan
from rapidd.policy.profile import PromptWave
from rapidd.telemetry.device import available_memory_bytes, cpu_has_bfloat16, cpu_info, process_memory_bytes

KV_SHARE: Final = 0.25
KV_BYTES: Final = 2 << 30
"""The cache takes this share of the memory that is free once the weights are loaded, and at most so many bytes."""


class CpuBackend:
    """`Backend` over the cores this process may use. Raises DeviceError when more are asked for than there are."""

    row_buckets: tuple[int, ...] = ()
    prompt_wave: PromptWave | None = None
    defaults = CPU_DEFAULTS

    def __init__(self, compute_units: int | None, on_done: Callable[[], None]) -> None:
        bound_kernel_caches()
        self.table, self._cores = cpu_table(compute_units)
        self.info = cpu_info(self.table.units_total)
        self._on_done = on_done
        self._whole = make_whole(self.table, self._cores, on_done)

    def choose_dtype(self, file_dtype: str | None) -> torch.dtype:
        """bfloat16 where the weights are (or are random) and the processor is fast at it, else float32.

        Quantised weights are not bfloat16's to round again: their float32 answers are the model's own.
        """
        fits = file_dtype in (None, "bfloat16", "BF16")
        return torch.bfloat16 if fits and cpu_has_bfloat16() else torch.float32

    def peaks(self, dtype: torch.dtype) -> Peaks:
        """See `Backend`."""
        measuring = self._whole.submit(lambda: cpu_peaks(dtype))
        measuring.wait()
        return measuring.value

    def load(self, load: Callable[[torch.device], Llama]) -> Llama:
        """See `Backend`."""
        torch.set_num_threads(1)  # this thread decides and reports; a team of its own would only be in the way
        assert torch.get_num_threads() == 1
        loading = self._whole.submit(lambda: load(torch.device("cpu")))
        loading.wait()
        return loading.value

    def kv_blocks(self, model: Llama, sizes: Sizes) -> int:
        """See `Backend`."""
        budget = min(KV_SHARE * available_memory_bytes(), KV_BYTES)
        return int(budget / model.cache_layout(1, sizes.block_tokens).bytes_per_block)

    def make_lanes(self, model: Llama, sizes: Sizes, kv_blocks: int, report: Report) -> dict[Lane, LaneExecutor]:
        """See `Backend`. Raises ConfigError for a cache that does not fit."""
        needed = model.cache_layout(1, sizes.block_tokens).bytes_per_block * (kv_blocks + 1)
        if needed > (free := available_memory_bytes()):
            raise ConfigError(
                [
                    f"engine.kv-blocks: {kv_blocks} blocks of KV cache take {needed / 2**30:,.1f} GiB, and "
                    f"{free / 2**30:,.1f} are free: lower --kv-blocks"
                ]
            )
        self._cache = cache = model.kernels.allocate_cache(model.cache_layout(kv_blocks + 1, sizes.block_tokens))
        runner = Runner(model, cache, num_slots=sizes.num_slots, max_model_len=sizes.max_model_len)
        return make_lanes(runner.run, self.table, self._cores, self._whole, self._on_done)

    def fill_cache(self) -> None:
        """See `Backend`."""
        fill(self._cache)

    def warm_up_plans(self) -> tuple[Sequence[Plan], Sequence[Plan]]:
        """A chunk and a decode step on all units: libraries make what they need now, and the speed becomes known.

        Twice: the second time nothing is made, and its speed is the one that counts.
        """
        return (), [Plan("hybrid", self.table.units_total, self.table.units_total, None)] * 2

    def memory_used(self) -> int | None:
        """See `Backend`."""
        return process_memory_bytes()


def make_whole(table: PartitionTable, cores: list[int], on_done: Callable[[], None]) -> Worker:
    """The worker on all cores. As long as no other has a team of threads, OpenMP lets this one's spin between the
    operations of a step; with more threads than cores it puts them to sleep, which makes every step longer."""
    return Worker("whole", _pinned(table, cores), table.units_total, 0, on_done)


def make_lanes(
    run: Callable[[Batch], BatchResult],
    table: PartitionTable,
    cores: list[int],
    whole: Worker,
    on_done: Callable[[], None],
) -> dict[Lane, LaneExecutor]:
    """A worker for every unit count that a lane may get; decode takes the low cores."""
    lanes: dict[Lane, LaneExecutor] = {}
    for name in LANES:
        sizes = table.splits if name == "decode" else [table.units_total - units for units in table.splits]
        nice = PREFILL_NICE if name == "prefill" else 0
        streams: dict[int, Stream] = {}
        for size in sorted({*sizes, table.units_total}):
            own = cores[:size] if name == "decode" else cores[len(cores) - size :]
            streams[size] = Worker(f"{name}-{size}", _pinned(table, own), size, nice, on_done)
        depth = CPU_DEFAULTS.prefill_depth if name == "prefill" else DEPTH
        lanes[name] = LaneExecutor(name, streams, whole, run, depth)
    return lanes


def _pinned(table: PartitionTable, cores: list[int]) -> list[int] | None:
    return cores if table.unsupported is None or table.units_total == 1 else None
