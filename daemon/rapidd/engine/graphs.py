"""Decode steps captured as graphs, one for each (stream, number of rows): launching one takes microseconds of the host.

A captured kernel keeps the units of the stream it was captured on (CUDA), so every stream has a set of its own; they
read their inputs from the static buffer of the place they run in (`gpu_runner.Place`). Numbers of rows are rounded up
to a bucket. Captured at start, largest first, from one memory pool a stream, never while serving: a capture waits for
the device. Knows neither model nor batches: a step is a call.
"""

from __future__ import annotations

import gc
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

import torch

BUCKETS: Final = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
STEP: Final = 64
"""From one bucket to the next beyond those: a tile of the matrix library's."""


class Graph(Protocol):
    """Something to enqueue on the current stream at once."""

    def replay(self) -> None:
        """Enqueue it."""


Capture = Callable[[Callable[[], None]], Graph]
"""Runs a step once for real and captures it, on the current stream."""


def buckets(max_rows: int) -> tuple[int, ...]:
    """Row counts to capture, ascending; the last one is ``max_rows``."""
    above = range(BUCKETS[-1] + STEP, max_rows, STEP)
    return (*(count for count in (*BUCKETS, *above) if count < max_rows), max_rows)


def bucket_for(num_rows: int, sizes: tuple[int, ...]) -> int:
    """The smallest that holds so many rows."""
    return sizes[bisect_left(sizes, num_rows)]


def torch_capture() -> Capture:
    """Captures that share one pool of memory: of graphs that are replayed on one stream, one after another."""
    pool = torch.cuda.graph_pool_handle()

    def capture(step: Callable[[], None]) -> Graph:
        step()  # compiles kernels and makes the libraries' handles and workspaces, which a capture must not
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            step()
        except BaseException:
            with suppress(RuntimeError):  # that there is nothing to end, which would hide why
                graph.capture_end()
            raise
        graph.capture_end()
        graph.replay()  # the driver brings it to the device now, not at the first step that is served
        return graph

    return capture


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Python may not free device memory or events of its own accord in the middle of a capture."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
