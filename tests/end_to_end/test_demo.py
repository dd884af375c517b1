"""``make demo``, as its recipe runs it: without a terminal it shows the status and an answer, and stops the daemon."""

import re
import subprocess
from pathlib import Path

import pytest

from rapidd.errors import ModelError
from rapidd.model.resolve import find_default
from support.process import python_module, run


def demo(*options: str) -> "subprocess.CompletedProcess[str]":
    return run(python_module("rapidd.demo", *options))


def test_without_a_terminal_it_shows_the_status_and_one_answer_and_stops_the_daemon() -> None:
    try:
        find_default()
    except ModelError as error:
        pytest.skip(f"{error}: {error.hint}")
    answer = demo()
    assert answer.returncode == 0, answer.stderr
    assert "serving" in answer.stdout
    assert "SmolLM2" in answer.stdout
    assert re.search(r"\bsky\b", answer.stdout), "no answer about the sky"
    assert "demo: loading weights" in answer.stderr
    (supervisor,) = re.findall(r"supervisor (\d+)", answer.stdout)
    assert not Path(f"/proc/{supervisor}").exists()
    (folder,) = re.findall(r"ipc://(\S+)/request\.sock ", answer.stderr)
    assert not Path(folder).exists()


def test_a_daemon_that_cannot_start_is_explained() -> None:
    answer = demo("--model", "/nowhere")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "no model at /nowhere" in answer.stderr
    assert "demo: the daemon ended with status 78" in answer.stderr
