"""``PYTHONPATH=rapidctl:daemon:kernels python -m bench.gpu [--out FILE] [--only SECTION ...]``: the daemon on a GPU.

Random weights, greedy streams of random prompts, through the product's own client; a table, then one JSON line. After
each section the JSON is written, so that a run that is cut short leaves what it had. A step's *GPU time* is by device
events; its *cadence* is the median gap between two tokens that a stream sees. What the device waits between steps is
read from the lane's busy share of one second, because a step gets longer with the context while it is measured. Shares
are of what the daemon measured of the device at its start: a plain read, a large matrix product. The exit status is 1
when a section failed; the JSON's ``failed`` says why.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench import gpu_alone, gpu_deaths, gpu_sharing
from bench.figures import SCHEMA_VERSION, Figure, table
from bench.gpu_setup import Setup
from bench.gpu_sizes import SMALL, Sizes
from bench.processes import daemon
from bench.progress import say

SERVED: dict[str, Callable[[Setup], Iterable[Figure]]] = {
    "prefill": gpu_alone.prefill,
    "decode": gpu_alone.decode,
    "hybrid": gpu_alone.hybrid,
    "switch": gpu_alone.switch,
    "sharing": gpu_sharing.sharing,
    "loaded": gpu_sharing.loaded,
    "peer": gpu_sharing.throughput,
    "deaths": gpu_deaths.deaths,
}
"""Sections that one daemon serves, in this order; the last one ends it. "start" comes before them, and transformers'
half of "peer" after them."""
READY_S = 40.0
PEER_SHAPE = "llama-3.1-8b"
"""The only one that `bench.peer_gpu` has."""


class Results:
    """Figures so far, kept in a file as they come."""

    def __init__(self, out: Path | None, head: dict[str, Any]) -> None:
        self.figures: list[Figure] = []
        self._out = out
        self.failed: dict[str, str] = {}
        self._document = {"schema_version": SCHEMA_VERSION, **head, "sections_s": {}, "failed": self.failed}

    def run(self, section: str, measure: Callable[[], Iterable[Figure]]) -> None:
        """Measure one section. What goes wrong is kept beside the figures it gave before, and the next one goes on."""
        begin = time.monotonic()
        say(section)
        figures: list[Figure] = []
        try:
            for figure in measure():
                figures.append(figure)  # noqa: PERF402 (what came before an error stays)
        except Exception as error:
            traceback.print_exc()
            self.failed[section] = repr(error)
        self.figures += figures
        self._document["sections_s"][section] = round(time.monotonic() - begin, 1)
        if figures:
            print(table(figures), flush=True)
        if self._out is not None:
            self._out.write_text(json.dumps(self.document(), indent=1) + "\n", encoding="utf-8")

    def document(self, **more: Any) -> dict[str, Any]:
        """Of what is there; ``more`` is known now."""
        self._document |= more
        return {**self._document, "figures": [figure.document() for figure in self.figures]}


def main() -> int:
    """Measure everything, print it."""
    arguments = _arguments()
    sizes = SMALL if arguments.small else Sizes()
    os.environ.setdefault("RAPIDD__ENGINE__MAX_BATCH_REQUESTS", str(sizes.slots))
    options = ["--device", arguments.device, "--weights", "random", "--shape", arguments.shape]
    options += ["--max-model-len", str(sizes.max_model_len)]
    head = {"started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "shape": arguments.shape}
    results = Results(arguments.out, head)
    if "start" in arguments.only:
        results.run("start", lambda: _first_start(options))
    with daemon(*options) as server:
        with server.client() as client:
            setup = Setup(server, client, sizes)
            snapshot = setup.snapshot()
        results.document(device=snapshot.device.name if snapshot.device else None)
        results.run("device", lambda: [*gpu_alone.peaks(snapshot), *gpu_alone.graphs(server.said())])
        if "start" in arguments.only:
            ready = Figure("daemon ready, second start", [server.ready_s], "s", "at most", READY_S)
            results.run("second start", lambda: [ready])
        for section, measure in SERVED.items():
            if section in arguments.only:
                with server.client() as client:  # whatever a section leaves behind ends with its client
                    setup.client = client
                    results.run(section, partial(measure, setup))
    if "peer" in arguments.only:
        results.run("transformers", lambda: _peer(results.figures, sizes, arguments.shape))
    print("\n" + table(results.figures))
    for section, why in results.failed.items():
        say(f"{section} failed: {why}")
    print(json.dumps(results.document()), flush=True)
    return 1 if results.failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.gpu", description="Measure rapid-serve on this machine's GPU.")
    sections = ("start", *SERVED)
    parser.add_argument("--only", nargs="+", choices=sections, default=sections, metavar="SECTION", help="%(choices)s")
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the JSON, samples included")
    parser.add_argument("--shape", default=PEER_SHAPE)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes: shows that everything runs, measures nothing")
    return parser.parse_args()


def _first_start(options: Sequence[str]) -> list[Figure]:
    """Compiles what is not in Triton's cache."""
    with daemon(*options) as server:
        return [Figure("daemon ready, first start", [server.ready_s], "s")]


def _peer(figures: Sequence[Figure], sizes: Sizes, shape: str) -> list[Figure]:
    """The same of transformers' continuous batching, in a process of its own. Raises CalledProcessError."""
    ours = next((figure for figure in figures if figure.name.endswith("all at once")), None)
    if ours is None or shape != PEER_SHAPE:
        say(f"transformers is not measured: there is nothing of {PEER_SHAPE} to compare it with")
        return []
    command = [sys.executable, "-P", "-m", "bench.peer_gpu", *map(str, sizes.bulk)]
    peer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    theirs = json.loads(peer.stdout.splitlines()[-1])
    say(f"transformers {theirs['transformers']}: {theirs}")
    return [
        Figure(f"the same, transformers {theirs['transformers']}", [theirs["tokens_per_s"]], "tokens/s"),
        Figure("all at once / transformers", [ours.value / theirs["tokens_per_s"]], "x", "at least", 3.0),
    ]


if __name__ == "__main__":
    sys.exit(main())
