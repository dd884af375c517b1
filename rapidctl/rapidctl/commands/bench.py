"""`rapidctl bench`: replay request traces against a daemon or any OpenAI-compatible server, and judge what came back.

Declares the commands only; what they do is in `rapidctl.bench.command`, which is loaded when one runs.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from rapidctl.commands import common

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rapidctl.out import Out

EPILOG = """A trace is a file of JSON lines with arrival_s, prompt_tokens, output_tokens (docs/bench.md), or a shape.
A request meets its SLO when TTFT <= max(floor, s per 1,000 prompt tokens) and the p95 of its gaps <= the ITL SLO."""


def add_parser(commands: common.Commands) -> None:
    """Declare the commands."""
    group = common.add_group(
        commands, "bench", "measure a daemon, or any OpenAI-compatible server, under recorded load"
    )
    run = common.add_command(group, "run", run_once, "replay traces once and show what came of it", EPILOG)
    _add_options(run)
    run.add_argument("--rate-scale", metavar="X", type=positive, default=1.0, help="arrivals so many times as fast (1)")

    goodput = common.add_command(
        group, "goodput", run_goodput, "search the highest rate at which nine of ten requests meet their SLO", EPILOG
    )
    _add_options(goodput)
    _add_search(goodput, "search")

    compare = common.add_command(
        group, "compare", run_compare, "alternate policies of one daemon under the same arrivals; it is left as it was"
    )
    _add_options(compare)
    _add_search(compare, "search, with --goodput")
    compare.set_defaults(control=True)
    compare.add_argument(
        "--policy", metavar="P", action="append", default=[], help="repeat for each; ratios are auto's"
    )
    compare.add_argument("--repeats", metavar="N", type=counting, default=2, help="at least 2 (2)")
    compare.add_argument(
        "--rate-scale", metavar="X", type=positive, default=1.0, help="arrivals so many times as fast (1)"
    )
    compare.add_argument("--goodput", action="store_true", help="search each one's goodput instead of one rate")


def run_once(args: Namespace, out: Out) -> int:
    """Replay."""
    from rapidctl.bench.command import Once, carry_out

    return carry_out(Once(), args, out)


def run_goodput(args: Namespace, out: Out) -> int:
    """Search."""
    from rapidctl.bench.command import Search, carry_out

    return carry_out(Search(), args, out)


def run_compare(args: Namespace, out: Out) -> int:
    """Compare."""
    from rapidctl.bench.command import Compare, carry_out

    return carry_out(Compare(args), args, out)


def _add_options(parser: ArgumentParser) -> None:
    parser.set_defaults(control=False)
    load = parser.add_argument_group("load")
    load.add_argument("traces", metavar="TRACE", nargs="*", type=Path, help="trace files, .jsonl or .jsonl.gz")
    load.add_argument(
        "--shape",
        metavar="IN/OUT@RATE",
        action="append",
        default=[],
        help="fixed lengths, Poisson arrivals: 4096/256@3",
    )
    load.add_argument(
        "--request-rate", metavar="R", type=positive, help="Poisson arrivals of R/s instead of the file's"
    )
    load.add_argument("--batched", action="store_true", help="keep recorded times that sit in batches")
    load.add_argument(
        "--start", metavar="DUR", type=common.duration_s, default=0.0, help="skip so much of the trace (0)"
    )
    load.add_argument(
        "--seconds", metavar="DUR", type=common.positive_duration_s, default=60.0, help="of arrivals a run (60s)"
    )
    load.add_argument("--requests", metavar="N", type=counting, help="at most so many a run")
    load.add_argument("--length-scale", metavar="X", type=positive, default=1.0, help="all lengths times this (1)")
    load.add_argument("--max-model-len", metavar="N", type=counting, help="prompt and output together (the server's)")
    load.add_argument(
        "--over-long", choices=["cut", "drop"], default="cut", help="what becomes of longer requests (cut the prompt)"
    )
    load.add_argument("--seed", metavar="N", type=common.integer, default=0, help="of drawn arrivals (0)")
    load.add_argument("--salt", metavar="TEXT", help="of the prompts' ids (drawn: no earlier run's prompts are cached)")
    server = parser.add_argument_group("server (a daemon at --endpoint unless told)")
    server.add_argument("--http", metavar="URL", help="an OpenAI-compatible server, http://host:port")
    server.add_argument("--model", metavar="NAME", help="with --http (the first that is served)")
    server.add_argument("--vocab-size", metavar="N", type=counting, help="with --http: ids below (32000)")
    judging = parser.add_argument_group("judging")
    judging.add_argument(
        "--warmup", metavar="DUR", type=common.duration_s, default=0.0, help="send, do not measure (0)"
    )
    judging.add_argument(
        "--warmup-requests", metavar="N", type=common.integer, default=0, help="the same, by count (0)"
    )
    judging.add_argument(
        "--drain", metavar="DUR", type=common.duration_s, default=60.0, help="wait for open requests at the end (60s)"
    )
    for option, text in (
        ("--slo-itl", "p95 of a request's gaps"),
        ("--slo-ttft-floor", "TTFT of short prompts"),
        ("--slo-ttft-per-1k", "TTFT a thousand prompt tokens"),
    ):
        judging.add_argument(
            option, metavar="DUR", type=common.positive_duration_s, help=f"{text} (the daemon's; with --http a GPU's)"
        )
    judging.add_argument(
        "--max-lateness",
        metavar="DUR",
        type=common.positive_duration_s,
        help="p99; a later generator's run is not valid (20ms)",
    )
    keep = parser.add_argument_group("keeping")
    keep.add_argument("--out", metavar="FILE", type=Path, help="every request as a JSON line; .gz compresses")
    keep.add_argument("--picture", metavar="FILE.svg", type=Path, help="latency, modes and units over time")


def _add_search(parser: ArgumentParser, title: str) -> None:
    group = parser.add_argument_group(title)
    group.add_argument("--first", metavar="X", type=positive, default=1.0, help="rate scale to begin with (1)")
    group.add_argument("--max-runs", metavar="N", type=counting, default=10, help="of a search (10)")
    group.add_argument("--tolerance", metavar="X", type=positive, default=0.05, help="stop when known to this (0.05)")


def positive(text: str) -> float:
    """A finite number above zero."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def counting(text: str) -> int:
    """An integer above zero."""
    value = common.integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value
