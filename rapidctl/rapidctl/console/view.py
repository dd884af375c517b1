"""What the console shows at one moment: handed to every widget, changed by none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from rapidctl.book import Book, LogLine, latency_window
from rapidctl.console.change import Change
from rapidctl.console.prompts import Prompts
from rapidctl.source import Connection
from rapidctl.tape import Mark
from rapidctl.wire import LatencyWindow, PartitionInfo, RequestRow, Snapshot

WINDOWS_S: Final = (10.0, 60.0, 300.0)
Kind = Literal["live", "demo", "replay"]


@dataclass(frozen=True, kw_only=True)
class Past:
    """Where on the tape the view stands; seconds of the console's clock, or of the recorder's in a replay."""

    position_s: float
    start_s: float
    end_s: float
    playing: bool
    speed: float
    marks: Sequence[Mark]


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """One daemon's line in the table of all."""

    name: str
    endpoint: str
    snapshot: Snapshot | None
    connection: Connection
    age_s: float | None
    stale: bool
    current: bool


@dataclass(frozen=True, kw_only=True)
class View:
    """One frame. ``now_s`` is the moment shown: now, or a position on the tape; everything else is as of then."""

    book: Book
    snapshot: Snapshot | None
    connection: Connection
    now_s: float
    age_s: float | None
    stale: bool
    window_s: float
    unlocked_s: float | None
    """Seconds until control locks again; null: locked."""
    change: Change | None
    """The last command sent from here."""
    prompts: Prompts
    host: str = ""
    """Name of the context; empty: only one daemon is watched."""
    kind: Kind = "live"
    past: Past | None = None
    """Null: the view follows the feed."""
    live_stale: bool = False
    """Whether the daemon is silent now, whatever moment is shown."""
    recording: str = ""
    """Name of the file that is being written."""
    fleet: Sequence[Fleet] = ()
    requests: Sequence[RequestRow] | None = None
    """All live requests where a screen asked for them; null: only those of the snapshot."""

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

    @property
    def at_unix_s(self) -> float | None:
        """The wall clock of the moment shown, by the daemon's clock."""
        if self.snapshot is None:
            return None
        return self.snapshot.at_unix_s + (self.age_s or 0.0)

    @property
    def log(self) -> Sequence[LogLine]:
        """What had happened by then."""
        if self.past is None or self.at_unix_s is None:
            return self.book.log
        at = self.at_unix_s
        return [entry for entry in self.book.log if entry.at_unix_s <= at]
