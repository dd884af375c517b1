"""`rapidctl drain`: stop admitting requests while the running ones finish; or admit again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rapidctl.client import operator_name
from rapidctl.commands import common
from rapidctl.errors import TimedOut
from rapidctl.out import Out, safe_line
from rapidctl.wire import Drain, GetStatus, Status

if TYPE_CHECKING:
    from argparse import Namespace


def add_parser(commands: common.Commands) -> None:
    """Declare the command."""
    parser = common.add_command(commands, "drain", run, "stop admitting requests; the running ones finish")
    parser.add_argument("--off", action="store_true", help="admit again")
    parser.add_argument("--wait", action="store_true", help="until no request is left")


def run(args: Namespace, out: Out) -> int:
    """Say so to the daemon, and wait."""
    with common.connect(args, control=True) as client:
        reply = client.call(Drain(call=0, on=not args.off, by=operator_name()))
        if args.wait and not args.off:
            deadline = common.outcome_deadline_s(args)
            if not common.try_until(deadline, lambda timeout_s: live(client.call(GetStatus(call=0), timeout_s)) == 0):
                raise TimedOut("draining, but requests were still running when the time was over")
    if out.json:
        out.document({"draining": not args.off, "epoch": reply.epoch, "text": reply.text})
    else:
        out.text(safe_line(reply.text))
    return 0


def live(status: Status) -> int:
    """Requests in any phase."""
    counts = status.requests
    return counts.waiting + counts.prefilling + counts.decoding
