"""One generation read to its end: what `Client.generate` does. It knows no sockets; the client pumps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from rapidctl.errors import TimedOut, refusal
from rapidctl.wire import Accepted, Delta, Failed, Finished, Generate

if TYPE_CHECKING:
    from rapidctl.client import Client

SILENCE_S: Final = 3.0
"""After so long without an event a caller may want to know why: an engine that ended takes longer to come back."""


def events(
    client: Client, request: Generate, resume: bool, on_silence: Callable[[], None] | None
) -> Iterator[Accepted | Delta | Finished]:
    """See `Client.generate`."""
    stream = client.submit(request, resume=resume)
    heard_s = time.monotonic()
    accept_by_s = heard_s + client.timeout_s
    try:
        while True:
            while stream.events:
                heard_s = time.monotonic()
                event = stream.events.popleft()
                if isinstance(event, Failed):
                    raise refusal(event, stream.output_ids)
                yield event
                if isinstance(event, Finished):
                    return
            now_s = time.monotonic()
            if stream.accepted is None and client.connected and now_s >= accept_by_s:
                if stream.refused is not None:
                    raise refusal(stream.refused)
                raise TimedOut(f"{client.endpoint} did not accept the request within {client.timeout_s:g} s")
            if on_silence is not None and now_s >= heard_s + SILENCE_S:
                heard_s = now_s
                on_silence()
            else:
                client.poll(client.timeout_s if on_silence is None else min(client.timeout_s, SILENCE_S))
    finally:
        if client.streams.get(stream.id) is stream:
            client.abandon(stream.id)
