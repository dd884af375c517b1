"""The engine's loop: what it does when the front dies, freezes, or asks; time and sockets are seams."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
import torch
from msgspec.structs import replace

from rapidctl.wire import PlanRequest
from rapidd import faults, ipc
from rapidd.config import ModelConfig
from rapidd.engine import loop
from rapidd.engine.cpu import CpuBackend
from rapidd.engine.identity import profile_key
from rapidd.engine.loop import CHECK_NS, STATE_BUSY_NS, STATE_IDLE_NS, STATE_SETTLED_NS
from rapidd.model.resolve import load_model
from rapidd.policy.profile import save_profile
from rapidd.telemetry.device import cpu_info
from support.engine_bench import Bench
from support.profiles import PROFILE
from support.tiny import MODEL

T = TypeVar("T", bound=ipc.EngineMessage)


@pytest.fixture(scope="module")
def shared_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("e"))
    yield bench
    bench.close()


@pytest.fixture
def bench(shared_bench: Bench) -> Iterator[Bench]:
    shared_bench.greet()
    yield shared_bench
    shared_bench.engine._forget_requests()


def until_idle(bench: Bench, rid: int) -> None:
    """Drop the request that runs, and wait for its last batch."""
    bench.send(ipc.Abort([rid]))
    for _ in range(2000):
        bench.engine._link.socket.poll(1)
        bench.engine.turn()
        if not bench.engine.busy and not live(bench):
            return
    raise AssertionError("the engine never became idle")


def live(bench: Bench) -> set[int]:
    return {request.rid for request in bench.engine._scheduler.requests}


def test_a_submitted_choice_yields_steps_until_its_last_token(bench: Bench) -> None:
    bench.submit(1, [1, 400, 401], max_tokens=5)
    tokens: list[ipc.Token] = []
    while not tokens or tokens[-1].finish is None:
        step = bench.until(ipc.Step)
        tokens += step.tokens
    assert [token.rid for token in tokens] == [1] * 5
    assert tokens[0].cached == 0
    assert tokens[0].prefill_start_mono_ns is not None
    assert {token.prefill_start_mono_ns for token in tokens[1:]} == {None}
    assert tokens[-1].finish == "length"


def test_a_batch_that_fails_leaves_its_traceback_in_the_log(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its client was told that the forward pass failed, and the operator nothing."""
    faults.arm("engine.step:raise@1", tmp_path, "engine.")
    try:
        bench.submit(1, [1, 400, 401])
        assert bench.until(ipc.Dropped).code == "internal_error"
    finally:
        faults.arm("", tmp_path, "engine.")
    said = capsys.readouterr().err
    assert "batch failed" in said
    assert "Traceback" in said
    assert "InjectedFault: on purpose" in said


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
    until_idle(bench, 1)
    assert bench.engine._timeout_ms() <= STATE_SETTLED_NS // 1_000_000
    bench.clock.now += STATE_SETTLED_NS
    bench.engine.turn()
    assert bench.socket.poll(10_000)
    assert bench.until(ipc.EngineState, turns=1).kv.blocks_used == 0
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
    until_idle(bench, 1)


def test_a_state_that_is_due_comes_with_a_step(bench: Bench) -> None:
    """By itself it cost the front a wake-up more, which is half of what a step of eight tokens costs."""
    bench.submit(1, [5, 6, 7], max_tokens=60)
    bench.until(ipc.Step)
    bench.clock.now += STATE_BUSY_NS
    states = [state for _ in range(6) if (state := bench.until(ipc.Step).state)]
    assert [[request.rid for request in state.requests] for state in states] == [[1]]
    until_idle(bench, 1)


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
    assert (report.state, report.detail) == ("ready", shared_bench.engine.summary)


def test_it_is_ready_once_the_front_was_told_its_state(shared_bench: Bench) -> None:
    """The first snapshot after READY=1 used to have no partition: the state was sent after the report."""
    engine, said = shared_bench.engine, list[type]()
    engine._front, engine._is_ready = None, False
    with pytest.MonkeyPatch.context() as patch:
        for way in (engine._link, engine._channel):
            patch.setattr(way, "send", lambda message: said.append(type(message)))
        shared_bench.send(ipc.FrontHello("front-3", 0, None))
        assert engine._link.socket.poll(10_000)
        engine.turn()
    assert said.index(ipc.EngineState) < said.index(ipc.ChildReport)


def test_a_front_that_asks_is_told_who_is_here(bench: Bench) -> None:
    bench.send(ipc.Ping(0))
    assert bench.until(ipc.EngineHello) == bench.engine._hello


def test_a_new_front_makes_it_drop_the_requests_of_the_old_one(bench: Bench) -> None:
    bench.submit(7, [1, 2, 3])
    bench.until(ipc.Step)
    bench.greet("front-2")
    assert live(bench) == set()
    bench.engine._scheduler.check()


def test_the_same_front_again_keeps_its_requests(bench: Bench) -> None:
    bench.submit(8, [1, 2, 3])
    bench.until(ipc.Step)
    bench.greet("front-1")
    assert live(bench) == {8}


def test_a_frozen_front_loses_its_requests_and_is_greeted_when_it_returns(bench: Bench) -> None:
    bench.submit(9, [1, 2, 3])
    bench.until(ipc.Step)
    bench.clock.now += int(ipc.FRONT_LOST_S * 1e9) + 1
    bench.engine.turn()
    assert live(bench) == set()
    bench.send(ipc.Ping(5))
    assert bench.until(ipc.EngineHello) == bench.engine._hello


def test_a_request_that_can_never_fit_is_dropped_with_its_code(bench: Bench) -> None:
    bench.engine._scheduler.pool.total, total = 3, bench.engine._scheduler.pool.total
    bench.submit(10, list(range(1, 100)))
    dropped = bench.until(ipc.Dropped)
    bench.engine._scheduler.pool.total = total
    assert (dropped.rid, dropped.code) == (10, "kv_too_small")


def test_abort_frees_the_blocks_when_the_batches_in_flight_end(bench: Bench) -> None:
    bench.submit(11, [1, 2, 3])
    bench.until(ipc.Step)
    bench.send(ipc.Abort([11, 999]))
    while live(bench):
        bench.engine.turn()
    while not all(lane.idle for lane in bench.engine._lanes.values()):
        bench.engine.turn()
    assert bench.engine._scheduler.pool.num_used == 0


def test_an_override_is_applied_and_says_where_the_lanes_run(bench: Bench) -> None:
    bench.submit(12, [1, 2, 3])
    bench.send(ipc.SetPlan(3, PlanRequest(mode="shared"), 60.0, True, "look", "ana", None))
    done = bench.until(ipc.ControlDone)
    assert (done.token, done.code) == (3, None)
    kinds = []
    while "applied" not in kinds:
        notice = bench.until(ipc.Notice)
        kinds.append(notice.kind)
    assert kinds == ["override", "decision", "applied"]
    assert notice.placement is not None
    assert [lane.lane for lane in notice.placement.lanes] == ["decode", "prefill"]
    bench.send(ipc.SetPlan(4, None, None, False, "", "ana", None))
    bench.until(ipc.ControlDone)


def test_the_placement_of_an_applied_split_is_of_its_own_streams(bench: Bench) -> None:
    """Lanes that were idle showed the cores of the plan before, and so an overlap that was not there."""
    splits = bench.engine._control.table.splits
    if not splits:
        pytest.skip("one core: split is not available")
    bench.submit(13, [1, 2, 3], max_tokens=3)
    bench.until(ipc.Step)
    bench.send(ipc.SetPlan(5, PlanRequest(mode="split", decode_units=splits[0]), 60.0, True, "", "ana", None))
    notice = bench.until(ipc.Notice)
    while notice.kind != "applied" or not notice.text.startswith("split"):  # the plan before may be applied late
        notice = bench.until(ipc.Notice)
    bench.send(ipc.SetPlan(6, None, None, False, "", "ana", None))
    bench.until(ipc.ControlDone)
    assert notice.placement is not None
    assert notice.placement.overlap == 0


def test_a_probe_on_demand_is_answered_behind_a_state_that_is_newer_than_the_question(bench: Bench) -> None:
    asked_unix_s = time.time()
    bench.send(ipc.ProbePlacement(17))
    notice = bench.until(ipc.Notice)
    assert (notice.kind, notice.placement is not None) == ("placement", True)
    measured = bench.until(ipc.EngineState).partition.measured
    assert measured is not None
    assert measured.probed_unix_s is None or measured.probed_unix_s >= asked_unix_s
    done = bench.until(ipc.ControlDone)
    assert (done.token, done.code) == (17, None)


def test_a_front_is_told_the_decision_in_force_however_late_it_comes(bench: Bench) -> None:
    """The first was made before any front listened, and later fronts knew of none: consoles showed no decision."""
    bench.engine._front = None
    bench.send(ipc.SetPlan(7, PlanRequest(mode="serial"), 60.0, False, "look", "ana", None))
    bench.until(ipc.ControlDone)
    bench.engine.turn()
    bench.send(ipc.FrontHello("front-4", 0, None))
    kept = [bench.until(ipc.Notice) for _ in range(2)]
    assert [(notice.kind, notice.decision) for notice in kept] == [
        ("override", kept[1].decision - 1),
        ("decision", bench.engine._control.decision),
    ]
    bench.send(ipc.FrontHello("front-5", 0, None))
    told = bench.until(ipc.Notice)
    while "goes on" not in told.text:  # the plan of before may be applied meanwhile
        told = bench.until(ipc.Notice)
    assert (told.kind, told.decision, told.source) == ("decision", kept[1].decision, "operator")
    assert told.text == "serial goes on: look"
    bench.send(ipc.SetPlan(8, None, None, False, "", "ana", None))
    bench.until(ipc.ControlDone)


def test_a_policy_given_by_the_front_is_restored_and_epochs_go_on(bench: Bench) -> None:
    state = bench.greet("front-3", epoch=100, policy="shared")
    assert (state.partition.policy, state.partition.epoch) == ("shared", 100)


# --- a calibrated profile


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """An engine with a profile of its own device and model, whose times are another device's."""
    folder = tmp_path_factory.mktemp("p")
    spec = load_model(ModelConfig(path=str(MODEL))).spec
    units = CpuBackend(None, lambda: None).info.units
    key = profile_key(cpu_info(units), spec, torch.float32, 16)
    samples = [[msgspec.structs.replace(s, units=units) for s in those] for those in (PROFILE.decode, PROFILE.prefill)]
    profile = msgspec.structs.replace(
        PROFILE, key=key, splits=(), decode=tuple(samples[0]), prefill=tuple(samples[1]), note="another device's times"
    )
    save_profile(profile, folder / "mine.json")
    bench = Bench(folder, folder / "mine.json")
    yield bench
    bench.close()


def test_without_a_profile_the_state_says_so_and_the_answer_has_no_table(bench: Bench) -> None:
    bench.engine._state_ns = 0
    partition = bench.until(ipc.EngineState).partition
    assert (partition.profile, partition.calibration) == (None, None)
    bench.send(ipc.AskProfile(5, None, 1024))
    answer = bench.until(ipc.ProfileAnswer)
    assert (answer.token, answer.calibration, answer.knee, answer.itl_s) == (5, None, [], 0.3)


def test_a_profile_is_named_its_error_told_and_every_batch_corrects_it(calibrated: Bench) -> None:
    partition = calibrated.greet().partition
    assert partition.profile is not None
    assert partition.profile.startswith("stories260K_hf on ")
    assert partition.calibration is not None
    assert partition.calibration.fit.n > 100
    calibrated.submit(1, [1, 403, 407, 261], max_tokens=12)
    while not any(token.finish for token in calibrated.until(ipc.Step).tokens):
        pass
    calibrated.send(ipc.AskProfile(6, 1.0, 64))
    answer = calibrated.until(ipc.ProfileAnswer)
    assert answer.calibration is not None
    assert answer.calibration.note == "another device's times"
    assert answer.calibration.source == "file"
    corrections = {(one.mode, one.kind): one for one in answer.calibration.corrections}
    assert corrections["hybrid", "decode"].n >= 10
    assert corrections["hybrid", "prefill"].n == 1
    assert [row.rows for row in answer.knee] == [1, 2, 4, 8, 16, 32, 64]
    assert {row.decode_units for row in answer.knee} <= {calibrated.engine._hello.device.units, None}


def test_a_profile_of_another_model_is_refused_with_a_warning(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("q")
    save_profile(PROFILE, folder / "foreign.json")
    bench = Bench(folder, folder / "foreign.json")
    try:
        bench.engine._link.send(bench.engine._hello)
        bench.until(ipc.EngineHello)
        bench.send(ipc.FrontHello("front-1", 0, None))
        notice = bench.until(ipc.Notice)
        assert (notice.kind, notice.level) == ("warning", "warn")
        assert "is not used" in notice.text
        assert "the device changed: Example 4 when measured" in notice.text
        assert bench.greet().partition.profile is None
    finally:
        bench.close()


def test_a_probe_of_the_supervisor_is_answered_by_the_loop_with_its_progress(bench: Bench) -> None:
    """Batches are counted, so that a loop that turns while its device hangs is not taken for a healthy one."""
    supervisor = ipc.Channel(bench.ours)
    bench.engine._supervised(ipc.Probe(1, 0))
    bench.submit(71, [1, 400, 401], max_tokens=3)
    bench.until(ipc.Step)
    bench.engine._supervised(ipc.Probe(2, 0))
    pulses = [pulse for line in supervisor.lines() if isinstance(pulse := ipc.decode_child(line), ipc.Pulse)]
    assert [pulse.number for pulse in pulses] == [1, 2]
    assert (pulses[0].requests, pulses[1].requests) == (0, 1)
    assert (pulses[1].finished or 0) > (pulses[0].finished or 0)
    assert pulses[1].patience_s > 0


def test_a_reload_changes_the_policy_as_an_operator_would_or_nothing(bench: Bench) -> None:
    engine, supervisor = bench.engine, ipc.Channel(bench.ours)
    config, epoch = engine._config, engine._control.epoch
    for number, policy in enumerate(("serial:32", "split:999", config.engine.policy)):
        engine._supervised(ipc.Reload(number, replace(config, engine=replace(config.engine, policy=policy))))
    answers = [answer for line in supervisor.lines() if isinstance(answer := ipc.decode_child(line), ipc.Reloaded)]
    assert [answer.number for answer in answers] == [0, 1, 2]
    assert [bool(answer.problem) for answer in answers] == [False, True, False]
    assert "engine.policy" in answers[1].problem
    assert (engine._control.policy, engine._control.epoch) == (config.engine.policy, epoch + 2)
