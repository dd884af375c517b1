"""What became of each request of a run, on the clock of whoever sent it. Knows no transport and no objective."""

import gzip
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

from rapidctl.bench.trace import TraceRequest
from rapidctl.errors import UsageError

Outcome = Literal["open", "finished", "refused", "failed", "unfinished"]
"""``refused``: it was never accepted; ``failed``: ended by an error; ``unfinished``: given up when the run ended."""


def _stamps() -> "array[float]":
    return array("d")


@dataclass(slots=True, eq=False)
class Record:
    """One request that was sent. Times are seconds of one monotonic clock, the same for all records of a run.

    ``due_s``: when it should have been sent, ``sent_s``: when it was. ``stamps``: when each output token was here; the
    tokens of one message share a stamp. ``delays``: how long each took from the engine to here, where that is told.
    """

    request: TraceRequest
    due_s: float
    sent_s: float
    measured: bool = True
    """False in the warm-up."""
    stamps: "array[float]" = field(default_factory=_stamps)
    delays: "array[float]" = field(default_factory=_stamps)
    outcome: Outcome = "open"
    ended_s: float | None = None
    error: str = ""
    """Code of the refusal or failure."""
    said: str = ""
    """What the server said with it."""
    cached_tokens: int | None = None
    preemptions: int | None = None

    def end(self, outcome: Outcome, at_s: float, error: str = "", said: str = "") -> None:
        """Its last word; later ones are not heard."""
        if self.outcome == "open":
            self.outcome, self.ended_s, self.error, self.said = outcome, at_s, error, said

    @property
    def ttft_s(self) -> float | None:
        """From sending to the first token."""
        return self.stamps[0] - self.sent_s if self.stamps else None

    @property
    def gaps_s(self) -> list[float]:
        """Between one output token and the next."""
        return [after - before for before, after in pairwise(self.stamps)]

    @property
    def tpot_s(self) -> float | None:
        """Mean gap; null below two tokens."""
        tokens = len(self.stamps)
        return (self.stamps[-1] - self.stamps[0]) / (tokens - 1) if tokens > 1 else None

    @property
    def wait_s(self) -> float:
        """How long it waited for its first token, or in vain."""
        until = self.stamps[0] if self.stamps else self.ended_s
        return max(0.0, until - self.sent_s) if until is not None else 0.0

    def line(self, begin_s: float, **more: Any) -> dict[str, Any]:
        """Everything, for a file of JSON lines; times are counted from ``begin_s``, gaps in microseconds."""
        return {
            **more,
            "index": self.request.index,
            "prompt_tokens": self.request.prompt_tokens,
            "output_tokens": self.request.output_tokens,
            "due_s": round(self.due_s - begin_s, 6),
            "sent_s": round(self.sent_s - begin_s, 6),
            "ttft_s": None if self.ttft_s is None else round(self.ttft_s, 6),
            "gaps_us": [round(gap * 1e6) for gap in self.gaps_s],
            "ended_s": None if self.ended_s is None else round(self.ended_s - begin_s, 6),
            "outcome": self.outcome,
            "error": self.error,
            "said": self.said,
            "measured": self.measured,
            "cached_tokens": self.cached_tokens,
            "preemptions": self.preemptions,
        }


class RecordFile:
    """Raw records as JSON lines, compressed when the name ends in ``.gz``. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] | gzip.GzipFile
        try:
            if path.suffix == ".gz":
                self._file = gzip.GzipFile(path, "wb")
            else:
                self._file = path.open("wb")
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from error

    def __enter__(self) -> "RecordFile":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what is left."""
        self._file.close()

    def write(self, records: Iterable[Record], begin_s: float, **more: Any) -> None:
        """A line a record; ``more`` is put in front of each."""
        encoder = msgspec.json.Encoder()
        for record in records:
            self._file.write(encoder.encode(record.line(begin_s, **more)) + b"\n")
