"""The supervisor over real processes. Its children are stand-ins (tests/support/stand_in.py) that tell what happens."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rapidd.child import Child
from rapidd.errors import EndpointInUse
from rapidd.ipc import Channel, ChildReport
from rapidd.paths import RuntimeDir
from support.process import ROOT, WAIT_S, environment, python_module, run, wait_for_end

Event = dict[str, Any]


class Daemon:
    """A supervisor process and what its children told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.endpoint = f"ipc://{folder}/run/request.sock"
        self.started: dict[str, Event] = {}
        """What the children started last told first."""
        self.process: subprocess.Popen[str] | None = None
        self._events = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._events.bind(f"{folder}/events")
        self._events.settimeout(WAIT_S)

    def start(self, front: str = "serve", engine: str = "serve", *more: str, **environ: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(ROOT / "tests/support/supervise.py"), str(self.folder), front, engine, *more],
            env=environment(**environ),
            stderr=subprocess.PIPE,
            text=True,
        )

    def pid(self, child: str) -> int:
        return int(self.started[child]["pid"])

    def until(self, child: str, event: str, accept: Callable[[Event], bool] = lambda _: True) -> Event:
        """The next such event; those before it are dropped."""
        while True:
            got: Event = json.loads(self._events.recv(65536))
            if got["event"] == "started":
                self.started[got["child"]] = got
            if got["child"] == child and got["event"] == event and accept(got):
                return got

    def until_ready(self) -> Event:
        return self.until("front", "note", lambda got: got["note"]["engine_state"] == "ready")

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Wait for the supervisor's end: exit status and what it said."""
        assert self.process is not None
        _, said = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, said

    def close(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            self.process.communicate()
        self._events.close()


@pytest.fixture
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("d"))
    yield daemon
    daemon.close()


class Manager:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "s")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(WAIT_S)

    def until(self, state: str) -> list[str]:
        """The next datagram that begins with this assignment; those before it are dropped."""
        while True:
            heard = self.socket.recv(4096).decode().splitlines()
            if heard[0] == state:
                return heard


@pytest.fixture
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    manager = Manager(tmp_path_factory.mktemp("n"))
    yield manager
    manager.socket.close()


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


def test_progress_is_said_once_and_readiness_with_the_engines_words(daemon: Daemon) -> None:
    daemon.start()
    daemon.until_ready()
    daemon.signal(signal.SIGTERM)
    status, said = daemon.end()
    assert status == 0
    assert said.count("rapidd: loading weights 60 %\n") == 1
    assert f"rapidd: ready on {daemon.endpoint} (engine detail) in " in said


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
    assert (back["note"]["engine_restarts"], back["note"]["front_restarts"]) == (1, 0)


def test_a_dead_front_is_replaced_and_the_engine_left_alone(daemon: Daemon) -> None:
    daemon.start()
    daemon.until_ready()
    front, engine = daemon.pid("front"), daemon.pid("engine")
    os.kill(front, signal.SIGKILL)
    back = daemon.until("front", "note", lambda got: got["pid"] != front)
    assert back["note"] == {
        "kind": "note",
        "supervisor_pid": daemon.process.pid if daemon.process is not None else None,
        "engine_pid": engine,
        "engine_state": "ready",
        "detail": "engine detail",
        "percent": None,
        "engine_restarts": 0,
        "front_restarts": 1,
    }


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
    daemon.start(front="1")
    status, said = daemon.end()
    assert status == 1
    assert "the front ended 6 times and was never ready (last: exit status 1); giving up" in said
    assert len((daemon.folder / "front.starts").read_text()) == 6


def test_early_failures_are_forgiven(daemon: Daemon) -> None:
    daemon.start(front="1,1,serve")
    ready = daemon.until_ready()
    assert ready["note"]["front_restarts"] == 2


def test_garbage_from_a_child_is_skipped(daemon: Daemon) -> None:
    daemon.start(engine="noisy")
    daemon.until_ready()
    daemon.signal(signal.SIGTERM)
    assert daemon.end()[0] == 0


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


def test_children_that_do_not_end_in_time_are_killed(daemon: Daemon) -> None:
    daemon.start("stubborn", "stubborn", "0.1")
    daemon.until_ready()
    children = [os.pidfd_open(daemon.pid(child)) for child in ("front", "engine")]
    daemon.signal(signal.SIGTERM)
    status, said = daemon.end()
    assert status == 0
    assert "did not drain in time" in said
    assert all(map(wait_for_end, children))


def test_an_engine_that_dies_while_the_front_drains_is_replaced(daemon: Daemon) -> None:
    """Its requests are still to be finished: a drain loses nothing."""
    daemon.start("stubborn", "serve", "1000")
    daemon.until_ready()
    engine = daemon.pid("engine")
    daemon.signal(signal.SIGTERM)
    daemon.until("front", "told to stop")
    os.kill(engine, signal.SIGKILL)
    back = daemon.until("front", "note", lambda got: got["note"]["engine_pid"] not in (None, engine))
    assert back["note"]["engine_restarts"] == 1
    os.kill(daemon.pid("front"), signal.SIGKILL)
    assert daemon.end()[0] == 0


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


def test_systemd_hears_of_loading_readiness_and_stopping(daemon: Daemon, manager: Manager) -> None:
    daemon.start(NOTIFY_SOCKET=manager.path)
    daemon.until_ready()
    assert not daemon.started["front"]["notify"]
    daemon.signal(signal.SIGTERM)
    heard: list[str] = []
    while not heard or not heard[-1].startswith("STOPPING=1"):
        heard.append(manager.socket.recv(4096).decode())
    assert daemon.end()[0] == 0
    order = ["STATUS=loading weights 60 %", "EXTEND_TIMEOUT_USEC=120000000", "READY=1"]
    assert [state for state in heard if state in order] == order
    assert heard[-1].splitlines()[1].startswith("EXTEND_TIMEOUT_USEC=")


@pytest.mark.parametrize("engine", ["busy", "deaf", "stuck"])
def test_a_hung_engine_is_aborted_its_stacks_are_kept_and_another_started(daemon: Daemon, engine: str) -> None:
    """Silent, silent and deaf to SIGABRT, or answering without ever ending a batch: the front stays."""
    daemon.start("serve", f"{engine},serve", HANG_BEATS="25")
    daemon.until_ready()
    front, hung = daemon.pid("front"), daemon.pid("engine")
    back = daemon.until("front", "note", lambda got: got["note"]["engine_pid"] not in (None, hung))
    assert (back["pid"], back["note"]["engine_restarts"]) == (front, 1)
    daemon.until_ready()
    daemon.signal(signal.SIGTERM)
    status, said = daemon.end()
    assert status == 0
    why = "no batch ended for 0 s while 3 requests wait" if engine == "stuck" else "its main loop did not answer"
    assert f"the engine hangs: {why}" in said
    if engine == "deaf":
        assert "killed by SIGKILL" in said
    else:
        assert "killed by SIGABRT" in said
        (kept,) = (daemon.folder / "run/request.d").glob(f"engine-*-{hung}.stacks")
        assert "stand_in.py" in kept.read_text()
        assert f"the engine's last stacks are in {kept}" in said


def test_a_device_that_must_be_reset_ends_the_daemon_for_good(daemon: Daemon) -> None:
    daemon.start("sick")
    status, said = daemon.end()
    assert status == 77
    assert "device fault: Xid 1; the device must be reset or replaced" in said


def test_a_device_fault_that_a_new_process_mends_replaces_the_engine(daemon: Daemon) -> None:
    daemon.start("faulty")
    back = daemon.until("front", "note", lambda got: got["note"]["engine_restarts"] == 1)
    assert back["note"]["front_restarts"] == 0
    daemon.until_ready()
    daemon.signal(signal.SIGTERM)
    assert "device fault: Xid 1; replacing the engine" in daemon.end()[1]


def test_a_hung_front_is_replaced_and_the_engine_left_alone(daemon: Daemon) -> None:
    daemon.start("busy,serve", HANG_BEATS="25")
    back = daemon.until_ready()
    assert (back["note"]["front_restarts"], back["note"]["engine_restarts"]) == (1, 0)


def test_children_that_answer_are_left_alone(daemon: Daemon, manager: "Manager") -> None:
    """The watchdog is fed by the beats that probe them: many more than make a silent child hang."""
    daemon.start(HANG_BEATS="3", NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="30000000")
    daemon.until_ready()
    for _ in range(20):
        manager.until("WATCHDOG=1")
    daemon.signal(signal.SIGTERM)
    assert "hangs" not in daemon.end()[1]


def test_a_reload_goes_to_the_engine_then_to_the_front_and_to_children_that_start_later(
    daemon: Daemon, manager: "Manager"
) -> None:
    daemon.start(NOTIFY_SOCKET=manager.path)
    daemon.until_ready()
    manager.until("READY=1")
    (daemon.folder / "rapidd.toml").write_text("[server]\nsnapshot-hz = 9.0\n[http]\nport = 1\n")
    daemon.signal(signal.SIGHUP)
    assert daemon.until("engine", "reload")["snapshot_hz"] == 9.0
    assert daemon.until("front", "reload")["snapshot_hz"] == 9.0
    assert manager.until("RELOADING=1")[1].startswith("MONOTONIC_USEC=")
    manager.until("READY=1")
    written = json.loads((daemon.folder / "run/request.d/config.json").read_bytes())
    assert (written["server"]["snapshot-hz"], written["server"]["listen"]) == (9.0, daemon.endpoint)
    daemon.signal(signal.SIGHUP)
    manager.until("STATUS=reloaded: nothing has changed")
    daemon.signal(signal.SIGTERM)
    assert "rapidd: reloaded: server.snapshot-hz\n" in daemon.end()[1]


@pytest.mark.parametrize(
    ("text", "engine", "problem"),
    [
        ("[server]\nsnapshot-hz = 9.0\n[engine]\nkv-blocks = 7\n", "serve", "engine.kv-blocks: needs a restart"),
        ("[server]\nsnapshot-hz = 'nine'\n", "serve", "server.snapshot-hz: Expected `float`"),
        ("[server]\nsnapshot-hz = 9.0\n", "picky", "engine.policy: not here"),
    ],
    ids=["needs a restart", "invalid", "refused by the engine"],
)
def test_a_refused_reload_changes_nothing(
    daemon: Daemon, manager: "Manager", text: str, engine: str, problem: str
) -> None:
    daemon.start("serve", engine, NOTIFY_SOCKET=manager.path)
    daemon.until_ready()
    before = (daemon.folder / "run/request.d/config.json").read_bytes()
    (daemon.folder / "rapidd.toml").write_text(text)
    daemon.signal(signal.SIGHUP)
    manager.until("RELOADING=1")
    manager.until("READY=1")
    assert (daemon.folder / "run/request.d/config.json").read_bytes() == before
    daemon.signal(signal.SIGTERM)
    status, said = daemon.end()
    assert status == 0
    refused = [line for line in said.splitlines() if "reload refused, the old configuration stays: " in line]
    assert len(refused) == 1
    assert problem in refused[0]


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


def test_delays_grow_with_failures_in_a_row_and_a_healthy_minute_forgives_them() -> None:
    child = Child("engine", [], (0.5, 1.0, 2.0))
    ours, theirs = socket.socketpair()
    child.channel = Channel(ours)

    def ready(now_s: float) -> None:
        Channel(theirs).send(ChildReport("ready"))
        assert child.hear(now_s) == [ChildReport("ready")]

    assert [child.failed(now_s) for now_s in (0.0, 1.0, 2.0, 3.0)] == [0.5, 1.0, 2.0, 2.0]
    ready(10.0)
    assert child.failed(69.0) == 2.0
    ready(100.0)
    assert child.failed(160.0) == 0.5
    assert child.retry_at_s == 160.5
    child.channel.close()
    theirs.close()
