"""A generation over HTTP: asks the daemon, then answers with one document or a stream of events.

Both race the client's disconnect: a client that leaves is noticed within the step, and what it asked for is cancelled.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rapidctl.errors import RapidctlError
from rapidctl.wire import Accepted, Delta, Failed, Finished, Generate
from rapidd.http.bridge import Bridge, Disconnected, Inbox, Message
from rapidd.http.errors import ApiError, from_client, from_failed
from rapidd.http.render import KEEP_ALIVE, Answer, Chunks, Document

_STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Generation:
    """The requests of one HTTP request. ``abort`` cuts the connection of a client that does not read."""

    def __init__(self, bridge: Bridge, requests: list[Generate], answer: Answer, abort: Callable[[], None]) -> None:
        self._bridge = bridge
        self._requests = requests
        self._names = answer.names
        self.inbox = Inbox(abort, sum(request.n for request in requests))

    def __enter__(self) -> "Generation":
        self._bridge.open(self._requests, self.inbox)
        return self

    def __exit__(self, *_: object) -> None:
        self._bridge.close_inbox(self._requests, self.inbox)

    async def accepted(self) -> None:
        """Wait until the daemon queued every request. Raises `ApiError` when it refuses one, `Disconnected`."""
        waiting = set(range(len(self._requests)))
        early: list[tuple[int, Message]] = []
        while waiting:
            for index, message in await self.inbox.take():
                if isinstance(message, Accepted):
                    waiting.discard(index)
                else:
                    self.raise_if_failed(message)
                    early.append((index, message))
        self.inbox.put_back(early)

    @property
    def num_prompts(self) -> int:
        """Requests to the daemon."""
        return len(self._requests)

    def error(self, message: Failed | RapidctlError) -> ApiError:
        """What goes wrong, as this answer tells it."""
        return from_failed(message, self._names) if isinstance(message, Failed) else from_client(message)

    def raise_if_failed(self, message: Message) -> None:
        """Raise `ApiError` for a message that ends the answer."""
        if isinstance(message, Failed | RapidctlError):
            raise self.error(message)


class Hearing:
    """While it is entered, the client's disconnect empties the inbox and ends whoever waits there."""

    def __init__(self, receive: Receive, inbox: Inbox) -> None:
        self._receive = receive
        self._inbox = inbox

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._listen())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._inbox.hang_up()


async def document(generation: Generation, answer: Answer, request: Request) -> Response:
    """The whole answer. Raises `ApiError`, `Disconnected`."""
    collected = Document(answer, generation.num_prompts)
    async with Hearing(request.receive, generation.inbox):
        await generation.accepted()
        while not collected.complete:
            for index, message in await generation.inbox.take():
                match message:
                    case Delta():
                        collected.take_delta(index, message)
                    case Finished():
                        collected.take_finished(index, message)
                    case _:
                        generation.raise_if_failed(message)
    return Response(collected.body(), media_type="application/json", headers={"x-request-id": answer.id})


class EventStream(Response):
    """A streamed answer. The status is 200 once the daemon has accepted; what fails later is an event."""

    def __init__(
        self, bridge: Bridge, requests: list[Generate], answer: Answer, include_usage: bool, left: Callable[[], None]
    ) -> None:
        super().__init__()
        self._bridge = bridge
        self._requests = requests
        self._answer = answer
        self._include_usage = include_usage
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        with Generation(self._bridge, self._requests, self._answer, scope["state"]["abort"]) as generation:
            async with Hearing(receive, generation.inbox):
                try:
                    await generation.accepted()
                    headers = [*_STREAM_HEADERS, (b"x-request-id", self._answer.id.encode())]
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                    await self._stream(generation, send)
                except Disconnected:
                    self._left()

    async def _stream(self, generation: Generation, send: Send) -> None:
        chunks = Chunks(self._answer, generation.num_prompts, self._include_usage)
        ended = False
        while not ended:
            parts: list[bytes] = []
            for index, message in await generation.inbox.take():
                match message:
                    case Delta():
                        parts.append(chunks.delta(index, message))
                    case Finished():
                        parts.append(chunks.finished(index, message))
                        ended = chunks.complete
                    case Failed() | RapidctlError():
                        parts.append(chunks.failed(generation.error(message)))
                        ended = True
                    case None:
                        parts.append(KEEP_ALIVE)
                    case Accepted():
                        pass
                if ended:
                    break
            if parts:
                await send({"type": "http.response.body", "body": chunks.body(parts), "more_body": not ended})


def error_response(error: ApiError) -> Response:
    """A refusal as a response."""
    response = Response(error.body(), status_code=error.status, media_type="application/json")
    response.raw_headers.extend(error.headers())
    return response
