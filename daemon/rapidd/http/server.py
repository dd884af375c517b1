"""uvicorn with our limits and our way to stop: the first SIGTERM lets answers finish, the second one ends them.

Binds before it serves, so that an address in use is an error with a sentence, and port 0 is known before the first
request. Says so on stderr, and to a service manager.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvicorn

from rapidd import limits, log, sdnotify
from rapidd.config import HttpConfig
from rapidd.errors import ConfigError
from rapidd.http import keys as api_keys
from rapidd.http.app import Settings, make_app
from rapidd.http.guard import BoundedProtocol

BACKLOG: Final = 1024
KEEP_ALIVE_S: Final = 60
STOP_GRACE_S: Final = 5
"""What the service manager gives beyond the drain timeout."""
SEND_BUFFER_BYTES: Final = 256 * 1024
"""Of each connection in the kernel, which would let it grow to megabytes for a client that does not read."""
SWITCH_INTERVAL_S: Final = 0.0005
"""How soon the thread that hears of a step may interrupt the one that writes: Python's own 5 ms would be jitter."""
UDS_UMASK: Final = 0o007
"""The group may connect, others may not: as for the daemon's own sockets."""


class _Server(uvicorn.Server):
    """Ends with exit status 0 after a signal, instead of raising it again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """While it serves."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        drain_s = self.config.timeout_graceful_shutdown or 0
        sdnotify.notify("STOPPING=1", f"EXTEND_TIMEOUT_USEC={(drain_s + STOP_GRACE_S) * 1_000_000}")
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


def run(config: HttpConfig, endpoint: str) -> int:
    """Serve until told to stop; the exit status. Raises `ConfigError`."""
    keys = api_keys.of_server(config)
    settings = Settings(
        endpoint=endpoint,
        served_model_name=config.served_model_name,
        keys=keys,
        local_only=keys is None and config.uds is None,
        max_body_bytes=config.max_body_bytes,
        patience_s=config.patience_s,
        vllm_aliases=config.vllm_aliases,
    )
    with contextlib.closing(_bind(config)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # accepted sockets inherit it
        server = _Server(
            uvicorn.Config(
                make_app(settings),
                http=BoundedProtocol,
                ws="none",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                lifespan="on",
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=round(config.drain_timeout_s),
            )
        )
        limits.raise_descriptors()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.freeze()
        log.info(f"http ready on {_address(config, sock)}, for the daemon at {endpoint}")
        sdnotify.notify("READY=1")
        try:
            server.run(sockets=[sock])
        finally:
            if config.uds:
                Path(config.uds).unlink(missing_ok=True)
    return 0


def _bind(config: HttpConfig) -> socket.socket:
    """The listening socket. Raises `ConfigError`."""
    try:
        return _bind_uds(Path(config.uds)) if config.uds else _bind_tcp(config.host, config.port)
    except OSError as error:
        where = config.uds or f"{config.host}:{config.port}"
        raise ConfigError([f"http: cannot listen on {where}: {error.strerror or error}"]) from error


def _bind_tcp(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address, family=family, backlog=BACKLOG)


def _bind_uds(path: Path) -> socket.socket:
    """A socket file; what a dead server left there is replaced, a live one's is not."""
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
    sock = socket.socket(socket.AF_UNIX)
    umask = os.umask(UDS_UMASK)
    try:
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(umask)
    return sock


def _address(config: HttpConfig, sock: socket.socket) -> str:
    if config.uds:
        return f"unix:{config.uds}"
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
