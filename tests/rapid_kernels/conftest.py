"""What takes long begins with the first of these tests, on the core that they leave idle."""

from collections.abc import Iterator

import pytest

from support.older_triton import Compilation

OLDER = "test_every_kernel_compiles_and_fits_by_an_older_triton"


@pytest.fixture(scope="session", autouse=True)
def older_compilation(request: pytest.FixtureRequest) -> Iterator[Compilation | None]:
    """See `support.older_triton`; None where nobody asks for its result."""
    if not any(item.name == OLDER for item in request.session.items):
        yield None
        return
    compilation = Compilation()
    yield compilation
    compilation.stop()
