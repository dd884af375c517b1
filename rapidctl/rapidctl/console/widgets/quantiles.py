"""Latency against its SLO over the chosen window, each row with the number of samples behind it."""

from __future__ import annotations

from textual.content import Content

from rapidctl.console.text import Part, count, decimal, line, milliseconds, sparks
from rapidctl.console.view import View
from rapidctl.console.widgets.panel import Panel
from rapidctl.out import UNKNOWN, percent
from rapidctl.wire import LatencyWindow, Quantiles, Slo

GOOD_SHARE = 0.9
"""Share of requests that has to meet the SLO: the definition of goodput."""


class Latency(Panel):
    """Seven lines where there is room, else four with the recent course beside them."""

    def title(self, view: View) -> str:  # noqa: D102
        return f"LATENCY ms  last {view.window_s:.0f} s"

    def keys(self, view: View) -> str:  # noqa: D102
        return "w window"

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        return latency(view, width, height)


def latency(view: View, width: int, height: int) -> list[Content]:
    """The panel's lines."""
    found = view.latency
    if found is None or view.snapshot is None:
        return [line(("no figures for this window", "$muted"))]
    slo = view.snapshot.slo
    ttft = _row("TTFT", found.ttft_s, f"{slo.ttft_per_1k_s:g}s/k", found.ttft_met)
    itl = _row("ITL", found.itl_s, milliseconds(slo.itl_s), found.itl_met)
    head = line(("         n    p50    p95    p99    SLO   met", "$label"))
    if height < 7:
        room = width - head.cell_length - 4
        if room >= 8:
            last = f"  last {view.window_s:.0f} s, 0–1.5 SLO"
            head += line((last if len(last) <= room + 2 else "", "$label"))
            ttft += line("  ", (sparks(_course(view, room, slo, "ttft"), 1.5), "$prefill"))
            itl += line("  ", (sparks(_course(view, room, slo, "itl"), 1.5), "$decode"))
        return [head, ttft, itl, _summary(found, width)]
    return [
        head,
        ttft,
        itl,
        _row("TPOT", found.tpot_s, UNKNOWN, None),
        _row("e2e", found.e2e_s, UNKNOWN, None),
        _summary(found, width),
        line(f"tokens/s  out {count(found.output_tokens_per_s)}  prompt {count(found.prompt_tokens_per_s)}"),
    ]


def _row(name: str, found: Quantiles, slo: str, met: float | None) -> Content:
    numbers = "".join(f"{milliseconds(value):>7}" for value in (found.p50, found.p95, found.p99))
    n = count(found.n) if found.n < 100_000 else f"{found.n / 1000:.0f}k"
    return line(f"{name:<4}{n:>6}{numbers}{slo:>7}", *_met(met))


def _met(share: float | None) -> tuple[Part, ...]:
    if share is None:
        return (f"{UNKNOWN:>6}",)
    style, mark = ("$good", " ✓") if share >= GOOD_SHARE else ("bold $bad", " !")
    return (f"{percent(share):>6}", (mark, style))


def _summary(found: LatencyWindow, width: int) -> Content:
    """Requests a second: arrived, finished, and those of them that met both objectives, with their share."""
    good = None if found.both_met is None else found.finished_per_s * found.both_met
    rates = f"req/s in {decimal(found.arrived_per_s)}  out {decimal(found.finished_per_s)}  good {decimal(good)}"
    return line(rates.ljust(38), *_met(found.both_met)) if width >= 46 else line(rates)


def _course(view: View, columns: int, slo: Slo, which: str) -> list[float | None]:
    """p95 over its SLO; for TTFT over the floor, which is the SLO of a short prompt."""
    if which == "ttft":
        values, limit = view.book.series("ttft_p95_s", view.now_s, view.window_s, columns), slo.ttft_floor_s
    else:
        values, limit = view.book.series("itl_p95_s", view.now_s, view.window_s, columns), slo.itl_s
    return [None if value is None else min(1.5, value / limit) for value in values]
