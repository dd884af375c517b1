"""Damaged frames: through the decoder in this process, and a share through a daemon's request socket."""

import traceback
from collections import Counter
from typing import Any, Final

import zmq

from bench import mutate
from bench.storm.site import Site, raw_socket
from rapidctl import wire
from rapidctl.wire import Deltas, Failed, Pong, WireError

WINDOW: Final = 100
"""Frames between two pings, whose answer says that the front got past them."""


def decode(count: int, seed: int = 0) -> dict[str, Any]:
    """Each must decode, or be refused with one of the documented codes."""
    damaged = mutate.frames(seed)
    outcomes: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for _ in range(count):
        _, frame = damaged()
        try:
            wire.decode_request(frame)
            outcomes["decoded"] += 1
        except WireError as error:
            outcomes[error.code] += 1
        except BaseException as error:
            failures[f"{frame!r} raised {traceback.format_exception_only(error)[-1].strip()}"] += 1
    return {"frames": count, "outcomes": dict(sorted(outcomes.items())), "failures": list(failures)[:20]}


def send(site: Site, count: int, seed: int = 1) -> dict[str, Any]:
    """All are answered, none with ``internal_error``, and the daemon is the same one afterwards.

    Damage leaves some streams and operator's commands whole: they are served, or refused for want of rights.
    """
    damaged = mutate.frames(seed)
    replies: Counter[str] = Counter()
    failures = []
    with raw_socket(site.endpoint) as sock:
        for window in range(-(-count // WINDOW)):
            for _ in range(min(WINDOW, count - window * WINDOW)):
                sock.send(damaged()[1])
            sock.send(wire.encode(wire.Hello(client="raw")))  # some damage asked for an operator's rights
            sock.send(wire.encode(wire.Ping(call=10**6 + window)))
            replies += _until_pong(sock, 10**6 + window)
    with site.client(control=True) as client:
        client.call(wire.Drain(call=0, on=False))
    if internal := replies["internal_error"]:
        failures.append(f"{internal} frames were answered with internal_error")
    found = {"frames": count, "replies": dict(sorted(replies.items()))}
    return {**found, "failures": failures + site.problems()}


def _until_pong(sock: "zmq.Socket[bytes]", call: int) -> Counter[str]:
    """Kinds and codes of what came before this answer; tokens are not counted."""
    replies: Counter[str] = Counter()
    while True:
        reply = wire.decode_reply(sock.recv())
        if isinstance(reply, Pong) and reply.call == call:
            return replies
        if not isinstance(reply, Deltas):
            replies[reply.code if isinstance(reply, Failed) else type(reply).__name__] += 1
