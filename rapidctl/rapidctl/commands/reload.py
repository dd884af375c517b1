"""`rapidctl reload`: the daemon reads its configuration again and takes over what may change while it serves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rapidctl.client import Client, operator_name
from rapidctl.commands import common
from rapidctl.errors import Refused, TimedOut
from rapidctl.out import Out, safe_line
from rapidctl.wire import Event, GetEvents, Reload

if TYPE_CHECKING:
    from argparse import Namespace

LOOK_S = 0.05
"""Between two looks at the events."""


def add_parser(commands: common.Commands) -> None:
    """Declare the command."""
    parser = common.add_command(commands, "reload", run, "read the configuration again: all hot settings or none")
    parser.add_argument("--wait", action="store_true", help="for the outcome; exit status 1 when it was refused")


def run(args: Namespace, out: Out) -> int:
    """Say so to the daemon, and wait."""
    with common.connect(args, control=True) as client:
        from_seq = client.call(GetEvents(call=0, limit=1)).next_seq
        text = client.call(Reload(call=0, by=operator_name())).text
        if args.wait:
            outcome = _outcome(client, from_seq, common.outcome_deadline_s(args))
            text = outcome.text
            if outcome.level != "info":
                raise Refused("invalid_request", text, "mend the configuration: rapidd config check")
    if out.json:
        out.document({"text": text})
    else:
        out.text(safe_line(text))
    return 0


def _outcome(client: Client, from_seq: int, deadline_s: float) -> Event:
    """The event that tells what became of it. Raises `TimedOut`."""
    while time.monotonic() < deadline_s:
        news = client.call(GetEvents(call=0, from_seq=from_seq), common.left_s(deadline_s))
        for event in news.events:
            if event.kind == "config":
                return event
        from_seq = news.next_seq
        client.poll(LOOK_S)
    raise TimedOut("the configuration is being read, but nothing was heard of the outcome in time")
