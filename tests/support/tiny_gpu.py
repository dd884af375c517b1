"""The GPU half of the engine over the 260K-parameter test model: on a GPU, or on the CPU with a stand-in for it.

The stand-in does at once what a device would do later, on the caller's thread; a graph is a step that runs again. What
is real in both: streams' waiters, staging, token table, buckets and padding, sampling, lanes and scheduler.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rapid_kernels import KVCache, Ragged, make_ragged
from rapid_kernels.reference import ReferenceKernels
from rapidd.config import ModelConfig
from rapidd.engine.device_stream import DeviceStream, Launcher, Queue, TorchQueue
from rapidd.engine.gpu_runner import GpuRunner, StreamState
from rapidd.engine.gpu_start import jobs
from rapidd.engine.gpu_streams import GpuStreams
from rapidd.engine.graphs import Capture, Graph, torch_capture
from rapidd.engine.lanes import LaneExecutor
from rapidd.engine.request import LANES, Lane
from rapidd.model.llama import Llama
from rapidd.model.resolve import load_model
from rapidd.model.weights import open_weights
from rapidd.partition.table import PartitionTable
from support.tiny import MAX_MODEL_LEN, MODEL, TinyEngine, Wake


class DeviceLengths(ReferenceKernels):
    """The reference, with lengths of the rows read from the device's tensors, as a captured kernel reads them.

    Rows without a token, and tokens behind the last row, are padding.
    """

    def attention(self, q: Tensor, cache: KVCache, layer: int, ragged: Ragged, window: int | None) -> Tensor:
        starts = [int(value) for value in ragged.query_start]
        real = [row for row in range(ragged.num_rows) if starts[row + 1] > starts[row]]
        device_s = replace(
            ragged,
            block_tables=ragged.block_tables[real],
            kv_lens=ragged.kv_lens[real],
            kv_lens_cpu=[int(value) for value in ragged.kv_lens[real]],
            query_start=ragged.query_start[[*real, -1]],
            query_start_cpu=[*(starts[row] for row in real), starts[-1]],
            derived={},
        )
        out = torch.full((len(q), q.shape[1] * q.shape[2]), math.nan, dtype=q.dtype)
        out[: starts[-1]] = super().attention(q[: starts[-1]], cache, layer, device_s, window)
        return out


class Reached:
    """An event of a device that does everything at once."""

    def __init__(self) -> None:
        self.at = time.monotonic()

    def synchronize(self) -> None:
        return

    def elapsed_time(self, end_event: Any, /) -> float:
        return float(1e3 * (end_event.at - self.at))


class Device(threading.local):
    """Keeps which of its streams is current in a thread."""

    current = 0


class StandInQueue:
    """A stream of the stand-in."""

    def __init__(self, device: Device, handle: int) -> None:
        self._device, self._handle = device, handle

    @contextmanager
    def current(self) -> Iterator[None]:
        before, self._device.current = self._device.current, self._handle
        yield
        self._device.current = before

    def record(self) -> Reached:
        return Reached()

    def wait(self, event: object) -> None:
        return


class Again:
    """A captured step."""

    def __init__(self, step: Callable[[], None]) -> None:
        self.replay = step


def stand_in_capture(step: Callable[[], None]) -> Graph:
    step()
    return Again(step)


def tiny_llama(dtype: torch.dtype, device: str, kernels: ReferenceKernels | None = None) -> Llama:
    loaded = load_model(ModelConfig(path=str(MODEL)))
    assert loaded.weights is not None
    weights = open_weights(loaded.weights, loaded.spec)
    return Llama(loaded.spec, weights, dtype, device=device, max_positions=MAX_MODEL_LEN, kernels=kernels)


class TinyGpuEngine(TinyEngine):
    """``queues``: of each lane by unit count; decode's on all units also serves the modes that take turns.

    ``capture``: None: every batch is launched kernel by kernel.
    """

    def __init__(
        self,
        model: Llama,
        table: PartitionTable,
        queues: Mapping[Lane, Mapping[int, tuple[int, Queue]]],
        capture: Callable[[], Capture] | None,
        current: Callable[[], int],
        block_tokens: int,
        kv_blocks: int = 200,
        max_running: int = 16,
        max_model_len: int = MAX_MODEL_LEN,
    ) -> None:
        self.model, self.table, self.wake = model, table, Wake()
        self.block_tokens = block_tokens
        self.cache = model.kernels.allocate_cache(model.cache_layout(kv_blocks, block_tokens), model.device)
        self.gpu = GpuRunner(model, self.cache, num_slots=max_running, max_model_len=max_model_len, current=current)
        self._make_states(queues)
        if capture is not None:
            self._capture(queues, capture)
        launchers = {name: Launcher(f"launch-{name}") for name in LANES}
        streams = {
            name: {
                units: DeviceStream(f"{name}-{units}", queue, list, self.wake.set, launchers[name])
                for units, (_, queue) in queues[name].items()
            }
            for name in LANES
        }
        whole = streams["decode"][table.units_total]
        self.lanes = {name: LaneExecutor(name, streams[name], whole, self.gpu.launch, 2) for name in LANES}
        self.bound = 64
        self._kv_blocks, self._max_running = kv_blocks, max_running
        self.reset()

    def _make_states(self, queues: Mapping[Lane, Mapping[int, tuple[int, Queue]]]) -> None:
        whole, decode, prefill = (self.gpu.make_place() for _ in range(3))
        for units, (handle, _) in queues["decode"].items():
            self.gpu.streams[handle] = StreamState(whole if units == self.table.units_total else decode)
        for handle, _ in queues["prefill"].values():
            self.gpu.streams[handle] = StreamState(prefill)

    def _capture(self, queues: Mapping[Lane, Mapping[int, tuple[int, Queue]]], capture: Callable[[], Capture]) -> None:
        for job in jobs(self.gpu, self.table.units_total, queues["decode"], queues["prefill"], capture):
            with queues[job.lane][job.units][1].current():
                job.run()


def gpu_engine(model: Llama, streams: GpuStreams, block_tokens: int, kv_blocks: int) -> TinyGpuEngine:
    """On a real GPU: graphs on the stream of all units and on every split's, where the kernels are no plain torch."""
    torch.cuda.set_stream(streams.decode[streams.table.units_total])
    queues: dict[Lane, dict[int, tuple[int, Queue]]] = {
        "decode": {units: (stream.cuda_stream, TorchQueue(stream)) for units, stream in streams.decode.items()},
        "prefill": {units: (stream.cuda_stream, TorchQueue(stream)) for units, stream in streams.prefill.items()},
    }
    engine = TinyGpuEngine(
        model,
        streams.table,
        queues,
        None if isinstance(model.kernels, ReferenceKernels) else torch_capture,
        lambda: torch.cuda.current_stream().cuda_stream,
        block_tokens=block_tokens,
        kv_blocks=kv_blocks,
    )
    torch.cuda.synchronize()  # what was made on one stream is about to be used on others
    return engine


def forced_logits(model: Llama, prompt: Sequence[int], output: Sequence[int]) -> Tensor:
    """Teacher forcing on the CPU: the logits [len(output), vocab_size] that each output token was to be chosen from."""
    ids = [*prompt, *output]
    blocks = list(range(1, math.ceil(len(ids) / 16) + 1))
    cache = model.kernels.allocate_cache(model.cache_layout(len(blocks) + 1, 16))
    ragged = make_ragged([len(ids)], [len(ids)], [blocks], 16, 1)
    return model.forward(torch.tensor(ids), ragged, cache, torch.arange(len(prompt) - 1, len(ids) - 1))


def stand_in_engine(plain: ReferenceKernels | None = None, **sizes: int) -> TinyGpuEngine:
    """Four units in float32, split 1/3 or 2/2. ``plain``: kernels of which nothing is captured."""
    device = Device()
    table = PartitionTable(units_total=4, unit_name="SM", splits=(1, 2))
    queues: dict[Lane, dict[int, tuple[int, Queue]]] = {
        "decode": {units: (10 + units, StandInQueue(device, 10 + units)) for units in (4, 1, 2)},
        "prefill": {units: (20 + units, StandInQueue(device, 20 + units)) for units in (4, 3, 2)},
    }
    return TinyGpuEngine(
        tiny_llama(torch.float32, "cpu", plain or DeviceLengths()),
        table,
        queues,
        (lambda: stand_in_capture) if plain is None else None,
        lambda: device.current,
        block_tokens=16,
        **sizes,
    )
