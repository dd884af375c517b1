"""What one connection may send: heads and their bounds, requests one behind the other, offers of another protocol."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.server import ServerState

from rapidd.http.guard import HEAD_TIMEOUT_S, MAX_HEAD_BYTES, BoundedProtocol

KEEP_ALIVE_S = 60
LARGEST_READ = 256 * 1024
"""What asyncio takes from a socket at once."""


class Peer(asyncio.Transport):
    """The other end, as far as the protocol sees it; and the loop's clock, which stands still until it is `late`."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.reading = True
        self.gone = False
        self._timers: dict[object, tuple[float, Callable[[], None]]] = {}

    def write(self, data: Any) -> None:
        self.sent += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.gone

    def abort(self) -> None:
        self.gone = True

    close = abort

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    # --- of the loop ---------------------------------------------------------------------------------------

    def create_task(self, *arguments: Any, **options: Any) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(*arguments, **options)
        return task

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Any:
        timers = self._timers

        class Timer:
            def cancel(self) -> None:
                timers.pop(self, None)

        timer = Timer()
        timers[timer] = delay_s, call
        return timer

    def late(self, time_s: float = HEAD_TIMEOUT_S) -> None:
        """The time for heads is over, or another."""
        due = [timer for timer, (delay_s, _) in self._timers.items() if delay_s == time_s]
        for timer in due:
            _, call = self._timers.pop(timer)
            call()


class Site:
    """An application that answers with what it is sent, once it may."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.heard: list[str] = []

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        message: Message = {"more_body": True}
        body = b""
        while message.get("more_body"):
            message = await receive()
            self.heard.append(message["type"])
            body += message.get("body", b"")
        answer = asyncio.create_task(self.may_answer.wait())
        gone = asyncio.create_task(self._hear(receive))
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            headers = [(b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        gone.cancel()
        answer.cancel()

    async def _hear(self, receive: Receive) -> None:
        self.heard.append((await receive())["type"])


def connect(site: ASGIApp) -> tuple[BoundedProtocol, Peer]:
    config = uvicorn.Config(
        site, log_config=None, access_log=False, lifespan="off", ws="none", timeout_keep_alive=KEEP_ALIVE_S
    )
    config.load()
    peer = Peer()
    protocol = BoundedProtocol(config, ServerState(), {}, _loop=peer)  # type: ignore[arg-type]
    protocol.connection_made(peer)
    return protocol, peer


async def settle() -> None:
    """Let every task come as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


def post(body: bytes, *lines: str) -> bytes:
    head = "\r\n".join(("POST / HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *lines, "", ""))
    return head.encode() + body


def test_an_offer_of_another_protocol_leaves_a_request_as_it_is() -> None:
    """Java's client offers HTTP/2 with its first request. The parser takes such a head for a whole message, so the
    body was lost and every such request was refused as empty; what it left was then read as a request of its own."""
    offer = ("Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk")
    first = post(b"first", "Connection: Upgrade, HTTP2-Settings", *offer)
    last = post(b"last", "Connection: close, Upgrade, HTTP2-Settings", *offer)

    async def play(cut: int) -> bytes:
        site = Site()
        site.may_answer.set()
        protocol, peer = connect(site)
        for part in (first[:cut], first[cut:] + last[:cut], last[cut:]):
            protocol.data_received(part)
            await settle()
        assert peer.gone
        return peer.sent

    for cut in range(1, len(first)):
        sent = asyncio.run(play(cut))
        assert [part.partition(b"\r\n\r\n")[2] for part in sent.split(b"HTTP/1.1 200 OK")] == [b"", b"first", b"last"]


def test_one_read_may_bring_many_offers() -> None:
    """However many there are, they take no depth of the stack."""

    async def play() -> tuple[bool, bytes]:
        site = Site()
        site.may_answer.set()
        protocol, peer = connect(site)
        protocol.data_received(post(b"x", "Connection: upgrade", "Upgrade: h2c") * 2 * sys.getrecursionlimit())
        await settle()
        return peer.gone, peer.sent

    gone, sent = asyncio.run(play())
    assert not gone
    assert sent.startswith(b"HTTP/1.1 200 OK")


def test_a_tunnel_is_not_opened_and_not_waited_for() -> None:
    async def play() -> bytes:
        site = Site()
        site.may_answer.set()
        protocol, peer = connect(site)
        protocol.data_received(b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\n\r\nanything")
        await settle()
        return peer.sent

    assert asyncio.run(play()).count(b"HTTP/1.1 ") == 1


def test_what_one_read_brings_before_a_head_is_no_part_of_it() -> None:
    """A client may send its next request behind a body. Both came in one read, all of which was counted as the next
    one's head: the connection was cut, and with it the answer to the first."""

    async def play() -> tuple[bool, bytes]:
        site = Site()
        site.may_answer.set()
        protocol, peer = connect(site)
        second = post(b"second")
        protocol.data_received(post(b"x" * 2 * MAX_HEAD_BYTES) + second[:20])
        protocol.data_received(second[20:])
        await settle()
        return peer.gone, peer.sent

    gone, sent = asyncio.run(play())
    assert not gone
    assert sent.count(b"200 OK") == 2
    assert sent.endswith(b"second")


def test_a_head_exceeds_its_bound_by_one_read_at_most() -> None:
    async def play(before: bytes) -> bool:
        protocol, peer = connect(Site())
        protocol.data_received(before + b"GET / HTTP/1.1\r\nx: ")
        protocol.data_received(b"y" * MAX_HEAD_BYTES)
        assert not peer.gone
        protocol.data_received(b"y")
        return peer.gone

    assert asyncio.run(play(b""))
    assert asyncio.run(play(post(b"x" * LARGEST_READ)))


def test_what_stands_behind_a_body_is_bounded_as_a_head_is() -> None:
    """Trailers were kept without end, for as long as the connection lived, of a client without a key too."""

    async def play(behind: bytes) -> bool:
        protocol, peer = connect(Site())
        protocol.data_received(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(MAX_HEAD_BYTES // 1024):
            protocol.data_received(b"400\r\n" + b"x" * 1024 + b"\r\n")
        protocol.data_received(behind)
        assert not peer.gone
        for _ in range(MAX_HEAD_BYTES // len(behind)):
            protocol.data_received(behind)
        return peer.gone

    assert not asyncio.run(play(b"400\r\n" + b"x" * 1024 + b"\r\n"))
    assert asyncio.run(play(b"0\r\nx: " + b"y" * 1024))


def test_a_head_that_the_server_does_not_read_is_not_late() -> None:
    """Behind a request that waits for the one before it nothing is read. The head that had begun by then was cut after
    its time, in the middle of the answer to the first request."""

    async def play() -> None:
        site = Site()
        protocol, peer = connect(site)
        protocol.data_received(post(b"first"))
        await settle()
        protocol.data_received(post(b"second") + post(b"third")[:20])
        for _ in range(3):
            peer.late()
        assert (peer.reading, peer.gone) == (False, False)
        site.may_answer.set()
        await settle()
        assert (peer.reading, peer.sent.count(b"200 OK")) == (True, 2)
        peer.late()  # now it is the client who is
        assert peer.gone

    asyncio.run(play())


def test_only_a_request_keeps_an_idle_connection() -> None:
    """After an answer any byte ended the wait for the next request, such as a blank line, and the connection was kept
    for ever, of a client without a key too."""

    async def play(*parts: bytes) -> bool:
        site = Site()
        site.may_answer.set()
        protocol, peer = connect(site)
        for part in (post(b"first"), *parts):
            protocol.data_received(part)
            await settle()
        assert not peer.gone
        peer.late(KEEP_ALIVE_S)
        return peer.gone

    assert asyncio.run(play())
    assert asyncio.run(play(b"\r\n"))
    assert not asyncio.run(play(b"\r\n", post(b"second")[:20]))
    assert asyncio.run(play(post(b"second")[:20], post(b"second")[20:]))


def test_an_answer_that_ends_within_the_next_head_sets_it_no_limit() -> None:
    async def play() -> bool:
        site = Site()
        protocol, peer = connect(site)
        second = post(b"second")
        protocol.data_received(post(b"first") + second[:20])
        await settle()
        site.may_answer.set()
        await settle()
        site.may_answer.clear()
        protocol.data_received(second[20:])
        await settle()
        peer.late(KEEP_ALIVE_S)
        return peer.gone

    assert not asyncio.run(play())


def test_a_client_that_leaves_is_noticed_by_the_request_that_runs() -> None:
    """Only the request that came last was told, so the one that ran went on for nobody when another waited behind."""

    async def play() -> list[str]:
        site = Site()
        protocol, _ = connect(site)
        protocol.data_received(post(b"first") + post(b"second"))
        await settle()
        protocol.connection_lost(ConnectionResetError())
        await settle()
        return site.heard

    assert asyncio.run(play()) == ["http.request", "http.disconnect"]


async def count(_scope: Scope, _receive: Receive, send: Send) -> None:
    """An application that streams."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for part in (b"one", b"", b"two"):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"three"})


def test_a_stream_for_an_older_client_ends_with_its_connection() -> None:
    """HTTP/1.0 knows no chunks: such a client, as a proxy is by default, took their lengths for a part of the text."""

    async def play(request: bytes) -> tuple[bytes, bytes, bool]:
        protocol, peer = connect(count)
        protocol.data_received(request)
        await settle()
        head, _, body = peer.sent.partition(b"\r\n\r\n")
        return head, body, peer.gone

    older = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\r\n"
    head, body, gone = asyncio.run(play(older))
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert (body, gone) == (b"onetwothree", True)
    head, body, gone = asyncio.run(play(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    assert b"transfer-encoding: chunked" in head
    assert (body, gone) == (b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n", False)


def test_an_answer_of_known_length_is_one_for_older_clients_too() -> None:
    async def play() -> tuple[bytes, bool]:
        site = Site()
        site.may_answer.set()
        protocol, peer = connect(site)
        protocol.data_received(b"POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nfirst")
        await settle()
        return peer.sent, peer.gone

    sent, gone = asyncio.run(play())
    assert sent.startswith(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n")
    assert sent.endswith(b"\r\n\r\nfirst")
    assert gone
