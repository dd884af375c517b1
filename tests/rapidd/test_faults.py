"""Fault points: what a setting may say, when one happens, and that nothing happens otherwise."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rapidd import faults
from rapidd.errors import ConfigError
from rapidd.settings import load


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    faults.armed.clear()


def happened(point: str, times: int) -> list[int]:
    """At which of so many passes the point raised."""
    seen = []
    for number in range(1, times + 1):
        try:
            faults.hit(point)
        except (faults.InjectedFault, MemoryError):
            seen.append(number)
    return seen


@pytest.mark.parametrize("point", faults.POINTS)
def test_nothing_happens_where_nothing_is_configured(point: str, tmp_path: Path) -> None:
    faults.arm("", tmp_path, "")
    assert happened(point, 100) == []
    assert not faults.stalls(point)
    assert faults.truncated(point, tmp_path / "model") == tmp_path / "model"


def test_a_number_is_one_time_in_the_daemons_life_and_none_is_every_time(tmp_path: Path) -> None:
    """Of a point that only a main thread passes: lanes that the fault matrix had hung, and let go at its end, passed
    `engine.step` meanwhile, and were counted."""
    for expected in ([3], []):  # of a process, and of the one that replaces it
        faults.arm("engine.loop:raise@3, engine.submit:raise", tmp_path, "engine.")
        assert happened("engine.submit", 3) == [1, 2, 3]
        assert happened("engine.loop", 9) == expected
    assert happened("engine.step", 9) == []


def test_out_of_memory_is_pythons_own(tmp_path: Path) -> None:
    faults.arm("engine.step:oom", tmp_path, "")
    with pytest.raises(MemoryError):
        faults.hit("engine.step")


def test_a_process_arms_its_own_points_only(tmp_path: Path) -> None:
    faults.arm("engine.step:raise,front.send:stall", tmp_path, "front.")
    assert happened("engine.step", 3) == []
    assert faults.stalls("front.send")


def test_a_truncated_file_is_a_copy_and_the_original_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"0123456789")
    faults.arm("loader:truncate@1", tmp_path, "")
    assert faults.truncated("loader", path).read_bytes() == b"01234"
    assert path.read_bytes() == b"0123456789"
    assert faults.truncated("loader", path) == path


@pytest.mark.parametrize(
    ("points", "problem"),
    [
        ("engine.step", "is no fault"),
        ("engine.step:raise@0", "is no fault"),
        ("engine.stop:raise", "there is no fault point engine.stop"),
        ("engine.step:truncate", "engine.step cannot truncate"),
        ("front.send:stall, loader:burn", "loader cannot burn"),
    ],
)
def test_a_setting_that_names_no_fault_is_refused(points: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"faults\.points: .*{problem}"):
        load(None, {"RAPIDD__FAULTS__POINTS": points})
