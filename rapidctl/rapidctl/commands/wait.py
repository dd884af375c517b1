"""`rapidctl wait`: for scripts. Returns when the daemon is in the state named; exit code 4 when the time is over."""

from __future__ import annotations

import argparse
import re
import time
from typing import TYPE_CHECKING

from rapidctl.commands import common
from rapidctl.commands.drain import live
from rapidctl.errors import TimedOut
from rapidctl.out import Out
from rapidctl.wire import GetStatus, Status

if TYPE_CHECKING:
    from argparse import Namespace


def add_parser(commands: common.Commands) -> None:
    """Declare the command."""
    parser = common.add_command(
        commands,
        "wait",
        run,
        "until healthy, idle or at an epoch; exit code 4 when the time is over",
        "healthy: serving. idle: serving, and no live request. epoch=N: at least N changes of control state.",
    )
    parser.add_argument("condition", metavar="healthy|idle|epoch=N", type=_condition)


def _condition(text: str) -> str:
    if not re.fullmatch(r"healthy|idle|epoch=\d{1,15}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is none of healthy, idle, epoch=N")
    return text


def run(args: Namespace, out: Out) -> int:
    """Ask until it is so."""
    started = time.monotonic()
    latest: list[Status] = []
    client = common.connect(args)

    def attempt(timeout_s: float) -> bool:
        latest[:] = [client.call(GetStatus(call=0), timeout_s)]
        return _holds(args.condition, latest[0])

    try:
        if not common.try_until(common.outcome_deadline_s(args), attempt):
            state = latest[0].state if latest else "not reachable"
            raise TimedOut(f"still not {args.condition}: the daemon is {state}", "see: rapidctl status")
    finally:
        client.close()
    if out.json:
        out.document({"condition": args.condition, "state": latest[0].state, "waited_s": time.monotonic() - started})
    return 0


def _holds(condition: str, status: Status) -> bool:
    if condition == "healthy":
        return status.state == "serving"
    if condition == "idle":
        return status.state == "serving" and live(status) == 0
    return status.partition is not None and status.partition.epoch >= int(condition.removeprefix("epoch="))
