"""The storms in a small size: nothing of what comes in ends a process, goes unanswered, or leaves anything behind."""

import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator

import psutil
import pytest

from bench.storm import aborts, bodies, deaths, drain, frames, overload
from bench.storm.site import Site, site
from support.daemon import MODEL
from support.process import environment


@pytest.fixture(scope="module", autouse=True)
def _as_users_run_it() -> Iterator[None]:
    """Daemons find the packages where nothing is installed, and no setting leaks in from outside."""
    with pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) - set(environment()):
            patch.delenv(name)
        for name, value in environment().items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def one(_as_users_run_it: None) -> Iterator[Site]:
    """Survives all tests; the last one drains it."""
    with site() as started:
        yield started


def test_damaged_frames_decode_or_are_refused_with_a_code() -> None:
    found = frames.decode(5000)
    assert found["failures"] == []
    assert found["outcomes"].keys() >= {"decoded", "malformed", "invalid_request", "unknown_kind"}


def test_damaged_frames_through_the_socket_are_answered(one: Site) -> None:
    found = frames.send(one, 500)
    assert found["failures"] == []
    assert found["replies"]["malformed"] > 100


def test_damaged_bodies_are_answered_by_the_application(one: Site) -> None:
    found = bodies.call(one, 300)
    assert found["failures"] == []
    assert found["outcomes"]["400 invalid_request"] > 100


def test_damaged_bodies_are_answered_by_the_server(one: Site) -> None:
    assert bodies.send(one, 30)["failures"] == []


def test_requests_that_are_given_up_leave_nothing_behind(one: Site) -> None:
    found = aborts.run(one, 120, idle_s=0)
    assert found["failures"] == []
    assert found["aborts"] >= 120


def test_under_overload_what_is_refused_says_when_to_come_back_and_the_rest_is_served(one: Site) -> None:
    found = overload.run(one, rounds=1, requests=32, output_tokens=24, judged=False)
    assert found["failures"] == []


def test_streams_outlive_the_front_and_the_engine_and_the_other_process_stays(one: Site) -> None:
    assert deaths.ride_out(one, defaultdict(list)) == []


def test_a_drain_loses_no_last_message(one: Site) -> None:
    """The last test of this module: it ends the daemon."""
    assert drain.drain(one, streams=16) == []


HOLD = """
import sys, time
from bench.processes import daemon
with daemon("--device", "cpu", "--compute-units", "1", "--model", sys.argv[1]) as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""


def test_a_benchmark_that_is_terminated_leaves_no_daemon_behind() -> None:
    """SIGTERM used to end the benchmark before it could end what it had started."""
    command = [sys.executable, "-P", "-c", HOLD, str(MODEL)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as bench:
        assert bench.stdout is not None
        supervisor = psutil.Process(int(bench.stdout.readline()))
        family = [supervisor, *supervisor.children(recursive=True)]
        bench.terminate()
        assert bench.wait(60) == 128 + signal.SIGTERM
    assert len(family) == 3
    assert not [process for process in family if process.is_running()]
