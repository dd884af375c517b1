"""The console in a real terminal: a pseudo-terminal, the real command, a scripted daemon that dies and returns."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from support import samples
from support.peer import Peer
from support.terminal import Terminal


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    with Peer(tmp_path) as found:
        yield found


def test_it_shows_the_daemon_says_stale_recovers_and_leaves_the_terminal_as_it_was(peer: Peer) -> None:
    seq = iter(range(10, 10_000))

    def publish() -> None:
        peer.publish(replace(samples.SNAPSHOT, seq=next(seq)))

    with Terminal(sys.executable, "-P", "-m", "rapidctl.cli", "--endpoint", peer.endpoint, "top") as terminal:
        terminal.until(lambda text: "● LIVE" in text and "CORES 2" in text and "SmolLM2-135M-Instruct" in text, publish)
        peer.stop()
        terminal.until(lambda text: "◌ STALE" in text and "CORES 2" in text)
        peer.start()
        terminal.until(lambda text: "● LIVE" in text, publish)
        terminal.press(b"q")
        assert terminal.end() == 0
        assert terminal.restored


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_as_a_key_does(number: signal.Signals) -> None:
    """The terminal was left without its echo and on the console's screen, or the signal was a bug to report."""
    with Terminal(sys.executable, "-P", "-m", "rapidctl.cli", "top", "--demo") as terminal:
        terminal.until(lambda text: "● LIVE" in text)
        os.kill(terminal.pid, number)
        assert terminal.end() == 130
        assert terminal.restored
