"""`rapidctl profile`: the calibrated profile that the daemon predicts with, its error, and its knee."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rapidctl.commands import common
from rapidctl.out import UNKNOWN, Out, duration, seconds
from rapidctl.wire import CalibrationInfo, FitInfo, GapMarginInfo, GetProfile, KneeRow, ProfileReply

if TYPE_CHECKING:
    from argparse import Namespace

SOURCES = {"file": "the configured file", "state": "measured here", "shipped": "shipped with rapidd"}


def add_parser(commands: common.Commands) -> None:
    """Declare the commands."""
    group = common.add_group(commands, "profile", "show the calibrated profile")
    parser = common.add_command(
        group,
        "show",
        run_show,
        "the profile in use, its error and corrections, and the fewest decode units that meet an ITL objective",
        "A profile in a file, without a daemon: rapidd profile show FILE",
    )
    parser.add_argument(
        "--slo-itl", metavar="DUR", type=common.positive_duration_s, help="ITL objective of the table; the daemon's own"
    )
    parser.add_argument(
        "--context", metavar="N", type=common.integer, default=1024, help="cached tokens of each row (1024)"
    )
    common.alone(commands, group, "profile", "show")


def run_show(args: Namespace, out: Out) -> int:
    """Ask the daemon."""
    with common.connect(args) as client:
        reply = client.call(GetProfile(call=0, itl_s=args.slo_itl, kv_per_row=args.context))
    return show(reply, out)


def show(reply: ProfileReply, out: Out) -> int:
    """Print the answer; 1 when there is no profile. Also for `rapidd profile show FILE`."""
    if out.json:
        out.document(document(reply))
    elif reply.calibration is None:
        out.text("no profile: predictions need one, and so does the auto policy. Run: rapidd calibrate")
    else:
        out.pairs(_pairs(reply.calibration))
        _show_tables(reply, reply.calibration, out)
    for note in [] if out.json else reply.notes:
        out.note(f"note: {note}")
    return 0 if reply.calibration else 1


def document(reply: ProfileReply) -> dict[str, object]:
    """The keys of ``--json``."""
    return {
        "profile": reply.calibration,
        "notes": reply.notes,
        "knee": {"itl_s": reply.itl_s, "context": reply.kv_per_row, "rows": reply.knee},
    }


def _pairs(info: CalibrationInfo) -> list[tuple[str, str]]:
    software = f"rapidd {info.build}" + (f", driver {info.driver}" if info.driver else "")
    return [
        ("profile", f"{info.name}  ({SOURCES[info.source]})"),
        ("device", f"{info.device}, {info.units_total} units"),
        ("model", f"{info.model}, {info.dtype}"),
        ("measured", f"{duration(max(0.0, time.time() - info.made_unix_s))} ago, {software}"),
        *([("note", info.note)] if info.note else []),
        ("error", f"{_error(info.fit)}, on {info.fit.n} held-back measurements"),
        *([("contexts", _short_contexts(info))] if info.short_contexts else []),
        *([("margin", _margin(info.margin))] if info.margin and info.margin.n else []),
    ]


def _error(fit: FitInfo) -> str:
    return UNKNOWN if fit.median is None or fit.p95 is None else f"median {fit.median:.1%}, p95 {fit.p95:.1%}"


def _short_contexts(info: CalibrationInfo) -> str:
    lanes = [f"{lane} on {', '.join(map(str, units))}" for lane, units in info.short_contexts.items()]
    return f"long ones were not measured, so attention is an estimate: {'; '.join(lanes)} of {info.units_total} units"


def _margin(margin: GapMarginInfo) -> str:
    return (
        f"gaps count {margin.factor:.2f} times as long as predicted, to keep late ones at {margin.late_share:.0%}; "
        f"{margin.n} seen"
    )


def _show_tables(reply: ProfileReply, info: CalibrationInfo, out: Out) -> None:
    if info.parts:
        out.text("")
        out.table(["predicted", "error", ">n"], [[part.part, _error(part), str(part.n)] for part in info.parts])
    if info.corrections:
        out.text("")
        out.table(
            ["corrected", "kind", ">factor", ">error left", ">batches"],
            [[c.mode, c.kind, f"{c.factor:.2f}", f"{c.error:.1%}", str(c.n)] for c in info.corrections],
        )
    out.text(f"\nfewest decode units for {seconds(reply.itl_s)} a step, {reply.kv_per_row} tokens a row:")
    out.table([">rows", ">units", ">step", ""], [_knee(row, info.units_total) for row in reply.knee])


def _knee(row: KneeRow, units_total: int) -> list[str]:
    if row.decode_units is None:
        return [str(row.rows), UNKNOWN, seconds(row.step_s), "not met, even alone on all units"]
    alone = "alone: prompts must wait" if row.decode_units == units_total else "beside prompts"
    return [str(row.rows), str(row.decode_units), seconds(row.step_s), alone]
