"""Runs the product's HIP partition code on the fake GPU and prints what the driver saw: ``lanes.py FOLDER_OF_KERNELS``.

One JSON object on stdout; `test_hip_partition.py` says what must be in it.
"""

import faulthandler
import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from amd_host.shim import Hip, Log, Seen
from rapidd.partition.hip import HipStream, HipStreams, describe, hip_table
from rapidd.partition.hip_runtime import HipRuntime

ROUNDS = 3
LIMIT_S = 20
"""A call into HIP that waits for the absent hardware is ended, and named, after so long."""


def main(kernels: Path) -> dict[str, Any]:
    """Everything that is asserted on."""
    log = Log()
    faulthandler.dump_traceback_later(LIMIT_S, exit=True, file=sys.stderr)
    runtime = HipRuntime.load()
    device = describe(runtime, 0)
    hip = Hip(kernels / f"mark.{device.architecture}.hsaco")
    opened = log.take()
    table = hip_table(runtime, device)
    tried = log.take()
    HipStreams(runtime, device, table).close()
    closed = log.take()
    streams = HipStreams(runtime, device, table)  # these stay: see docs/amd.md on destroying streams that have worked
    made = log.take()
    lanes = {f"decode {n}": s for n, s in streams.decode.items()} | {
        f"prefill {n}": s for n, s in streams.prefill.items()
    }
    found: dict[str, Any] = {
        "device": device,
        "table": table,
        "opened": opened,
        "tried": tried,
        "closed": closed,
        "made": made,
        "units": {name: [stream.units.start, stream.units.stop] for name, stream in lanes.items()},
        "nature": {name: hip.nature(stream.handle) for name, stream in lanes.items()},
        "launches": [launches(hip, log, lanes) for _ in range(ROUNDS)],
        "linear": linear(hip, log, lanes, streams.decode[table.units_total]),
        "apart": interleaved(hip, log, streams, table.splits[0], table.units_total, null=False),
        "joined": interleaved(hip, log, streams, table.splits[0], table.units_total, null=True),
        "fork": fork(hip, log, streams, table.splits[0], table.units_total),
    }
    return found


def launches(hip: Hip, log: Log, lanes: dict[str, HipStream]) -> dict[str, Seen]:
    """What one kernel on each stream does; each stream is synchronised before the next."""
    seen = {}
    for name, stream in lanes.items():
        hip.launch(stream.handle, 5)
        hip.synchronize(stream.handle)
        seen[name] = log.take()
    return seen


def linear(hip: Hip, log: Log, lanes: dict[str, HipStream], captured_on: HipStream) -> dict[str, Seen]:
    """A graph of two kernels in a row, captured on one stream, replayed on each."""
    hip.begin_capture(captured_on.handle)
    hip.launch(captured_on.handle, 11)
    hip.launch(captured_on.handle, 12)
    graph = hip.end_capture(captured_on.handle)
    log.take()
    seen = {}
    for name, stream in lanes.items():
        hip.replay(graph, stream.handle)
        hip.synchronize(stream.handle)
        seen[name] = log.take()
    return seen


def fork(hip: Hip, log: Log, streams: HipStreams, split: int, total: int) -> Seen:
    """A graph with a second branch, replayed on decode's stream."""
    decode, prefill = streams.decode[split].handle, streams.prefill[total - split].handle
    hip.begin_capture(decode)
    hip.launch(decode, 31)
    hip.join(hip.event(), decode, prefill)
    hip.launch(prefill, 32)
    hip.launch(decode, 33)
    hip.join(hip.event(), prefill, decode)
    hip.launch(decode, 34)
    graph = hip.end_capture(decode)
    log.take()
    hip.replay(graph, decode)
    hip.synchronize(decode)
    return log.take()


def interleaved(hip: Hip, log: Log, streams: HipStreams, split: int, total: int, *, null: bool) -> Seen:
    """Kernels on the lanes in turn, with or without one on the NULL stream between, then a wait for all."""
    decode, prefill = streams.decode[split].handle, streams.prefill[total - split].handle
    log.take()
    hip.launch(decode, 51)
    hip.launch(prefill, 52)
    if null:
        hip.launch(None, 53)
    hip.launch(decode, 54)
    hip.launch(prefill, 55)
    hip.synchronize(decode)
    hip.synchronize(prefill)
    return log.take()


if __name__ == "__main__":
    print(json.dumps(msgspec.to_builtins(main(Path(sys.argv[1])))), flush=True)
    os._exit(0)  # HIP's exit handlers wait for hardware
