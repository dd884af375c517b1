"""``make bench BENCH="[--quick] [--out FILE]"``, or ``PYTHONPATH=daemon python -m bench.run``.

Measures the default model on this machine: a table, then one JSON line. The exit status says whether the
measurement worked, never how fast it was: a busy machine is no bug. ``--out`` keeps the JSON with every sample.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from bench import scenarios
from bench.figures import SCHEMA_VERSION, Figure, table
from bench.load import Prompts
from bench.processes import daemon, peer
from bench.progress import say
from rapidd.telemetry.cpu import others_cpu_s
from rapidd.telemetry.device import cpu_info

QUIET_SHARE = 0.05
"""Of the cores; what other processes may use before a measurement says so."""


def main() -> int:
    """Measure everything, print it."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure rapid-serve on this machine.")
    parser.add_argument(
        "--quick", action="store_true", help="fewer repeats, for a first look: two minutes on two idle cores"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the JSON, samples included")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    head = describe(quick=arguments.quick)
    begin_s, begin_cpu_s = time.monotonic(), others_cpu_s()
    figures = measure(scenarios.QUICK if arguments.quick else scenarios.Size())
    duration_s = time.monotonic() - begin_s
    others = (others_cpu_s() - begin_cpu_s) / duration_s / head["cores"]
    document = {
        **head,
        "duration_s": duration_s,
        "others_cpu_share": others,
        "figures": [figure.document() for figure in figures],
    }
    print(table(figures))
    if others > QUIET_SHARE:
        say(f"other processes used {others:.0%} of the cores meanwhile: this was no quiet machine")
    print(json.dumps(document), flush=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(size: scenarios.Size) -> list[Figure]:
    """All subjects. float32 is the default model's own dtype, so everything but arithmetic is measured there."""
    threads = len(os.sched_getaffinity(0))
    prompts = Prompts()
    figures: list[Figure] = []
    ready_s: list[float] = []
    for _ in range(size.starts):  # the first of all reads the disk
        say("starting and stopping a daemon")
        with daemon() as server:
            ready_s.append(server.ready_s)
    for dtype in ("float32", "bfloat16"):
        say(f"loading both sides in {dtype}")
        with daemon("--dtype", dtype) as server, peer(dtype, threads) as other, server.client() as client:
            if dtype == "float32":
                ready_s.append(server.ready_s)
            scenarios.warm_up(client, other, prompts)
            say(f"decode, {dtype}")
            figures += scenarios.decode(client, other, prompts, size, dtype)
            say(f"prefill, {dtype}")
            figures += scenarios.prefill(client, other, prompts, size, dtype)
            if dtype == "float32":
                say("streams beside a long prompt")
                figures += scenarios.interference(client, prompts, size)
                client.close()
                say("status and idle")
                figures += scenarios.overheads(server, ready_s[1:], size)
    return figures


def describe(*, quick: bool) -> dict[str, Any]:
    """On what, and when. ``commit`` is null outside a checkout."""
    device = cpu_info(len(os.sched_getaffinity(0)))
    return {
        "schema_version": SCHEMA_VERSION,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "quick": quick,
        "model": "SmolLM2-135M-Instruct (GGUF, Q4_1)",
        "cpu": device.name,
        "cores": device.units,
        "memory_total_bytes": device.memory_total_bytes,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "rapid_serve": version("rapid-serve"),
        "commit": _commit(),
    }


def _interrupt(*_: object) -> NoReturn:
    """So that contexts end what they started."""
    raise KeyboardInterrupt


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    sys.exit(main())
