"""`rapidctl record`: write what the daemon publishes to a file, for `replay` and `export`. No prompt, no answer."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rapidctl.client import Feed
from rapidctl.commands import common
from rapidctl.errors import TimedOut
from rapidctl.out import Out, duration, size
from rapidctl.tape import Record, Recorder

if TYPE_CHECKING:
    from argparse import Namespace

LOOK_S = 0.5


def add_parser(commands: common.Commands) -> None:
    """Declare the command."""
    parser = common.add_command(
        commands,
        "record",
        run,
        "write snapshots and events to a new file, until ^C or the time is over",
        "Recordings hold names of models and clients, and no text of prompts or answers: the daemon publishes none.\n"
        "Those sent from the console are recorded there when asked: rapidctl top --with-text, then R.\n"
        "Look at one with: rapidctl replay FILE",
    )
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="a file that does not exist yet")
    parser.add_argument(
        "--for", dest="length", metavar="DUR", type=common.positive_duration_s, help="stop after so long"
    )


def run(args: Namespace, out: Out) -> int:
    """Record."""
    with common.connect(args) as client, Recorder(Path(args.output)) as recorder:
        started = time.monotonic()
        # ^C is the ordinary way to end a recording.
        with Feed(client.endpoint, client=client, since=0) as feed, suppress(KeyboardInterrupt):
            _follow(feed, recorder, started, args.length)
    took = time.monotonic() - started
    if not recorder.snapshots:
        raise TimedOut("no snapshot came: nothing was recorded", "see: rapidctl doctor")
    written = Path(args.output).stat().st_size
    if out.json:
        out.document({"file": args.output, "snapshots": recorder.snapshots, "recorded_s": took, "bytes": written})
    else:
        out.note(f"recorded {recorder.snapshots} snapshots in {duration(took)}: {args.output}, {size(written)}")
    return 0


def _follow(feed: Feed, recorder: Recorder, started: float, length: float | None) -> None:
    seen = None
    while length is None or time.monotonic() < started + length:
        feed.poll(LOOK_S if length is None else min(LOOK_S, max(0.0, started + length - time.monotonic())))
        now = time.monotonic() - started
        for event in feed.take_events():
            recorder.add(Record(now, event))
        if feed.snapshot is not None and feed.snapshot is not seen:
            seen = feed.snapshot
            recorder.add(Record(now, seen))
