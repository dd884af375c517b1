"""Damaged HTTP bodies: through the ASGI application in this process, and a share through `rapidd http` and its socket.

Each is answered with success or with a 4xx whose body says what is wrong; what comes out damaged but valid is served by
the daemon behind. A stream that fails after its head says so in an event.
"""

import asyncio
import contextlib
import http.client
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from starlette.types import ASGIApp, Message

from bench.mutate import HTTP_MODEL, Bodies
from bench.served import http_server
from bench.storm.site import Site
from rapidd.http.app import Settings, make_app

AT_ONCE: Final = 16
MAX_BODY_BYTES: Final = 16 * 1024 * 1024


class _Error(msgspec.Struct):
    """What an error's body holds, and perhaps more."""

    message: str
    type: str
    code: str


class _Envelope(msgspec.Struct):
    error: _Error


class Tally:
    """Answers by status and code, and those that should not be."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.failures: list[str] = []

    def take(self, body: bytes, status: int, answer: bytes) -> None:
        """One answer to one body."""
        if status == 200:
            self.outcomes["200"] += 1
            return
        try:
            code = msgspec.json.decode(answer, type=_Envelope).error.code
        except msgspec.DecodeError:
            code = "not an error's body"
        self.outcomes[f"{status} {code}"] += 1
        if not 400 <= status < 500 or code == "not an error's body":
            self.failures.append(f"{body[:200]!r} was answered with {status} {code}")

    def take_good(self, body: bytes, status: int, answer: bytes) -> None:
        """The answer to a body that nothing is wrong with."""
        if status != 200:
            self.failures.append(f"the good body {body!r} was answered with {status}: {answer!r}")

    def found(self, count: int) -> dict[str, Any]:
        """For the section's figures."""
        return {"bodies": count, "outcomes": dict(sorted(self.outcomes.items())), "failures": self.failures[:20]}


def call(site: Site, count: int, seed: int = 0) -> dict[str, Any]:
    """Through the application itself, `AT_ONCE` at a time."""
    return asyncio.run(_call_all(site, count, seed))


async def _call_all(site: Site, count: int, seed: int) -> dict[str, Any]:
    settings = Settings(
        endpoint=site.endpoint,
        served_model_name=HTTP_MODEL,
        keys=None,
        local_only=True,
        max_body_bytes=MAX_BODY_BYTES,
        patience_s=15.0,
        vllm_aliases=False,
    )
    app, tally, damaged = make_app(settings), Tally(), Bodies(seed)
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            path, body = damaged()
            try:
                tally.take(body, *await _post(app, path, body))
            except Exception as error:
                tally.failures.append(f"{body[:200]!r} raised {error!r}")

    async with _alive(app):
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        for path, body in damaged.good:
            tally.take_good(body, *await _post(app, path, body))
    found = tally.found(count)
    return {**found, "failures": found["failures"] + site.problems()}


@contextlib.asynccontextmanager
async def _alive(app: ASGIApp) -> AsyncIterator[None]:
    """The application between its start and its end, as a server would run it."""
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    outbox: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
    life: asyncio.Future[None] = asyncio.ensure_future(app(scope, inbox.get, outbox.put))
    inbox.put_nowait({"type": "lifespan.startup"})
    assert (await outbox.get())["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        inbox.put_nowait({"type": "lifespan.shutdown"})
        await life


async def _post(app: ASGIApp, path: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of an answer."""
    head = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": head,
        "server": ("localhost", 80),
        "client": ("127.0.0.1", 1),
        "state": {"abort": lambda: None},
    }
    incoming = iter([{"type": "http.request", "body": body, "more_body": False}])
    status, parts = 0, bytearray()

    async def receive() -> Message:
        for message in incoming:
            return message
        await asyncio.Event().wait()  # the client stays
        raise AssertionError("nobody sets it")

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            parts.extend(message.get("body", b""))

    await app(scope, receive, send)
    return status, bytes(parts)


def send(site: Site, count: int, seed: int = 1) -> dict[str, Any]:
    """Through the server's socket, over one connection after the other."""
    tally, damaged = Tally(), Bodies(seed)
    with http_server(site.endpoint, "--served-model-name", HTTP_MODEL) as (url, _):
        for _ in range(count):
            path, body = damaged()
            try:
                tally.take(body, *_ask(url, path, body))
            except (OSError, http.client.HTTPException) as error:
                tally.failures.append(f"{body[:200]!r} had no answer: {error!r}")
        for path, body in damaged.good:
            tally.take_good(body, *_ask(url, path, body))
    found = tally.found(count)
    return {**found, "failures": found["failures"] + site.problems()}


def _ask(url: str, path: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of an answer. Raises OSError or HTTPException when there is none."""
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)) as connection:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
