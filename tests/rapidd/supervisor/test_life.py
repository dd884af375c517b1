"""The supervisor over real processes: starts, deaths, restarts and ends. Its children are stand-ins that tell."""

import os
import signal
import time

import pytest

from rapidd.errors import EndpointInUse
from rapidd.paths import RuntimeDir
from support.process import python_module, run, wait_for_end
from support.supervised import Daemon, Manager


def test_the_children_get_the_resolved_configuration_and_a_group_of_their_own(daemon: Daemon) -> None:
    """A Ctrl-C reaches the terminal's foreground group: it must not end the children before the drain."""
    daemon.start()
    daemon.until_ready()
    for child in ("engine", "front"):
        assert daemon.started[child]["listen"] == daemon.endpoint
        assert daemon.started[child]["group"] == daemon.pid(child)
    private = daemon.folder / "run/request.d"
    assert private.stat().st_mode & 0o777 == 0o700
    assert (private / "config.json").stat().st_mode & 0o777 == 0o600
    daemon.signal(signal.SIGINT)
    assert daemon.end()[0] == 0


def test_a_dead_engine_is_replaced_and_the_front_told(daemon: Daemon) -> None:
    daemon.start()
    daemon.until_ready()
    front, engine = daemon.pid("front"), daemon.pid("engine")
    os.kill(engine, signal.SIGKILL)
    lost = daemon.until("front", "note", lambda got: got["note"]["engine_pid"] is None)
    assert lost["note"]["engine_state"] == "restarting"
    back = daemon.until_ready()
    assert back["pid"] == front
    assert back["note"]["engine_pid"] == daemon.pid("engine") != engine
    assert (back["note"]["engine_causes"], back["note"]["front_causes"]) == ({"exit": 1}, {})


def test_the_device_that_was_found_stays_the_device(daemon: Daemon, manager: "Manager") -> None:
    """With --device auto, an engine that was started anew and found no GPU any more went on on the CPU, as if nothing
    were amiss, and a hundred times slower. What was found is no change of the settings.
    """
    daemon.start(NOTIFY_SOCKET=manager.path)
    daemon.until_ready()
    manager.until("READY=1")
    first = daemon.started["engine"]
    os.kill(first["pid"], signal.SIGKILL)
    again = daemon.until("engine", "started")
    assert (first["device"], again["device"]) == ("auto", "cuda")
    manager.until("READY=1")  # what is not read meanwhile fills the socket's queue, and a status is then not sent
    daemon.signal(signal.SIGHUP)
    manager.until("STATUS=reloaded: nothing has changed")


def test_a_dead_front_is_replaced_and_the_engine_left_alone(daemon: Daemon) -> None:
    daemon.start()
    daemon.until_ready()
    front, engine = daemon.pid("front"), daemon.pid("engine")
    os.kill(front, signal.SIGKILL)
    back = daemon.until("front", "note", lambda got: got["pid"] != front)
    assert 0 < back["note"].pop("started_mono_ns") < time.monotonic_ns()
    assert back["note"] == {
        "kind": "note",
        "supervisor_pid": daemon.process.pid if daemon.process is not None else None,
        "engine_pid": engine,
        "engine_state": "ready",
        "detail": "engine detail",
        "percent": None,
        "engine_causes": {},
        "front_causes": {"exit": 1},
        "draining": False,
    }


def test_admission_that_an_operator_stopped_stays_so_when_the_front_dies(daemon: Daemon) -> None:
    """The next front knew nothing of it, and let requests in to a machine that was being emptied."""
    daemon.start()
    daemon.until_ready()
    front = daemon.pid("front")
    os.kill(front, signal.SIGUSR2)
    daemon.until("front", "note", lambda got: got["note"]["draining"])
    os.kill(front, signal.SIGKILL)
    assert daemon.until("front", "note", lambda got: got["pid"] != front)["note"]["draining"]


@pytest.mark.parametrize(
    ("engine", "number", "reason"),
    [
        ("ill", signal.SIGUSR2, "must be reset"),
        ("serve,78", signal.SIGKILL, "cannot serve this configuration"),
    ],
)
def test_the_front_hears_why_no_engine_will_come_any_more(
    daemon: Daemon, engine: str, number: int, reason: str
) -> None:
    """It was killed after five seconds of a drain that nothing could finish, and told its streams nothing."""
    daemon.start("stubborn", engine, "1000")
    daemon.until_ready()
    os.kill(daemon.pid("engine"), number)
    assert reason in daemon.until("front", "no engine")["reason"]
    os.kill(daemon.pid("front"), signal.SIGKILL)
    assert daemon.end()[0] != 0


def test_a_drain_does_not_wait_for_an_engine_that_cannot_come_back(daemon: Daemon) -> None:
    """The front waited for its whole drain timeout."""
    daemon.start("stubborn", "serve,78", "1000")
    daemon.until_ready()
    daemon.signal(signal.SIGTERM)
    daemon.until("front", "told to stop")
    os.kill(daemon.pid("engine"), signal.SIGKILL)
    daemon.until("front", "no engine")
    os.kill(daemon.pid("front"), signal.SIGKILL)
    assert daemon.end()[0] == 0


@pytest.mark.parametrize(("front", "engine"), [("78", "serve"), ("serve", "78"), ("serve", "serve,78")])
def test_a_child_that_cannot_serve_the_configuration_ends_the_daemon(daemon: Daemon, front: str, engine: str) -> None:
    daemon.start(front, engine)
    if engine == "serve,78":
        daemon.until_ready()
        os.kill(daemon.pid("engine"), signal.SIGKILL)
    status, said = daemon.end()
    assert status == 78
    assert "cannot serve this configuration" in said


def test_a_child_that_never_becomes_ready_is_given_up(daemon: Daemon) -> None:
    daemon.start("1", "serve", "5")
    status, said = daemon.end()
    assert status == 1
    assert "the front ended 6 times and was never ready (last: exit status 1); giving up" in said
    assert len((daemon.folder / "front.starts").read_text()) == 6


def test_early_failures_are_forgiven(daemon: Daemon) -> None:
    daemon.start(front="1,1,serve")
    ready = daemon.until_ready()
    assert ready["note"]["front_causes"] == {"start": 2}


def test_garbage_from_a_child_is_skipped(daemon: Daemon) -> None:
    daemon.start(engine="noisy")
    daemon.until_ready()
    daemon.signal(signal.SIGTERM)
    assert daemon.end()[0] == 0


def test_children_that_do_not_end_in_time_are_killed(daemon: Daemon) -> None:
    daemon.start("stubborn", "stubborn", "0.1")
    daemon.until_ready()
    children = [os.pidfd_open(daemon.pid(child)) for child in ("front", "engine")]
    daemon.signal(signal.SIGTERM)
    status, said = daemon.end()
    assert status == 0
    assert "did not drain in time" in said
    assert all(map(wait_for_end, children))


def test_an_engine_that_dies_while_the_front_drains_is_replaced(daemon: Daemon, manager: Manager) -> None:
    """Its requests are still to be finished: a drain loses nothing. That it is ready again does not tell systemd,
    which was told that the daemon stops, that it is up: READY=1 came after STOPPING=1.
    """
    daemon.start("stubborn", "serve", "1000", NOTIFY_SOCKET=manager.path)
    daemon.until_ready()
    manager.until("READY=1")
    engine = daemon.pid("engine")
    daemon.signal(signal.SIGTERM)
    daemon.until("front", "told to stop")
    os.kill(engine, signal.SIGKILL)
    back = daemon.until("front", "note", lambda got: got["note"]["engine_pid"] not in (None, engine))
    assert back["note"]["engine_causes"] == {"exit": 1}
    daemon.until_ready()
    os.kill(daemon.pid("front"), signal.SIGKILL)
    assert daemon.end()[0] == 0
    assert ["READY=1"] not in manager.heard()


@pytest.mark.parametrize("engine", ["serve", "busy"])
def test_no_child_outlives_a_killed_supervisor_and_the_endpoint_is_free_again(daemon: Daemon, engine: str) -> None:
    """The children see end of file, even one that loads or hangs. The next daemon waits for them instead of failing
    on the lock that they hold.
    """
    daemon.start(engine=engine)
    daemon.until_ready()
    children = [os.pidfd_open(daemon.pid(child)) for child in ("front", "engine")]
    daemon.signal(signal.SIGKILL)
    daemon.end()
    daemon.start()
    assert all(map(wait_for_end, children))
    daemon.until_ready()
    daemon.signal(signal.SIGTERM)
    assert daemon.end()[0] == 0


def test_a_second_daemon_on_the_endpoint_is_refused_and_the_first_goes_on(daemon: Daemon) -> None:
    daemon.start()
    daemon.until_ready()
    assert daemon.process is not None
    with pytest.raises(EndpointInUse, match=f"{daemon.endpoint} is served by another rapidd .pid {daemon.process.pid}"):
        RuntimeDir(daemon.endpoint).lock(0.0)
    second = run(python_module("rapidd.cli", "serve", "--listen", daemon.endpoint))
    assert second.returncode == 78
    assert f"pid {daemon.process.pid}" in second.stderr
    assert "--listen" in second.stderr
    assert RuntimeDir(daemon.endpoint).owner() == daemon.process.pid
    os.kill(daemon.pid("engine"), signal.SIGKILL)
    daemon.until_ready()
