"""When the parts of one request happened, against the SLO."""

from __future__ import annotations

from textual.content import Content

from rapidctl.console.run import Run
from rapidctl.console.text import Part, clip, decimal, line, milliseconds
from rapidctl.console.view import View
from rapidctl.console.widgets.gaps import nth_run
from rapidctl.console.widgets.panel import Panel
from rapidctl.out import UNKNOWN
from rapidctl.wire import Slo


class Timeline(Panel):
    """The daemon's own stamps; what is timed here is marked ``here``. ``index``: as of `Gaps`."""

    def __init__(self, *, id: str, index: int) -> None:  # noqa: A002
        super().__init__(id=id)
        self._index = index

    def title(self, view: View) -> str:  # noqa: D102
        return "TIMELINE ms"

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        slo = None if view.snapshot is None else view.snapshot.slo
        return timeline(nth_run(view, self._index), slo, width, height)


def timeline(run: Run | None, slo: Slo | None, width: int, height: int) -> list[Content]:
    """Ten lines where there is room, else the four that matter most."""
    if run is None:
        return [line(("type a prompt and press enter", "$muted"))]
    done = run.finished
    timing = None if done is None else done.timing
    here = None if run.first_s is None else run.first_s - run.sent_s
    gaps = run.gaps()
    limit = None if slo is None else run.ttft_slo_s(slo)
    ttft = None if timing is None else timing.ttft_s
    prompt = UNKNOWN if run.accepted is None else str(run.accepted.prompt_tokens)
    cached = "" if done is None else f" {done.cached_tokens} cached"
    plan = None if run.partition is None else run.partition.plan
    start = UNKNOWN if plan is None else f"{plan.mode} P{plan.prefill_units}/D{plan.decode_units}"
    first = _row("TTFT", milliseconds(ttft), *_against(ttft, limit))
    worst = _row("ITL p95", milliseconds(gaps.p95), *_against(gaps.p95, None if slo is None else slo.itl_s))
    rate = _row("tokens", str(run.tokens), f"{decimal(run.tokens_per_s)} tok/s")
    if height < 10:
        return [first, worst, _row("ITL max", milliseconds(gaps.max), f"n={gaps.n}"), rate]
    return [
        _row("queued", milliseconds(None if timing is None else timing.queued_s)),
        _row("prefill", milliseconds(None if timing is None else timing.prefill_s), f"{prompt} tok{cached}"),
        first,
        _row("", milliseconds(here), "here"),
        _row("ITL p50", milliseconds(gaps.p50), f"n={gaps.n}"),
        worst,
        _row("ITL max", milliseconds(gaps.max)),
        rate,
        line(clip(f"start     {start}", width)),
        line(clip(f"end       {UNKNOWN if done is None else done.choices[0].finish_reason}", width)),
    ]


def _row(name: str, value: str, *rest: Part) -> Content:
    return line((f"{name:<8}", "$label"), f"{value:>7}  ", *rest)


def _against(value: float | None, limit: float | None) -> tuple[Part, ...]:
    if limit is None:
        return ()
    said = f"SLO {milliseconds(limit)}"
    if value is None:
        return (said,)
    return (said, (" ✓", "$good") if value <= limit else (" ! over", "bold $bad"))
