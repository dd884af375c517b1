"""`rapidctl partition`: who holds the units, what another split would do, pin one, let go of it, undo, and the log."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Literal

from rapidctl.client import Client, operator_name
from rapidctl.commands import common
from rapidctl.commands.events import event_row
from rapidctl.commands.status import limit_pairs, plan_text
from rapidctl.errors import TimedOut, UsageError
from rapidctl.out import UNKNOWN, Out, duration, number, safe_line, seconds
from rapidctl.placement import areas
from rapidctl.wire import (
    MAX_TTL_S,
    ControlReply,
    Event,
    GetEvents,
    GetPartition,
    OverrideBounds,
    PartitionInfo,
    Placement,
    PlanRequest,
    PredictPartition,
    ReleasePartition,
    SetPartition,
    UndoPartition,
)

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

_PHASES = {"D": "decode", "P": "prefill", "B": "both", "·": "idle", "?": "not measured"}
LOGGED = frozenset({"decision", "override", "release", "guard", "ttl", "policy", "applied", "placement"})


def add_parser(commands: common.Commands) -> None:
    """Declare the commands."""
    group = common.add_group(commands, "partition", "show, predict, pin or release the split of the units")
    show = common.add_command(group, "show", run_show, "the plan in force and the measured placement")
    show.add_argument(
        "--probe",
        action="store_true",
        help="measure now where the lanes run; on a GPU they wait for it, some milliseconds",
    )
    common.add_watch_options(show)
    _add_plan(common.add_command(group, "predict", run_predict, "what a plan would do; changes nothing"))
    _add_set(common.add_command(group, "set", run_set, "pin a plan until its time is over, or until released"))
    auto = common.add_command(group, "auto", run_auto, "release the override: the policy decides again")
    _add_change(auto)
    undo = common.add_command(group, "undo", run_undo, "bring back what the last operator's change replaced")
    common.add_if_epoch(undo)
    common.add_command(group, "log", run_log, "decisions and changes that are still kept")
    common.alone(commands, group, "partition", "show")


def _add_plan(parser: ArgumentParser) -> None:
    parser.add_argument("--mode", required=True, choices=["serial", "hybrid", "shared", "split"])
    parser.add_argument(
        "--decode-units",
        metavar="N",
        type=common.integer,
        help="units of decode, in split mode (default: the most even split)",
    )
    parser.add_argument(
        "--chunk", metavar="N|all", type=_chunk, help="prompt tokens a batch; all: no decode step between (serial)"
    )


def _add_change(parser: ArgumentParser) -> None:
    parser.add_argument("--reason", metavar="T", default="", help="for the log")
    common.add_if_epoch(parser)
    parser.add_argument("--wait", action="store_true", help="until the lanes run it")


def _add_set(parser: ArgumentParser) -> None:
    _add_plan(parser)
    parser.add_argument(
        "--ttl", metavar="DUR", type=common.duration_s, default=300.0, help="then back to the policy (5m); 0: never"
    )
    parser.add_argument(
        "--guard",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="release it when latency stays far beyond the SLO; limits: partition show (on)",
    )
    _add_change(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _chunk(text: str) -> int | Literal["all"]:
    return "all" if text == "all" else common.integer(text)


def _plan(args: Namespace) -> PlanRequest:
    if args.decode_units is not None and args.mode != "split":
        raise UsageError("--decode-units needs --mode split")
    if args.chunk == "all" and args.mode != "serial":
        raise UsageError("--chunk all needs --mode serial")
    return PlanRequest(mode=args.mode, decode_units=args.decode_units, chunk=args.chunk)


# --- reading ----------------------------------------------------------------------------------------------------


def run_show(args: Namespace, out: Out) -> int:
    """Show the plan in force."""
    with common.connect(args, control=args.probe) as client:

        def show() -> int:
            info = client.call(GetPartition(call=0, probe=args.probe))
            if out.json:
                out.document(document(info))
            else:
                _show(info, out)
            return 0

        return common.watch(args, out, client, show)


def document(info: PartitionInfo) -> dict[str, object]:
    """The keys of ``--json``."""
    plan, override = info.plan, info.override
    return {
        "mode": plan.mode,
        "policy": info.policy,
        "units_total": info.units_total,
        "unit_name": info.unit_name,
        "decode_units": plan.decode_units,
        "prefill_units": plan.prefill_units,
        "chunk": plan.chunk,
        "epoch": info.epoch,
        "decision": plan.decision,
        "reason": plan.reason,
        "source": info.source,
        "age_s": plan.age_s,
        "override": override
        and {
            "ttl_s": override.ttl_s,
            "reason": override.reason,
            "by": override.by,
            "guard": override.guard,
            "plan": override.plan,
        },
        "measured": info.measured,
        "groups": info.groups,
        "bounds": info.bounds,
        "chunk_limit": info.chunk_limit,
        "splits": info.splits,
        "unsupported": info.unsupported,
        "profile": info.profile,
    }


def _show(info: PartitionInfo, out: Out) -> None:
    plan = info.plan
    named = {None: "bounded by time", "all": "whole prompts", 0: "none: prompts wait"}
    chunk = named.get(plan.chunk, f"{plan.chunk} tokens")
    splits = ", ".join(map(str, info.splits)) if info.splits else f"none: {info.unsupported}"
    pairs = [
        ("plan", plan_text(info)),
        ("because", f"{plan.reason}  (decision {plan.decision}, {duration(plan.age_s)} ago)"),
        ("chunk", chunk),
        *limit_pairs(info),
        ("measured", _placement(info.measured)),
        *_areas(info),
        ("splits", f"decode units {splits}" if info.splits else splits),
        ("profile", info.profile or "no profile: rapidd calibrate"),
        *([] if info.bounds is None else [("limits", _bounds(info.bounds))]),
    ]
    if info.override is not None:
        guard = "guarded" if info.override.guard else "not guarded"
        pairs.insert(1, ("override", f"{info.override.reason or 'no reason given'}  ({guard})"))
    out.pairs(pairs)


def _bounds(bounds: OverrideBounds) -> str:
    return (
        f"an override lasts at most {duration(bounds.ttl_max_s)}, or until released; a change every "
        f"{bounds.change_every_s:g} s; the guard ends it when {guard_text(bounds)}"
    )


def guard_text(bounds: OverrideBounds) -> str:
    """What the guard waits for."""
    return (
        f"ITL p95 > {bounds.guard_itl:g}x or TTFT p95 > {bounds.guard_ttft:g}x the SLO for {bounds.guard_after_s:g} s"
    )


def _placement(placement: Placement | None) -> str:
    if placement is None:
        return UNKNOWN
    lanes = [
        f"{lane.lane} on {_ranges(lane.units)}" if lane.measured else f"{lane.lane} unknown here"
        for lane in placement.lanes
    ]
    transition = ", in transition" if placement.transition else ""
    return f"{'; '.join(lanes)}; overlap {placement.overlap}{transition}"


def _areas(info: PartitionInfo) -> list[tuple[str, str]]:
    """What holds units together, and how many of each phase were measured there."""
    pairs = []
    for area in areas(info) or ():
        counts = ((name, area.letters.count(letter)) for letter, name in _PHASES.items())
        phases = ", ".join(f"{count} {name}" for name, count in counts if count)
        pairs.append((area.name, f"{phases} of {len(area.letters)}"))
    return pairs


def _ranges(units: list[int]) -> str:
    """[0, 1, 2, 5] as "0-2,5"."""
    ranges: list[list[int]] = []
    for unit in sorted(units):
        if ranges and unit == ranges[-1][1] + 1:
            ranges[-1][1] = unit
        else:
            ranges.append([unit, unit])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges) or "none"


def run_predict(args: Namespace, out: Out) -> int:
    """Ask for a dry run. Exit code 1 for a plan that is not legal here."""
    plan = _plan(args)
    with common.connect(args) as client:
        prediction = client.call(PredictPartition(call=0, plan=plan))
    if out.json:
        out.document(
            {
                "mode": plan.mode,
                "decode_units": plan.decode_units,
                "prefill_units": prediction.prefill_units,
                "legal": prediction.legal,
                "note": prediction.note,
                "itl_p95_s": prediction.itl_p95_s,
                "ttft_p95_s": prediction.ttft_p95_s,
                "prefill_tokens_per_s": prediction.prefill_tokens_per_s,
                "breaches_slo": prediction.breaches_slo,
            }
        )
    else:
        slo = {None: UNKNOWN, True: "breached", False: "met"}[prediction.breaches_slo]
        out.pairs(
            [
                ("legal", "yes" if prediction.legal else "no"),
                ("ITL p95", seconds(prediction.itl_p95_s)),
                ("TTFT p95", seconds(prediction.ttft_p95_s)),
                ("prefill", f"{number(prediction.prefill_tokens_per_s)} tokens/s"),
                ("slo", slo),
                ("note", prediction.note),
            ]
        )
    return 0 if prediction.legal else 1


def run_log(args: Namespace, out: Out) -> int:
    """List decisions and changes."""
    with common.connect(args) as client:
        answer = client.call(GetEvents(call=0))
    events = [event for event in answer.events if event.kind in LOGGED]
    if out.json:
        out.document({"oldest_seq": answer.oldest_seq, "next_seq": answer.next_seq, "events": events})
    else:
        out.table(["TIME", ">EPOCH", ">DECISION", "KIND", "WHAT"], [_log_row(event) for event in events])
    return 0


def _log_row(event: Event) -> list[str]:
    at, _, kind, text = event_row(event)
    numbers = [UNKNOWN if value is None else str(value) for value in (event.epoch, event.decision)]
    return [at, *numbers, kind, text]


# --- changing ---------------------------------------------------------------------------------------------------


def run_set(args: Namespace, out: Out) -> int:
    """Pin a plan."""
    plan = _plan(args)
    if not args.yes and not sys.stdin.isatty():
        raise UsageError("this changes how the daemon runs and nobody can be asked", "say --yes")
    if args.ttl > MAX_TTL_S:
        raise UsageError(f"an override lasts at most {duration(MAX_TTL_S)}", "shorten --ttl, or give 0: until released")
    with common.connect(args, control=True) as client:
        now = client.call(GetPartition(call=0))
        if not args.yes and not _confirmed(plan, args, now, out):
            out.note("nothing was changed")
            return 1
        command = SetPartition(
            call=0,
            plan=plan,
            ttl_s=args.ttl or None,
            guard=args.guard,
            reason=args.reason,
            by=operator_name(),
            if_epoch=common.expected_epoch(args, now),
        )
        return _change(args, out, client, command)


def _confirmed(plan: PlanRequest, args: Namespace, now: PartitionInfo, out: Out) -> bool:
    ttl = f"for {duration(args.ttl)}" if args.ttl else "until released"
    units = "" if plan.decode_units is None else f" with {plan.decode_units} decode {now.unit_name}s"
    out.note(f"now  {plan_text(now)}\nthen {plan.mode}{units} {ttl}, {'guarded' if args.guard else 'not guarded'}")
    print("pin it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def run_auto(args: Namespace, out: Out) -> int:
    """Release the override."""
    with common.connect(args, control=True) as client:
        epoch = common.expected_epoch(args, client.call(GetPartition(call=0)))
        command = ReleasePartition(call=0, by=operator_name(), reason=args.reason, if_epoch=epoch)
        return _change(args, out, client, command)


def run_undo(args: Namespace, out: Out) -> int:
    """Undo the last operator's change."""
    with common.connect(args, control=True) as client:
        epoch = common.expected_epoch(args, client.call(GetPartition(call=0)))
        reply = client.call(UndoPartition(call=0, by=operator_name(), if_epoch=epoch))
    if out.json:
        out.document({"epoch": reply.epoch, "text": reply.text})
    else:
        out.text(safe_line(f"epoch {reply.epoch}: {reply.text}"))
    return 0


def _change(args: Namespace, out: Out, client: Client, command: SetPartition | ReleasePartition) -> int:
    seen = client.call(GetEvents(call=0, from_seq=2**53)).next_seq if args.wait else 0
    reply = client.call(command)
    applied = _wait_applied(args, client, reply, seen) if args.wait else None
    if out.json:
        out.document({"epoch": reply.epoch, "text": reply.text, "applied": applied})
    else:
        out.text(safe_line(f"epoch {reply.epoch}: {applied.text if applied else reply.text}"))
    return 0


def _wait_applied(args: Namespace, client: Client, reply: ControlReply, seen: int) -> Event:
    """The ``applied`` event of this epoch, or of a later one that replaced it. Raises `TimedOut`."""
    found: list[Event] = []

    def look(timeout_s: float) -> bool:
        events = client.call(GetEvents(call=0, from_seq=seen), timeout_s).events
        found.extend(event for event in events if event.kind == "applied" and (event.epoch or 0) >= reply.epoch)
        return bool(found)

    if not common.try_until(common.outcome_deadline_s(args), look):
        raise TimedOut(f"epoch {reply.epoch} was accepted, but the lanes did not report it as applied in time")
    return found[0]
