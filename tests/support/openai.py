"""A small server that speaks OpenAI's completions over real sockets: HTTP/1.1, chunked, server-sent events.

It answers one request a connection, with as many events as tokens were asked for. ``Script`` says how it misbehaves.
"""

import asyncio
import json
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from support.process import WAIT_S


@dataclass
class Script:
    """How the server answers; the defaults are as vLLM does."""

    status: int = 200
    chunked: bool = True
    tokens_an_event: int = 1
    usage: str = "last"
    """``last``: an event of its own at the end; ``every``: in each event; ``none``."""
    closing_event: bool = False
    """One more event without a token, that says why it ended."""
    newline: str = "\n"
    piece_bytes: int | None = None
    """Cut what is sent into pieces of so many bytes, wherever they fall."""
    cut_off_after: int | None = None
    """Close the connection after so many events."""
    error_event: bool = False
    raw: bytes | None = None
    """Send this instead of an answer."""
    silent: bool = False
    """Take the request and never answer."""


@dataclass
class OpenAIServer:
    """Use as a context manager. ``bodies`` has what was asked for."""

    script: Script = field(default_factory=Script)
    models: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "m", "max_model_len": 512}])
    bodies: list[dict[str, Any]] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)
    """A silent request's client closed its connection."""
    port: int = 0

    def __enter__(self) -> Self:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="openai")
        self._thread.start()
        assert self._ready.wait(WAIT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        async with server:
            await self._stop.wait()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        try:
            if head.startswith("GET /v1/models "):
                payload = json.dumps({"object": "list", "data": self.models}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(payload), payload))
            else:
                assert head.startswith("POST /v1/completions HTTP/1.1\r\n")
                self.bodies.append(json.loads(body))
                await self._complete(self.bodies[-1], reader, writer)
            await writer.drain()
        finally:
            writer.close()

    async def _complete(self, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self.script
        if script.silent:
            await reader.read()
            self.gone.set()
        elif script.raw is not None:
            writer.write(script.raw)
        elif script.status != 200:
            writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\n{}" % script.status)
        else:
            await self._send(writer, self._events(body["max_tokens"]))

    def _events(self, tokens: int) -> list[str]:
        script, events, sent = self.script, [], 0
        while sent < tokens:
            sent = min(tokens, sent + script.tokens_an_event)
            event: dict[str, Any] = {"id": "c", "choices": [{"index": 0, "text": "a", "finish_reason": None}]}
            if script.usage == "every":
                event["usage"] = {"completion_tokens": sent}
            events.append(json.dumps(event))
        if script.closing_event:
            events.append(json.dumps({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}))
        if script.usage == "last":
            events.append(json.dumps({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": tokens}}))
        if script.error_event:
            events = [*events[:1], json.dumps({"error": {"message": "out of memory"}})]
        return [*events, "[DONE]"]

    async def _send(self, writer: asyncio.StreamWriter, events: list[str]) -> None:
        script, end = self.script, self.script.newline
        kind = "Transfer-Encoding: chunked\r\n" if script.chunked else ""
        data = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{kind}\r\n".encode()
        data += self._chunk(f": a comment{end}{end}")
        for event in events[: script.cut_off_after]:
            data += self._chunk(f"data: {event}{end}{end}")
        if script.chunked and script.cut_off_after is None:
            data += b"0\r\n\r\n"
        step = script.piece_bytes or len(data)
        for at in range(0, len(data), step):
            writer.write(data[at : at + step])
            await writer.drain()
            await asyncio.sleep(0)

    def _chunk(self, text: str) -> bytes:
        data = text.encode()
        return b"%x\r\n%s\r\n" % (len(data), data) if self.script.chunked else data
