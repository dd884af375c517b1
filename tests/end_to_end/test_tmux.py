"""The console in tmux, as operators run it: its 16 colours, the alternate screen, keys by name."""

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.daemon import WAIT_S, Daemon, rapidctl_json
from support.process import ROOT, environment

LOOK_S = 0.1


class Tmux:
    """A server of its own with one window."""

    def __init__(self, folder: Path, width: int, height: int) -> None:
        self._socket = str(folder / "tmux.sock")
        self._run("-f", "/dev/null", "new-session", "-d", "-x", str(width), "-y", str(height), "sh")
        self._run("set-option", "-g", "status", "off")

    def start(self, *command: str) -> None:
        """Type a command line."""
        self._run("send-keys", "-l", shlex.join(command) + "; echo ended with $?")
        self.press("Enter")

    def press(self, *keys: str) -> None:
        """By tmux's names."""
        self._run("send-keys", *keys)

    def type(self, text: str) -> None:
        """Letter by letter."""
        self._run("send-keys", "-l", text)

    def resize(self, width: int, height: int) -> None:
        """As if somebody dragged the window."""
        self._run("resize-window", "-x", str(width), "-y", str(height))

    def screen(self) -> str:
        """What a person would see."""
        return self._run("capture-pane", "-p")

    @property
    def modes(self) -> str:
        """Whether the pane is on the alternate screen, shows a cursor, and sends the mouse to the program."""
        return self._run("display-message", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}").strip()

    def until(self, wanted: Callable[[str], bool]) -> str:
        """Look until it is so."""
        deadline = time.monotonic() + WAIT_S
        while not wanted(text := self.screen()):
            assert time.monotonic() < deadline, text
            time.sleep(LOOK_S)
        return text

    def close(self) -> None:
        """End the server."""
        self._run("kill-server")

    def _run(self, *words: str) -> str:
        command = ["tmux", "-S", self._socket, *words]
        done = subprocess.run(command, env=environment(TERM="xterm"), capture_output=True, text=True, check=True)
        return done.stdout


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed here")
    found = Tmux(tmp_path, 120, 36)
    yield found
    found.close()


def test_an_operator_in_tmux_sees_an_override_applied_a_prompt_answered_and_the_engine_die_and_return(
    daemon: Daemon, tmux: Tmux
) -> None:
    before = line_modes(tmux, nth=1)
    paths = [f"PYTHONPATH={':'.join(str(ROOT / folder) for folder in ('rapidctl', 'daemon', 'kernels'))}"]
    tmux.start(
        "env",
        *paths,
        sys.executable,
        "-P",
        "-m",
        "rapidctl.cli",
        "--endpoint",
        daemon.endpoint,
        "top",
        "--theme",
        "ansi",
    )
    tmux.until(lambda text: "● LIVE" in text and "stories260K" in text and "read-only" in text)

    tmux.press("C-o")
    tmux.until(lambda text: "CONTROL" in text and "read-only" not in text)
    tmux.press("o")
    tmux.until(lambda text: "Apply (y)" in text)
    tmux.press("Tab", "Tab", "Right")  # from Cancel over Apply around to the mode
    tmux.until(lambda text: "(•) shared" in text)
    tmux.press("y")
    text = tmux.until(lambda text: "✓ APPLIED" in text)
    shown = rapidctl_json(daemon, "partition", "show")
    assert (shown["mode"], shown["source"]) == ("shared", "override")
    assert {lane["lane"] for lane in shown["measured"]["lanes"]} == {"decode", "prefill"}
    tmux.press("Escape")
    tmux.until(lambda text: "OVERRIDE" in text and "Apply (y)" not in text)

    tmux.press("n")
    tmux.until(lambda text: "no chat template" in text)
    tmux.type("Once upon a time")
    tmux.press("Enter")
    text = tmux.until(lambda text: "finished" in text)
    assert "there was a little girl" in text
    tmux.press("Escape")
    tmux.until(lambda text: "DECISIONS" in text and "operator" in text)

    with daemon.without_engine():
        tmux.until(lambda text: "! ENGINE LOST" in text)
    tmux.until(lambda text: "● LIVE" in text and "ENGINE LOST" not in text)
    daemon.check_serves()
    assert rapidctl_json(daemon, "partition", "show")["source"] == "override", "the new engine goes on with it"

    for width, height, words in ((80, 24, "REQUESTS"), (60, 20, "TTFT p50/95/99"), (40, 8, "prefill")):
        tmux.resize(width, height)
        lines = tmux.until(lambda text, words=words: words in text and "LIVE" in text).splitlines()  # type: ignore[misc]
        assert all(len(line) <= width for line in lines)

    tmux.resize(120, 36)
    tmux.until(lambda text: "DECISIONS" in text and "OVERRIDE by" in text)  # a snapshot of the new engine has come
    tmux.press("A")
    tmux.until(lambda text: "APPLIED release" in text)
    tmux.press("q")
    text = tmux.until(lambda text: text.count("ended with 0") == 2)
    assert "CORES" not in text, "the screen of before is back"
    assert tmux.modes == "0 1 0"
    assert line_modes(tmux, nth=2) == before


def line_modes(tmux: Tmux, nth: int) -> str:
    """Of the pane's terminal, as the shell in it finds them when it is asked for the ``nth`` time."""
    tmux.start("stty", "-g")
    answer = re.compile(r"^([0-9a-f:]+)\nended with 0$", re.MULTILINE)
    modes: list[str] = answer.findall(tmux.until(lambda text: len(answer.findall(text)) == nth))
    return modes[-1]
