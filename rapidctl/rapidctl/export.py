"""A tape as a table: one line a snapshot, numbers in base units, empty where unknown."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rapidctl.book import kv_used, lane, latency_window
from rapidctl.tape import Record, TapeError, close_file, new_file
from rapidctl.wire import LatencyWindow, Snapshot

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

Cell = float | int | str | None
WINDOW_S: Final = 10.0


def of_window(read: Callable[[LatencyWindow], Cell], window_s: float = WINDOW_S) -> Callable[[Snapshot], Cell]:
    """A figure of one of the latency windows."""

    def of(snapshot: Snapshot) -> Cell:
        window = latency_window(snapshot, window_s)
        return None if window is None else read(window)

    return of


def _of_plan(name: str) -> Callable[[Snapshot], Cell]:
    return lambda snapshot: None if snapshot.partition is None else getattr(snapshot.partition.plan, name)


def _busy(snapshot: Snapshot, name: str) -> Cell:
    found = lane(snapshot, "decode" if name == "decode" else "prefill")
    return None if found is None else found.busy


COLUMNS: Final[dict[str, Callable[[Snapshot], Cell]]] = {
    "at": lambda s: datetime.fromtimestamp(s.at_unix_s, UTC).isoformat(timespec="milliseconds"),
    "at_mono_ns": lambda s: s.at_mono_ns,
    "boot_id": lambda s: s.boot_id,
    "state": lambda s: s.state,
    "mode": _of_plan("mode"),
    "epoch": lambda s: None if s.partition is None else s.partition.epoch,
    "decision": _of_plan("decision"),
    "decode_units": _of_plan("decode_units"),
    "prefill_units": _of_plan("prefill_units"),
    "decode_busy": lambda s: _busy(s, "decode"),
    "prefill_busy": lambda s: _busy(s, "prefill"),
    "waiting": lambda s: s.requests.waiting,
    "prefilling": lambda s: s.requests.prefilling,
    "decoding": lambda s: s.requests.decoding,
    "kv_used": kv_used,
    "ttft_p50_s": of_window(lambda w: w.ttft_s.p50),
    "ttft_p95_s": of_window(lambda w: w.ttft_s.p95),
    "ttft_n": of_window(lambda w: w.ttft_s.n),
    "itl_p50_s": of_window(lambda w: w.itl_s.p50),
    "itl_p95_s": of_window(lambda w: w.itl_s.p95),
    "itl_n": of_window(lambda w: w.itl_s.n),
    "both_met": of_window(lambda w: w.both_met),
    "arrived_per_s": of_window(lambda w: w.arrived_per_s),
    "finished_per_s": of_window(lambda w: w.finished_per_s),
    "output_tokens_per_s": of_window(lambda w: w.output_tokens_per_s),
    "prompt_tokens_per_s": of_window(lambda w: w.prompt_tokens_per_s),
    "power_w": lambda s: None if s.device is None else s.device.power_w,
    "temperature_c": lambda s: None if s.device is None else s.device.temperature_c,
    "clock_hz": lambda s: None if s.device is None else s.device.clock_hz,
}
"""Latencies and rates are of the last 10 seconds."""


class Table:
    """Writes the head and then a line for each snapshot that it is given."""

    def __init__(self, file: SupportsWrite[str]) -> None:
        self.rows = 0
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(COLUMNS)

    def add(self, record: Record) -> None:
        """One more line, if it is a snapshot."""
        if isinstance(record.item, Snapshot):
            self._writer.writerow([read(record.item) for read in COLUMNS.values()])
            self.rows += 1


def write_csv(records: Iterable[Record], file: SupportsWrite[str]) -> int:
    """Write the snapshots among the records; returns how many."""
    table = Table(file)
    for record in records:
        table.add(record)
    return table.rows


class CsvRecorder:
    """As `tape.Recorder`, but what is kept is a table, without events and prompts. Raises `TapeError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = io.TextIOWrapper(new_file(path), encoding="utf-8", newline="")
        self._table = Table(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        close_file(self._file, self.path)

    @property
    def snapshots(self) -> int:
        """Lines so far."""
        return self._table.rows

    def add(self, record: Record) -> None:
        """Keep one more: whoever follows the file finds whole lines."""
        try:
            self._table.add(record)
            self._file.flush()
        except OSError as error:
            raise TapeError(f"{self.path} cannot be written: {error.strerror}") from error
