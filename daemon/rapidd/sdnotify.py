"""Tells systemd how the daemon is (sd_notify(3)). Does nothing where no service manager asked for it.

A manager that does not read for a moment holds ten messages, and a start has more to say. What changes the unit's state
is kept then: without its ``READY=1`` a daemon that serves is taken for one that never started.
"""

import os
import socket
from collections import deque
from typing import Final

KEPT: Final = ("READY=1", "RELOADING=1", "STOPPING=1")
"""A status, a watchdog's beat or an extension of time is followed by the next one."""
_owed: Final = deque[bytes](maxlen=16)
"""What found the manager's queue full, oldest first."""


def notify(*states: str) -> bool:
    """Send assignments such as ``READY=1`` in one datagram; whether it was sent now.

    Best effort: a service manager that cannot be reached must never stop the daemon. One of `KEPT`, which stands first
    in its datagram, is sent by a later call if the manager's queue is full.
    """
    datagram = "\n".join(states).encode()
    if settle() and (sent := _send(datagram)) is not None:
        return sent
    if states[0] in KEPT:
        _owed.append(datagram)
    return False


def settle() -> bool:
    """Send what is owed; whether nothing is left."""
    while _owed and _send(_owed[0]) is not None:
        _owed.popleft()
    return not _owed


def _send(datagram: bytes) -> bool | None:
    """Whether it was sent; null: the manager's queue is full."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.sendto(datagram, address)
    except BlockingIOError:
        return None
    except OSError:
        return False
    return True
