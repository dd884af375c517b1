"""A recording as a source: it hands over all that was recorded, a piece at a poll, and refuses everything else.

The console moves through it with a `rapidctl.player.Player` over the same tape; what it has loaded by then has charts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from rapidctl.client import Call
from rapidctl.errors import NotPermitted
from rapidctl.source import Answer, Connection, Received, Streamed, Update
from rapidctl.tape import FileTape, Record, TapeError
from rapidctl.wire import Generate, Snapshot

LOAD_A_POLL: Final = 400
"""Some 40 ms of work; polls are 250 ms apart."""
_REFUSAL: Final = NotPermitted("not_permitted", "this is a recording: nothing can be sent", "open the daemon itself")


class ReplaySource:
    """As `rapidctl.source.Source`. Raises `rapidctl.tape.TapeError` for a file that is no recording."""

    def __init__(self, path: Path) -> None:
        self.tape = FileTape(path)
        self._records: Iterator[Record] = iter(self.tape)
        self._updates: list[Update] = []
        self._ticket = 0

    def start(self) -> None:  # noqa: D102
        self._updates.append(Connection(str(self.tape.path), connected=True))

    def poll(self) -> list[Update]:  # noqa: D102
        try:
            for at_s, item in islice(self._records, LOAD_A_POLL):
                self._updates.append(Received(item, at_s) if isinstance(item, Snapshot) else item)
        except TapeError as error:  # what comes after the damage is not loaded: the charts end there
            self._updates.append(Connection(str(self.tape.path), connected=False, problem=error.message))
        taken, self._updates = self._updates, []
        return taken

    def ask(self, request: Call, *, control: bool = False) -> int:  # noqa: D102
        self._ticket += 1
        self._updates.append(Answer(self._ticket, _REFUSAL))
        return self._ticket

    def generate(self, request: Generate) -> None:  # noqa: D102
        self._updates.append(Streamed(request.id, _REFUSAL, time.monotonic()))

    def abandon(self, request_id: str) -> None:  # noqa: D102
        pass

    def lock(self) -> None:  # noqa: D102
        pass

    def close(self) -> None:  # noqa: D102
        self.tape.close()
