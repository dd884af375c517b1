"""Any server that speaks OpenAI's completions as the target of a replay: HTTP/1.1 and server-sent events.

One thread, one selector, a connection a request: a stamp is taken when a chunk's bytes are read, before they are
parsed. Prompts go as token ids; ``ignore_eos`` asks for the recorded length, as vLLM and rapidd understand it. A chunk
is one token unless its usage says otherwise, so gaps are between chunks. Plain HTTP only: what is measured is on this
machine or behind a tunnel.
"""

import errno
import http.client
import selectors
import socket
import time
from collections.abc import Iterator
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from rapidctl.bench.records import Record
from rapidctl.bench.trace import Prompts, TraceRequest
from rapidctl.errors import ProtocolMismatch, Refused, Unreachable, UsageError

CONNECT_TIMEOUT_S: Final = 5.0
READ_BYTES: Final = 65_536
MAX_HEAD_BYTES: Final = 65_536
MAX_LINE_BYTES: Final = 1_048_576
SAID_BYTES: Final = 200
"""Of a refusal's body that has no message."""


class Server(Struct, frozen=True):
    """Where the completions are. ``path`` ends before ``/completions``."""

    url: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> "Server":
        """Of ``http://host:port`` with or without ``/v1``. Raises `UsageError`."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or 80
        except ValueError as error:
            raise UsageError(f"{url!r} is no URL: {error}") from error
        if parts.scheme != "http" or not host or parts.query or parts.fragment:
            raise UsageError(f"{url!r} is not http://host:port", "TLS is not measured; use the server's plain port")
        path = parts.path.rstrip("/")
        return cls(url, host, port, path if path.endswith("/v1") else f"{path}/v1")


class ServedModel(Struct):
    """An entry of ``/v1/models``, as far as it is used."""

    id: str
    max_model_len: int | None = None


class _Models(Struct):
    data: list[ServedModel]


def served_model(server: Server, name: str | None) -> ServedModel:
    """The model of that name; without one the first. Raises `Unreachable`, `Refused` or `ProtocolMismatch`."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=CONNECT_TIMEOUT_S)
    try:
        connection.request("GET", f"{server.path}/models")
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"no server answers at {server.url}: {error}", "start it, or name another URL") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise Refused("invalid_request", f"{server.url} answered {answer.status} to GET {server.path}/models")
    try:
        models = msgspec.json.decode(body, type=_Models).data
    except ValueError as error:
        raise ProtocolMismatch(f"{server.url} does not list its models as OpenAI's API does: {error}") from error
    found = [model for model in models if name in (None, model.id)]
    if not found:
        names = ", ".join(model.id for model in models) or "none"
        raise Refused("not_found", f"{server.url} serves: {names}", "choose one with --model NAME")
    return found[0]


# --- requests -----------------------------------------------------------------------------------------------------


class _StreamOptions(Struct, frozen=True):
    include_usage: bool = True


class _Completion(Struct):
    """What is asked for."""

    model: str
    prompt: list[int]
    max_tokens: int
    temperature: float = 0.0
    ignore_eos: bool = True
    stream: bool = True
    stream_options: _StreamOptions = _StreamOptions()


class _Usage(Struct):
    completion_tokens: int | None = None


class _Chunk(Struct):
    """One event of the answer. ``error``: some servers end a stream that way, after the status was 200."""

    choices: list[msgspec.Raw] = []
    usage: _Usage | None = None
    error: msgspec.Raw = msgspec.Raw()


class _Error(Struct):
    message: str


class _Refusal(Struct):
    """The body of an answer that is not 200."""

    error: _Error


_encoder = msgspec.json.Encoder()
_chunk_decoder = msgspec.json.Decoder(_Chunk)


class HttpTarget:
    """Requests as connections of one selector."""

    def __init__(self, server: Server, model: str, prompts: Prompts) -> None:
        self._server = server
        self._model = model
        self._prompts = prompts
        self._selector = selectors.DefaultSelector()
        self._streams: set[_Exchange] = set()
        try:
            found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Unreachable(f"{server.host} has no address: {error.strerror}", "check the URL") from error
        self._family: int = found[0][0]
        self._address: tuple[object, ...] = found[0][4]

    def close(self) -> None:
        """Give up what is open, and the selector."""
        self.abandon()
        self._selector.close()

    @property
    def open(self) -> int:  # noqa: D102 - as in Target
        return len(self._streams)

    def prepare(self, request: TraceRequest) -> bytes:  # noqa: D102
        ids = self._prompts.ids(request).tolist()
        body = _encoder.encode(_Completion(self._model, ids, request.output_tokens))
        server = self._server
        host = f"[{server.host}]" if ":" in server.host else server.host
        head = (
            f"POST {server.path}/completions HTTP/1.1\r\nHost: {host}:{server.port}\r\n"
            "Content-Type: application/json\r\nAccept: text/event-stream\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def send(self, record: Record, message: bytes) -> None:  # noqa: D102
        try:
            exchange = _Exchange(socket.socket(self._family, socket.SOCK_STREAM), record, message)
        except OSError as error:  # no descriptor left
            record.end("refused", time.monotonic(), _errno_name(error))
            return
        self._streams.add(exchange)
        self._selector.register(exchange.socket, selectors.EVENT_WRITE, exchange)
        exchange.connect(self._address)
        self._settle(exchange)

    def poll(self, timeout_s: float) -> None:  # noqa: D102
        for key, events in self._selector.select(timeout_s):
            exchange: _Exchange = key.data
            if events & selectors.EVENT_WRITE:
                exchange.write()
                if exchange.written:
                    self._selector.modify(exchange.socket, selectors.EVENT_READ, exchange)
            else:
                exchange.read()
            self._settle(exchange)

    def abandon(self) -> None:  # noqa: D102
        for exchange in list(self._streams):
            exchange.record.end("unfinished", time.monotonic())
            self._settle(exchange)

    def _settle(self, exchange: "_Exchange") -> None:
        """Let go of a connection whose request has ended."""
        if exchange.record.outcome != "open":
            self._selector.unregister(exchange.socket)
            exchange.socket.close()
            self._streams.discard(exchange)


class _Exchange:
    """One request and its answer on a socket that never blocks. Whatever goes wrong ends its record."""

    def __init__(self, sock: socket.socket, record: Record, message: bytes) -> None:
        self.socket = sock
        self.record = record
        self._left = memoryview(message)
        self._answer = Answer()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def written(self) -> bool:
        """The whole request has left."""
        return not self._left

    def connect(self, address: tuple[object, ...]) -> None:
        """Begin to; an error that is not there yet shows when writing."""
        number = self.socket.connect_ex(address)
        if number not in (0, errno.EINPROGRESS):
            self._fail("refused", errno.errorcode.get(number, str(number)))

    def write(self) -> None:
        """Send what the socket takes."""
        try:
            self._left = self._left[self.socket.send(self._left) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail("refused", _errno_name(error))

    def read(self) -> None:
        """Take in what has arrived, with one stamp."""
        try:
            data = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail("failed" if self._answer.status else "refused", _errno_name(error))
            return
        now_s = time.monotonic()
        try:
            for event in self._answer.feed(data):
                self._take(event, now_s)
        except (ValueError, RecursionError):  # no HTTP, or no chunk of a completion
            self._fail("failed", "unreadable")
            return
        if self._answer.done or self._answer.ended or not data:
            self._end(now_s)

    def _take(self, event: bytes, now_s: float) -> None:
        if event == b"[DONE]":
            self._answer.done = True
            return
        chunk = _chunk_decoder.decode(event)
        if bytes(chunk.error) not in (b"", b"null"):
            self._fail("failed", "server_error")
        stamps = self.record.stamps
        if chunk.choices:
            stamps.append(now_s)
        if chunk.usage is not None and chunk.usage.completion_tokens is not None and stamps:
            tokens = chunk.usage.completion_tokens
            stamps.extend([stamps[-1]] * (tokens - len(stamps)))  # several came in one chunk
            del stamps[tokens:]  # a chunk that brought none, only the reason why it ended

    def _end(self, now_s: float) -> None:
        answer = self._answer
        if answer.status != 200:
            self._fail("refused", f"http_{answer.status}" if answer.status else "connection_closed", answer.said)
        elif answer.done:
            self.record.end("finished", now_s)
        else:
            self._fail("failed", "cut_off")

    def _fail(self, outcome: Literal["refused", "failed"], error: str, said: str = "") -> None:
        self.record.end(outcome, time.monotonic(), error, said)


def _errno_name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


# --- HTTP/1.1, as far as an event stream needs it -----------------------------------------------------------------


class Answer:
    """The bytes of one answer, in any pieces, to the data of its events. Raises ValueError when it is no HTTP/1.1."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.done = False
        """The stream said ``[DONE]``."""
        self.ended = False
        """The last byte of the body was here."""
        self._raw = bytearray()
        self._body = bytearray()
        self._data: list[bytes] = []
        self._chunked = False
        self._left: int | None = None
        """Bytes left of the body or of the chunk; null until the connection closes."""

    @property
    def said(self) -> str:
        """Of a refusal: its message, or how its body begins."""
        try:
            return msgspec.json.decode(self._body, type=_Refusal).error.message
        except ValueError:
            return self._body[:SAID_BYTES].decode(errors="replace").strip()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Data of the events that are complete now. The body of an answer that is not 200 has none."""
        self._raw += data
        if self.status is None and not self._read_head():
            return
        if self._chunked:
            self._read_chunks()
        else:
            self._read_plain()
        if self.status == 200:
            yield from self._events()

    def _read_head(self) -> bool:
        head, separator, rest = self._raw.partition(b"\r\n\r\n")
        if not separator:
            if len(self._raw) > MAX_HEAD_BYTES:
                raise ValueError("a head without end")
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status = [*first.split(" ", 2), ""][:2]
        if not version.startswith("HTTP/1.") or not status.isdecimal():
            raise ValueError("no HTTP/1.1 status line")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._raw = rest
        if status.startswith("1"):  # 100 Continue: the real head follows
            return self._read_head()
        self.status = int(status)
        self._chunked = fields.get("transfer-encoding", "").lower() == "chunked"
        if self._chunked:
            self._left = 0
        elif "content-length" in fields:
            self._left = int(fields["content-length"])
        return True

    def _read_plain(self) -> None:
        taken = len(self._raw) if self._left is None else min(self._left, len(self._raw))
        self._body += self._raw[:taken]
        del self._raw[:taken]
        if self._left is not None:
            self._left -= taken
            self.ended = self._left == 0

    def _read_chunks(self) -> None:
        """Size line, that many bytes, CRLF; size 0 is the end, and trailers after it are nobody's."""
        while not self.ended:
            if self._left:
                taken = min(self._left, len(self._raw))
                self._body += self._raw[:taken]
                del self._raw[:taken]
                self._left -= taken
                if self._left or not self._raw:
                    return
            line, separator, rest = self._raw.partition(b"\r\n")
            if not separator:
                if len(self._raw) > MAX_LINE_BYTES:
                    raise ValueError("a chunk's size without end")
                return
            self._raw = rest
            if line:  # else the CRLF after a chunk
                self._left = int(line.partition(b";")[0], 16)
                if self._left < 0:
                    raise ValueError("a chunk of negative size")
                self.ended = self._left == 0

    def _events(self) -> Iterator[bytes]:
        """Lines ``data: …`` up to an empty line are one event; comments and other fields are skipped."""
        *lines, left = self._body.split(b"\n")
        if len(left) > MAX_LINE_BYTES:
            raise ValueError("a line without end")
        self._body = left
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(bytes(line[5:].removeprefix(b" ")))
            elif not line and self._data:
                yield b"\n".join(self._data)
                self._data.clear()
