"""CPU cores as compute units: the one maker of CPU streams.

A stream is a worker thread, pinned to its cores, with a torch thread count of its own. Workers start when they are
first needed, one after another, and are never pinned again: torch's first operation in a thread re-reads the last
count set by anyone, and an OpenMP team keeps the affinity it was created with. A plan that wants other cores picks
another worker.

Placement is measured, not assumed: `Worker.placement` reads from the kernel on which cores the threads of the
worker's team ran last. Knows nothing of batches: a worker runs callables in order.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

import torch

from rapidctl.wire import UnitGroup
from rapidd.errors import DeviceError
from rapidd.partition.table import PartitionTable, Seen, spread
from rapidd.telemetry.kfd import read_int

T = TypeVar("T")

PREFILL_NICE = 10
"""Of prefill workers: where both lanes share cores, the kernel gives decode about nine tenths of a contended one."""
_TASKS = Path("/proc/self/task")
_CPUS = Path("/sys/devices/system/cpu")


def cpu_table(compute_units: int | None) -> tuple[PartitionTable, list[int]]:
    """The table for the cores this process may use (at most ``compute_units``), and these cores.

    Raises DeviceError when more units are asked for than there are.
    """
    try:
        cores = sorted(os.sched_getaffinity(0))
    except (AttributeError, OSError) as error:
        count = compute_units or os.cpu_count() or 1
        why = f"this system has no CPU affinity ({error}): lanes cannot be kept apart"
        return PartitionTable(units_total=count, unit_name="core", splits=(), unsupported=why), list(range(count))
    if compute_units is not None:
        if compute_units > len(cores):
            raise DeviceError(
                f"{compute_units} compute units were asked for and this process may use {len(cores)} cores",
                f"lower --compute-units to at most {len(cores)}",
            )
        cores = cores[:compute_units]
    reason = None if len(cores) > 1 else "one core cannot be split"
    table = PartitionTable(
        units_total=len(cores),
        unit_name="core",
        splits=spread(len(cores), 1),
        unsupported=reason,
        groups=core_groups(cores),
    )
    return table, cores


def core_groups(cores: Sequence[int], root: Path = _CPUS) -> tuple[UnitGroup, ...] | None:
    """Cores as the kernel numbers them, by socket and physical core (whose threads they are); None: not told."""
    found: dict[tuple[int, int], list[int]] = {}
    for core in sorted(cores):
        topology = root / f"cpu{core}" / "topology"
        socket, physical = read_int(topology / "physical_package_id"), read_int(topology / "core_id")
        if socket is None or physical is None:
            return None
        found.setdefault((socket, physical), []).append(core)
    return tuple(
        UnitGroup(name=f"core {physical}", within=f"socket {socket}", units=tuple(found[socket, physical]))
        for socket, physical in sorted(found)
    )


class Waitable(Protocol):
    """Something on another stream that must end first."""

    def wait(self) -> None:
        """Block until it ended."""


class Task(Generic[T]):
    """One callable in a worker's queue, then what it returned or raised."""

    def __init__(self, call: Callable[[], T], after: Waitable | None) -> None:
        self._call = call
        self._after = after
        self._finished = threading.Event()
        self._value: T | None = None
        self._error: Exception | None = None

    def run(self) -> None:
        """In the worker."""
        if self._after is not None:
            self._after.wait()
            self._after = None
        try:
            self._value = self._call()
        except Exception as error:  # handed to whoever asks for the value
            self._error = error
        self._finished.set()

    def wait(self) -> None:
        """Block until it ran."""
        self._finished.wait()

    @property
    def done(self) -> bool:
        """Whether it ran."""
        return self._finished.is_set()

    @property
    def value(self) -> T:
        """What it returned; only when done. Raises what it raised."""
        if self._error is not None:
            raise self._error
        assert self._value is not None
        return self._value


class Worker:
    """A thread on ``cores`` (None: wherever the system puts it) that runs tasks in order. Used by one thread."""

    def __init__(
        self, name: str, cores: list[int] | None, num_threads: int, nice: int, on_done: Callable[[], None]
    ) -> None:
        self.num_threads = num_threads
        self._cores = cores
        self._nice = nice
        self._on_done = on_done
        self._queue: SimpleQueue[Task[Any] | None] = SimpleQueue()
        self._team: list[int] = []
        self._error: Exception | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def submit(self, call: Callable[[], T], after: Waitable | None = None) -> Task[T]:
        """Queue ``call``; it starts when ``after``, a task of another worker, has ended.

        Raises DeviceError when the worker cannot start: its cores may have been taken from this process since.
        """
        if not self._ready.is_set():
            self._thread.start()
            self._ready.wait()
        if self._error is not None:
            why = f"worker {self._thread.name} cannot have cores {self._cores}: {self._error}"
            raise DeviceError(why) from self._error
        task = Task(call, after)
        self._queue.put(task)
        return task

    def close(self) -> None:
        """End the thread, if it ever started, after what is queued."""
        if self._ready.is_set():
            self._queue.put(None)
            self._thread.join()

    def placement(self) -> Seen:
        """Cores on which the team's threads were last seen running: read anew each time."""
        return Seen(sorted({core for tid in self._team if (core := _last_core(tid)) is not None}), time.time())

    def probe(self) -> Callable[[], bool]:
        """See `lanes.Stream`. A worker that was never needed starts now: before, its team runs nowhere."""
        task = self.submit(lambda: True)
        return lambda: task.done

    def _main(self) -> None:
        try:
            self._begin()
        except Exception as error:  # handed to whoever started it
            self._error = error
        self._ready.set()
        while self._error is None and (task := self._queue.get()) is not None:
            task.run()
            self._on_done()

    def _begin(self) -> None:
        before = _thread_ids()
        if self._cores is not None:
            os.sched_setaffinity(0, self._cores)
        if self._nice:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)
        torch.set_num_threads(self.num_threads)
        assert torch.get_num_threads() == self.num_threads  # fixes this thread's count: see the module's head
        _start_team()
        self._team = sorted({threading.get_native_id(), *(_thread_ids() - before)})


def _start_team() -> None:
    """A parallel region makes the OpenMP threads, with the affinity and priority of this one."""
    torch.ones(1 << 20).add_(1)


def _thread_ids() -> set[int]:
    return {int(entry.name) for entry in _TASKS.iterdir()} if _TASKS.is_dir() else set()


def _last_core(tid: int) -> int | None:
    """Field "processor" of /proc/self/task/TID/stat (proc_pid_stat(5), number 39)."""
    try:
        stat = (_TASKS / str(tid) / "stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[36])
