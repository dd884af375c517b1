"""A picture of runs as SVG: how latency is distributed, and which mode and units the daemon had when.

Pure: figures in, text out. Axes are fixed, so that two pictures can be laid side by side: latency is logarithmic over
whole decades, time begins at 0, units go from none to all of the device.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

from rapidctl.bench.daemon import Sample

WIDTH: Final = 960
MARGIN: Final = 60
PANEL: Final = 220
STRIP: Final = 46
TTFT_DECADES: Final = (-2, 2)
"""10 ms to 100 s."""
ITL_DECADES: Final = (-3, 1)
"""1 ms to 10 s."""
POINTS: Final = 200
"""Of a curve; a step of half a percent."""
COLORS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c564b")
"""Told apart by people who do not see all colours (Okabe and Ito)."""
MODE_COLORS: Final = {"serial": "#999999", "hybrid": "#e69f00", "shared": "#56b4e9", "split": "#009e73"}


class Drawn(NamedTuple):
    """One run. Latencies are in seconds and sorted."""

    label: str
    ttft_s: Sequence[float]
    itl_s: Sequence[float]
    samples: Sequence[Sample]


def thinned(values: Sequence[float]) -> list[float]:
    """Sorted values as `POINTS` quantiles and the largest; fewer stay as they are."""
    if len(values) <= POINTS:
        return list(values)
    return [values[index * len(values) // POINTS] for index in range(POINTS)] + [values[-1]]


def picture(runs: Sequence[Drawn]) -> str:
    """The whole document."""
    height = 2 * PANEL + STRIP * len(runs) + 3 * MARGIN
    body = [
        *_cdf("time to first token", TTFT_DECADES, [run.ttft_s for run in runs], MARGIN // 2),
        *_cdf("time between tokens", ITL_DECADES, [run.itl_s for run in runs], MARGIN + PANEL),
        *_strips(runs, 2 * PANEL + 2 * MARGIN),
    ]
    return document(height, body)


def document(height: int, body: Iterable[str]) -> str:
    """An SVG file of `WIDTH`, on white."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _cdf(title: str, decades: tuple[int, int], curves: Sequence[Sequence[float]], top: int) -> Iterator[str]:
    """Share of the values that are at most x, over x."""
    right, bottom = WIDTH - MARGIN, top + PANEL - MARGIN // 2
    first, last = decades

    def at(seconds: float) -> float:
        share = (math.log10(max(seconds, 1e-9)) - first) / (last - first)
        return MARGIN + (right - MARGIN) * min(1.0, max(0.0, share))

    for decade in range(first, last + 1):
        x = at(10.0**decade)
        yield line(x, top, x, bottom)
        yield text(x, bottom + 15, f"{10**decade} s" if decade >= 0 else f"{10 ** (decade + 3)} ms", "middle")
    for percent in (0.0, 50.0, 90.0, 100.0):
        y = bottom - (bottom - top) * percent / 100
        yield line(MARGIN, y, right, y)
        yield text(MARGIN - 6, y + 4, f"{percent:.0f} %", "end")
    yield text(MARGIN, top - 6, title)
    for index, values in enumerate(curves):
        steps = [(at(value), (rank + 1) / len(values)) for rank, value in enumerate(values)]
        points = " ".join(f"{x:.1f},{bottom - (bottom - top) * share:.1f}" for x, share in steps)
        if points:
            color = COLORS[index % len(COLORS)]
            yield f'<polyline fill="none" stroke="{color}" stroke-width="1.5" points="{points}"/>'


def _strips(runs: Sequence[Drawn], top: int) -> Iterator[str]:
    """A row a run: its name in the colour of its curves, and its decode units over time, coloured by mode."""
    last_s = max((run.samples[-1].at_s for run in runs if run.samples), default=0.0)
    yield text(MARGIN, top - 10, f"decode's share of the units, 0 to {last_s:.0f} s")
    for index, (mode, color) in enumerate(MODE_COLORS.items()):
        x = float(MARGIN + 330 + 90 * index)
        yield box(x, top - 19, 10, 10, color)
        yield text(x + 14, top - 10, mode)
    for index, run in enumerate(runs):
        base = top + STRIP * (index + 1) - 14
        yield line(MARGIN, base, WIDTH - MARGIN, base)
        yield box(MARGIN, base + 2, 10, 10, COLORS[index % len(COLORS)])
        yield text(MARGIN + 15, base + 11, run.label)
        if last_s > 0:
            yield from _strip(run.samples, base, (WIDTH - 2 * MARGIN) / last_s)


def _strip(samples: Sequence[Sample], base: float, pixels_per_s: float) -> Iterator[str]:
    """What held from each sample to the next; white: nothing ran."""
    for sample, after in pairwise(samples):
        if sample.mode is None or not (sample.prefilling or sample.decoding) or after.at_s <= 0:
            continue
        begin_s = max(sample.at_s, 0.0)
        x, width = MARGIN + pixels_per_s * begin_s, pixels_per_s * (after.at_s - begin_s)
        height = (STRIP - 18) * _decode_share(sample)
        yield box(x, base - height, width, height, MODE_COLORS.get(sample.mode, "#000000"))


def _decode_share(sample: Sample) -> float:
    decode, prefill = sample.decode_units or 0, sample.prefill_units or 0
    if sample.mode != "split":
        return 1.0
    return decode / (decode + prefill) if decode + prefill else 0.0


def line(x1: float, y1: float, x2: float, y2: float) -> str:
    """Of an axis."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def box(x: float, y: float, width: float, height: float, color: str) -> str:
    """Filled; ``y`` is its upper edge."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.2f}" height="{height:.1f}" fill="{color}"/>'


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    """On the line ``y``; ``anchor``: start, middle or end is at ``x``."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
