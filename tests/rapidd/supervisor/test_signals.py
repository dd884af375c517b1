"""What the system asks of a daemon: to drain, to stop at once, to stop with its terminal."""

import os
import pty
import signal
import sys

import pytest

from support.process import ROOT, environment, wait_for_end
from support.supervised import Daemon


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_the_front_first_then_the_engine(daemon: Daemon, number: int) -> None:
    """The front drains through a living engine."""
    daemon.start()
    daemon.until_ready()
    front = os.pidfd_open(daemon.pid("front"))
    daemon.signal(number)
    daemon.until("front", "told to stop")
    daemon.until("engine", "told to stop")
    assert wait_for_end(front)
    status, said = daemon.end()
    assert status == 0
    assert "draining" in said


def test_a_second_signal_stops_at_once(daemon: Daemon) -> None:
    daemon.start("stubborn", "stubborn", "1000")
    daemon.until_ready()
    children = [os.pidfd_open(daemon.pid(child)) for child in ("front", "engine")]
    daemon.signal(signal.SIGTERM)
    daemon.until("front", "told to stop")
    daemon.signal(signal.SIGTERM)
    assert daemon.end()[0] == 0
    assert all(map(wait_for_end, children))


def test_a_terminal_that_goes_away_stops_the_daemon(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its end is the same signal as a reload."""
    daemon = Daemon(tmp_path_factory.mktemp("d"))
    pid, terminal = pty.fork()
    if pid == 0:
        program = [sys.executable, "-P", str(ROOT / "tests/support/supervise.py"), str(daemon.folder), "serve", "serve"]
        os.execve(sys.executable, program, environment())
    try:
        daemon.until_ready()
    finally:
        os.close(terminal)
    daemon.until("front", "told to stop")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    daemon.close()
