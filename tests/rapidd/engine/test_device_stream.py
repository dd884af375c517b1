"""A device's stream: enqueue now, learn of the end later; times are the device's."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rapidd.engine.batch import BatchResult
from rapidd.engine.device_stream import DeviceStream, Launched, Launcher
from rapidd.errors import DeviceLost


class FakeEvent:
    """Reached when the test says so; ``fault``: the device failed on the way."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.fault: Exception | None = None

    def synchronize(self) -> None:
        assert self.reached.wait(10)
        if self.fault:
            raise self.fault

    def elapsed_time(self, end_event: Any, /) -> float:
        return 2.5


class FakeQueue:
    """The device seam."""

    def __init__(self) -> None:
        self.events = list[FakeEvent]()
        self.waits = list[object]()
        self.is_current = False

    @contextmanager
    def current(self) -> Iterator[None]:
        self.is_current = True
        yield
        self.is_current = False

    def record(self) -> FakeEvent:
        self.events.append(FakeEvent())
        return self.events[-1]

    def wait(self, event: object) -> None:
        self.waits.append(event)


class Setup:
    def __init__(self) -> None:
        self.queue = FakeQueue()
        self.woken = threading.Semaphore(0)
        self.stream = self.make(self.queue)

    def make(self, queue: FakeQueue) -> DeviceStream:
        return DeviceStream("test", queue, lambda: [3, 4], self.woken.release, clock=lambda: 10_000_000)

    def finish(self, event: FakeEvent) -> None:
        event.reached.set()
        assert self.woken.acquire(timeout=10)


def assert_set(event: threading.Event) -> None:
    assert event.wait(10)


def fetching(ids: list[int]) -> Callable[[BatchResult], None]:
    return lambda result: result.token_ids.extend(ids)


def test_work_is_enqueued_at_once_and_its_result_is_there_when_the_device_is_done() -> None:
    setup = Setup()
    seen = list[bool]()

    def call() -> BatchResult:
        seen.append(setup.queue.is_current)
        return Launched(fetch=fetching([7]))

    task = setup.stream.submit(call, None)
    assert (seen, task.done) == ([True], False)
    setup.finish(setup.queue.events[1])
    assert task.done
    assert task.value.token_ids == [7]
    assert (task.value.started_ns, task.value.ended_ns) == (7_500_000, 10_000_000)
    assert task.value.launch_ns == 0, "the caller knows"
    assert setup.stream.placement().units == [3, 4]


def test_a_lane_with_a_launcher_launches_in_its_thread_in_order_and_the_caller_goes_on() -> None:
    """Launching a long prompt chunk takes milliseconds: decode steps used to come late behind it."""
    queue, woken, gate, threads = FakeQueue(), threading.Semaphore(0), threading.Event(), list[str]()

    def call() -> BatchResult:
        assert gate.wait(10)
        threads.append(threading.current_thread().name)
        return Launched(fetch=fetching([len(threads)]))

    launcher = Launcher("launch")
    stream = DeviceStream("test", queue, list, woken.release, launcher)
    first, second = stream.submit(call, None), stream.submit(call, None)
    assert (threads, first.done) == ([], False)
    gate.set()
    launcher.close()
    assert threads == ["launch", "launch"]
    for event in queue.events:
        event.reached.set()
    second.wait()
    assert (first.value.token_ids, second.value.token_ids) == ([1], [2])
    assert first.value.launch_ns > 0, "which the caller cannot measure"


def test_a_probe_looks_again_in_the_lanes_order_and_wakes_the_loop() -> None:
    woken, gate, places = threading.Semaphore(0), threading.Event(), iter(([1, 2], [3]))
    launcher = Launcher("launch")
    stream = DeviceStream("test", FakeQueue(), lambda: next(places), woken.release, launcher)
    launcher.submit(lambda: assert_set(gate))
    before = stream.placement()
    ended = stream.probe()
    assert (before.units, ended(), stream.placement()) == ([1, 2], False, before)
    gate.set()
    assert woken.acquire(timeout=10)
    launcher.close()
    assert ended()
    assert stream.placement().units == [3]
    assert stream.placement().at_unix_s >= before.at_unix_s


def test_a_probe_that_fails_keeps_what_was_seen_and_the_lane_goes_on() -> None:
    places = iter([[1, 2]])
    launcher = Launcher("launch")
    stream = DeviceStream("test", FakeQueue(), lambda: next(places), lambda: None, launcher)  # no second answer
    ended = stream.probe()
    ran = threading.Event()
    launcher.submit(ran.set)
    launcher.close()
    assert (ended(), ran.is_set(), stream.placement().units) == (True, True, [1, 2])


def test_a_probe_that_fails_at_the_start_is_no_reason_not_to_serve(capsys: pytest.CaptureFixture[str]) -> None:
    """It ended the engine, again and again: where a lane runs was to be told as not measured."""

    def fail() -> list[int]:
        raise RuntimeError("no such register")

    setup = Setup()
    stream = DeviceStream("test", setup.queue, fail, setup.woken.release)
    assert stream.placement().units == []
    assert "the placement probe failed: no such register" in capsys.readouterr().err
    task = stream.submit(lambda: Launched(fetch=fetching([7])), None)
    setup.finish(setup.queue.events[1])
    assert task.value.token_ids == [7]


def test_a_batch_behind_one_that_is_not_launched_yet_waits_for_its_launch() -> None:
    queue, other, gate = FakeQueue(), FakeQueue(), threading.Event()

    def slow() -> BatchResult:
        assert gate.wait(10)
        return BatchResult()

    before = DeviceStream("slow", other, list, lambda: None, Launcher("launch")).submit(slow, None)
    threading.Timer(0.0, gate.set).start()
    DeviceStream("next", queue, list, lambda: None).submit(BatchResult, before)
    assert queue.waits == [other.events[1]]


def test_a_device_that_takes_nothing_any_more_is_no_batchs_fault() -> None:
    setup = Setup()

    def call() -> BatchResult:
        raise RuntimeError("an illegal memory access was encountered")

    task = setup.stream.submit(call, None)
    assert setup.woken.acquire(timeout=10)
    with pytest.raises(DeviceLost, match="illegal memory access"):
        _ = task.value


def test_batches_end_in_order() -> None:
    setup = Setup()
    first, second = (setup.stream.submit(lambda: Launched(fetch=fetching([1])), None) for _ in range(2))
    setup.queue.events[3].reached.set()
    assert not second.done
    setup.finish(setup.queue.events[1])
    second.wait()
    assert first.done


def test_the_device_waits_for_another_streams_batch_unless_it_is_over() -> None:
    setup, other = Setup(), FakeQueue()
    before = setup.make(other).submit(BatchResult, None)
    setup.stream.submit(BatchResult, before)
    assert setup.queue.waits == [other.events[1]]
    setup.finish(other.events[1])
    setup.stream.submit(BatchResult, before)
    assert len(setup.queue.waits) == 1


def test_an_error_while_launching_is_the_batchs_and_ends_behind_what_was_enqueued() -> None:
    setup, error = Setup(), RuntimeError("launch")
    task = setup.stream.submit(lambda: BatchResult(error=error), None)
    assert not task.done
    setup.finish(setup.queue.events[1])
    assert task.value.error is error


def test_a_device_that_fails_is_no_batchs_fault() -> None:
    setup = Setup()
    task = setup.stream.submit(BatchResult, None)
    setup.queue.events[1].fault = RuntimeError("an illegal memory access was encountered")
    setup.finish(setup.queue.events[1])
    assert task.done
    with pytest.raises(DeviceLost, match="illegal memory access"):
        _ = task.value
