"""Lanes: order across partitions, room, and busy time that is measured."""

from array import array
from collections.abc import Callable

from rapidctl.wire import Mode, Quantiles
from rapidd.engine.batch import Batch, BatchResult, Row
from rapidd.engine.lanes import Done, LaneExecutor
from rapidd.engine.probing import Probing
from rapidd.engine.request import Request, SamplingParams
from rapidd.partition.table import Seen

SECOND = 1_000_000_000


class FakeTask:
    """A batch that ends when the test says so."""

    def __init__(self, call: Callable[[], BatchResult], after: Done | None) -> None:
        self.call, self.after, self.done = call, after, False
        self.value = BatchResult()

    def wait(self) -> None:
        self.value, self.done = self.call(), True


class FakeStream:
    """The device seam: remembers what was submitted."""

    def __init__(self, units: list[int]) -> None:
        self.units, self.tasks = units, list[FakeTask]()
        self.probes, self.probed = 0, False

    def submit(self, call: Callable[[], BatchResult], after: Done | None) -> FakeTask:
        self.tasks.append(FakeTask(call, after))
        return self.tasks[-1]

    def placement(self) -> Seen:
        return Seen(self.units, 1e9)

    def probe(self) -> Callable[[], bool]:
        self.probes += 1
        return lambda: self.probed


class Setup:
    def __init__(self) -> None:
        self.now = 10 * SECOND
        self.streams = {1: FakeStream([0]), 2: FakeStream([0, 1])}
        self.whole = FakeStream([0, 1, 2])
        self.lane = LaneExecutor("decode", self.streams, self.whole, self.run, 2, lambda: self.now)

    def run(self, batch: Batch) -> BatchResult:
        start = self.now
        self.now += SECOND // 4
        return BatchResult(started_ns=start, ended_ns=self.now)


def batch(number: int, units: int, prefill_tokens: int = 0, mode: Mode = "split") -> Batch:
    request = Request(1, array("I", [1]), array("I"), max_output=9, sampling=SamplingParams())
    row = Row(request, 0, 1, 0, 3, [1], True, 0, array("I"), 1, request.sampling)
    return Batch(number, "decode", units, mode, [row], 0 if prefill_tokens else 1, prefill_tokens, 0)


def test_a_batch_on_other_units_waits_for_the_last_one_on_the_old_units() -> None:
    setup = Setup()
    setup.lane.enqueue(batch(1, 2))
    setup.lane.enqueue(batch(2, 1))
    first, second = setup.streams[2].tasks[0], setup.streams[1].tasks[0]
    assert (first.after, second.after) == (None, first)
    assert not setup.lane.room
    assert setup.lane.placement().units == [0]


def test_modes_that_take_turns_use_the_stream_of_the_whole_device() -> None:
    setup = Setup()
    modes: tuple[Mode, ...] = ("shared", "serial", "hybrid")
    for number, mode in enumerate(modes, 1):
        setup.lane.depth += 1
        setup.lane.enqueue(batch(number, 2, mode=mode))
    (shared,), (serial, hybrid) = setup.streams[2].tasks, setup.whole.tasks
    assert (shared.after, serial.after, hybrid.after) == (None, shared, None)
    assert setup.lane.placement().units == [0, 1, 2]


def test_batches_are_collected_in_order_when_they_are_done() -> None:
    setup = Setup()
    setup.lane.enqueue(batch(1, 2))
    setup.lane.enqueue(batch(2, 2))
    first, second = setup.streams[2].tasks
    second.done = True
    assert setup.lane.collect() == []
    first.wait()
    assert [done.number for done, _ in setup.lane.collect()] == [1, 2]
    assert setup.lane.idle


def test_busy_is_the_share_of_the_last_second_and_totals_are_by_phase() -> None:
    setup = Setup()
    for number, prefill_tokens in ((1, 0), (2, 3)):
        setup.lane.enqueue(batch(number, 1, prefill_tokens))
    setup.lane.wait()
    setup.lane.collect()
    stats = setup.lane.stats(units_total=2)
    assert (stats.busy, stats.occupancy, stats.units) == (0.5, 0.25, 1)
    assert (stats.busy_decode_s_total, stats.busy_prefill_s_total, stats.batches_total) == (0.25, 0.25, 2)
    setup.now += 2 * SECOND
    assert setup.lane.stats(units_total=2).busy == 0
    setup.lane.forget()
    assert setup.lane.stats(units_total=2).batches_total == 0


def test_one_batch_that_runs_for_longer_than_the_window_is_busy() -> None:
    setup = Setup()
    setup.lane.enqueue(batch(1, 2))
    setup.now += 5 * SECOND
    assert setup.lane.stats(units_total=2).busy == 1


def test_how_much_of_a_time_the_lane_ran_counts_what_it_runs_now_from_when_it_could_begin() -> None:
    setup = Setup()
    assert setup.lane.share(9 * SECOND, 10 * SECOND) == 0.0
    setup.lane.enqueue(batch(1, 2))
    setup.lane.wait()
    setup.lane.collect()  # ran from 10 to 10.25
    assert setup.lane.share(10 * SECOND, 11 * SECOND) == 0.25
    assert setup.lane.share(10 * SECOND, 10 * SECOND + SECOND // 4) == 1.0
    setup.now = 12 * SECOND
    setup.lane.enqueue(batch(2, 2))
    assert setup.lane.share(11 * SECOND, 13 * SECOND) == 0.5, "running since 12"
    assert setup.lane.share(12 * SECOND, 13 * SECOND) == 1.0


def test_the_host_time_of_a_batch_is_its_callers_and_its_launchers() -> None:
    setup = Setup()

    def run(batch: Batch) -> BatchResult:
        return BatchResult(launch_ns=400_000)

    lane = LaneExecutor("decode", setup.streams, setup.whole, run, 2, lambda: setup.now)
    lane.enqueue(batch(1, 2))
    assert lane.stats(units_total=2).enqueue_s == Quantiles(n=0), "not known before it ended"
    lane.wait()
    lane.collect()
    assert lane.stats(units_total=2).enqueue_s == Quantiles(n=1, p50=4e-4, p95=4e-4, p99=4e-4, max=4e-4)


# --- probes -------------------------------------------------------------------------------------------------------


def test_who_asks_during_a_probe_waits_for_the_next_one() -> None:
    """What is seen must be newer than the question."""
    setup = Setup()
    probing = Probing([setup.lane])
    assert probing.turn() == []
    probing.ask(1)
    assert (probing.turn(), setup.whole.probes) == ([], 1)
    probing.ask(2)
    probing.ask(3)
    assert (probing.turn(), setup.whole.probes) == ([], 1)
    setup.whole.probed = True
    assert (probing.turn(), setup.whole.probes) == ([1], 2)
    assert (probing.turn(), setup.whole.probes) == ([2, 3], 2)
    assert probing.turn() == []


def test_the_stream_of_the_newest_batch_is_probed() -> None:
    setup = Setup()
    setup.lane.adopt("split", 1)
    setup.lane.probe()
    assert (setup.streams[1].probes, setup.whole.probes) == (1, 0)
