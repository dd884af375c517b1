"""`rapidctl top`, and `rapidctl` alone: the console. The only command that loads Textual, and only here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rapidctl.commands import common
from rapidctl.errors import UsageError
from rapidctl.wire import check_endpoint, default_endpoint

if TYPE_CHECKING:
    from argparse import Namespace

    from rapidctl.out import Out


def add_parser(commands: common.Commands) -> None:
    """Declare the command."""
    parser = common.add_command(commands, "top", run, "the console (also: rapidctl alone)")
    parser.add_argument("--control", action="store_true", help="start unlocked: changes are possible")
    parser.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal")


def run(args: Namespace, out: Out) -> int:
    """Open it."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the console needs a terminal", "without one, use: rapidctl status")
    endpoint = check_endpoint(args.endpoint) if args.endpoint else default_endpoint()
    from rapidctl.console.app import run_console

    return run_console(endpoint, control=args.control, mouse=not args.no_mouse)
