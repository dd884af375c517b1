"""``make demo``, as its recipe runs it: without a terminal it shows the status and an answer, and stops the daemon."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from rapidd.errors import ModelError
from rapidd.model.resolve import find_default
from support.process import environment, python_module, run, wait_for_end
from support.tiny import MODEL


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


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_no_daemon_is_left_behind_by_a_closed_terminal_or_a_killed_demo(number: signal.Signals) -> None:
    """The daemon went on for ever, and nobody knew its endpoint."""
    command = python_module("rapidd.demo", "--model", str(MODEL), "--device", "cpu")
    with subprocess.Popen(command, env=environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as started:
        assert started.stderr is not None
        assert started.stderr.readline().startswith(b"demo: ")
        (daemon,) = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
        descriptor = os.pidfd_open(int(daemon))
        started.send_signal(number)
        assert wait_for_end(descriptor)
