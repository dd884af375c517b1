"""A supervisor that is not started yet, and a service manager."""

from collections.abc import Iterator

import pytest

from support.supervised import Daemon, Manager


@pytest.fixture
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("d"))
    yield daemon
    daemon.close()


@pytest.fixture
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    manager = Manager(tmp_path_factory.mktemp("n"))
    yield manager
    manager.socket.close()
