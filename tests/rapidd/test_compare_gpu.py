"""How `bench.compare_gpu` deals arms to GPUs, and what it writes. What runs is `rapidctl.bench`'s own, tested there."""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.compare_gpu import Job, _merged, _scale, _trace_file, _write, jobs_of, visible_gpus
from support.process import WAIT_S, environment, python_module, run, wait_for_end


def options(arms: int, gpus: int, repeats: int, traces: int, scales: int) -> argparse.Namespace:
    return argparse.Namespace(
        arms=[f"arm{number}" for number in range(arms)],
        gpus=gpus,
        repeats=repeats,
        trace=[],
        shape=["s"] * traces,
        scales=[1.0] * scales,
    )


COUNTS = st.integers(1, 4)


@given(arms=st.integers(1, 6), gpus=COUNTS, repeats=COUNTS, traces=COUNTS, scales=COUNTS)
def test_every_arm_runs_once_in_every_cell_on_one_gpu(
    arms: int, gpus: int, repeats: int, traces: int, scales: int
) -> None:
    chosen = options(arms, gpus, repeats, traces, scales)
    dealt = [job for gpu in range(gpus) for job in jobs_of(chosen, gpu)]
    assert Counter(dealt) == Counter(
        Job(trace, scale, repeat, arm)
        for trace in range(traces)
        for scale in range(scales)
        for repeat in range(repeats)
        for arm in chosen.arms
    )


@given(count=COUNTS, cells=st.integers(1, 9))
def test_with_as_many_gpus_as_arms_each_gpu_gets_another_arm_in_the_next_cell(count: int, cells: int) -> None:
    chosen = options(count, count, 1, 1, cells)
    for gpu in range(count):
        arms = [job.arm for job in jobs_of(chosen, gpu)]
        assert arms == [chosen.arms[(gpu + cell) % count] for cell in range(cells)]


def test_one_document_is_made_of_all_gpus() -> None:
    parts = [
        {"runs": [gpu], "left_out": [], "refused": {f"arm{gpu}": "why"}, "failure": failure, "ready_s": 1.0}
        for gpu, failure in enumerate([None, "gpu 1: gone"])
    ]
    merged = _merged(parts)
    assert merged["runs"] == [0, 1]
    assert merged["refused"] == {"arm0": "why", "arm1": "why"}
    assert merged["failure"] == "gpu 1: gone"
    assert _merged([])["failure"]


def test_the_head_is_of_a_gpu_whose_daemon_was_there() -> None:
    """The daemon of GPU 0 did not start: the merged file lacked the model that GPU 1 served, and no reader took it."""
    gone = {"runs": [], "left_out": [], "refused": {}, "failure": "gpu 0: gone"}
    served = {**gone, "server": {"model": "m"}, "runs": [1], "failure": None}
    assert _merged([gone, served]) == {**served, "failure": "gpu 0: gone"}


def test_what_an_earlier_run_left_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """The workers could not even read the trace: the parts of the day before were merged, with exit status 0."""
    for gpu in range(2):
        (tmp_path / f"out.gpu{gpu}.json").write_text('{"runs":["old"],"left_out":[],"refused":{},"failure":null}')
    words = ("--gpus", "2", "--trace", "/nonexistent", "--out", str(tmp_path / "out.json"))
    assert run(python_module("bench.compare_gpu", *words)).returncode == 1
    assert json.loads((tmp_path / "out.json").read_text())["runs"] == []


ENDLESS = """
import argparse, os, pathlib, signal, sys
from bench import compare_gpu

def endless(arguments, gpu):
    arguments.out.with_suffix(f".gpu{gpu}.json").write_text('{"runs":[1],"left_out":[],"refused":{},"failure":null}')
    os.write(1, b"%d\\n" % os.getpid())
    signal.pause()

if __name__ == "__main__":
    compare_gpu._work_alone = endless
    compare_gpu._side_by_side(argparse.Namespace(gpus=2, out=pathlib.Path(sys.argv[1])))
"""


def test_workers_end_with_their_parent_and_what_they_had_is_kept(tmp_path: Path) -> None:
    """SIGTERM ended the parent alone: two workers went on with their daemons, each on a GPU, and FILE was not there."""
    script, out = tmp_path / "endless.py", tmp_path / "out.json"
    script.write_text(ENDLESS)
    command = [sys.executable, "-P", str(script), str(out)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [os.pidfd_open(int(parent.stdout.readline())) for _ in range(2)]
        parent.terminate()
        assert all(map(wait_for_end, workers))
        parent.wait(WAIT_S)
    assert json.loads(out.read_text())["runs"] == [1, 1]


@pytest.mark.parametrize(
    ("allowed", "visible"),
    [(None, ["0", "1"]), ("2,5", ["2", "5"]), ("GPU-a,GPU-b,GPU-c", ["GPU-a", "GPU-b"])],
)
def test_daemons_run_on_gpus_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch, allowed: str | None, visible: list[str]
) -> None:
    """With ``CUDA_VISIBLE_DEVICES=2,5`` they went to GPUs 0 and 1, which somebody else had."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if allowed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
    assert visible_gpus(2) == visible


@pytest.mark.parametrize("allowed", ["3", ""])
def test_more_gpus_than_this_process_may_use_are_refused(monkeypatch: pytest.MonkeyPatch, allowed: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
    with pytest.raises(ValueError, match="--gpus 2"):
        visible_gpus(2)


def test_what_is_written_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    for runs in ([1], [1, 2]):
        _write(path, {"runs": runs})
        assert json.loads(path.read_text()) == {"runs": runs}
    assert list(tmp_path.iterdir()) == [path]


def test_a_trace_may_come_faster_than_recorded_at_every_scale() -> None:
    chosen = options(1, 1, 1, 1, 1)
    chosen.trace, chosen.scales = [_trace_file("a.jsonl@3"), _trace_file("b.jsonl")], [0.5, 2.0]
    found = [_scale(chosen, Job(trace, scale, 0, "auto")) for trace in range(3) for scale in range(2)]
    assert found == [1.5, 6.0, 0.5, 2.0, 0.5, 2.0]  # the last is the shape


@pytest.mark.parametrize("text", ["a.jsonl@fast", "a.jsonl@0", "a.jsonl@-1", "a.jsonl@inf", "a.jsonl@nan"])
def test_a_speed_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="positive"):
        _trace_file(text)


@pytest.mark.parametrize(("text", "speed"), [("runs@host/a.jsonl", 1.0), ("runs@host/a.jsonl@2", 2.0)])
def test_a_folder_may_have_an_at_sign_in_its_name(text: str, speed: float) -> None:
    """What follows the first one was taken for the speed."""
    assert _trace_file(text) == (Path("runs@host/a.jsonl"), speed)
