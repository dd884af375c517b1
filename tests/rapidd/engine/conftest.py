"""A real engine that tests turn by hand: one a file, greeted and without requests for each test."""

from collections.abc import Iterator

import pytest

from support.engine_bench import Bench


@pytest.fixture(scope="module")
def shared_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("e"))
    yield bench
    bench.close()


@pytest.fixture
def bench(shared_bench: Bench) -> Iterator[Bench]:
    shared_bench.greet()
    yield shared_bench
    shared_bench.engine._forget_requests()
