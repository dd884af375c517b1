"""A GPU as a device: streams on its partitions, a graph of each decode step, memory for the cache by measurement.

CUDA and HIP are the same code from `torch.cuda` on; they differ in who makes the streams (`gpu_streams.py`). The HIP
half was never run on hardware. From the start on, the calling thread's current stream is the one on all units, so that
nothing is ever enqueued on the default (NULL) stream, which on HIP would join the lanes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any, Final

import torch
from msgspec.structs import replace

from rapidctl.wire import DeviceInfo, UnitGroup
from rapidd import log
from rapidd.engine import chunk_inputs, gpu_start
from rapidd.engine.backend import Report, Sizes, fill
from rapidd.engine.defaults import DEPTH, GPU_DEFAULTS
from rapidd.engine.device_stream import DeviceStream, Launcher, TorchQueue, lost
from rapidd.engine.gpu_memory import measure, spare_bytes
from rapidd.engine.gpu_runner import GpuRunner, StreamState
from rapidd.engine.gpu_streams import GpuKind, GpuStreams, open_streams
from rapidd.engine.graphs import buckets, no_garbage_collection, torch_capture
from rapidd.engine.lanes import LaneExecutor
from rapidd.engine.meter import Peaks
from rapidd.engine.peaks import gpu_peaks
from rapidd.engine.request import LANES, Lane
from rapidd.errors import ConfigError, DeviceError, is_out_of_memory
from rapidd.model.config import ModelSpec
from rapidd.model.llama import Llama
from rapidd.partition.hip import CDNA_WAVE
from rapidd.partition.table import PartitionTable
from rapidd.policy.plan import Plan
from rapidd.policy.profile import PromptWave

NUM_PLACES: Final = 3
"""Sets of static memory: streams on all units taking turns, decode's own streams, prefill's own streams."""
MAX_BLOCKS: Final = 1 << 18
"""A toy model's cache needs no more; the host keeps books of every block."""
ORDINAL: Final = 0


class GpuBackend:
    """`Backend` over one GPU. Raises DeviceError when it cannot be used, or lacks the units asked for."""

    defaults = GPU_DEFAULTS

    def __init__(self, kind: GpuKind, compute_units: int | None, on_done: Callable[[], None]) -> None:
        torch.cuda.set_device(ORDINAL)
        self._device = torch.device("cuda", ORDINAL)
        self.row_buckets: tuple[int, ...] = ()
        self.prompt_wave: PromptWave | None = None
        self._on_done = on_done
        self._streams: GpuStreams = open_streams(kind, ORDINAL, compute_units)
        self.table = self._streams.table
        torch.cuda.set_stream(self._streams.decode[self.table.units_total])
        properties = torch.cuda.get_device_properties(self._device)
        whole = self._streams.decode[self.table.units_total]
        _check_triton()
        self._probe = _probe_of(kind, properties, whole, self.table)
        if kind == "cuda" and self._probe is not None:
            self.table = _numbered(self.table, properties.multi_processor_count, partial(self._probe, whole))
        self.info = DeviceInfo(
            kind=kind,
            name=_name(kind, properties),
            units=self.table.units_total,
            unit_name=self.table.unit_name,
            memory_total_bytes=properties.total_memory,
            pci_bus_id=self._streams.pci_bus_id,
        )

    def choose_dtype(self, file_dtype: str | None) -> torch.dtype:
        """bfloat16: the kernels are made for 16 bits."""
        return torch.bfloat16

    def peaks(self, dtype: torch.dtype) -> Peaks:
        """See `Backend`."""
        return gpu_peaks(dtype, self.table.units_total)

    def load(self, load: Callable[[torch.device], Llama]) -> Llama:
        """See `Backend`."""
        with _config_errors("model.path: the weights do not fit in the device's memory: serve a smaller model"):
            model = load(self._device)
            torch.cuda.synchronize()
        torch.set_num_threads(1)  # small host tensors from here on: a team of threads would spin for nothing
        return model

    def kv_blocks(self, model: Llama, sizes: Sizes) -> int:
        """See `Backend`; measured by a forward pass of the largest batch there can be."""
        with _config_errors(
            "model.max-model-len: the largest batch does not fit in the device's memory beside the weights: "
            "lower --max-model-len or engine.max-batch-requests"
        ):
            needs = measure(model, sizes, self.defaults.max_chunk_tokens, self.table.units_total)
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        spare = spare_bytes(
            free,
            needs,
            num_places=NUM_PLACES,
            num_eager=1 + len(self._streams.prefill),
            num_captured=len(self._streams.decode) + len(self._streams.prefill),
            num_graphs=len(self._streams.decode) * len(buckets(sizes.num_slots))
            + len(self._streams.prefill) * len(chunk_inputs.sizes(sizes.num_slots, mixed=False))
            + len(chunk_inputs.sizes(sizes.num_slots, mixed=True)),
        )
        return min(spare // model.cache_layout(1, sizes.block_tokens).bytes_per_block, MAX_BLOCKS)

    def make_lanes(self, model: Llama, sizes: Sizes, kv_blocks: int, report: Report) -> dict[Lane, LaneExecutor]:
        """See `Backend`."""
        advice = (
            f"engine.kv-blocks: {kv_blocks} blocks of KV cache do not fit in the device's memory: lower --kv-blocks"
        )
        with _config_errors(advice):
            layout = model.cache_layout(kv_blocks + 1, sizes.block_tokens)
            self._cache = cache = model.kernels.allocate_cache(layout, self._device)
            runner = GpuRunner(model, cache, num_slots=sizes.num_slots, max_model_len=sizes.max_model_len)
            self._give_places(runner)
            torch.cuda.synchronize()  # what was just zeroed is about to be used on other streams
            self._capture(runner, report)
        if self.row_buckets:
            self.prompt_wave = prompt_wave_of(model.spec, self.table.units_total)
        return self._lanes(runner)

    def fill_cache(self) -> None:
        """See `Backend`."""
        fill(self._cache)
        torch.cuda.synchronize()

    def warm_up_plans(self) -> tuple[Sequence[Plan], Sequence[Plan]]:
        """Every stream, twice: compiling a kernel for the first run says nothing about speed."""
        plans = gpu_start.warm_up_plans(self.table)
        return plans, plans

    def memory_used(self) -> int | None:
        """See `Backend`. Raises DeviceLost: it is asked while nothing runs, too."""
        try:
            free, total = torch.cuda.mem_get_info()
        except RuntimeError as error:
            raise lost(error) from error
        return total - free

    def _give_places(self, runner: GpuRunner) -> None:
        """Static memory for every stream; see `NUM_PLACES`."""
        total = self.table.units_total
        whole, decode, prefill = (runner.make_place() for _ in range(NUM_PLACES))
        for units, stream in self._streams.decode.items():
            runner.streams[stream.cuda_stream] = StreamState(whole if units == total else decode)
        for stream in self._streams.prefill.values():
            runner.streams[stream.cuda_stream] = StreamState(prefill)

    def _capture(self, runner: GpuRunner, report: Report) -> None:
        """Every bucket on every stream that decodes, largest first: the smaller ones reuse its memory.

        None where the kernels are plain torch (float32, or no triton), which looks at a batch's lengths on the host.
        """
        if any(state.place.scratch is None for state in runner.streams.values()):
            report("plain torch on the GPU: no graphs", None)
            return
        self.row_buckets = runner.buckets
        started, (free_before, _) = time.monotonic(), torch.cuda.mem_get_info()
        decode, prefill = self._streams.decode, self._streams.prefill
        jobs = gpu_start.jobs(runner, self.table.units_total, decode, prefill, torch_capture)
        with no_garbage_collection():
            for index, job in enumerate(jobs):
                report("capturing graphs", 100.0 * index / len(jobs))
                with torch.cuda.stream((decode if job.lane == "decode" else prefill)[job.units]):
                    job.run()
        torch.cuda.synchronize()
        used = (free_before - torch.cuda.mem_get_info()[0]) / 2**20
        graphs = sum(len(state.graphs) + len(state.chunk_graphs) for state in runner.streams.values())
        detail = f"{graphs} graphs in {time.monotonic() - started:.1f} s, {used:.0f} MiB"
        log.info(detail)
        report(detail, None)

    def _lanes(self, runner: GpuRunner) -> dict[Lane, LaneExecutor]:
        total = self.table.units_total
        raw: dict[Lane, dict[int, torch.cuda.Stream]] = {
            "decode": self._streams.decode,
            "prefill": self._streams.prefill,
        }
        # Launching takes long, and holds the interpreter only in part; no lane is to wait for the other's.
        launchers = {name: Launcher(f"launch-{name}") for name in LANES}
        own = {
            name: {
                units: DeviceStream(
                    f"{name}-{units}",
                    TorchQueue(stream),
                    partial(self._placement, stream),
                    self._on_done,
                    launchers[name],
                )
                for units, stream in raw[name].items()
            }
            for name in LANES
        }
        # Decode's stream on all units also serves the modes in which the lanes take turns.
        whole = own["decode"][total]
        return {name: LaneExecutor(name, own[name], whole, runner.launch, DEPTH) for name in LANES}

    def _placement(self, stream: torch.cuda.Stream) -> list[int]:
        """Units that the probe sees the stream run on; none where there is no probe."""
        return [] if self._probe is None else self._probe(stream)


def _check_triton() -> None:
    """Raises DeviceError where triton is installed and cannot compile its launcher, which it does when first used."""
    if find_spec("triton") is None:
        return
    from triton.runtime import driver

    try:
        _ = driver.active
    except Exception as error:  # no compiler, none that succeeds, or no library of the driver's to link with
        raise DeviceError(
            f"triton cannot be used on this device: {error}",
            "install gcc or clang and Python's headers (python3-dev); see rapidd doctor",
        ) from error


def _name(kind: GpuKind, properties: Any) -> str:
    """For people and profiles. HIP's comes from a file of the host's, without which all AMD GPUs have the same."""
    return str(properties.name) if kind == "cuda" else f"{properties.name} ({_architecture(properties)})"


def _architecture(properties: Any) -> str:
    """``gfx942``, without its feature flags."""
    return str(properties.gcnArchName).partition(":")[0]


def _numbered(table: PartitionTable, units_of_device: int, probe: Callable[[], list[int]]) -> PartitionTable:
    """Fewer SMs than the device has are not its first ones by number: the table says which they are."""
    if table.units_total == units_of_device:
        return table
    try:
        return replace(table, groups=(UnitGroup(name="SMs in use", units=tuple(probe())),))
    except Exception as error:  # of a compiler or a driver: no reason not to serve
        log.warning(f"the placement probe failed: {error}")
        return table


def _probe_of(
    kind: GpuKind, properties: Any, whole: torch.cuda.Stream, table: PartitionTable
) -> Callable[[torch.cuda.Stream], list[int]] | None:
    """The placement probe, if this device has one. It is no reason not to serve."""
    if find_spec("triton") is None:
        return None
    if kind == "cuda":
        from rapid_kernels.gpu.probe import unit_ids

        return partial(unit_ids, device_units=properties.multi_processor_count)
    if properties.warp_size != CDNA_WAVE:
        return None  # RDNA keeps its place in other registers
    from rapidd.partition.hip_probe import HipProbe

    try:
        return HipProbe(whole, table.units_total, _architecture(properties))
    except Exception as error:  # a kernel that no such device has run yet
        log.warning(f"placement is not measured: {error}")
        return None


def prompt_wave_of(spec: ModelSpec, units: int) -> PromptWave | None:
    """As `rapid_kernels.gpu` plans them; null where a layer has a window, behind which tiles are not cut."""
    from rapid_kernels.gpu.heads import padded_sizes
    from rapid_kernels.gpu.tuning import PROMPT, PROMPTS_PER_UNIT

    tiles = PROMPTS_PER_UNIT * units // spec.num_kv_heads
    if tiles == 0 or any(spec.windows):
        return None
    heads, _ = padded_sizes(spec.num_heads // spec.num_kv_heads, spec.head_dim)
    return PromptWave(tiles, PROMPT.queries // heads)


@contextmanager
def _config_errors(advice: str) -> Iterator[None]:
    """At start, running out of memory is a matter of settings, and so is what the kernels refuse."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        said = str(error).splitlines()[0].partition(". GPU")[0]
        raise ConfigError([f"{advice} ({said})"]) from error
    except ValueError as error:
        raise ConfigError([f"the GPU's kernels cannot serve this: {error}"]) from error
