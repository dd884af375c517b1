"""The pictures of docs/results.md, from the raw output that lies beside it; `make docs` writes them.

Pure but for reading files: what was measured or simulated goes in as it was kept, SVG comes out.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from rapidctl.bench.svg import COLORS, MARGIN, WIDTH, box, document, line, text

RESULTS: Final = Path(__file__).resolve().parents[2] / "docs/results"
ARMS: Final = ("auto", "hybrid:256", "hybrid:512", "shared")
ARM_RUNS: Final = ("2026-11-29-x4-arms", "2026-11-30-x2-arms-20000", "2026-11-30-x2-arms-mooncake")
"""A cell that ran again is shown as it ran first."""
SWEEP: Final = "2026-12-01-h200"
CLIENTS: Final = {
    "4,096 in, 256 out at 4.5/s": (
        ("rapid-serve, 18.5 ms", "2026-11-30-v17-x2-vllm", "ours_4096_4.5"),
        ("vLLM, budget 512", "2026-11-30-v17-x2-vllm", "vllm512_4096_4.5"),
        ("vLLM, budget 256", "2026-11-30-x2-vllm", "vllm256_4096_4.5"),
    ),
    "20,000 in, 200 out at 0.8/s": (
        ("rapid-serve, 21 ms", "2026-11-30-v17-x2-vllm", "ours_20000_0.8"),
        ("rapid-serve, 23 ms", "2026-11-30-v16-vllm", "ours_20000_0.8"),
        ("vLLM, budget 256", "2026-11-30-v17-x2-vllm", "vllm256_20000_0.8"),
        ("vLLM, budget 512", "2026-11-30-v17-x2-vllm", "vllm512_20000_0.8"),
        ("vLLM, budget 2,048", "2026-11-30-v17-x2-vllm", "vllm2048_20000_0.8"),
    ),
}
"""Panel: its points, each a label, a file of `vllm bench serve`'s figures, and the run in it."""
AXES: Final = {"4,096 in, 256 out at 4.5/s": (30.0, 2.0), "20,000 in, 200 out at 0.8/s": (120.0, 10.0)}
"""Milliseconds and seconds that fill a panel."""
PANEL: Final = 200


class Group(NamedTuple):
    """Bars side by side under one word; a value that is not there has no bar."""

    label: str
    values: Sequence[float | None]


def pictures(results: Path) -> dict[str, str]:
    """By file name."""
    return {
        "results-arms.svg": arms([_read(results / f"gpu/{name}.json") for name in ARM_RUNS]),
        "results-vllm.svg": peers({name: _read(results / f"gpu/{name}.json") for name in _client_files()}),
        "results-simulated.svg": simulated(_read(results / f"simulated/{SWEEP}.json")),
    }


def arms(files: Sequence[Mapping[str, Any]]) -> str:
    """Share of the requests that met both objectives, by trace, offered rate and arm."""
    met: dict[str, dict[float, dict[str, float]]] = {}
    for run in (run for file in files for run in file["runs"]):
        rates = met.setdefault(run["trace"].split("@")[0], {})
        rate = next((known for known in rates if abs(known / run["offered_per_s"] - 1) < 0.01), run["offered_per_s"])
        summary = run["summary"]
        rates.setdefault(rate, {}).setdefault(run["policy"], 100 * summary["met"] / summary["offered"])
    panels = {
        f"{trace}: requests that met both objectives, %, by requests offered a second": [
            Group(f"{rate:.1f}/s", [of_arm.get(arm) for arm in ARMS]) for rate, of_arm in sorted(rates.items())
        ]
        for trace, rates in met.items()
    }
    return _panels(panels, ARMS, 110.0, (0, 50, 90, 100), "{:.0f}")


def simulated(sweep: Mapping[str, Any]) -> str:
    """Goodput of `auto` over that of the best static arm, by trace and ITL objective."""
    verdicts = sweep["verdicts"]
    objectives = sorted({verdict["itl_s"] for verdict in verdicts})
    ratios = {(verdict["trace"], verdict["itl_s"]): verdict["over_best"] for verdict in verdicts}
    traces = list(dict.fromkeys(verdict["trace"] for verdict in verdicts))
    groups = [Group(trace, [ratios[trace, itl_s] for itl_s in objectives]) for trace in traces]
    title = "simulated: goodput of auto over that of the best of 15 static arms"
    legend = [f"ITL objective {1e3 * itl_s:.0f} ms" for itl_s in objectives]
    halves = {title: groups[: len(groups) // 2], "the other traces": groups[len(groups) // 2 :]}
    return _panels(halves, legend, 5.5, (0, 1, 2, 3, 4, 5), "{:.2f}")


def peers(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Gaps (p99) and first tokens (p95) of each engine, a panel a load; towards the lower left is better."""
    body: list[str] = []
    for index, (load, points) in enumerate(CLIENTS.items()):
        figures = [(label, files[file]["client"][run]) for label, file, run in points]
        marks = [(label, found["p99_itl_ms"], found["p95_ttft_ms"] / 1e3) for label, found in figures]
        body += _scatter(load, marks, AXES[load], MARGIN + index * (PANEL + MARGIN))
    return document(len(CLIENTS) * (PANEL + MARGIN) + MARGIN, body)


def _panels(
    panels: Mapping[str, Sequence[Group]], legend: Sequence[str], top: float, ticks: Sequence[float], form: str
) -> str:
    body = []
    for index, name in enumerate(legend):
        body += [box(MARGIN + 170 * index, 12, 10, 10, COLORS[index]), text(MARGIN + 15 + 170 * index, 21, name)]
    for index, (title, groups) in enumerate(panels.items()):
        body += _bars(title, groups, top, ticks, form, MARGIN + index * (PANEL + MARGIN))
    return document(len(panels) * (PANEL + MARGIN) + MARGIN, body)


def _bars(
    title: str, groups: Sequence[Group], top: float, ticks: Sequence[float], form: str, y: float
) -> Iterator[str]:
    right, bottom = WIDTH - MARGIN, y + PANEL
    yield text(MARGIN, y - 8, title)
    for tick in ticks:
        at = bottom - PANEL * tick / top
        yield line(MARGIN, at, right, at)
        yield text(MARGIN - 6, at + 4, f"{tick:g}", "end")
    width = (right - MARGIN) / len(groups)
    for index, group in enumerate(groups):
        each = 0.8 * width / len(group.values)
        first = MARGIN + width * (index + 0.1)
        yield text(first + 0.4 * width, bottom + 16, group.label, "middle")
        for place, value in enumerate(group.values):
            if value is not None:
                height = PANEL * min(value, top) / top
                yield box(first + each * place, bottom - height, 0.9 * each, height, COLORS[place])
                yield text(first + each * (place + 0.45), bottom - height - 3, form.format(value), "middle")


def _scatter(
    title: str, marks: Sequence[tuple[str, float, float]], most: tuple[float, float], y: float
) -> Iterator[str]:
    right, bottom = WIDTH - MARGIN, y + PANEL
    most_ms, most_s = most
    yield text(MARGIN, y - 8, f"{title}: time to first token, p95 in s, over time between tokens, p99 in ms")
    for part in range(6):
        at = bottom - PANEL * part / 5
        yield line(MARGIN, at, right, at)
        yield text(MARGIN - 6, at + 4, f"{most_s * part / 5:g}", "end")
        yield text(MARGIN + (right - MARGIN) * part / 5, bottom + 16, f"{most_ms * part / 5:g}", "middle")
    for label, gap_ms, first_s in marks:
        x, at = MARGIN + (right - MARGIN) * gap_ms / most_ms, bottom - PANEL * first_s / most_s
        yield box(x - 5, at - 5, 10, 10, COLORS[0] if label.startswith("rapid-serve") else COLORS[1])
        side, anchor = (-9, "end") if x > WIDTH / 2 else (9, "start")
        yield text(x + side, at + 4, f"{label}: {gap_ms:.1f} ms, {first_s:.2f} s", anchor)


def _client_files() -> list[str]:
    return list(dict.fromkeys(file for points in CLIENTS.values() for _, file, _ in points))


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
