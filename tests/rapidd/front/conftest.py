"""The front under test, with nobody connected yet."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.front import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()
