"""Children that hang, and devices that fail: who is found, aborted and replaced, and who is left alone."""

import os
import signal

import pytest

from support.supervised import Daemon, Manager


@pytest.mark.parametrize(("engine", "abort_s"), [("busy", "60"), ("deaf", "0.1"), ("stuck", "60")])
def test_a_hung_engine_is_aborted_its_stacks_are_kept_and_another_started(
    daemon: Daemon, engine: str, abort_s: str
) -> None:
    """Silent, silent and deaf to SIGABRT, or answering without ever ending a batch: the front stays.

    Whoever writes stacks has all the time that this takes: killed in the middle they would look deaf.
    """
    daemon.start("serve", f"{engine},serve", HANG_BEATS="50", ABORT_S=abort_s)
    daemon.until_ready()
    front, hung = daemon.pid("front"), daemon.pid("engine")
    back = daemon.until("front", "note", lambda got: got["note"]["engine_pid"] not in (None, hung))
    assert (back["pid"], back["note"]["engine_causes"]) == (front, {"hang": 1})
    daemon.until_ready()
    daemon.signal(signal.SIGTERM)
    status, said = daemon.end()
    assert status == 0
    why = "no batch ended for 1 s while 3 requests wait" if engine == "stuck" else "its main loop did not answer"
    assert f"the engine hangs: {why}" in said
    if engine == "deaf":
        assert "killed by SIGKILL" in said
    else:
        assert "killed by SIGABRT" in said
        (kept,) = (daemon.folder / "run/request.d").glob(f"engine-*-{hung}.stacks")
        assert "stand_in.py" in kept.read_text()
        assert f"the engine's last stacks are in {kept}" in said


def test_what_goes_wrong_is_in_a_log_that_holds_no_more_than_that(daemon: Daemon) -> None:
    (daemon.folder / "rapidd.toml").write_text('[log]\nlevel = "warning"\n')
    daemon.start("serve", "busy,serve", HANG_BEATS="50")
    daemon.until("front", "note", lambda got: got["note"]["engine_causes"] == {"hang": 1})
    daemon.until_ready()
    daemon.signal(signal.SIGTERM)
    _, said = daemon.end()
    assert [line.split(":")[1].split(" (")[0].strip() for line in said.splitlines()][:2] == [
        "the engine hangs",
        "the engine ended",
    ]
    assert "the engine's last stacks are in" in said
    assert "ready" not in said


def test_a_device_that_must_be_reset_ends_the_daemon_for_good(daemon: Daemon) -> None:
    daemon.start("sick")
    status, said = daemon.end()
    assert status == 77
    assert "device fault: Xid 1; the device must be reset or replaced" in said


def test_a_device_fault_that_a_new_process_mends_replaces_the_engine(daemon: Daemon) -> None:
    daemon.start("faulty")
    back = daemon.until("front", "note", lambda got: got["note"]["engine_causes"] == {"device": 1})
    assert back["note"]["front_causes"] == {}
    daemon.until_ready()
    daemon.signal(signal.SIGTERM)
    assert "device fault: Xid 1; replacing the engine" in daemon.end()[1]


def test_an_engine_that_still_loads_is_not_replaced_for_the_fault_of_the_one_before(daemon: Daemon) -> None:
    """The engine ends by such a fault itself, before the sensors tell of it: the next one was killed for it too."""
    daemon.start("hasty", "loading", "0.1")
    daemon.until("front", "note", lambda got: got["note"]["detail"] == "engine detail")  # it loads
    os.kill(daemon.pid("front"), signal.SIGUSR2)
    daemon.until("front", "note", lambda got: got["note"]["draining"])  # what it said before has been heard
    daemon.signal(signal.SIGTERM)
    assert "Xid 1" not in daemon.end()[1]


def test_a_hung_front_is_replaced_and_the_engine_left_alone(daemon: Daemon) -> None:
    daemon.start("busy,serve", HANG_BEATS="50")
    back = daemon.until_ready()
    assert (back["note"]["front_causes"], back["note"]["engine_causes"]) == ({"hang": 1}, {})


def test_children_that_answer_are_left_alone(daemon: Daemon, manager: "Manager") -> None:
    """The watchdog is fed by the beats that probe them: many more than make a silent child hang."""
    daemon.start(HANG_BEATS="50", NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="30000000")
    daemon.until_ready()
    for _ in range(120):
        manager.until("WATCHDOG=1")
    daemon.signal(signal.SIGTERM)
    assert "hangs" not in daemon.end()[1]


def test_an_engine_that_hangs_while_it_loads_is_replaced(daemon: Daemon) -> None:
    """Whoever set a time that no engine can keep is told which it was."""
    daemon.start("serve", "loading,serve", HANG_BEATS="50", LOAD_TIMEOUT_S="3")
    daemon.until("engine", "loading")
    hung = daemon.pid("engine")
    back = daemon.until_ready()
    assert back["note"]["engine_causes"]["hang"] > 0
    assert back["note"]["engine_pid"] != hung
    daemon.signal(signal.SIGTERM)
    assert (
        "the engine hangs: no progress for 3 s (server.load-timeout-s) while it starts; aborting it" in daemon.end()[1]
    )
