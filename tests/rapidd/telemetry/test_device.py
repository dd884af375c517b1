"""What the system tells about this machine."""

from pathlib import Path

import psutil
import pytest

from rapidd.telemetry.device import available_memory_bytes
from support.amd import write

GIB = 1 << 30


def free_in(root: Path, own: str, groups: dict[str, tuple[str, int]]) -> int:
    """``groups``: limit and use of each; 100 MiB of the use are files that were read."""
    files = {"self": own}
    for path, (limit, used) in groups.items():
        files |= {f"{path}/memory.max": limit, f"{path}/memory.current": str(used)}
        files[f"{path}/memory.stat"] = f"anon {used}\nactive_file {60 << 20}\ninactive_file {40 << 20}"
    write(root, files)
    return available_memory_bytes(root, root / "self")


@pytest.mark.parametrize(
    ("own", "groups", "free"),
    [
        ("0::/", {".": (str(3 * GIB), 2 * GIB)}, GIB + (100 << 20)),  # a container
        ("0::/not/seen/here", {".": (str(GIB), 200 << 20)}, GIB - (100 << 20)),  # one that sees the host's path
        ("0::/a.slice/b", {"a.slice": (str(GIB), 200 << 20), "a.slice/b": ("max", 0)}, GIB - (100 << 20)),
        ("1:cpu:/\n0::/a/b", {"a": (str(2 * GIB), GIB), "a/b": (str(GIB), 2 * GIB)}, 0),
    ],
)
def test_memory_that_the_control_groups_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, groups: dict[str, tuple[str, int]], free: int
) -> None:
    """In a container a cache was sized by the memory of the whole machine, and the engine killed when it had filled."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: _Memory)
    assert free_in(tmp_path, own, groups) == free


class _Memory:
    available = 64 * GIB


@pytest.mark.parametrize("own", ["", "4:memory:/", "0::/"])
def test_without_a_limit_the_systems_memory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: _Memory)
    assert free_in(tmp_path, own, {".": ("max", GIB)} if own else {}) == _Memory.available
