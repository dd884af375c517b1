"""What tests of several parts of the daemon ask for."""

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short enough for socket paths, unlike ``tmp_path`` under a long test name."""
    return tmp_path_factory.mktemp("d")
