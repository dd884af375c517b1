"""How `bench.storm` runs its sections and keeps what they found. What they find is tested end to end."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.storm import __main__ as storm


def _passes(share: float) -> dict[str, Any]:
    return {"share": share, "failures": []}


def _never_ends(share: float) -> dict[str, Any]:
    raise subprocess.TimeoutExpired("rapidd", 45)


def test_a_daemon_that_does_not_end_is_a_finding_of_its_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a storm looks for (a process that does not end, a socket that stays silent) ended the storm with a
    traceback, and nothing was kept of the sections before it."""
    out = tmp_path / "out.json"
    monkeypatch.setattr(storm, "SECTIONS", {"before": _passes, "drain": _never_ends, "after": _passes})
    monkeypatch.setattr(sys, "argv", ["bench.storm", "--out", str(out)])
    assert storm.main() == 1
    sections = json.loads(out.read_text())["sections"]
    assert [len(sections[name]["failures"]) for name in ("before", "drain", "after")] == [0, 1, 0]
    assert "TimeoutExpired" in sections["drain"]["failures"][0]
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_sections_are_kept_as_they_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the last of ten sections lost the half hour of the nine before."""

    def interrupted(share: float) -> dict[str, Any]:
        raise KeyboardInterrupt

    out = tmp_path / "out.json"
    monkeypatch.setattr(storm, "SECTIONS", {"before": _passes, "interrupted": interrupted})
    monkeypatch.setattr(sys, "argv", ["bench.storm", "--out", str(out)])
    with pytest.raises(KeyboardInterrupt):
        storm.main()
    assert list(json.loads(out.read_text())["sections"]) == ["before"]
