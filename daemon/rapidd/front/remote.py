"""Clients on other machines: a second pair of sockets on tcp, with CURVE, and the handler that says who may connect.

libzmq asks about every handshake over an inproc socket (ZAP, rfc.zeromq.org/spec/27). The answer comes from the file of
authorized keys, read anew each time, so that `rapidctl keys authorize` counts at once. Knows no messages.
"""

from collections.abc import Callable
from typing import Final

import zmq

from rapidctl import keys, wire
from rapidctl.errors import UsageError
from rapidd import log
from rapidd.config import TcpConfig
from rapidd.errors import ConfigError
from rapidd.front.access import Peer
from rapidd.paths import credential

ZAP_ENDPOINT: Final = "inproc://zeromq.zap.01"
ZAP_DOMAIN: Final = b"rapidd"
MARK: Final = b"\0remote"
"""Before identities of remote connections. libzmq's own have four bytes after a zero; a local client that chose one
that begins so is not heard."""
_FRAMES: Final = 7


class Remote:
    """Bound when made. ``bind`` makes a socket of a kind, lets the function given to it set options, and binds it."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        config: TcpConfig,
        bind: Callable[[int, str, Callable[["zmq.Socket[bytes]"], None]], "zmq.Socket[bytes]"],
    ) -> None:
        assert config.listen is not None
        self._listen = config.listen
        self._authorized = credential(config.authorized_keys)
        try:
            self._pair = keys.read(credential(config.key))
            keys.read_authorized(self._authorized)
        except UsageError as error:
            raise ConfigError(
                [f"tcp: {error.message} ({error.hint})" if error.hint else f"tcp: {error.message}"]
            ) from error
        self._names: dict[str, Peer] = {}
        """Who was let in, by public key: what a connection is depends on the file when it was made."""
        self.handler: zmq.Socket[bytes] = context.socket(zmq.REP)
        self.handler.linger = 0
        self.handler.bind(ZAP_ENDPOINT)
        try:
            self.requests = bind(zmq.ROUTER, config.listen, self._secure)
            self.metrics = bind(zmq.XPUB, wire.metrics_endpoint(config.listen), self._secure)
        except zmq.ZMQError as error:
            raise ConfigError([f"tcp.listen: {config.listen}: {error}"]) from error

    def _secure(self, socket: "zmq.Socket[bytes]") -> None:
        keys.allow_ipv6(socket, self._listen)
        socket.curve_server = True
        socket.curve_publickey = keys.encode(self._pair.public)
        socket.curve_secretkey = keys.encode(self._pair.secret)
        socket.zap_domain = ZAP_DOMAIN

    def answer(self) -> None:
        """One question about a handshake."""
        frames = self.handler.recv_multipart(zmq.NOBLOCK)
        number = frames[1] if len(frames) > 1 else b""
        key = frames[6].hex() if len(frames) == _FRAMES and frames[2] == ZAP_DOMAIN and frames[5] == b"CURVE" else ""
        peer = self._know(key)
        status = (b"200", b"OK", key.encode()) if peer is not None else (b"400", b"this key is not authorized", b"")
        self.handler.send_multipart([b"1.0", number, *status, b""])

    def _know(self, key: str) -> Peer | None:
        try:
            found = keys.read_authorized(self._authorized).get(key)
        except UsageError as error:
            log.error(f"nobody is let in over tcp: {error.message}")
            return None
        if found is None:
            log.debug("a key that is not authorized was refused", event="access")
            return None
        self._names[key] = peer = Peer(name=found.name, operator=found.operator)
        return peer

    def peer(self, frame: zmq.Frame) -> Peer | None:
        """Who sent a frame; libzmq keeps the key that the handler let in as its "User-Id"."""
        try:
            return self._names.get(str(frame.get("User-Id")))
        except zmq.ZMQError:
            return None
