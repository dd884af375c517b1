"""How `bench.compare_gpu` deals arms to GPUs, and what it writes. What runs is `rapidctl.bench`'s own, tested there."""

import argparse
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.compare_gpu import Job, _merged, _scale, _trace_file, _write, jobs_of


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
