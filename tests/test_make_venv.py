"""What `make setup` says of the torch that it found or installed. Interpreters are stand-ins that answer a probe."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from support.process import ROOT


@pytest.fixture(scope="module")
def make_venv() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_venv", ROOT / "scripts/make_venv.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def interpreter(folder: Path, *lines: str, status: int = 0) -> str:
    python = folder / "python"
    answer = "".join(f"echo '{line}'\n" for line in lines)
    python.write_text(f"#!/bin/sh\n{answer}exit {status}\n")
    python.chmod(0o755)
    return str(python)


def test_an_index_that_has_only_a_cuda_build_is_told_with_the_way_out(make_venv: ModuleType, tmp_path: Path) -> None:
    """It was announced as 800 MB, whatever came."""
    advice = make_venv.large_torch(interpreter(tmp_path, "2.13.0", "/site", "13.0"))
    assert "torch 2.13.0 is a CUDA build" in advice
    assert "make clean" in advice
    assert make_venv.large_torch(interpreter(tmp_path, "2.13.0+cpu", "/site", "")) is None
    assert make_venv.large_torch(interpreter(tmp_path, status=1)) is None


@pytest.mark.parametrize(("version", "kept"), [("2.11.0", True), ("2.10.1", False), ("3.0.0", True)])
def test_a_torch_of_the_interpreters_own_is_kept_if_it_is_new_enough(
    make_venv: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, kept: bool
) -> None:
    monkeypatch.setattr("sys.executable", interpreter(tmp_path, version, "/site", ""))
    assert make_venv.own_torch(tmp_path / ".venv") == ((version, Path("/site"), False) if kept else None)


def test_the_environments_own_torch_is_none_of_the_interpreters(
    make_venv: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / ".venv/lib/site-packages"
    monkeypatch.setattr("sys.executable", interpreter(tmp_path, "2.13.0", str(site), ""))
    assert make_venv.own_torch((tmp_path / ".venv").resolve()) is None
