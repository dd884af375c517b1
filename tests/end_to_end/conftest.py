"""Daemons for the tests of this folder."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.daemon import Daemon, running

Folder = Callable[[], Path]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Makes new directories whose paths are short enough for sockets, unlike ``tmp_path`` under a long test name."""
    return lambda: tmp_path_factory.mktemp("e")


@pytest.fixture(scope="session")
def daemon(folder: Folder) -> Iterator[Daemon]:
    """Shared by all tests that leave it as they found it; the others start one of their own."""
    with running(folder()) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def own_daemon(folder: Folder) -> Iterator[Daemon]:
    """For a module whose tests kill parts of it."""
    with running(folder()) as daemon:
        yield daemon


@pytest.fixture
def started(folder: Folder) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons, with options, that end with the test."""
    with ExitStack() as stack:
        yield lambda *options, **environ: stack.enter_context(running(folder(), *options, **environ))
