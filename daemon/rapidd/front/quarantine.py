"""Which requests kill the engine. One that was alone when it died, twice, is known; in company nobody can tell.

Remembered while this front lives, by what the engine is asked to do: whoever sends it again, and under whatever id.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

from rapidd import ipc
from rapidd.errors import RequestError
from rapidd.front.journal import Stream

MAX_KILLS: Final = 2


class Quarantine:
    """Fingerprints of what is refused."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()

    def check(self, stream: Stream) -> None:
        """Raise ``quarantined`` for a request like one that is known."""
        if self._known and fingerprint(stream) in self._known:
            raise RequestError(
                "quarantined", "requests like this one killed the engine twice", "change it, and report the crash"
            )

    def suspect(self, streams: Iterable[Stream]) -> None:
        """The engine died: count it against the request that it was running, if there was but one."""
        submitted = [stream for stream in streams if any(choice.submitted for choice in stream.live)]
        running = [stream for stream in submitted if any(choice.phase != "waiting" for choice in stream.live)]
        suspects = running or submitted  # an engine that dies at once has not said what runs
        if len(suspects) == 1:
            suspects[0].kills += 1

    def convict(self, stream: Stream) -> RequestError | None:
        """How a request ends that has killed the engine often enough; from now on its like is refused."""
        if stream.kills < MAX_KILLS:
            return None
        self._known.add(fingerprint(stream))
        return RequestError(
            "quarantined",
            f"the engine died {stream.kills} times while it ran this request alone",
            "change it, and report the crash: the daemon's log names the file with the stacks",
        )


def fingerprint(stream: Stream) -> bytes:
    """Equal for requests that would do the same to an engine."""
    nobodys = msgspec.structs.replace(stream.template, rid=0, choice=0, seed=0, priority=0, arrival_mono_ns=0)
    return hashlib.blake2b(ipc.encode(nobodys), digest_size=16).digest()
