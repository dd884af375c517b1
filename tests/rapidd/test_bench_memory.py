"""What `bench.memory` says of processes that end, and of short runs, without a daemon."""

import http.client
import os
import subprocess
import sys
from typing import cast

import pytest
import zmq

from bench.memory import Load, Seen, main
from rapidctl.client import Client


def _child(code: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)


def test_a_process_that_ended_is_seen_no_more() -> None:
    """An engine that died ended an hour's soak with a traceback, where "was replaced" should have been its finding."""
    with _child("input()") as child:
        seen = Seen(child.pid)
        seen.look(0.0)
        assert seen.lives()
        child.kill()
        child.wait()
    seen.look(1.0)
    assert seen.at_s == [0.0]
    assert not seen.lives()


def test_a_process_that_nobody_has_waited_for_has_ended_too() -> None:
    with _child("pass") as child:
        assert child.stdin is not None
        child.stdin.close()
        _until_zombie(child)
        seen = Seen(child.pid)
        seen.look(0.0)
        assert seen.at_s == []
        assert not seen.lives()


def _until_zombie(child: "subprocess.Popen[bytes]") -> None:
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)


@pytest.mark.parametrize("error", [ConnectionRefusedError(), http.client.RemoteDisconnected("gone")])
def test_a_request_that_nobody_takes_is_a_problem_and_the_load_goes_on(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A dead HTTP server ended the soak with a traceback at the next request."""

    def refuse(*_: object) -> None:
        raise error

    load = Load("ipc:///nowhere", "http://127.0.0.1:1", seed=0)
    monkeypatch.setattr(load, "_one", refuse)
    load.one(cast(Client, None), cast("zmq.Socket[bytes]", None))
    assert load.problems == [repr(error)]


@pytest.mark.parametrize("minutes", ["0", "-1", "0.01"])
def test_a_run_too_short_for_a_line_is_refused(monkeypatch: pytest.MonkeyPatch, minutes: str) -> None:
    """It served its few seconds, then ended with a traceback of `statistics.linear_regression`."""
    monkeypatch.setattr(sys, "argv", ["bench.memory", "--minutes", minutes])
    with pytest.raises(SystemExit, match="2"):
        main()
