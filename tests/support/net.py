"""Ports for tests."""

import socket
from contextlib import ExitStack


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody has at the moment."""
    while True:
        with ExitStack() as stack:
            first = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = int(first.getsockname()[1])
            try:
                for offset in range(1, count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port + offset)))
            except OSError:
                continue
            return port
