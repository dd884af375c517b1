"""SIGTERM while streams run: each gets all its tokens and its last message, new ones a reason; the status is 0."""

import signal
from typing import Any, Final

import psutil

from bench.storm.site import Site, pump, request, site, whole
from rapidctl.client import Client
from rapidctl.errors import RapidctlError, Refused
from rapidctl.wire import GetStatus

STREAMS: Final = 64
OUTPUT_TOKENS: Final = 24


def run(rounds: int) -> dict[str, Any]:
    """So many daemons, each drained once."""
    failures = []
    for number in range(rounds):
        with site() as one:
            failures += [f"round {number}: {failure}" for failure in drain(one, STREAMS)]
    return {"rounds": rounds, "streams": rounds * STREAMS, "failures": failures}


def _refused(client: Client) -> str:
    """Of the first request that is not accepted any more: the code. Those before it are given up."""
    while True:
        try:
            next(client.generate(request([3], 1)))
        except Refused as error:
            return error.code


def drain(site: Site, streams: int) -> list[str]:
    """End this daemon; what was lost."""
    failures = []
    with site.client() as client:
        running = [client.submit(request([5 + index], OUTPUT_TOKENS)) for index in range(streams)]
        pump(client, lambda: all(stream.accepted for stream in running) and any(s.output_tokens for s in running))
        engine = psutil.Process(client.call(GetStatus(call=0)).engine.pid)
        engine.suspend()  # else all may be done, and the daemon gone, before the late one comes
        try:
            psutil.Process(site.server.pid).send_signal(signal.SIGTERM)
            late = _refused(client)
        finally:
            engine.resume()
        try:
            pump(client, lambda: all(stream.ended for stream in running))
        except RapidctlError as error:
            failures.append(f"the connection was lost: {error}")
    if late != "draining":
        failures.append(f"a late request was refused with {late}")
    lost = [stream for stream in running if not whole(stream)]
    if lost:
        failures.append(f"{len(lost)} of {streams} streams were not whole; the first ended with {lost[0].ended}")
    if (status := site.server.wait()) != 0:
        failures.append(f"the daemon ended with {status}")
    return failures
