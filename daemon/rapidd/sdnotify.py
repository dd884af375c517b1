"""Tells systemd how the daemon is (sd_notify(3)). Does nothing where no service manager asked for it."""

import os
import socket


def notify(*states: str) -> bool:
    """Send assignments such as ``READY=1`` in one datagram; whether it was sent.

    Best effort: a service manager that cannot be reached must never stop the daemon.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(states).encode(), address)
    except OSError:
        return False
    return True
