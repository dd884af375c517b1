"""The options of `rapidd simulate`: apart, so that the command line starts without the simulator."""

import argparse
from pathlib import Path
from typing import Final

from rapidd.config import GIVE_WAY_S, MAX_GIVE_WAY_S

KV_TOKENS: Final = 450_000
"""Of the default cache: what an 8B model in 16 bits leaves of 80 GB."""
CONTEXT: Final = 24_576
"""Tokens: default of --max-model-len, where the device allows it."""
REQUESTS: Final = 300
"""Default of --requests."""
FACTOR: Final = 1_000_000
"""Rates and seconds a thousand tokens: beyond, times are no numbers that a clock of nanoseconds has."""
MOST: Final = 10_000_000
"""Of anything that is counted: more would not fit this machine's memory."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--trace", action="append", default=[], metavar="FILE", help="JSON lines; may be repeated; or --shape"
    )
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="IN/OUT@RATE",
        help="--requests of fixed lengths, Poisson arrivals by --seed; may be repeated",
    )
    parser.add_argument("--policy", action="append", metavar="P", help="as of rapidd serve; may be repeated (auto)")
    parser.add_argument(
        "--profile", type=Path, metavar="FILE", help="of rapidd calibrate (the newest one measured here)"
    )
    parser.add_argument(
        "--slo-itl",
        action="append",
        type=duration_s,
        metavar="DUR",
        help="ITL objective, 25ms; may be repeated",
    )
    parser.add_argument(
        "--slo-ttft-per-1k", type=_positive, metavar="S", help="TTFT objective, seconds per 1,000 prompt tokens (1)"
    )
    parser.add_argument("--rate", type=_positive, metavar="X", help="times the recorded rate (1)")
    parser.add_argument("--seconds", type=duration_s, metavar="DUR", help="of arrivals; the whole trace by default")
    parser.add_argument(
        "--request-rate", type=_positive, metavar="R", help="for a trace without arrival times: Poisson, R a second"
    )
    parser.add_argument("--warmup", type=duration_s, default=0.0, metavar="DUR", help="of arrivals, not judged")
    parser.add_argument("--max-model-len", type=_count, metavar="N", help=f"longer prompts are cut to it ({CONTEXT})")
    add_device_arguments(parser)
    parser.add_argument("--goodput", action="store_true", help="search for the highest rate that meets the SLO")
    parser.add_argument(
        "--sweep", action="store_true", help="the goodput of every arm, and auto beside the best static"
    )
    parser.add_argument(
        "--requests",
        type=_count,
        metavar="N",
        help=f"of a --shape; of a slice for --goodput, about ({REQUESTS})",
    )
    parser.add_argument("--workers", type=_count, metavar="N", help="processes for --goodput (1)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything there")
    parser.add_argument("--markdown", type=Path, metavar="OUT", help="write the tables of --goodput there")


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is said of the device beside its profile."""
    add = parser.add_argument
    add("--kv-blocks", type=_count, metavar="N", help=f"size of the KV cache ({KV_TOKENS} tokens)")
    add("--max-batch-requests", type=_count, metavar="N", help="running at once (the device's default)")
    add("--give-way", type=_seconds, default=GIVE_WAY_S, metavar="S", help=f"policy.give-way-s ({GIVE_WAY_S:g})")
    what = "of all batches, or of one kind: hybrid/mixed=0.08; may be repeated"
    add("--jitter", action="append", default=[], metavar="[WHAT=]X", help=f"mean relative error, 0.03, {what}")
    add("--jitter-run", type=_count, default=1, metavar="N", help="batches of a lane in a row that err alike (1)")
    add("--bias", action="append", default=[], metavar="[WHAT=]X", help=f"relative error that stays, 0.05, {what}")
    add("--seed", type=int, default=0, metavar="N", help="of --jitter and --shape (0)")


def duration_s(text: str) -> float:
    """Seconds of "25ms", "30s", "5m"; not zero."""
    from rapidctl.commands.common import positive_duration_s  # knows ZeroMQ, which this command line does not need

    return positive_duration_s(text)


def _positive(text: str) -> float:
    value = float(text)
    if not 1 / FACTOR <= value <= FACTOR:
        raise argparse.ArgumentTypeError(f"must be within {1 / FACTOR:g} and {FACTOR:,}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= MAX_GIVE_WAY_S:
        raise argparse.ArgumentTypeError(f"must be within 0 and {MAX_GIVE_WAY_S:g}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MOST:
        raise argparse.ArgumentTypeError(f"must be within 1 and {MOST:,}")
    return value
