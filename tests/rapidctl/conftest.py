"""A peer to talk to and the command; the settings of whoever runs the tests are no part of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rapidctl.client import Client
from support.command import Rapidctl
from support.peer import Peer


@pytest.fixture(autouse=True)
def _no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPIDCTL_CONFIG", str(tmp_path / "ctl.toml"))
    for name in ("RAPIDCTL_CONTEXT", "RAPIDCTL_THEME", "RAPIDCTL_ASCII", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    """A daemon that answers by script; the one that commands talk to unless told otherwise."""
    with Peer(tmp_path) as running:
        monkeypatch.setenv("RAPIDCTL_ENDPOINT", running.endpoint)
        yield running


@pytest.fixture
def rapidctl(capsys: pytest.CaptureFixture[str]) -> Rapidctl:
    """Runs the command in this process."""
    return Rapidctl(capsys)


@pytest.fixture
def client(peer: Peer) -> Iterator[Client]:
    """Connected to the peer."""
    with Client(peer.endpoint) as connected:
        yield connected
