"""What other plans would do, by the daemon's dry run, beside what was measured of the one in force."""

from __future__ import annotations

from textual.content import Content

from rapidctl.book import lane, main_work
from rapidctl.console.text import Part, clip, count, decimal, line, milliseconds
from rapidctl.console.view import View
from rapidctl.console.whatif import Guess, WhatIf, is_running, knee
from rapidctl.console.widgets.panel import Panel
from rapidctl.out import UNKNOWN, duration, percent
from rapidctl.wire import PartitionInfo


class Guesses(Panel):
    """A line a plan."""

    def __init__(self, whatif: WhatIf, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._whatif = whatif

    def title(self, view: View) -> str:  # noqa: D102
        asked = self._whatif.asked_s
        when = "" if asked is None else f"  asked {duration(max(0.0, view.now_s - asked))} ago"
        return f"WHAT IF  dry runs by the daemon{when}"

    def keys(self, view: View) -> str:  # noqa: D102
        return "P ask again  o override"

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        if view.partition is None:
            return [line(("no engine: nothing to predict", "$muted"))]
        return guess_lines(self._whatif, view.partition, width, height)


def guess_lines(whatif: WhatIf, info: PartitionInfo, width: int, height: int) -> list[Content]:
    """The table, cut to what fits; the plan in force is marked."""
    if whatif.asked_s is None:
        return [line(("P asks the daemon what each plan would do; nothing is changed", "$muted"))]
    if whatif.problem:
        return [line((clip(f"! {whatif.problem}", width), "$bad"))]
    guesses = whatif.guesses()
    notes = {guess.prediction.note for guess in guesses if guess.prediction is not None}
    known = any(guess.prediction is not None and guess.prediction.itl_p95_s is not None for guess in guesses)
    if notes and not known:
        return [line((clip(f"no figures: {sorted(notes)[0]}", width), "$muted"))]
    head = line(("  plan            ITL p95  TTFT p95 ms  prefill/s  SLO", "$label"))
    best = knee(guesses)
    return [head, *(_line(guess, info, best) for guess in guesses)][:height]


def _line(guess: Guess, info: PartitionInfo, best: int | None) -> Content:
    found = guess.prediction
    here = is_running(guess.plan, info)
    units = guess.plan.decode_units
    plan = guess.plan.mode if units is None else f"split {units}/{info.units_total - units}"
    name = f"{'▸' if here else ' '} {plan:<13}"
    style = "bold" if here else ""
    if found is None:
        return line((name, style), (f"{UNKNOWN:>9}", "$muted"))
    if not found.legal:
        return line((name, style), (f"  not legal: {found.note}", "$muted"))
    cells = (
        f"{milliseconds(found.itl_p95_s):>9}{milliseconds(found.ttft_p95_s):>10}{count(found.prefill_tokens_per_s):>14}"
    )
    verdicts: dict[bool | None, Part] = {
        None: (f"  {UNKNOWN}", "$muted"),
        True: ("  ! missed", "bold $bad"),
        False: ("  ✓ met", "$good"),
    }
    end = ("  ◂ knee", "$accent") if best is not None and guess.plan.decode_units == best else ""
    return line((name, style), (cells, style), verdicts[found.breaches_slo], end)


class Measured(Panel):
    """Predicted against measured, of the plan in force."""

    def __init__(self, whatif: WhatIf, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._whatif = whatif

    def title(self, view: View) -> str:  # noqa: D102
        return f"PREDICTED / MEASURED  last {view.window_s:.0f} s"

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        return measured_lines(view, self._whatif, width)


def measured_lines(view: View, whatif: WhatIf, width: int) -> list[Content]:
    """The lines."""
    info, found = view.partition, view.latency
    if info is None or view.snapshot is None:
        return [line(("no engine: nothing was measured", "$muted"))]
    here = next((g.prediction for g in whatif.guesses() if is_running(g.plan, info)), None)
    rows = [
        ("ITL p95 ms", None if here is None else here.itl_p95_s, None if found is None else found.itl_s.p95),
        ("TTFT p95 ms", None if here is None else here.ttft_p95_s, None if found is None else found.ttft_s.p95),
    ]
    lines = [line(("               predicted  measured    ratio", "$label"))]
    for name, predicted, measured in rows:
        ratio = measured / predicted if measured is not None and predicted else None
        lines.append(line(f"{name:<14}{milliseconds(predicted):>10}{milliseconds(measured):>10}{decimal(ratio, 2):>9}"))
    rate = None if here is None else here.prefill_tokens_per_s
    got = None if found is None else found.prompt_tokens_per_s
    lines.append(line(f"{'prefill tok/s':<14}{count(rate):>10}{count(got):>10}", ("  as it came", "$muted")))
    held = (lane(view.snapshot, "decode"), lane(view.snapshot, "prefill"))
    for name, stats in zip(("decode", "prefill"), held, strict=True):
        busy = None if stats is None else stats.busy
        units = UNKNOWN if stats is None else str(stats.units)
        work = None if stats is None else main_work(stats)
        mfu, mbu = (None, None) if work is None else (work.mfu, work.mbu)
        figures = f"{units:>4} {info.unit_name}, busy {percent(busy)}, MFU {percent(mfu)}, MBU {percent(mbu)}"
        lines.append(line((f"{name:<8}", f"${name}"), figures))
    return [*lines, *_profile_lines(info, whatif, width)]


def _profile_lines(info: PartitionInfo, whatif: WhatIf, width: int) -> list[Content]:
    """The profile, what batches took over what it predicted, and the fewest units for the ITL objective by batch."""
    calibration = info.calibration
    if calibration is None:
        return [line((clip(f"profile  {info.profile or 'none: rapidd calibrate'}", width), "$label"))]
    fit = calibration.fit
    error = UNKNOWN if fit.median is None or fit.p95 is None else f"{fit.median:.1%}, p95 {fit.p95:.1%}"
    said = [f"profile  {calibration.name}, off by {error}"]
    said += [
        f"{found.mode} {found.kind}: took ×{found.factor:.2f}, then off by {found.error:.0%}, n={found.n}"
        for found in calibration.corrections
    ]
    profile = whatif.profile
    if profile is not None and profile.knee:
        rows = [f"{row.rows}→{UNKNOWN if row.decode_units is None else row.decode_units}" for row in profile.knee]
        said.append(f"rows→fewest units for {milliseconds(profile.itl_s)} ms: {' '.join(rows)}")
    return [line((clip(text, width), "$label")) for text in said]
