"""Which policy serves which trace best: goodput of every arm on every trace at every ITL objective.

An arm that does not look at the objective is searched once for all of them. The slice of a trace is as long as about
``requests`` requests take to arrive at the rate that a rough estimate says the device can serve.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from rapidctl.bench.trace import Trace
from rapidd.policy.calibration import Calibration
from rapidd.policy.library import Found
from rapidd.policy.policies import ADAPTIVE
from rapidd.policy.profile import Profile
from rapidd.simulate.load import Item, load_of, slice_of
from rapidd.simulate.machine import Machine, Setup
from rapidd.simulate.metrics import Summary, summarize
from rapidd.simulate.search import HIGHEST, STEP, Prober, guess_step

CHUNKS: Final = (128, 256, 512, 1024, 2048)
LOOKS_AT_SLO: Final = frozenset({"auto", "rapid", "hybrid"})
"""Arms that do something else for another ITL objective."""
MIN_SLICE_S: Final = 30.0
MAX_SLICE_S: Final = 600.0
CHECKED_SHARE: Final = 0.8
"""Of the goodput rate, at which an arm's gaps are looked at."""


def all_arms(splits: Sequence[int]) -> list[str]:
    """Every control arm that the device has, and the adaptive ones."""
    static = [f"hybrid:{chunk}" for chunk in CHUNKS] + [f"serial:{chunk}" for chunk in (512, 2048)]
    return [*static, "serial:all", "shared", *(f"split:{units}" for units in splits), *ADAPTIVE]


class Task(Struct, frozen=True):
    """One arm on one trace."""

    trace: int
    arm: str


class Goodput(Struct, frozen=True, kw_only=True):
    """One arm's on one trace at one objective. ``scale`` null: not even a fiftieth of the recorded rate is served."""

    trace: str
    arm: str
    itl_s: float
    scale: float | None
    requests_per_s: float | None
    at_ceiling: bool = False
    """The search ended at the highest rate it tries, still served: the goodput is that or more."""
    checked: Summary | None
    """The run at `CHECKED_SHARE` of the goodput rate."""
    slice_s: float
    runs: int
    wall_s: float


class Job(Struct, frozen=True, kw_only=True):
    """What every process of a sweep knows."""

    profile: Profile
    setup: Setup
    traces: list[Trace]
    itl_s: list[float]
    requests: int
    seconds: float | None = None
    """Of a slice; null: by `requests`."""


_job: Job
_calibration: Calibration
_loads: dict[int, list[Item]]


def sweep(job: Job, arms: Iterable[str], workers: int) -> Iterator[list[Goodput]]:
    """Each arm on each trace, in the order in which they end; one list holds all objectives."""
    tasks = [Task(index, arm) for index in range(len(job.traces)) for arm in arms]
    if workers == 1:
        _begin(job)
        yield from map(_measure, tasks)
        return
    with multiprocessing.get_context("fork").Pool(workers, _begin, (job,)) as pool:
        yield from pool.imap_unordered(_measure, tasks)


def _begin(job: Job) -> None:
    global _job, _calibration, _loads
    _job, _calibration, _loads = job, Calibration(Found(job.profile, "file")), {}


def _measure(task: Task) -> list[Goodput]:
    began = time.perf_counter()
    job, calibration, trace = _job, _calibration, _job.traces[task.trace]
    if task.trace not in _loads:
        _loads.clear()  # tasks come trace by trace
        _loads[task.trace] = load_of(trace, job.setup.block_tokens)
    items = _loads[task.trace]
    guess = guess_step(calibration, job.setup, items)
    rate = len(items) / max(items[-1].arrival_s, 1e-3)
    slice_s = job.seconds or min(max(job.requests / (rate * STEP**guess), MIN_SLICE_S), MAX_SLICE_S)

    def window(scale: float) -> list[Item]:
        return slice_of(items, scale, slice_s)

    found: list[Goodput] = []
    prober: Prober | None = None
    for index, itl_s in enumerate(job.itl_s):
        setup = replace(job.setup, slo=replace(job.setup.slo, itl_s=itl_s))
        if prober is None or task.arm in LOOKS_AT_SLO:
            own = [itl_s] if task.arm in LOOKS_AT_SLO else job.itl_s
            prober = Prober(calibration, task.arm, setup, window, own)
        step = prober.goodput(0 if task.arm in LOOKS_AT_SLO else index, guess)
        checked = None
        if step is not None:
            guess = step
            run = Machine(calibration, task.arm, setup).run(window(CHECKED_SHARE * STEP**step))
            checked = summarize(run, setup.slo)
        scale = None if step is None else STEP**step
        found.append(
            Goodput(
                trace=trace.name,
                arm=task.arm,
                itl_s=itl_s,
                scale=scale,
                requests_per_s=None if scale is None else scale * rate,
                at_ceiling=step == HIGHEST,
                checked=checked,
                slice_s=slice_s,
                runs=prober.runs,
                wall_s=time.perf_counter() - began,
            )
        )
    return found


# --- what it says --------------------------------------------------------------------------------------------------


class Verdict(Struct, frozen=True, kw_only=True):
    """`auto` on one trace at one objective, beside the best static arm and beside hybrid:512.

    A goodput found ``at_ceiling`` is a lower bound only, so no ratio is made of it.
    """

    trace: str
    itl_s: float
    auto: float | None
    auto_at_ceiling: bool
    best_static: str | None
    best_scale: float | None
    best_at_ceiling: bool
    over_best: float | None
    over_hybrid: float | None


def verdicts(results: Sequence[Goodput]) -> list[Verdict]:
    """One for each trace and objective, in the order of their names and sizes."""
    cells: dict[tuple[str, float], dict[str, Goodput]] = {}
    for result in results:
        cells.setdefault((result.trace, result.itl_s), {})[result.arm] = result
    return [_verdict(trace, itl_s, found) for (trace, itl_s), found in sorted(cells.items())]


def _verdict(trace: str, itl_s: float, found: dict[str, Goodput]) -> Verdict:
    auto = found.get("auto")
    static = [one for one in found.values() if one.arm not in ADAPTIVE and one.scale is not None]
    best = max(static, key=lambda one: one.scale or 0.0, default=None)
    return Verdict(
        trace=trace,
        itl_s=itl_s,
        auto=auto.scale if auto else None,
        auto_at_ceiling=bool(auto and auto.at_ceiling),
        best_static=best.arm if best else None,
        best_scale=best.scale if best else None,
        best_at_ceiling=bool(best and best.at_ceiling),
        over_best=_ratio(auto, best),
        over_hybrid=_ratio(auto, found.get("hybrid:512")),
    )


def _ratio(over: Goodput | None, under: Goodput | None) -> float | None:
    """Null where one of the two is missing, serves nothing, or is a bound."""
    if over is None or under is None or over.at_ceiling or under.at_ceiling:
        return None
    return over.scale / under.scale if over.scale and under.scale else None


def geometric_mean(values: Iterable[float | None]) -> float | None:
    """Of those that are numbers."""
    logs = [math.log(value) for value in values if value is not None]
    return math.exp(sum(logs) / len(logs)) if logs else None


def markdown(results: Sequence[Goodput]) -> str:
    """Arms by traces, requests a second, a table for each objective; then `auto` beside the best static arm."""
    lines: list[str] = []
    arms = list(dict.fromkeys(result.arm for result in results))
    traces = sorted({result.trace for result in results})
    rates = {(r.trace, r.arm, r.itl_s): rate_text(r) for r in results}
    for itl_s in sorted({result.itl_s for result in results}):
        lines += [f"ITL objective {1e3 * itl_s:g} ms: goodput, requests/s", ""]
        lines += [f"| trace | {' | '.join(arms)} |", f"|---|{'---|' * len(arms)}"]
        for trace in traces:
            row = " | ".join(rates.get((trace, arm, itl_s), "-") for arm in arms)
            lines.append(f"| {trace} | {row} |")
        lines.append("")
    lines += ["| trace | ITL ms | auto, of the recorded rate | best static | auto / best static | auto / hybrid:512 |"]
    lines += ["|---|---|---|---|---|---|"]
    found = verdicts(results)
    no_static = "none serves it" if any(arm not in ADAPTIVE for arm in arms) else "-"
    for v in found:
        best = f"{v.best_static} {_number(v.best_scale, v.best_at_ceiling)}" if v.best_static else no_static
        cells = (_number(v.auto, v.auto_at_ceiling), best, _number(v.over_best), _number(v.over_hybrid))
        lines.append(f"| {v.trace} | {1e3 * v.itl_s:g} | {' | '.join(cells)} |")
    means = (geometric_mean(v.over_best for v in found), geometric_mean(v.over_hybrid for v in found))
    lines.append(f"| geometric mean | | | | {_number(means[0])} | {_number(means[1])} |")
    if any(result.at_ceiling for result in results):
        highest = f"{STEP**HIGHEST:.1f} times the recorded rate, the highest tried"
        lines += ["", f"`>=`: still served at {highest}; such a bound is in no ratio and in no mean."]
    worse = sum(v.best_at_ceiling and not v.auto_at_ceiling for v in found)
    if worse and "auto" in arms:
        lines.append(f"Cells in which a static arm ends there and auto below it, worse and in no mean: {worse}.")
    unserved = sum(v.auto is None and v.best_static is not None and not v.best_at_ceiling for v in found)
    if unserved and "auto" in arms:
        lines += ["", f"Cells that a static arm serves and auto does not, worse and in no mean: {unserved}."]
    return "\n".join(lines)


def rate_text(found: Goodput) -> str:
    """Requests a second: ``>=`` where the search ended at its ceiling, ``-`` where nothing is served."""
    return _number(found.requests_per_s, found.at_ceiling)


def _number(value: float | None, is_bound: bool = False) -> str:
    return "-" if value is None else f"{'>= ' if is_bound else ''}{value:.2f}"
