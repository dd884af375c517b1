"""Who gets which compute units: the plan, each phase's busy share, and where the lanes were *measured* to run."""

from __future__ import annotations

from typing import Final, Literal

from textual.content import Content

from rapidctl.book import lane, main_work
from rapidctl.console.text import Part, bar, clip, line
from rapidctl.console.view import View
from rapidctl.console.widgets.panel import Panel
from rapidctl.console.widgets.unitmap import map_line
from rapidctl.device import sensor_parts
from rapidctl.out import UNKNOWN, duration, percent
from rapidctl.placement import unit_phases
from rapidctl.wire import PartitionInfo, Snapshot

Lane = Literal["decode", "prefill"]
_LEGEND = line(("D", "$decode"), " decode ", ("P", "$prefill"), " prefill ", ("B", "$shared"), " both · idle")

NO_PROFILE: Final = "no profile: rapidd calibrate"
"""Also what a policy gives as its reason when that is why; it is not said twice."""


class Units(Panel):
    """Seven lines where there is room, else three with the mode in the border in place of the device's sensors."""

    def title(self, view: View) -> str:  # noqa: D102
        info = view.partition
        if info is None:
            return "COMPUTE UNITS"
        head = (
            f"CORES {info.units_total}"
            if info.unit_name == "core"
            else f"COMPUTE UNITS {info.units_total} {info.unit_name}"
        )
        if self.content_size.height <= 4:
            return f"{head}  {_control(info)}"
        device = None if view.snapshot is None else view.snapshot.device
        return "  ".join([head, *([] if device is None else sensor_parts(device))])

    def keys(self, view: View) -> str:  # noqa: D102
        return "o override  A release  u undo"

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        return units(view, width, height)


def units(view: View, width: int, height: int) -> list[Content]:
    """The panel's lines."""
    snapshot, info = view.snapshot, view.partition
    if snapshot is None or info is None:
        return [line(("no engine: nothing to show", "$muted"))]
    if height <= 4:
        left = width * 3 // 7  # less for the bars than for the map: at 80 columns eight groups of letters just fit
        brief = [
            _lane(snapshot, info, "prefill", left) + line("  ") + map_line(info, width - left - 2),
            _lane(snapshot, info, "decode", left) + line("  ") + placement_line(view, info, width - left - 2),
        ]
        pressing = pressing_line(view, info, width)
        if height == 3:
            return [*brief, pressing or _decision(info, width)]
        return [*brief, _decision(info, width), pressing or _mode_shares(snapshot, width)]
    return [
        line(clip(f"{_control(info)}   {duration(info.plan.age_s)} old", width)),
        _lane(snapshot, info, "decode", width),
        _lane(snapshot, info, "prefill", width),
        map_line(info, width),
        placement_line(view, info, width - _LEGEND.cell_length - 2) + line("  ") + _LEGEND,
        _decision(info, width),
        pressing_line(view, info, width) or _mode_shares(snapshot, width),
    ]


def _control(info: PartitionInfo) -> str:
    chunk = "time-bound" if info.plan.chunk is None else info.plan.chunk
    return f"{info.plan.mode.upper()} chunk {chunk}  {info.source} {info.policy}  epoch {info.epoch}"


def _lane(snapshot: Snapshot, info: PartitionInfo, name: Lane, width: int) -> Content:
    stats = lane(snapshot, name)
    held = str(stats.units) if stats is not None else UNKNOWN
    head = f"{name:<8}{held:>{len(str(info.units_total))}} {info.unit_name} "
    busy = None if stats is None else stats.busy
    tail = f" {percent(busy):>4} busy"
    if width >= 60:
        tail += f"  {percent(None if stats is None else stats.occupancy):>4} of all"
        work = None if stats is None else main_work(stats)
        if work is not None:  # what bounds the phase: memory for decode, arithmetic for prefill
            tail += f"  MBU {percent(work.mbu):>4}" if name == "decode" else f"  MFU {percent(work.mfu):>4}"
    return line(head, (bar(busy, max(4, width - len(head) - len(tail))), f"${name}"), tail)


def placement_line(view: View, info: PartitionInfo, width: int) -> Content:
    """Whether the lanes were seen where they should be, and when."""
    found = info.measured
    if found is None or unit_phases(info) is None:
        return line((clip("placement " + (info.unsupported or UNKNOWN), width), "$muted"))
    mark: Part = ("! ", "$bad") if found.overlap and info.plan.mode == "split" and not found.transition else "✓ "
    if found.probed_unix_s is None or view.snapshot is None:
        when = ""
    else:
        when = f", {duration(max(0.0, view.snapshot.at_unix_s - found.probed_unix_s))} ago"
    moving = ", in transition" if found.transition else ""
    return line("placed  ", mark, clip(f"overlap {found.overlap}{moving}{when}", width - 10))


def _decision(info: PartitionInfo, width: int) -> Content:
    return line((clip(f"decision {info.plan.decision}: {info.plan.reason}", width), "$label"))


def _mode_shares(snapshot: Snapshot, width: int) -> Content:
    """How the engine's time went by realised mode."""
    total = sum(snapshot.mode_seconds.values())
    spent = sorted(snapshot.mode_seconds.items(), key=lambda item: -item[1])
    shares = "  ".join(f"{name} {percent(seconds / total)}" for name, seconds in spent if seconds) if total else UNKNOWN
    return line((clip(f"time by mode  {shares}", width), "$label"))


def pressing_line(view: View, info: PartitionInfo, width: int) -> Content | None:
    """The most pressing of: a command under way, an override, why there is no split or no profile; null: none."""
    if view.change is not None:
        bad = view.change.state in ("refused", "unknown")
        text = f"{view.change.state.upper()} {view.change.title}: {view.change.text}"
        return line((clip(("! " if bad else "") + text, width), "bold $bad" if bad else "bold $warning"))
    if info.override is not None:
        left = "until released" if info.override.ttl_s is None else f"{duration(info.override.ttl_s)} left"
        guard = "guarded" if info.override.guard else "no guard"
        text = f"OVERRIDE by {info.override.by or UNKNOWN}, {left}, {guard}: {info.override.reason or UNKNOWN}"
        return line((clip(text, width), "bold $warning"))
    if info.unsupported is not None:
        return line((clip(f"no split here: {info.unsupported}", width), "$muted"))
    if info.profile is None and info.plan.reason != NO_PROFILE:
        return line((clip(NO_PROFILE, width), "$muted"))
    return None
