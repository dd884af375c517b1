"""Carrying a file in parts: whole at the end or not there at all."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from support.process import ROOT


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("model_parts", ROOT / "scripts" / "model_parts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "model.gguf"
    file.write_bytes(bytes(range(250)))
    return file


def test_parts_come_one_at_a_time(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = script.split(file, tmp_path / "parts", part_bytes=100)
    assert [part.stat().st_size for part in parts] == [100, 100, 50]
    made = tmp_path / "there" / "model.gguf"
    kept = parts[1].read_bytes()
    parts[1].unlink()
    assert script.main(["join", str(tmp_path / "parts"), str(made)]) == 1
    assert (capsys.readouterr().out, made.exists()) == ("missing: part-1\n", False)
    parts[1].write_bytes(kept)
    assert script.main(["join", str(tmp_path / "parts"), str(made)]) == 0
    assert made.read_bytes() == file.read_bytes()


def test_parts_of_another_file_are_refused(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = script.split(file, tmp_path / "parts")
    parts[0].write_bytes(b"something else")
    made = tmp_path / "made.gguf"
    assert script.main(["join", str(tmp_path / "parts"), str(made)]) == 1
    assert "split it again" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.gguf", "parts"]


def test_parts_without_their_list_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["join", str(tmp_path), str(tmp_path / "made")]) == 1
    assert "parts.txt" in capsys.readouterr().err


def test_other_words_get_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["join"]) == 2
    assert "usage" in capsys.readouterr().err
