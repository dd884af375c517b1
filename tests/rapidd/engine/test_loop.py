"""The engine's loop: requests, and what it does when the front dies or freezes; time and sockets are seams."""

from pathlib import Path

import pytest

from rapidd import faults, ipc
from rapidd.policy.margin import LATE_SHARE, STEP
from support.engine_bench import Bench


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


def test_gaps_beyond_the_objective_make_a_margin(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.engine._pace, "itl_slo_s", 1e-9)
    margin = bench.engine._calibration.margin
    before = margin.factor
    bench.send(ipc.SetPolicy(1, "hybrid", "ana", None))  # whose chunks are sized by predictions
    bench.until(ipc.ControlDone)
    bench.submit(1, [1, 400, 401], max_tokens=7)
    while bench.until(ipc.Step).tokens[-1].finish is None:
        pass
    gaps = 5  # of six steps behind the prompt's first token
    assert margin.factor == pytest.approx(before + gaps * STEP * (1.0 - LATE_SHARE))


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


def test_a_front_that_asks_is_told_who_is_here(bench: Bench) -> None:
    bench.send(ipc.Ping(0))
    assert bench.until(ipc.EngineHello) == bench.engine._hello


def test_a_new_front_makes_it_drop_the_requests_of_the_old_one(bench: Bench) -> None:
    bench.submit(7, [1, 2, 3])
    bench.until(ipc.Step)
    bench.greet("front-2")
    assert bench.live == set()
    bench.engine._scheduler.check()


def test_the_same_front_again_keeps_its_requests(bench: Bench) -> None:
    bench.submit(8, [1, 2, 3])
    bench.until(ipc.Step)
    bench.greet("front-1")
    assert bench.live == {8}


def test_a_frozen_front_loses_its_requests_and_is_greeted_when_it_returns(bench: Bench) -> None:
    bench.submit(9, [1, 2, 3])
    bench.until(ipc.Step)
    bench.clock.now += int(ipc.FRONT_LOST_S * 1e9) + 1
    bench.engine.turn()
    assert bench.live == set()
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
    while bench.live:
        bench.engine.turn()
    while not all(lane.idle for lane in bench.engine._lanes.values()):
        bench.engine.turn()
    assert bench.engine._scheduler.pool.num_used == 0
