"""Streams of a GPU as a lane sees them: work is enqueued by one thread, and a waiter thread sees it end.

A batch is enqueued on the caller's thread, or by a launcher thread of its lane: a prompt chunk is hundreds of kernels,
and even the graph of a decode step takes longer than what else the caller has to do. A batch is bracketed by two timed
events; the waiter of its stream sleeps on the second one without the GIL, takes the result out of host memory, and
wakes the loop. A stream that must go on behind another one waits for that one's event on the device. Knows batches
only as calls that give a `BatchResult`.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

import torch

from rapidd import log
from rapidd.engine.batch import BatchResult
from rapidd.engine.lanes import Done
from rapidd.errors import DeviceLost
from rapidd.partition.table import Seen


def lost(error: Exception) -> DeviceLost:
    """What an error of the device means that no batch is to blame for."""
    said, _, _ = str(error).partition("\n")  # torch goes on about how to debug a program of one's own
    failure = DeviceLost(f"the device failed: {said}", "see dmesg; the engine starts anew")
    failure.__cause__ = error
    return failure


class Event(Protocol):
    """A mark in a stream. `torch.cuda.Event` has the same methods."""

    def synchronize(self) -> None:
        """Block until the device has reached it."""

    def elapsed_time(self, end_event: Any, /) -> float:
        """Milliseconds on the device from this mark to a later one; both reached."""


class Queue(Protocol):
    """A device's stream: the seam below which there is hardware."""

    def current(self) -> AbstractContextManager[object]:
        """Within it, torch enqueues on this stream."""

    def record(self) -> Event:
        """Mark this place in the stream."""

    def wait(self, event: Event) -> None:
        """Let what is enqueued from now on run behind a mark of another stream."""


class TorchQueue:
    """`Queue` over a torch stream, CUDA's or HIP's."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.stream = stream

    def current(self) -> AbstractContextManager[object]:
        """See `Queue`."""
        return torch.cuda.stream(self.stream)

    def record(self) -> torch.cuda.Event:
        """See `Queue`. Who synchronises with it sleeps instead of spinning."""
        event: torch.cuda.Event = torch.cuda.Event(  # type: ignore[no-untyped-call]
            enable_timing=True, blocking=True
        )
        event.record(self.stream)
        return event

    def wait(self, event: Event) -> None:
        """See `Queue`."""
        assert isinstance(event, torch.cuda.Event)
        self.stream.wait_event(event)


@dataclass(slots=True)
class Launched(BatchResult):
    """A result that is still on the device: ``fetch`` fills it from host memory once the device is done."""

    fetch: Callable[[BatchResult], None] | None = None


class Launcher:
    """A thread that launches batches in the order in which it gets them: for all streams of a lane.

    No executor: its futures take the caller longer than all of this. As an executor's, the thread ends before the
    interpreter does, which must not be taken from under a launch.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def submit(self, call: Callable[[], None]) -> None:
        """Have a call made that never raises."""
        self._calls.put(call)

    def close(self) -> None:
        """Launch what was submitted, and end the thread."""
        self._calls.put(None)
        self._thread.join()

    def _main(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


class Once:
    """What happens once, and may be waited for. A `threading.Event` takes ten times as long to make."""

    __slots__ = ("_lock", "happened")

    def __init__(self) -> None:
        self.happened = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """It happens."""
        self.happened = True
        self._lock.release()

    def wait(self) -> None:
        """Block until it has happened."""
        if not self.happened:
            with self._lock:
                pass


class DeviceTask:
    """A batch on a stream, between two events: launched by one thread, resolved by another."""

    def __init__(self, call: Callable[[], BatchResult], after: DeviceTask | None) -> None:
        self._call = call
        self._after = after
        self._marks: tuple[Event, Event] | None = None
        self._result: BatchResult | None = None
        self._launch_ns = 0
        self._launched = Once()
        self._ended = Once()
        self._lost: DeviceLost | None = None

    def launch(self, queue: Queue) -> None:
        """Enqueue what the call enqueues. Never raises: a device that takes nothing any more is the result."""
        self._launch(queue)
        self._launched.set()

    def launch_apart(self, queue: Queue) -> None:
        """The same on a thread whose time is to be told with the result."""
        begin_ns = time.monotonic_ns()
        self._launch(queue)
        self._launch_ns = time.monotonic_ns() - begin_ns
        self._launched.set()

    def _launch(self, queue: Queue) -> None:
        try:
            with queue.current():
                if self._after is not None and not self._after.done:
                    queue.wait(self._after.end)
                self._after = None
                start = queue.record()
                self._result = self._call()
                self._marks = start, queue.record()
        except Exception as error:  # handed to whoever asks for the result
            self._lost = lost(error)

    @property
    def end(self) -> Event:
        """The mark behind the batch; blocks until it is launched. Raises DeviceLost when it could not be."""
        self._launched.wait()
        if self._marks is None:
            assert self._lost is not None
            raise self._lost
        return self._marks[1]

    def resolve(self, clock: Callable[[], int]) -> None:
        """In the waiter, of a launched batch: sleep until the device is done, then read what came out."""
        if self._lost is None:
            try:
                self._fetch(clock)
            except Exception as error:  # the end of a thread: handed to whoever asks for the result
                self._lost = lost(error)
        self._ended.set()

    def _fetch(self, clock: Callable[[], int]) -> None:
        assert self._marks is not None
        assert self._result is not None
        start, end = self._marks
        result = self._result
        result.launch_ns = self._launch_ns
        end.synchronize()
        result.ended_ns = clock()
        result.started_ns = result.ended_ns - int(start.elapsed_time(end) * 1e6)
        if isinstance(result, Launched) and result.fetch and result.error is None:
            result.fetch(result)

    @property
    def done(self) -> bool:
        """See `Done`."""
        return self._ended.happened

    @property
    def value(self) -> BatchResult:
        """See `Done`. Raises DeviceLost when the device is lost, for which no batch is to blame."""
        if self._lost is not None:
            raise self._lost
        assert self.done
        assert self._result is not None
        return self._result

    def wait(self) -> None:
        """See `Done`."""
        self._ended.wait()


class DeviceStream:
    """`lanes.Stream` over a device's stream. ``measure``: the placement probe, which waits for what is enqueued and
    gives the units on which it ran, none where there is no probe. It is run once now, and whenever `probe` asks;
    where it fails, placement is not measured.

    ``launcher``: launches for all streams of a lane; None: the caller launches.
    """

    def __init__(
        self,
        name: str,
        queue: Queue,
        measure: Callable[[], list[int]],
        on_done: Callable[[], None],
        launcher: Launcher | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._launcher = launcher
        self._queue = queue
        self._measure = measure
        self._seen = Seen([], time.time())
        self._look()
        self._on_done = on_done
        self._clock = clock
        self._tasks: SimpleQueue[DeviceTask] = SimpleQueue()
        self._waiter = threading.Thread(target=self._main, name=f"wait-{name}", daemon=True)

    def submit(self, call: Callable[[], BatchResult], after: Done | None) -> DeviceTask:
        """Have enqueued what ``call`` enqueues, behind ``after``, a task of another stream of this device."""
        assert after is None or isinstance(after, DeviceTask)
        task = DeviceTask(call, after)
        if not self._waiter.is_alive():
            self._waiter.start()
        if self._launcher is None:
            task.launch(self._queue)
            self._tasks.put(task)
        else:
            self._launcher.submit(lambda: self._launch_apart(task))
        return task

    def _launch_apart(self, task: DeviceTask) -> None:
        task.launch_apart(self._queue)
        self._tasks.put(task)

    def placement(self) -> Seen:
        """See `lanes.Stream`."""
        return self._seen

    def probe(self) -> Callable[[], bool]:
        """See `lanes.Stream`. Nothing is launched on the lane until the device has come that far."""
        looked = Once()

        def look() -> None:
            self._look()
            looked.set()
            self._on_done()

        if self._launcher is None:
            look()
        else:
            self._launcher.submit(look)
        return lambda: looked.happened

    def _look(self) -> None:
        """Whatever goes wrong, what was seen before stays, and batches go on; a lost device fails the next one."""
        try:
            self._seen = Seen(self._measure(), time.time())
        except Exception as error:  # of a compiler, a driver, or a kernel that no such device has run yet
            log.warning(f"the placement probe failed: {error}")

    def _main(self) -> None:
        while True:
            self._tasks.get().resolve(self._clock)
            self._on_done()
