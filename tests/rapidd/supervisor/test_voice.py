"""What people and systemd hear of a daemon's start and end."""

import signal

from support.supervised import Daemon, Manager


def test_progress_is_said_once_and_readiness_with_the_engines_words(daemon: Daemon, manager: Manager) -> None:
    daemon.start(NOTIFY_SOCKET=manager.path)
    manager.until("READY=1")
    daemon.signal(signal.SIGTERM)
    status, said = daemon.end()
    assert status == 0
    assert said.count("rapidd: loading weights 60 %\n") == 1
    assert f"rapidd: ready on {daemon.endpoint} (engine detail) in " in said


def test_systemd_hears_of_loading_readiness_and_stopping(daemon: Daemon, manager: Manager) -> None:
    """The engine may be ready before the front is: a stop between the two comes before READY=1, and may."""
    daemon.start(NOTIFY_SOCKET=manager.path)
    daemon.until_ready()
    assert not daemon.started["front"]["notify"]
    heard = manager.all_until("READY=1")
    daemon.signal(signal.SIGTERM)
    assert manager.until("STOPPING=1")[1].startswith("EXTEND_TIMEOUT_USEC=")
    assert daemon.end()[0] == 0
    order = [["STATUS=loading weights 60 %"], ["EXTEND_TIMEOUT_USEC=120000000"], ["READY=1"]]
    assert [state for state in heard if state in order] == order
