"""`rapidctl check`: for Nagios and its kin: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN, one line with performance data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from rapidctl.book import kv_used, latency_window
from rapidctl.commands import common
from rapidctl.errors import OutputError, RapidctlError, TimedOut, Unreachable, UsageError
from rapidctl.out import Out, percent, safe_line, seconds
from rapidctl.wire import EndpointError, GetSnapshot, Snapshot

if TYPE_CHECKING:
    from argparse import Namespace

Level = Literal["OK", "WARNING", "CRITICAL", "UNKNOWN"]
CODES: Final[dict[Level, int]] = {"OK": 0, "WARNING": 1, "CRITICAL": 2, "UNKNOWN": 3}
WINDOW_S: Final = 60.0
LIMITS: Final = {"latency": (0.1, 0.25), "units": (0.98, 1.01), "queue": (50.0, 200.0), "kv": (0.9, 0.98)}
"""Warning and critical: share of requests that missed an objective, busiest lane, waiting requests, KV used."""


class Found(NamedTuple):
    """What was found: a level, a sentence, and performance data."""

    level: Level
    text: str
    perfdata: dict[str, float | None]


class Unsaid(OutputError):
    """The verdict could not be printed: to a monitor, which reads it, that is UNKNOWN, whatever it was."""

    exit_code = CODES["UNKNOWN"]


def add_parser(commands: common.Commands) -> None:
    """Declare the command."""
    parser = common.add_command(
        commands,
        "check",
        run,
        "for monitoring: Nagios codes and performance data",
        "Without a subject: is it serving. latency: share of the last minute's requests that missed an objective.\n"
        "units: busy share of the busier lane. queue: waiting requests. kv: share of blocks in use.\n"
        "A daemon that does not answer is CRITICAL; what cannot be judged is UNKNOWN, and so are arguments that\n"
        "cannot be used.",
    )
    parser.add_argument("subject", nargs="?", choices=LIMITS, help="what to judge (serving)")
    parser.add_argument("-w", "--warning", metavar="X", type=float, help="from here on WARNING")
    parser.add_argument("-c", "--critical", metavar="X", type=float, help="from here on CRITICAL")


def run(args: Namespace, out: Out) -> int:
    """Judge."""
    try:
        _check_limits(args.subject, args.warning, args.critical)
        with common.connect(args) as client:
            found = judge(client.call(GetSnapshot(call=0)).snapshot, args.subject, args.warning, args.critical)
    except (Unreachable, TimedOut) as error:
        found = Found("CRITICAL", error.message, {})
    except (RapidctlError, EndpointError) as error:
        found = Found("UNKNOWN", str(error), {})
    try:
        _say(found, args.subject or "serving", out)
    except BrokenPipeError as error:
        raise Unsaid("cannot write the output: nobody reads it") from error
    except OutputError as error:
        raise Unsaid(error.message) from error
    return CODES[found.level]


def _say(found: Found, subject: str, out: Out) -> None:
    if out.json:
        out.document({"subject": subject, "level": found.level, "text": found.text, "perfdata": found.perfdata})
    else:
        data = " ".join(f"{name}={value:g}" for name, value in found.perfdata.items() if value is not None)
        text = safe_line(found.text).replace("|", "/")  # what stands after the first one is read as data
        out.text(f"RAPID {found.level} - {text}" + (f" | {data}" if data else ""))


def _check_limits(subject: str | None, warning: float | None, critical: float | None) -> None:
    """Limits that could never do what was meant are refused. Raises `UsageError`."""
    given = [limit for limit in (warning, critical) if limit is not None]
    if given and subject is None:
        raise UsageError("-w and -c need a subject: latency, units, queue or kv")
    if any(math.isnan(limit) for limit in given) or (len(given) == 2 and given[0] > given[1]):
        raise UsageError("-w and -c must be numbers, and -w not above -c")


def judge(snapshot: Snapshot, subject: str | None, warning: float | None, critical: float | None) -> Found:
    """The verdict on one snapshot; null limits are those of `LIMITS`."""
    if subject is None or snapshot.state not in ("serving", "draining"):
        return _serving(snapshot)
    value, text, data = _SUBJECTS[subject](snapshot)
    if value is None:
        return Found("OK" if subject == "latency" else "UNKNOWN", text, data)
    warn = LIMITS[subject][0] if warning is None else warning
    bad = LIMITS[subject][1] if critical is None else critical
    level: Level = "CRITICAL" if value >= bad else "WARNING" if value >= warn else "OK"
    return Found(level, text, data)


def _serving(snapshot: Snapshot) -> Found:
    level: Level = "CRITICAL"
    if snapshot.state == "serving":
        level = "OK"
    elif snapshot.state in ("starting", "draining", "drained"):
        level = "WARNING"
    detail = f": {snapshot.detail}" if snapshot.detail else ""
    counts = snapshot.requests
    live = counts.waiting + counts.prefilling + counts.decoding
    return Found(level, f"{snapshot.state}{detail}", {"live": live, "uptime_s": snapshot.uptime_s})


Judged = tuple[float | None, str, dict[str, float | None]]


def _latency(snapshot: Snapshot) -> Judged:
    window = latency_window(snapshot, WINDOW_S)
    if window is None or window.both_met is None:
        return None, "no request finished in the last minute", {}
    missed = 1.0 - window.both_met
    text = (
        f"{percent(missed)} missed an objective, ITL p95 {seconds(window.itl_s.p95)}, "
        f"TTFT p95 {seconds(window.ttft_s.p95)}, n={window.e2e_s.n}"
    )
    return missed, text, {"missed": missed, "itl_p95_s": window.itl_s.p95, "ttft_p95_s": window.ttft_s.p95}


def _units(snapshot: Snapshot) -> Judged:
    busy = {f"{lane.lane}_busy": lane.busy for lane in snapshot.lanes}
    known = [value for value in busy.values() if value is not None]
    text = ", ".join(f"{lane.lane} {percent(lane.busy)} busy" for lane in snapshot.lanes) or "no engine"
    return max(known, default=None), text, dict(busy)


def _queue(snapshot: Snapshot) -> Judged:
    counts = snapshot.requests
    text = f"{counts.waiting} waiting, {counts.prefilling} prefilling, {counts.decoding} decoding"
    return counts.waiting, text, {"waiting": counts.waiting, "decoding": counts.decoding}


def _kv(snapshot: Snapshot) -> Judged:
    used = kv_used(snapshot)
    return used, f"{percent(used)} of the KV cache in use", {"kv_used": used}


_SUBJECTS = {"latency": _latency, "units": _units, "queue": _queue, "kv": _kv}
