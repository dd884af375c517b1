"""A tape as a table: one line a snapshot, numbers in base units, empty where unknown."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final, TextIO

from rapidctl.book import kv_used, lane, latency_window
from rapidctl.tape import Record
from rapidctl.wire import LatencyWindow, Snapshot

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


def write_csv(records: Iterable[Record], file: TextIO) -> int:
    """Write the snapshots among the records; returns how many."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    written = 0
    for record in records:
        if isinstance(record.item, Snapshot):
            writer.writerow([read(record.item) for read in COLUMNS.values()])
            written += 1
    return written
