"""When a child counts as hung: loops that answer, batches that end; counted in beats, so no test waits."""

import pytest

from rapidd.ipc import Pulse
from rapidd.supervisor.ladder import BEAT_S, Watch

LIMIT = 10


def beats(watch: Watch, count: int, pulse: Pulse | None = None) -> str | None:
    """So many beats, each answered by ``pulse`` if there is one; the first trouble."""
    for _ in range(count):
        watch.beat(now_s=0.0)
        if pulse is not None:
            watch.heard(pulse)
        if watch.trouble is not None:
            return watch.trouble
    return None


def test_a_loop_that_answers_without_work_is_well_for_ever() -> None:
    assert beats(Watch(LIMIT * BEAT_S), 1000, Pulse()) is None


def test_a_silent_loop_hangs_after_the_limit_and_not_before() -> None:
    watch = Watch(LIMIT * BEAT_S)
    assert beats(watch, LIMIT) is None
    assert beats(watch, 1) == f"its main loop did not answer for {LIMIT * BEAT_S:g} s (server.hang-timeout-s)"


def test_one_answer_in_time_starts_the_count_again() -> None:
    watch = Watch(LIMIT * BEAT_S)
    for _ in range(5):
        assert beats(watch, LIMIT) is None
        watch.heard(Pulse())


def test_a_loop_that_answers_while_no_batch_ends_hangs() -> None:
    """A green health check over a hung device is what everybody's operators complain of."""
    watch = Watch(LIMIT * BEAT_S)
    assert beats(watch, 3, Pulse(requests=2, finished=7)) is None
    trouble = beats(watch, 100, Pulse(requests=2, finished=7))
    assert trouble == f"no batch ended for {LIMIT * BEAT_S:g} s while 2 requests wait"


def test_batches_that_end_are_progress_however_slow() -> None:
    watch = Watch(LIMIT * BEAT_S)
    for finished in range(20):
        assert beats(watch, LIMIT, Pulse(requests=2, finished=finished)) is None


def test_time_without_requests_does_not_count() -> None:
    watch = Watch(LIMIT * BEAT_S)
    beats(watch, 100, Pulse(finished=7))
    assert beats(watch, LIMIT - 1, Pulse(requests=1, finished=7)) is None


def test_a_device_that_was_slow_at_the_warm_up_gets_as_long_for_a_batch() -> None:
    watch = Watch(LIMIT * BEAT_S)
    slow = Pulse(requests=1, finished=0, patience_s=60 * BEAT_S)
    assert beats(watch, 59, slow) is None
    assert beats(watch, 10, slow) == f"no batch ended for {60 * BEAT_S:g} s while 1 requests wait"


def test_a_child_that_computes_no_batches_is_judged_by_its_answers_alone() -> None:
    """The front has requests for hours and ends no batch: it was once aborted for that."""
    assert beats(Watch(LIMIT * BEAT_S), 1000, Pulse(requests=64)) is None


@pytest.mark.parametrize("pulse", [None, Pulse(requests=1, finished=0)])
def test_without_a_limit_nothing_hangs(pulse: Pulse | None) -> None:
    assert beats(Watch(0.0), 1000, pulse) is None
