"""`rapidctl replay`: a recording in the console, or with ``--json`` as one line a snapshot, event and exchange."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from rapidctl.commands import common, top
from rapidctl.out import Out
from rapidctl.tape import FileTape

if TYPE_CHECKING:
    from argparse import Namespace


def add_parser(commands: common.Commands) -> None:
    """Declare the command."""
    parser = common.add_command(commands, "replay", run, "look at a recording; with --json, print it")
    parser.add_argument("replay", metavar="FILE", help="made by: rapidctl record")
    top.add_display_options(parser)
    parser.set_defaults(demo=False, control=False)


def run(args: Namespace, out: Out) -> int:
    """Show or print it."""
    if not out.json:
        return top.run(args, out)
    with closing(FileTape(Path(args.replay))) as tape:
        for at_s, item in tape:
            kind = type(item).__name__.lower()
            out.document({"type": kind, "at_s": at_s, kind: item})
    if tape.cut:
        out.note("rapidctl: the recording was cut off: its last seconds are missing")
    return 0
