"""What other plans would do, by the daemon's dry run, beside what was measured of the one in force."""

from __future__ import annotations

from typing import Final

from textual.content import Content

from rapidctl.book import lane, main_work
from rapidctl.console.text import Part, clip, count, decimal, line, milliseconds
from rapidctl.console.view import View
from rapidctl.console.whatif import Guess, WhatIf, is_running, knee
from rapidctl.console.widgets.lines import Line, Lines
from rapidctl.console.widgets.panel import Panel, label_border
from rapidctl.out import UNKNOWN, duration, percent
from rapidctl.wire import PartitionInfo, Prediction

HEAD: Final = "  ITL95  TTFT95 ms  prefill/s  SLO"


class Guesses(Lines):
    """A line a plan; what does not fit is scrolled to, and the head says how much that is."""

    def __init__(self, whatif: WhatIf, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id, selectable=False)
        self._whatif = whatif
        self._frame = ("", "")
        self._view: View | None = None
        self._in_force: int | None = None
        """The row of the plan in force, once it was brought into sight."""

    def on_resize(self) -> None:
        """How many lines fit is another number now."""
        if self._view is not None:
            self._in_force = None
            self.show(self._view)

    def show(self, view: View) -> None:
        """Take a new frame."""
        self._view = view
        width, height = self.scrollable_content_region.size
        table, lines = guess_lines(self._whatif, view.partition, width)
        more = max(0, len(lines) + 1 - height) if table else 0
        head = line((f"  {f'plan, {more} more' if more else 'plan':<14}{HEAD}", "$label")) if table else None
        self.put([Line("", content) for content in lines], head)
        asked = self._whatif.asked_s
        when = "" if asked is None else f"  asked {duration(max(0.0, view.now_s - asked))} ago"
        frame = (f"WHAT IF  dry runs by the daemon{when}", f"{'j k scroll  ' if more else ''}P ask again  o override")
        if frame != self._frame:
            label_border(self, *frame)
            self._frame = frame
        if view.partition is not None and table:
            self._bring_into_sight(view.partition)

    def _bring_into_sight(self, info: PartitionInfo) -> None:
        """The plan in force, when it becomes another one; in between the reader scrolls."""
        guesses = self._whatif.guesses()
        row = next((row for row, guess in enumerate(guesses) if is_running(guess.plan, info)), None)
        if row != self._in_force:
            self._in_force = row
            if row is not None:
                self.bring_into_sight(row)


def guess_lines(whatif: WhatIf, info: PartitionInfo | None, width: int) -> tuple[bool, list[Content]]:
    """Whether there is a table; its lines, the plan in force marked, or why there is none."""
    if info is None:
        return False, [line(("no engine: nothing to predict", "$muted"))]
    if whatif.asked_s is None:
        return False, [line(("P asks the daemon what each plan would do; nothing is changed", "$muted"))]
    if whatif.problem:
        return False, [line((clip(f"! {whatif.problem}", width), "$bad"))]
    guesses = whatif.guesses()
    found = [guess.prediction for guess in guesses if guess.prediction is not None]
    if found and not any(map(_has_figures, found)):
        note = min(prediction.note for prediction in found)
        return False, [line((clip(f"no figures: {note}", width), "$muted"))]
    best = knee(guesses)
    return True, [_line(guess, info, best, width) for guess in guesses]


def _has_figures(found: Prediction) -> bool:
    """One is enough: while nothing decodes there is no ITL to predict."""
    return any(value is not None for value in (found.itl_p95_s, found.ttft_p95_s, found.prefill_tokens_per_s))


def _line(guess: Guess, info: PartitionInfo, best: int | None, width: int) -> Content:
    found = guess.prediction
    here = is_running(guess.plan, info)
    units = guess.plan.decode_units
    plan = guess.plan.mode if units is None else f"split {units}/{info.units_total - units}"
    name = f"{'▸' if here else ' '} {plan:<13}"
    style = "bold" if here else ""
    if found is None:
        return line((name, style), (f"{UNKNOWN:>7}", "$muted"))
    if not found.legal:
        return line((name, style), (f"  not legal: {found.note}", "$muted"))
    cells = (
        f"{milliseconds(found.itl_p95_s):>7}{milliseconds(found.ttft_p95_s):>11}{count(found.prefill_tokens_per_s):>11}"
    )
    verdicts: dict[bool | None, Part] = {
        None: (f"  {UNKNOWN}", "$muted"),
        True: ("  ! missed", "bold $bad"),
        False: ("  ✓ met", "$good"),
    }
    drawn = line((name, style), (cells, style), verdicts[found.breaches_slo])
    if best is None or guess.plan.decode_units != best:
        return drawn
    mark = "  ◂ knee" if drawn.cell_length + len("  ◂ knee") <= width else " ◂"
    return drawn + line((mark, "$accent"))


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
    margin = calibration.margin
    if margin is not None and margin.n:
        said.append(f"gaps count ×{margin.factor:.2f} to keep late ones at {margin.late_share:.0%}, n={margin.n}")
    said += [
        f"{found.mode} {found.kind}: took ×{found.factor:.2f}, then off by {found.error:.0%}, n={found.n}"
        for found in calibration.corrections
    ]
    profile = whatif.profile
    if profile is not None and profile.knee:
        rows = [f"{row.rows}→{UNKNOWN if row.decode_units is None else row.decode_units}" for row in profile.knee]
        said.append(f"rows→fewest units for {milliseconds(profile.itl_s)} ms: {' '.join(rows)}")
    return [line((clip(text, width), "$label")) for text in said]
