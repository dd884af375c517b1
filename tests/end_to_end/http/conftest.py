"""One daemon with a chat template for the tests of this folder, and an HTTP server in front of it."""

from collections.abc import Iterator

import pytest

from support.daemon import Daemon, running
from support.http import NAME, HttpServer, chat_model, http_server

QUEUE = 12
"""Most choices that may wait: 16 at once are too many, and 8 are not."""
MAX_BODY = 100_000


@pytest.fixture(scope="session")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """On one core: a team of threads would wait for each other wherever other processes run too."""
    folder = tmp_path_factory.mktemp("h")
    options = ("--model", str(chat_model(folder)), "--dtype", "float32", "--compute-units", "1")
    with running(folder, *options, RAPIDD__SERVER__MAX_WAITING_REQUESTS=str(QUEUE)) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def server(chatty: Daemon) -> Iterator[HttpServer]:
    """Shared by all tests that leave it as they found it."""
    options = ("--served-model-name", NAME, "--max-body-bytes", str(MAX_BODY), "--vllm-aliases")
    with http_server(chatty.endpoint, *options) as server:
        yield server
