"""What the console shows at one moment: handed to every widget, changed by none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rapidctl.book import Book, latency_window
from rapidctl.console.change import Change
from rapidctl.console.run import Run
from rapidctl.source import Connection
from rapidctl.wire import LatencyWindow, PartitionInfo, Snapshot

WINDOWS_S: Final = (10.0, 60.0, 300.0)


@dataclass(frozen=True, kw_only=True)
class View:
    """One frame. ``now_s``: console's monotonic clock, standing still while ``paused``."""

    book: Book
    snapshot: Snapshot | None
    connection: Connection
    now_s: float
    age_s: float | None
    stale: bool
    paused: bool
    window_s: float
    unlocked_s: float | None
    """Seconds until control locks again; null: locked."""
    change: Change | None
    """The last command sent from here."""
    run: Run | None
    """The last test prompt."""

    @property
    def partition(self) -> PartitionInfo | None:
        """The partition's state, null while unknown."""
        return None if self.snapshot is None else self.snapshot.partition

    @property
    def latency(self) -> LatencyWindow | None:
        """Latency over the chosen window."""
        if self.snapshot is None:
            return None
        return latency_window(self.snapshot, self.window_s)
