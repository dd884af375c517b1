"""What takes long begins with the first of these tests, on the core that they leave idle."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.beside import Program
from support.older_triton import Compilation

OLDER = "test_every_kernel_compiles_and_fits_by_an_older_triton"
INTERPRET = Path(__file__).with_name("test_gpu_interpret.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever waits for what runs beside the tests comes last: that has all other tests' time."""
    items.sort(
        key=lambda item: item.name == OLDER or item.path == INTERPRET or item.name.startswith("test_tiles_by_pointers")
    )


@pytest.fixture(scope="session", autouse=True)
def interpretation(request: pytest.FixtureRequest) -> Iterator[Program | None]:
    """See `test_gpu_interpret`; None where nobody asks for its result."""
    if not any(item.path == INTERPRET for item in request.session.items):
        yield None
        return
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    program = Program([sys.executable, str(INTERPRET)], environment)
    yield program
    program.stop()


@pytest.fixture(scope="session", autouse=True)
def older_compilation(request: pytest.FixtureRequest) -> Iterator[Compilation | None]:
    """See `support.older_triton`; None where nobody asks for its result."""
    if not any(item.name == OLDER for item in request.session.items):
        yield None
        return
    compilation = Compilation()
    yield compilation
    compilation.stop()
