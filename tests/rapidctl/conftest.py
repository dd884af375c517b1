"""The settings of whoever runs the tests are no part of them."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPIDCTL_CONFIG", str(tmp_path / "ctl.toml"))
    for name in ("RAPIDCTL_CONTEXT", "RAPIDCTL_THEME", "RAPIDCTL_ASCII"):
        monkeypatch.delenv(name, raising=False)
