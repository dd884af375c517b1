"""`rapidctl events`: what happened, from what the daemon still keeps, and with ``-f`` from then on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rapidctl.client import Feed
from rapidctl.commands import common
from rapidctl.out import Out, safe_line
from rapidctl.wire import Event, GetEvents

if TYPE_CHECKING:
    from argparse import Namespace

    from rapidctl.client import Client


def add_parser(commands: common.Commands) -> None:
    """Declare the command."""
    parser = common.add_command(commands, "events", run, "what happened: decisions, changes, losses, restarts")
    parser.add_argument("-f", "--follow", action="store_true", help="and go on; with --json one line an event")
    parser.add_argument("--since", metavar="SEQ", type=common.integer, default=0, help="from this event on")


def run(args: Namespace, out: Out) -> int:
    """List them, and follow."""
    with common.connect(args) as client:
        if args.follow:
            return _follow(args, out, client)
        answer = client.call(GetEvents(call=0, from_seq=max(0, args.since)))
        if out.json:
            out.document({"oldest_seq": answer.oldest_seq, "next_seq": answer.next_seq, "events": answer.events})
        else:
            out.table(["TIME", ">SEQ", "KIND", "WHAT"], [event_row(event) for event in answer.events])
    return 0


def _follow(args: Namespace, out: Out, client: Client) -> int:
    lost, connected = 0, True
    with Feed(client.endpoint, client=client, since=max(0, args.since)) as feed:
        while True:
            feed.poll(1.0)
            client.poll(0)
            if client.connected != connected:
                connected = client.connected
                out.note(f"rapidctl: the daemon is {'back' if connected else 'away, still trying'}")
            if feed.lost_events > lost:
                out.note(f"rapidctl: {feed.lost_events - lost} events are no longer kept")
                lost = feed.lost_events
            for event in feed.take_events():
                if out.json:
                    out.document({name: getattr(event, name) for name in event.__struct_fields__})
                else:
                    out.text(safe_line("  ".join(event_row(event))))


def event_row(event: Event) -> list[str]:
    """Time, number, kind and text."""
    at = time.strftime("%H:%M:%S", time.localtime(event.at_unix_s))
    level = {"info": "", "warn": "! ", "error": "✗ "}[event.level]
    request = f"  ({event.request_id})" if event.request_id else ""
    return [at, str(event.seq), event.kind, f"{level}{event.text}{request}"]
