"""What a GPU runs before it serves, so that nothing is compiled or captured while it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from rapidd.engine.gpu_runner import GpuRunner
from rapidd.engine.graphs import Capture
from rapidd.engine.request import Lane
from rapidd.partition.table import PartitionTable
from rapidd.policy.plan import Plan


class Job(NamedTuple):
    """To run on a lane's stream of so many units."""

    lane: Lane
    units: int
    run: Callable[[], None]


def jobs(
    runner: GpuRunner, units_total: int, decode: Iterable[int], prefill: Iterable[int], capture: Callable[[], Capture]
) -> list[Job]:
    """Captures on every stream, given by their units, largest first; the graphs of a stream share memory.

    Mixed batches run on all units only, the ones that are not captured once, too.
    """
    found: list[Job] = []
    for units in decode:
        own = capture()
        if units == units_total:
            found.append(Job("decode", units, partial(runner.launch_mixed, units)))
            found += [
                Job("decode", units, partial(runner.capture_chunk, size, units, own)) for size in runner.mixed_sizes
            ]
        found += [Job("decode", units, partial(runner.capture, rows, units, own)) for rows in reversed(runner.buckets)]
    for units in prefill:
        own = capture()
        found += [Job("prefill", units, partial(runner.capture_chunk, size, units, own)) for size in runner.chunk_sizes]
    return found


def warm_up_plans(table: PartitionTable) -> list[Plan]:
    """Under which every stream runs."""
    total = table.units_total
    plans = [Plan("hybrid", total, total, None), Plan("shared", total, total, None)]
    return [*plans, *(Plan("split", units, total - units, None) for units in table.splits)]
