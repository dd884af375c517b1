"""The top line: is what you see alive, whose is it, and may you touch it."""

from __future__ import annotations

from rich.cells import cell_len
from textual.content import Content

from rapidctl.console.text import Part, clip, clock, decimal, line
from rapidctl.console.view import View
from rapidctl.console.widgets.panel import Panel
from rapidctl.out import UNKNOWN, duration, unit_count


class Banner(Panel):
    """One line; parts that do not fit are left out, least important first."""

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        return [banner(view, width)]


def banner(view: View, width: int) -> Content:
    """The line itself, exactly ``width`` cells."""
    parts = [*_left(view), *_lock(view)]
    while _width(parts) > width and len(parts) > 1:
        parts.remove(max(parts, key=lambda part: part[0]))
    left = [part for rank, part in parts if rank != _LOCK]
    right = [part for rank, part in parts if rank == _LOCK]
    return line(*left, " " * max(0, width - _width(parts)), *right)


Ranked = tuple[int, tuple[str, str]]
"""A part and its rank: 0 is kept longest."""


def _width(parts: list[Ranked]) -> int:
    return sum(cell_len(text) for _, (text, _) in parts)


_LOCK = 3


def _left(view: View) -> list[Ranked]:
    snapshot = view.snapshot
    parts: list[Ranked] = [(6, (" rapidctl", "bold"))]
    if view.host:
        parts.append((1, (f" {clip(view.host, 16)}", "bold")))
    parts.append((0, _liveness(view)))
    if view.past is not None:
        parts.append((0, (_moment(view), "bold reverse")))
    if view.kind == "demo":
        parts.append((1, (" DEMO: made-up figures", "bold $warning")))
    if view.recording:
        parts.append((2, (f" REC {clip(view.recording, 24)}", "bold $bad")))
    if snapshot is None:
        return [*parts, (2, (" " + clip(view.connection.endpoint, 60), "$label"))]
    if snapshot.state != "serving":
        detail = f" {clip(snapshot.detail, 40)}" if snapshot.detail else ""
        parts.append((1, (f" ! {snapshot.state.replace('_', ' ').upper()}{detail}", "bold $bad")))
    override = None if snapshot.partition is None else snapshot.partition.override
    if override is not None:
        left = "until released" if override.ttl_s is None else duration(override.ttl_s)
        parts.append((2, (f"  OVERRIDE {left}", "bold $warning")))
    if snapshot.model is not None:
        parts.append((4, (f"  {clip(snapshot.model.name, 28)}", "")))
    if snapshot.device is not None:
        parts.append(
            (5, (f"  {snapshot.device.kind} {unit_count(snapshot.device.units, snapshot.device.unit_name)}", "$label"))
        )
    return [*parts, (7, (f"  up {duration(snapshot.uptime_s)}", "$label"))]


def _moment(view: View) -> str:
    """Which moment is shown, and how it moves."""
    past = view.past
    assert past is not None
    at = UNKNOWN if view.at_unix_s is None else clock(view.at_unix_s)
    name = "REPLAY" if view.kind == "replay" else "PAST"
    if past.playing:
        return f" ▶ {name} {at} ×{past.speed:g} "
    back = "" if view.kind == "replay" else f" −{duration(past.end_s - past.position_s)}"
    return f" ‖ {'REPLAY' if view.kind == 'replay' else 'FROZEN'} {at}{back} "


def _liveness(view: View) -> tuple[str, str]:
    if view.past is not None and not view.live_stale:
        if view.stale:
            return (" ◌ nothing came then", "bold $bad")
        return ("" if view.kind == "replay" else " ● live", "$good")
    if view.past is not None:
        return (" ◌ STALE now", "bold $bad")
    if not view.stale:
        return (f" ● LIVE {decimal(view.age_s)} s", "$good")
    link = view.connection
    trying = link.problem or ("no snapshots come" if link.connected else "reconnecting")
    if view.age_s is None:
        return (f" ◌ NO DATA {clip(trying, 60)}", "bold $bad")
    return (f" ◌ STALE {decimal(view.age_s, 0)} s {clip(trying, 60)}", "bold reverse $bad")


def _lock(view: View) -> list[Ranked]:
    part: Part
    if view.kind == "replay":
        part = (" a recording ", "$muted")
    elif view.unlocked_s is None:
        part = (" read-only (^o unlocks) ", "$muted")
    else:
        part = (f" CONTROL {duration(view.unlocked_s)} ", "bold reverse $warning")
    return [(_LOCK, part)]
