"""``PYTHONPATH=rapidctl:daemon:kernels python -m bench.gpu [--out FILE] [--shape S]``: the whole daemon on a GPU.

Random weights, greedy streams of random prompts, through the product's own client; a table, then one JSON line. A
step's *GPU time* is the decode lane's, by device events; its *cadence* is the median gap between two tokens that a
stream sees. What the device waits between steps is read from the lane's busy share of one second, because a step gets
longer with the context while it is measured. Under load one mode after another gets the same arrivals.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from bench.figures import SCHEMA_VERSION, Figure, table
from bench.load import Prompts, Run, pump, start
from bench.processes import Daemon, daemon
from rapidctl.client import Client
from rapidctl.wire import GetSnapshot, LaneStats, PlanRequest, SetPartition, Snapshot

DECODES = ((1, 1024), (64, 1024), (32, 8192))
"""Rows and prompt tokens."""
SECTIONS = ("start", "prefill", "decode", "loaded", "peer")
STEPS = 160
"""More than a second of the shortest step."""
PREFILLS = (2048, 8192)
ARRIVALS, ARRIVING_PROMPT = 12, 4096
BULK_ROWS, BULK_PROMPT, BULK_OUTPUT = 64, 1024, 128
MODES = {
    "serial": PlanRequest(mode="serial"),
    "hybrid:512": PlanRequest(mode="hybrid", chunk=512),
    "hybrid": PlanRequest(mode="hybrid"),
    "shared": PlanRequest(mode="shared"),
    "split 24": PlanRequest(mode="split", decode_units=24),
    "split 32": PlanRequest(mode="split", decode_units=32),
    "split 48": PlanRequest(mode="split", decode_units=48),
}
CONTROL_SPACING_S = 2.1
SETTLE_S = 1.2


@dataclass(frozen=True, slots=True)
class Load:
    """Streams that decode, and the modes to try them in."""

    rows: int
    prompt: int
    modes: Sequence[str]

    @property
    def name(self) -> str:
        """Of the streams and of what arrives."""
        return f"{self.rows} x {self.prompt} + {ARRIVALS} x {ARRIVING_PROMPT}"


LOADS = (Load(32, 1024, tuple(MODES)), Load(24, 8192, ("hybrid:512", "shared", "split 24", "split 32", "split 48")))


def main() -> int:
    """Measure everything, print it."""
    parser = argparse.ArgumentParser(prog="bench.gpu", description="Measure rapid-serve on this machine's GPU.")
    parser.add_argument("--shape", default="llama-3.1-8b")
    parser.add_argument("--max-model-len", default="16384")
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the JSON, samples included")
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION", help="of: %(choices)s"
    )
    arguments = parser.parse_args()
    os.environ.setdefault("RAPIDD__ENGINE__MAX_BATCH_REQUESTS", "96")
    options = ["--device", "cuda", "--weights", "random", "--shape", arguments.shape]
    options += ["--max-model-len", arguments.max_model_len]
    figures: list[Figure] = []
    if "start" in arguments.only:
        with daemon(*options) as server:  # compiles what is not in Triton's cache
            figures.append(Figure("daemon ready, first start", [server.ready_s], "s"))
    with daemon(*options) as server, server.client() as client:
        if "start" in arguments.only:
            figures.append(Figure("daemon ready, second start", [server.ready_s], "s", "at most", 40.0))
        device = _snapshot(client).device
        prompts = Prompts()
        if "prefill" in arguments.only:
            figures += prefill(client, prompts)
        if "decode" in arguments.only:
            for rows, tokens in DECODES:
                figures += decode(server, client, prompts, rows, tokens)
        bulk = throughput(client, prompts) if "peer" in arguments.only else []
        if "loaded" in arguments.only:
            for load in LOADS:
                figures += loaded(client, prompts, load)
    figures += bulk
    if bulk:
        figures += compare(bulk[0])
    print(table(figures))
    document = {
        "schema_version": SCHEMA_VERSION,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": device.name if device else None,
        "shape": arguments.shape,
        "figures": [figure.document() for figure in figures],
    }
    print(json.dumps(document), flush=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def prefill(client: Client, prompts: Prompts) -> list[Figure]:
    """One prompt on an idle device: time to first token, and the lane's time."""
    figures = []
    for length in PREFILLS:
        ttft, lane = [], []
        for _ in range(4):
            before = _settled(client)
            begin = time.monotonic_ns()
            run = start(client, prompts(length), 1)
            pump(client, [run], lambda run=run: bool(run.finished))  # type: ignore[misc]
            ttft.append((run.stamps_ns[0] - begin) / 1e6)
            lane.append(1e3 * (_busy(_settled(client), "prefill") - _busy(before, "prefill")))
        figures.append(Figure(f"prefill of {length}, time to first token", ttft[1:], "ms"))
        figures.append(Figure(f"prefill of {length}, lane time", lane[1:], "ms"))
    return figures


def decode(server: Daemon, client: Client, prompts: Prompts, rows: int, tokens: int) -> list[Figure]:
    """Only decode: GPU time a step, cadence, and what the host's processes spend on a step."""
    runs = _decoding(client, prompts, rows, tokens)
    before, cpu_s = _snapshot(client), server.cpu_s()
    reach = max(len(run.stamps_ns) for run in runs) + STEPS
    pump(client, runs, lambda: all(len(run.stamps_ns) >= reach for run in runs))
    after, cpu_s = _snapshot(client), server.cpu_s() - cpu_s
    gaps = _gaps(runs, len(runs[0].stamps_ns) - STEPS)
    _end(client, runs)
    steps = _lane(after, "decode").batches_total - _lane(before, "decode").batches_total
    gpu_ms = 1e3 * (_busy(after, "decode") - _busy(before, "decode")) / max(steps, 1)
    name = f"decode {rows} x {tokens}"
    return [
        Figure(f"{name}, GPU time of a step", [gpu_ms], "ms"),
        Figure(f"{name}, cadence", [statistics.median(gaps)], "ms"),
        Figure(f"{name}, cadence / GPU time", [1 / (_lane(after, "decode").busy or 1e-9)], "x", "at most", 1.03),
        Figure(f"{name}, longest gap", [max(gaps)], "ms"),
        Figure(f"{name}, host CPU of a step, all processes", [1e3 * cpu_s / max(steps, 1)], "ms"),
    ]


def throughput(client: Client, prompts: Prompts) -> list[Figure]:
    """All requests at once, as `bench.peer_gpu` has them: output tokens a second until the last one is done."""
    rates = []
    for _ in range(2):
        begin = time.monotonic_ns()
        runs = [start(client, prompts(BULK_PROMPT), BULK_OUTPUT) for _ in range(BULK_ROWS)]
        pump(client, runs, lambda runs=runs: all(run.finished for run in runs))  # type: ignore[misc]
        rates.append(BULK_ROWS * BULK_OUTPUT * 1e9 / (max(run.stamps_ns[-1] for run in runs) - begin))
    return [Figure(f"{BULK_ROWS} x {BULK_PROMPT} in, {BULK_OUTPUT} out, all at once", rates, "tokens/s")]


def compare(ours: Figure) -> list[Figure]:
    """The same of transformers' continuous batching, in a process of its own; nothing where it is not installed."""
    command = [sys.executable, "-P", "-m", "bench.peer_gpu", str(BULK_ROWS), str(BULK_PROMPT), str(BULK_OUTPUT)]
    peer = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if peer.returncode != 0:
        say("transformers could not be measured: see above")
        return []
    theirs = json.loads(peer.stdout.splitlines()[-1])
    say(f"transformers {theirs['transformers']}: {theirs}")
    return [
        Figure(f"the same, transformers {theirs['transformers']}", [theirs["tokens_per_s"]], "tokens/s"),
        Figure("all at once / transformers", [ours.value / theirs["tokens_per_s"]], "x", "at least", 3.0),
    ]


def loaded(client: Client, prompts: Prompts, load: Load) -> list[Figure]:
    """Streams decode and prompts arrive at once, by mode: what streams see, and how fast the prompts are computed.

    *Sharing efficiency* is the share of the prompts' speed alone plus the share of the steps' speed alone, both of
    this device and this run: 1 is what taking turns gives.
    """
    _set(client, "serial")
    runs = _decoding(client, prompts, load.rows, load.prompt)
    marks = [len(run.stamps_ns) for run in runs]  # from here on nothing is prefilled
    pump(client, runs, lambda: all(len(run.stamps_ns) >= mark + STEPS for run, mark in zip(runs, marks, strict=True)))
    alone_ms = statistics.mean(gap for run, mark in zip(runs, marks, strict=True) for gap in _gaps([run], mark))
    _end(client, runs)
    alone_rate, _ = _arrive(client, prompts, [])
    figures = [
        Figure(f"{load.name}: gap, nothing arriving", [alone_ms], "ms"),
        Figure(f"{load.name}: prompt tokens, nothing decoding", [alone_rate], "tokens/ms"),
    ]
    for mode in load.modes:
        _set(client, mode)
        runs = _decoding(client, prompts, load.rows, load.prompt)
        rate, gaps = _arrive(client, prompts, runs)
        _end(client, runs)
        ordered = sorted(gaps)
        name = f"{load.name}, {mode}"
        efficiency = rate / alone_rate + alone_ms / statistics.mean(gaps)
        figures += [
            Figure(f"{name}: gap, median", [statistics.median(gaps)], "ms"),
            Figure(f"{name}: gap, p95", [ordered[int(0.95 * len(ordered))]], "ms"),
            Figure(f"{name}: gap, longest", [ordered[-1]], "ms"),
            Figure(f"{name}: prompt tokens", [rate], "tokens/ms"),
            Figure(f"{name}: sharing efficiency", [efficiency], "x"),
        ]
    return figures


def _set(client: Client, mode: str) -> None:
    """Pin a mode. The daemon takes a change every two seconds."""
    time.sleep(CONTROL_SPACING_S)
    client.call(SetPartition(call=0, plan=MODES[mode], ttl_s=None, guard=False, by="bench"))


def _arrive(client: Client, prompts: Prompts, runs: Sequence[Run]) -> tuple[float, list[float]]:
    """Prompts arrive beside running streams: prompt tokens a millisecond until the last one's first token, and the
    streams' gaps meanwhile."""
    marks = [len(run.stamps_ns) for run in runs]
    begin = time.monotonic_ns()
    arriving = [start(client, prompts(ARRIVING_PROMPT), 1) for _ in range(ARRIVALS)]
    pump(client, [*runs, *arriving], lambda: all(run.stamps_ns for run in arriving))
    end = max(run.stamps_ns[0] for run in arriving)
    gaps = [gap for run, mark in zip(runs, marks, strict=True) for gap in _gaps([run], mark - 1)]
    return ARRIVALS * ARRIVING_PROMPT * 1e6 / (end - begin), gaps


def _decoding(client: Client, prompts: Prompts, rows: int, tokens: int) -> list[Run]:
    """So many streams, each a few tokens past its prompt."""
    runs = [start(client, prompts(tokens), 4096) for _ in range(rows)]
    pump(client, runs, lambda: all(len(run.stamps_ns) >= 8 for run in runs))
    return runs


def _end(client: Client, runs: Sequence[Run]) -> None:
    for run in runs:
        client.cancel(run.stream.id)
    pump(client, runs, lambda: all(run.finished for run in runs))
    time.sleep(SETTLE_S)


def _gaps(runs: Sequence[Run], first: int) -> list[float]:
    """Milliseconds between the tokens of each stream from its token ``first`` on."""
    return [(b - a) / 1e6 for run in runs for a, b in pairwise(run.stamps_ns[max(first, 0) :])]


def _snapshot(client: Client) -> Snapshot:
    return client.call(GetSnapshot(call=0)).snapshot


def _settled(client: Client) -> Snapshot:
    time.sleep(SETTLE_S)
    return _snapshot(client)


def _lane(snapshot: Snapshot, name: str) -> LaneStats:
    return next(lane for lane in snapshot.lanes if lane.lane == name)


def _busy(snapshot: Snapshot, phase: str) -> float:
    """Seconds that lanes spent on a phase."""
    return sum(lane.busy_decode_s_total if phase == "decode" else lane.busy_prefill_s_total for lane in snapshot.lanes)


def say(what: str) -> None:
    """Progress, for people."""
    print(f"bench: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
