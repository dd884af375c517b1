"""The units as systemd itself judges them, without starting anything."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.process import ROOT

UNITS = ROOT / "systemd"
NAMES = ("rapidd.service", "rapidd@.service", "rapidd-http.service")
PROGRAM = "/opt/rapid-serve/bin/rapidd"
MOST_EXPOSED = "20"
"""Tenths: an exposure of 2.0."""
pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (systemd)")


def analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


def copies(folder: Path, *drop_ins: str) -> None:
    """The units with a program that is there, which is all that `verify` cannot do without."""
    for name in NAMES:
        (folder / name).write_text((UNITS / name).read_text().replace(PROGRAM, "/bin/true"))
    for drop_in in drop_ins:
        target = folder / "rapidd.service.d"
        target.mkdir(exist_ok=True)
        shutil.copy(UNITS / "drop-ins" / drop_in, target)


@pytest.mark.parametrize("name", NAMES)
def test_verify_is_silent_and_the_exposure_small(name: str, tmp_path: Path) -> None:
    """`verify` ends with 0 on misspelt keys: what it says counts."""
    copies(tmp_path)
    verified = analyze("verify", "--man=no", str(tmp_path / name))
    assert (verified.stdout, verified.stderr, verified.returncode) == ("", "", 0)
    exposed = analyze("security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}", str(tmp_path / name))
    assert exposed.returncode == 0, exposed.stdout


@pytest.mark.parametrize("drop_in", sorted(path.name for path in (UNITS / "drop-ins").iterdir()))
def test_every_drop_in_verifies(drop_in: str, tmp_path: Path) -> None:
    copies(tmp_path, drop_in)
    verified = analyze("verify", "--man=no", str(tmp_path / "rapidd.service"))
    assert (verified.stderr, verified.returncode) == ("", 0)


def test_a_misspelt_key_would_be_found(tmp_path: Path) -> None:
    copies(tmp_path)
    unit = tmp_path / "rapidd.service"
    unit.write_text(unit.read_text().replace("KillMode=", "KilMode="))
    assert "KilMode" in analyze("verify", "--man=no", str(unit)).stderr


def settings(name: str) -> list[str]:
    return [line for line in (UNITS / name).read_text().splitlines() if re.match(r"[A-Z]\w*=", line)]


def test_the_unit_of_one_gpu_differs_from_the_other_in_its_names_and_its_device_only() -> None:
    one, many = set(settings("rapidd.service")), set(settings("rapidd@.service"))
    differing = {"Description", "ExecStart", "RuntimeDirectory", "LogsDirectory"}
    assert {line.partition("=")[0] for line in one - many} == differing
    assert {line.partition("=")[0] for line in many - one} == differing | {"Environment", "EnvironmentFile"}


def test_users_and_folders_are_as_systemd_reads_them(tmp_path: Path) -> None:
    for tool, kind in (("systemd-sysusers", "sysusers.d"), ("systemd-tmpfiles", "tmpfiles.d")):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
        options = ["--root", str(tmp_path)] + (["--create"] if kind == "tmpfiles.d" else [])
        (tmp_path / "etc").mkdir(exist_ok=True)
        done = subprocess.run(
            [tool, *options, str(UNITS / kind / "rapidd.conf")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert "rapidd:" in (tmp_path / "etc/passwd").read_text()
    assert (tmp_path / "etc/rapidd/keys").stat().st_mode & 0o777 == 0o700
