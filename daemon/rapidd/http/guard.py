"""What keeps strangers from costing more than their answer: bounded heads and bodies, deadlines, known hosts.

`BoundedProtocol` is uvicorn's HTTP protocol with limits it does not have; the rest is for the routes.
"""

import asyncio
import contextlib
from typing import Final

import httptools
from starlette.requests import Request
from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from rapidd.http.errors import ApiError
from rapidd.http.keys import is_loopback

MAX_HEAD_BYTES: Final = 64 * 1024
HEAD_TIMEOUT_S: Final = 10.0
"""For the head of a request to arrive whole, from the first byte; for the first one, from the connection."""
BODY_TIMEOUT_S: Final = 60.0
JSON: Final = "application/json"


class BoundedProtocol(HttpToolsProtocol):
    """Heads are bounded, in bytes and in time. ``state["abort"]`` of a request cuts its connection at once.

    A request that offers another protocol (`Upgrade: h2c`, as Java's client does by itself) is read as if it did not:
    the parser would end it behind its head, without its body.
    """

    _read_bytes = 0
    _kept_bytes = 0
    """Read since a request or a piece of its body came: parts of a head, or of what may stand behind a body."""
    _head_timer: asyncio.TimerHandle | None = None
    _running: RequestResponseCycle | None = None
    """The request that is answered, or was last; others may wait behind it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._stop_timer()
        super().connection_lost(exc)  # tells the request that came last
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()

    def on_message_begin(self) -> None:
        """A request begins, within what was read last: only what is read from now on is its head for certain."""
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self.scope["state"]["abort"] = self.transport.abort
        self._kept_bytes = -self._read_bytes
        self._start_timer()

    def on_headers_complete(self) -> None:
        """Its head is whole."""
        self._stop_timer()
        self._unset_keepalive_if_required()  # the answer to the request before may have ended within this head
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of its body."""
        super().on_body(body)
        self._kept_bytes = -self._read_bytes

    def data_received(self, data: bytes) -> None:
        """Bytes. What the parser keeps for itself is counted by the read, so it may exceed its bound by one.

        Only a request keeps a connection that is done with the one before: no blank lines, and no rest of its body.
        """
        self._read_bytes = len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError:
            message = "Invalid HTTP request received."
            self.logger.warning(message)
            self.send_400_response(message)
            return
        self._kept_bytes += len(data)
        if self._kept_bytes > MAX_HEAD_BYTES:
            self.transport.abort()

    def _parse(self, data: bytes) -> None:
        """Raises `HttpParserError`."""
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as ended:
                if not self._should_upgrade():
                    return  # what is left is for a tunnel, which nobody opens
                data = self._head_without_upgrade() + data[ended.args[0] :]
                self.parser = httptools.HttpRequestParser(self)  # one that has read a last request reads no other
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn

    def _should_upgrade(self) -> bool:
        """Whether uvicorn leaves alone a request that the parser ends behind its head: it comes again."""
        return any(name == b"upgrade" for name, _ in self.headers)

    def _head_without_upgrade(self) -> bytes:
        parser = self.parser
        lines = [b"%s %s HTTP/%s" % (parser.get_method(), self.url, parser.get_http_version().encode())]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join((*lines, b"", b""))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        if cycle.scope["http_version"] == "1.0":
            app = _until_close(cycle, app)
        super()._start_asgi_task(cycle, app)

    def _start_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.flow.read_paused:  # it is we who do not read, before earlier requests are answered
            self._start_timer()
        else:
            self.transport.abort()


def _until_close(cycle: RequestResponseCycle, app: ASGI3Application) -> ASGI3Application:
    """For HTTP/1.0, which has no chunks and no interim answers: a body of unknown length ends with the connection.

    uvicorn closes it behind every answer of this version, but would cut the body into chunks.
    """
    cycle.waiting_for_100_continue = False

    async def answer(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        unframed = False

        async def send_unframed(message: ASGISendEvent) -> None:
            nonlocal unframed
            if message["type"] == "http.response.start":
                unframed = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
                cycle.chunked_encoding = False if unframed else None
            elif unframed and message["type"] == "http.response.body":
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, send_unframed)

    return answer


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The JSON body of a request. Raises `ApiError`, `ClientDisconnect`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:  # a browser may send other types to this machine from any page, without asking first
        raise ApiError(415, "unsupported_media_type", f"send the body as {JSON}, in the header Content-Type")
    too_large = ApiError(413, "request_too_large", f"the body is larger than {max_bytes} bytes")
    with contextlib.suppress(ValueError):
        if int(request.headers.get("content-length", "0")) > max_bytes:
            raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for part in request.stream():
                body += part
                if len(body) > max_bytes:
                    raise too_large
    except TimeoutError:
        raise ApiError(408, "timeout", f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from None
    return bytes(body)


def check_host(request: Request) -> None:
    """For a server without keys: refuse a request that names this machine otherwise than as itself.

    A web page can give its own name the address 127.0.0.1 and then talk to what listens there. Browsers always say
    that name; clients of HTTP/1.0 need not name anybody. Raises `ApiError`.
    """
    host = request.headers.get("host")
    if host is None and request.scope["http_version"] == "1.0":
        return
    host = host or ""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    if not is_loopback(name):
        raise ApiError(421, "unknown_host", "this server is for this machine: ask for localhost, or give it API keys")
