"""What a service manager hears, also one that does not read for a moment."""

import itertools
from collections.abc import Iterator

import pytest

from rapidd.sdnotify import notify, settle
from support.supervised import Manager


@pytest.fixture
def manager(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    manager = Manager(tmp_path_factory.mktemp("n"))
    monkeypatch.setenv("NOTIFY_SOCKET", manager.path)
    yield manager
    manager.socket.close()
    settle()  # nobody is there any more: nothing is kept for the next test


def fill() -> int:
    """Say so much that no more fits; how many statuses were taken."""
    return next(number for number in itertools.count() if not notify(f"STATUS={number}"))


def test_a_manager_that_is_busy_still_hears_that_the_daemon_is_ready(manager: Manager) -> None:
    """It was told nothing where its queue was full, and ended the daemon that had never become ready."""
    taken = fill()
    assert not notify("READY=1")
    assert not notify("STATUS=lost")
    assert not notify("STOPPING=1", "EXTEND_TIMEOUT_USEC=5")
    assert not settle()
    assert manager.all_until(f"STATUS={taken - 1}")[0] == ["STATUS=0"]
    assert settle()
    assert manager.all_until("STOPPING=1") == [["READY=1"], ["STOPPING=1", "EXTEND_TIMEOUT_USEC=5"]]


def test_what_is_owed_goes_before_what_is_new(manager: Manager) -> None:
    taken = fill()
    assert not notify("RELOADING=1")
    manager.until(f"STATUS={taken - 1}")
    assert notify("READY=1")
    assert manager.all_until("READY=1") == [["RELOADING=1"], ["READY=1"]]


def test_nothing_is_owed_to_a_manager_that_is_not_there(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", f"{manager.path}-gone")
    assert not notify("READY=1")
    assert settle()
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not notify("READY=1")
    assert settle()
