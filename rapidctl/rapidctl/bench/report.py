"""Runs as people read them: one run on a screen, many runs as rows, ratios. Writes to an `Out`, decides nothing."""

from collections.abc import Sequence

from rapidctl.bench.compare import Compared, Ratio
from rapidctl.bench.goodput import Goodput
from rapidctl.bench.metrics import Percentiles, Summary
from rapidctl.bench.session import Run
from rapidctl.out import UNKNOWN, Out, number, percent, seconds

ROW_HEADER = (
    "trace", "policy", ">scale", ">req/s", ">n", ">met", ">TTFT p50", ">p95", ">p99", ">ITL p50", ">p95", ">p99",
    ">max", ">tok/s", "modes", "",
)  # fmt: skip


def show_run(run: Run, out: Out) -> None:
    """Everything about one run."""
    summary, generator = run.summary, run.generator
    latencies = [("TTFT", summary.ttft_s), ("ITL", summary.itl_s), ("TPOT", summary.tpot_s), ("e2e", summary.e2e_s)]
    latencies.append(("sent late", generator.lateness_s))
    if generator.delivery_s.n:
        latencies.append(("delivery", generator.delivery_s))
    out.table(
        ["", ">p50", ">p90", ">p95", ">p99", ">max", ">n"], [[name, *_cells(values)] for name, values in latencies]
    )
    out.text("")
    ended = f"{summary.finished} finished, {summary.refused} refused, {summary.failed} failed"
    slo = run.slo
    limit = f"ITL {seconds(slo.itl_s)}, TTFT max({seconds(slo.ttft_floor_s)}, {seconds(slo.ttft_per_1k_s)} per 1,000)"
    out.pairs(
        [
            ("trace", f"{run.trace} at {run.scale:g} times its rate, {number(run.offered_per_s)} requests/s"),
            ("requests", f"{run.requests} sent, {summary.offered} measured: {ended}, {summary.unfinished} unfinished"),
            *([("errors", _errors(summary))] if summary.errors else []),
            *([("short", f"{summary.short} ended before their length")] if summary.short else []),
            *([("lengths", f"{run.cut} prompts cut, {run.dropped} requests dropped")] if run.cut + run.dropped else []),
            ("slo met", f"{_met(run)}  ({limit})"),
            ("throughput", _throughput(run)),
            ("longest wait", seconds(summary.longest_wait_s)),
            *_watched(run),
            ("generator", f"{percent(generator.cpu_share)} of a core"),
        ]
    )
    show_problems([run], out)


def _cells(values: Percentiles) -> list[str]:
    quantiles = (values.p50, values.p90, values.p95, values.p99, values.max)
    return [*map(seconds, quantiles), str(values.n)]


def _met(run: Run) -> str:
    summary = run.summary
    return f"both {percent(summary.both_met)}, TTFT {percent(summary.ttft_met)}, ITL {percent(summary.itl_met)}"


def _throughput(run: Run) -> str:
    summary = run.summary
    return (
        f"{number(summary.output_tokens_per_s)} output tokens/s, {number(summary.total_tokens_per_s)} in all, "
        f"{number(summary.requests_per_s)} requests/s over {seconds(summary.duration_s)}"
    )


def _watched(run: Run) -> list[tuple[str, str]]:
    """What the daemon told, where one was watched."""
    if (realised := run.realised) is None:
        return []
    hits = f"{percent(realised.prefix_hit_share)} of the prompt tokens"
    return [
        ("policy", run.policy or UNKNOWN),
        ("modes", modes(run)),
        ("decode units", number(realised.decode_units)),
        ("preemptions", UNKNOWN if realised.preemptions is None else str(realised.preemptions)),
        ("prefix hits", hits),
    ]


def modes(run: Run) -> str:
    """Shares of the time by realised mode, the largest first."""
    if run.realised is None or run.realised.modes is None:
        return UNKNOWN
    shares = sorted(run.realised.modes.items(), key=lambda item: -item[1])
    return ", ".join(f"{mode} {percent(part)}" for mode, part in shares if part >= 0.005) or UNKNOWN


def _errors(summary: Summary) -> str:
    """Each code, how often, and what the server said the first time."""
    return "; ".join(
        f"{code} {count}" + (f": {summary.said[code]}" if code in summary.said else "")
        for code, count in summary.errors.items()
    )


def show_runs(runs: Sequence[Run], out: Out) -> None:
    """A row a run."""
    out.table(ROW_HEADER, [_row(run) for run in runs])
    show_problems(runs, out)


def _row(run: Run) -> list[str]:
    summary = run.summary
    ttft, itl = summary.ttft_s, summary.itl_s
    note = "invalid" if not run.valid else "given up" if run.ending == "hopeless" else ""
    return [
        run.trace,
        run.policy or UNKNOWN,
        f"{run.scale:.3g}",
        number(run.offered_per_s),
        str(summary.offered),
        percent(summary.both_met),
        *map(seconds, (ttft.p50, ttft.p95, ttft.p99, itl.p50, itl.p95, itl.p99, itl.max)),
        number(summary.output_tokens_per_s),
        modes(run),
        note,
    ]


def show_problems(runs: Sequence[Run], out: Out) -> None:
    """Why runs do not count, on stderr."""
    for run in runs:
        for problem in run.problems:
            out.error(f"this run is not valid ({run.trace}, {run.policy or 'any policy'}, {run.scale:.3g}): {problem}")


def show_goodput(trace: str, policy: str | None, found: Goodput, rate: float | None, out: Out) -> None:
    """One line: what the search found. ``rate``: requests a second at that scale."""
    who = f"{trace}, {policy}" if policy else trace
    if found.scale is None:
        missed = [trial.scale for trial in found.trials if trial.share is not None]
        why = f"none; not even at {min(missed):.3g} times the rate" if missed else "unknown; no run counts"
        out.text(f"goodput of {who}: {why}")
        return
    bound = ">= " if found.edge == "at_least" else ""
    at = f"{bound}{found.scale:.3g} times the rate, {bound}{number(rate)} requests/s"
    notes = {"coarse": " (the search ended before)", "at_least": " (the search ended, nothing failed)"}
    out.text(f"goodput of {who}: {at}{notes.get(found.edge, '')}, {len(found.trials)} runs")


def show_ratios(compared: Compared, out: Out) -> None:
    """Ratios with their spread, then means over traces."""
    rows = [
        [ratio.trace, ratio.baseline, "fails" if ratio.fails else _times(ratio.mean), _spread(ratio), str(ratio.n)]
        for ratio in compared.ratios
    ]
    for mean in compared.means:
        left_out = (("fails on", mean.failed), ("no ratio on", mean.without))
        told = ", ".join(f"{what} {count}" for what, count in left_out if count)
        rows.append(["geometric mean", mean.baseline, _times(mean.mean), told, f"traces: {mean.traces}"])
    out.table([f"{compared.figure}: {compared.reference} over", "", ">ratio", "min..max", ">n"], rows)
    if compared.unbounded:
        out.text(
            f"searches in which nothing failed, whose goodput is a lower bound and in no ratio: {compared.unbounded}"
        )


def _times(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3g}x"


def _spread(ratio: Ratio) -> str:
    return "" if ratio.low is None or ratio.high is None else f"{ratio.low:.3g}..{ratio.high:.3g}"
