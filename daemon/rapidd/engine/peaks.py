"""What a device reaches at best: a plain read of memory and a large matrix product, measured before anything is loaded.

Of a few repeats the best counts: what disturbs one only makes it slower.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

import torch

from rapid_kernels import select
from rapid_kernels.reference import ReferenceKernels
from rapidd.engine.meter import Peaks
from rapidd.errors import is_out_of_memory
from rapidd.telemetry.device import available_memory_bytes

REPEATS: Final = 3
CPU_READ_BYTES: Final = 128 << 20
"""More than a core's share of any cache."""
CPU_PRODUCT: Final = 768
GPU_READ_BYTES: Final = 2 << 30
"""Far more than any L2 cache."""
GPU_PRODUCT: Final = 8192


def cpu_peaks(dtype: torch.dtype) -> Peaks:
    """With the calling thread's team of threads; some tens of milliseconds. Nulls where memory is short."""
    if available_memory_bytes() < 8 * CPU_READ_BYTES:
        return Peaks()
    a, b = (torch.ones(CPU_PRODUCT, CPU_PRODUCT, dtype=dtype) for _ in range(2))
    product_s = _best(lambda: torch.matmul(a, b))
    data = torch.ones(CPU_READ_BYTES // 4)
    return Peaks(2 * CPU_PRODUCT**3 / product_s, CPU_READ_BYTES / _best(data.sum))


def gpu_peaks(dtype: torch.dtype, units: int) -> Peaks:
    """On the current stream, which has ``units`` units; a quarter of a second with compiled kernels.

    Nulls where memory is short. Where the kernels are plain torch the read is a sum by torch.
    """
    try:
        return _gpu_peaks(dtype, units)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return Peaks()
    finally:
        torch.cuda.empty_cache()


def _gpu_peaks(dtype: torch.dtype, units: int) -> Peaks:
    a, b = (torch.randn(GPU_PRODUCT, GPU_PRODUCT, dtype=dtype, device="cuda") for _ in range(2))
    product_s = _best_on_gpu(lambda: torch.matmul(a, b))
    data = torch.empty(GPU_READ_BYTES // 4, dtype=torch.int32, device="cuda").random_()
    return Peaks(2 * GPU_PRODUCT**3 / product_s, GPU_READ_BYTES / min(map(_best_on_gpu, _reads(data, units))))


def _reads(data: torch.Tensor, units: int) -> list[Callable[[], object]]:
    if isinstance(select(data.device), ReferenceKernels):
        return [data.view(torch.float32).sum]
    from rapid_kernels.gpu.read import READ_TILES, read_all

    out = torch.empty(units * max(tile[-1] for tile in READ_TILES), dtype=torch.int32, device=data.device)
    return [partial(read_all, data, out, units, tile) for tile in READ_TILES]


def _best(work: Callable[[], object]) -> float:
    """Seconds by the clock; the first one, in which libraries make what they need, does not count."""
    work()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def _best_on_gpu(work: Callable[[], object]) -> float:
    """Seconds between two events on the current stream; the first two do not count."""
    work(), work()
    times = []
    for _ in range(REPEATS):
        start, end = _event(), _event()
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return float(min(times))


def _event() -> torch.cuda.Event:
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    return event
