"""The engine's loop: operators, policies and profiles; time and sockets are seams."""

import time
from collections.abc import Iterator

import msgspec
import pytest
import torch
from msgspec.structs import replace

from rapidctl.wire import PlanRequest
from rapidd import ipc
from rapidd.config import ModelConfig
from rapidd.engine.cpu import CpuBackend
from rapidd.engine.identity import profile_key
from rapidd.model.resolve import load_model
from rapidd.policy.profile import save_profile
from rapidd.telemetry.device import cpu_info
from support.engine_bench import Bench
from support.profiles import PROFILE
from support.tiny import MODEL


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


def test_a_reload_changes_the_policy_as_an_operator_would_or_nothing(bench: Bench) -> None:
    engine, supervisor = bench.engine, ipc.Channel(bench.ours)
    config, epoch = engine._config, engine._control.epoch
    for policy in ("serial:32", "split:999", config.engine.policy):
        engine._supervised(ipc.Reload(replace(config, engine=replace(config.engine, policy=policy))))
    answers = [answer for line in supervisor.lines() if isinstance(answer := ipc.decode_child(line), ipc.Reloaded)]
    assert [bool(answer.problem) for answer in answers] == [False, True, False]
    assert "engine.policy" in answers[1].problem
    assert (engine._control.policy, engine._control.epoch) == (config.engine.policy, epoch + 2)


def test_a_reload_changes_for_how_long_late_prompts_give_way(bench: Bench) -> None:
    engine = bench.engine
    config = engine._config
    assert engine._limits.give_way_ns == 30 * 10**9
    for give_way_s in (0.5, config.policy.give_way_s):
        changed = replace(config, policy=replace(config.policy, give_way_s=give_way_s))
        engine._supervised(ipc.Reload(changed))
        assert engine._limits.give_way_ns == int(give_way_s * 1e9)


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
    calibrated.send(ipc.SetPolicy(5, "hybrid", "ana", None))
    calibrated.until(ipc.ControlDone)
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
    assert answer.calibration.margin is not None
    assert answer.calibration.margin.n >= 10
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
