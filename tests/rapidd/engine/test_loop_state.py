"""The engine's loop: what it says of itself, when, and to whom; time and sockets are seams."""

from pathlib import Path

import msgspec
import pytest

from rapidd import faults, ipc
from rapidd.engine import loop
from rapidd.engine.loop import CHECK_NS, STATE_BUSY_NS, STATE_IDLE_NS, STATE_SETTLED_NS
from support.engine_bench import Bench
from support.process import WAIT_MS


def test_after_an_out_of_memory_batches_are_smaller_and_everybody_is_told(bench: Bench, tmp_path: Path) -> None:
    """The same load would have met the same end again."""
    assert bench.greet().partition.chunk_limit is None
    faults.arm("engine.step:oom@1", tmp_path, "engine.")
    try:
        bench.submit(1, list(range(1, 161)))
        while (told := bench.until(ipc.Notice)).kind != "out_of_memory":
            pass
        assert told.text == (
            "a batch of 32 prompt tokens ran out of memory: batches hold at most 16 until the engine is restarted"
        )
        assert (told.level, told.rid) == ("warn", None)
        assert bench.until(ipc.EngineState).partition.chunk_limit == 16
        bench.submit(2, list(range(1, 161)), max_tokens=3)
        while bench.until(ipc.Step).tokens[0].finish is None:
            pass
    finally:
        faults.arm("", tmp_path, "engine.")
        bench.engine._scheduler.chunk_limit = None


def test_the_state_says_what_was_computed_and_what_the_loop_took(bench: Bench) -> None:
    device = bench.engine._hello.device
    assert device.peak_flops_per_s
    assert device.peak_bytes_per_s
    bench.submit(2, [1, 402, 403], max_tokens=4)
    while bench.until(ipc.Step).tokens[0].finish is None:
        pass
    bench.engine._state_ns = 0
    state = bench.until(ipc.EngineState)
    decode = next(lane for lane in state.lanes if lane.lane == "decode")
    assert {work.phase for work in decode.work} >= {"decode"}
    for work in decode.work:
        assert work.n
        assert work.mfu
        assert work.mbu
    assert decode.enqueue_s is not None
    assert decode.enqueue_s.n
    assert state.scheduling_s is not None
    assert state.scheduling_s.n


def test_an_engine_that_has_just_become_idle_says_soon_that_it_holds_nothing(bench: Bench) -> None:
    """Who looked whether a client that was gone still held blocks saw them for up to a second longer than it did."""
    bench.submit(1, [5, 6, 7], max_tokens=60)
    bench.until(ipc.Step)
    bench.clock.now += STATE_BUSY_NS
    held = bench.until(ipc.EngineState)
    assert held.kv.blocks_used > 0
    bench.until_idle(1)
    assert bench.engine._timeout_ms() <= STATE_SETTLED_NS // 1_000_000
    bench.clock.now += STATE_SETTLED_NS
    bench.engine.turn()
    assert bench.until(ipc.EngineState).kv.blocks_used == 0
    assert bench.engine._timeout_ms() > 900, "once"


def test_an_engine_that_nobody_watches_says_once_a_second_how_it_is(bench: Bench) -> None:
    """A state costs the front half of what a step does, and only snapshots need four a second."""
    bench.send(ipc.Ping(1, watched=False))
    bench.submit(1, [5, 6, 7], max_tokens=300)
    bench.until(ipc.Step)
    bench.clock.now += STATE_IDLE_NS
    bench.until(ipc.EngineState)
    bench.clock.now += STATE_IDLE_NS - 1
    with pytest.raises(AssertionError):
        bench.until(ipc.EngineState, turns=20)
    bench.send(ipc.Ping(2, watched=True))
    assert bench.until(ipc.EngineState).kv.blocks_used > 0
    bench.until_idle(1)


def test_a_state_that_is_due_comes_with_a_step(bench: Bench) -> None:
    """By itself it cost the front a wake-up more, which is half of what a step of eight tokens costs."""
    bench.submit(1, [5, 6, 7])
    bench.until(ipc.Step)
    bench.clock.now += STATE_BUSY_NS
    while (state := bench.until(ipc.Step).state) is None:  # steps of before may still be on their way
        pass
    assert [request.rid for request in state.requests] == [1]
    assert [bench.until(ipc.Step).state for _ in range(4)] == [None] * 4
    bench.until_idle(1)


def test_an_idle_engine_gives_freed_memory_back_every_ten_seconds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    monkeypatch.setattr(loop, "give_back", lambda: given.append(bench.clock.now))
    bench.clock.now += CHECK_NS + 1
    bench.until(ipc.EngineState)
    bench.clock.now += STATE_IDLE_NS
    bench.until(ipc.EngineState)
    assert len(given) == 1


def test_it_is_ready_once_the_front_knows_it(shared_bench: Bench) -> None:
    """It used to say so before its hello: the daemon was announced as ready and refused the first requests."""
    told = ipc.Channel(shared_bench.ours)
    told.lines()  # of other tests
    shared_bench.engine._is_ready = False
    shared_bench.engine.turn()
    assert told.lines() == []
    for front in ("front-1", "front-2"):
        shared_bench.greet(front)
    (line,) = told.lines()
    report = msgspec.json.decode(line, type=ipc.ChildReport)
    assert (report.state, report.detail, report.device) == ("ready", shared_bench.engine.summary, "cpu")


def test_it_is_ready_once_the_front_was_told_its_state(shared_bench: Bench) -> None:
    """The first snapshot after READY=1 used to have no partition: the state was sent after the report."""
    engine, said = shared_bench.engine, list[type]()
    engine._front, engine._is_ready = None, False
    with pytest.MonkeyPatch.context() as patch:
        for way in (engine._link, engine._channel):
            patch.setattr(way, "send", lambda message: said.append(type(message)))
        shared_bench.send(ipc.FrontHello("front-3", 0, None))
        assert engine._link.socket.poll(WAIT_MS)
        engine.turn()
    assert said.index(ipc.EngineState) < said.index(ipc.ChildReport)


def test_a_probe_of_the_supervisor_is_answered_by_the_loop_with_its_progress(bench: Bench) -> None:
    """Batches are counted, so that a loop that turns while its device hangs is not taken for a healthy one."""
    supervisor = ipc.Channel(bench.ours)
    bench.engine._supervised(ipc.Probe(0))
    bench.submit(71, [1, 400, 401])
    bench.until(ipc.Step)
    bench.engine._supervised(ipc.Probe(0))
    pulses = [pulse for line in supervisor.lines() if isinstance(pulse := ipc.decode_child(line), ipc.Pulse)]
    assert (pulses[0].requests, pulses[1].requests) == (0, 1)
    assert (pulses[1].finished or 0) > (pulses[0].finished or 0)
    assert pulses[1].patience_s > 0
