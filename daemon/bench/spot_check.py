"""``PYTHONPATH=rapidctl:daemon python -m bench.spot_check FILE --trace T --profile P``: measured arms, simulated.

FILE is what `bench.compare_gpu` wrote. Each of its valid runs is simulated with the same requests, objective and
warm-up, and both are printed with their relative differences (simulated / measured - 1). FILE names its traces
only: give each with --trace. The exit status is 1 when goodput or the p95 of the gaps differs by more than --limit
anywhere. Prints a table and one JSON line last; no GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from bench.figures import SCHEMA_VERSION
from rapidctl.bench.session import Load
from rapidctl.bench.trace import Trace, read_trace, shape_trace
from rapidctl.errors import RapidctlError
from rapidctl.wire import Slo
from rapidd.errors import RapiddError
from rapidd.policy.calibration import Calibration
from rapidd.policy.library import Found
from rapidd.policy.profile import load_profile
from rapidd.simulate.arguments import add_device_arguments
from rapidd.simulate.command import setup_of
from rapidd.simulate.load import load_of
from rapidd.simulate.machine import Machine, Setup
from rapidd.simulate.metrics import summarize

CHECKED: Final = ("goodput", "gap p95")
"""Of the figures, what is held to the limit."""
LIMIT: Final = 0.15


class _Options(Struct, frozen=True):
    shape: list[str]
    start: float
    seconds: float
    warmup: float
    seed: int
    drain: float = math.inf
    """So long after the last arrival what is open is given up."""


class _Quantiles(Struct, frozen=True):
    p50: float | None
    p95: float | None
    p99: float | None


class _Summary(Struct, frozen=True):
    both_met: float | None
    met: int
    duration_s: float
    output_tokens_per_s: float | None
    total_tokens_per_s: float | None
    itl_s: _Quantiles
    ttft_s: _Quantiles


class _Run(Struct, frozen=True):
    trace: str
    scale: float
    policy: str
    repeat: int
    slo: Slo
    summary: _Summary
    valid: bool


class _Model(Struct, frozen=True):
    max_model_len: int


class _Server(Struct, frozen=True):
    model: _Model


class Measured(Struct, frozen=True):
    """What of a file of `bench.compare_gpu` is needed here."""

    options: _Options
    runs: list[_Run]
    server: _Server


class Difference(Struct, frozen=True):
    """One figure of one run. ``relative``: simulated / measured - 1; null where nothing but 0 was measured."""

    figure: str
    measured: float | None
    simulated: float | None
    relative: float | None


class Checked(Struct, frozen=True):
    """One run."""

    trace: str
    scale: float
    policy: str
    repeat: int
    differences: list[Difference]

    def beyond(self, limit: float) -> list[str]:
        """The checked figures that differ by more; one that cannot be compared counts unless both are alike."""
        return [
            one.figure
            for one in self.differences
            if one.figure in CHECKED
            and (one.measured != one.simulated if one.relative is None else abs(one.relative) > limit)
        ]


def main(words: Sequence[str] | None = None) -> int:
    """Print both and say whether they agree."""
    arguments = _options(words)
    try:
        measured = msgspec.json.decode(arguments.file.read_bytes(), type=Measured)
        checked = check(arguments, measured)
    except (RapiddError, RapidctlError) as error:
        return _refuse(f"{error}: {error.hint}" if error.hint else str(error))
    except (OSError, ValueError) as error:
        return _refuse(f"{arguments.file}: {error}")
    beyond = [
        f"{one.trace} x {one.scale:g} {one.policy}: {what}" for one in checked for what in one.beyond(arguments.limit)
    ]
    print(table(checked))
    print(f"\nbeyond {arguments.limit:.0%}: {'; '.join(beyond) or 'nothing'}")
    print(json.dumps({"schema_version": SCHEMA_VERSION, "beyond": beyond, "runs": msgspec.to_builtins(checked)}))
    return 1 if beyond else 0


def check(arguments: argparse.Namespace, measured: Measured) -> list[Checked]:
    """Every valid run beside its simulation. Raises ValueError when there is none, or its trace was not given."""
    profile = load_profile(arguments.profile)
    calibration = Calibration(Found(profile, "file"))
    max_model_len = measured.server.model.max_model_len
    setup = setup_of(arguments, profile, max_model_len)
    options = measured.options
    load = Load(start_s=options.start, seconds=options.seconds, max_model_len=max_model_len)
    traces = [
        *(read_trace(path, seed=options.seed) for path in arguments.trace),
        *(shape_trace(shape, seed=options.seed) for shape in options.shape),
    ]
    by_name = {trace.name: trace for trace in traces}
    runs = [run for run in measured.runs if run.valid]
    missing = sorted({run.trace for run in runs} - set(by_name))
    if missing:
        raise ValueError(f"it has runs of {', '.join(missing)}: give the file of each with --trace")
    if not runs:
        raise ValueError("it has no valid runs")
    return [
        _check(run, load.of(by_name[run.trace], run.scale), calibration, replace(setup, slo=run.slo), options)
        for run in runs
    ]


def _check(run: _Run, load: Trace, calibration: Calibration, setup: Setup, options: _Options) -> Checked:
    done = Machine(calibration, run.policy, setup).run(load_of(load, setup.block_tokens))
    last_s = load.requests[-1].arrival_s if load.requests else 0.0
    own, seen = summarize(done, run.slo, options.warmup, last_s + options.drain), run.summary
    figures = [
        ("met", seen.both_met, own.met),
        ("goodput", seen.met / seen.duration_s if seen.duration_s else None, own.met * own.requests / own.seconds),
        ("output/s", seen.output_tokens_per_s, own.output_tokens_per_s),
        ("tokens/s", seen.total_tokens_per_s, own.output_tokens_per_s + own.prompt_tokens_per_s),
        ("gap p50", seen.itl_s.p50, own.itl_s.p50),
        ("gap p95", seen.itl_s.p95, own.itl_s.p95),
        ("gap p99", seen.itl_s.p99, own.itl_s.p99),
        ("TTFT p50", seen.ttft_s.p50, own.ttft_s.p50),
        ("TTFT p95", seen.ttft_s.p95, own.ttft_s.p95),
    ]
    return Checked(run.trace, run.scale, run.policy, run.repeat, [_difference(*figure) for figure in figures])


def _difference(figure: str, measured: float | None, simulated: float | None) -> Difference:
    relative = simulated / measured - 1.0 if measured and simulated is not None else None
    return Difference(figure, measured, simulated, relative)


def table(checked: Sequence[Checked]) -> str:
    """Markdown: for each run what was measured, what was simulated, the difference."""
    figures = [one.figure for one in checked[0].differences]
    lines = [f"| run | | {' | '.join(figures)} |", f"|---|---|{'---|' * len(figures)}"]
    for one in checked:
        name = f"{one.trace} x {one.scale:g} {one.policy}"
        cells: dict[str, list[str]] = {
            "measured": [_figure(d.figure, d.measured) for d in one.differences],
            "simulated": [_figure(d.figure, d.simulated) for d in one.differences],
            "difference": ["-" if d.relative is None else f"{d.relative:+.1%}" for d in one.differences],
        }
        for what, row in cells.items():
            lines.append(f"| {name if what == 'measured' else ''} | {what} | {' | '.join(row)} |")
    return "\n".join(lines)


def _figure(figure: str, value: float | None) -> str:
    if value is None:
        return "-"
    if figure == "met":
        return f"{value:.0%}"
    if figure.startswith("gap"):
        return f"{1e3 * value:.1f} ms"
    return f"{value:.2f} s" if figure.startswith("TTFT") else f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.spot_check", description="Measured arms beside the simulator.")
    parser.add_argument("file", type=Path, metavar="FILE", help="of bench.compare_gpu")
    parser.add_argument(
        "--trace", type=Path, action="append", default=[], metavar="T", help="of its runs; may be repeated"
    )
    parser.add_argument("--profile", type=Path, required=True, metavar="P", help="of the device it ran on")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="X", help=f"of goodput and p95 gaps ({LIMIT})")
    add_device_arguments(parser)
    return parser.parse_args(words)


def _refuse(why: str) -> int:
    print(f"bench.spot_check: {why}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
