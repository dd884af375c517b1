"""Ports for tests."""

import random
import socket
from contextlib import ExitStack, suppress


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody has at the moment.

    They are below those that the kernel gives away by itself, so that no connection takes one before it is used.
    """
    while True:
        first = random.randrange(15_000, 32_000)
        with ExitStack() as stack, suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
