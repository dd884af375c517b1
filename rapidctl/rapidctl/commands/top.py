"""`rapidctl top`, and `rapidctl` alone: the console. The only commands that load Textual, and only here."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rapidctl import settings
from rapidctl.commands import common
from rapidctl.errors import UsageError
from rapidctl.out import is_dumb

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rapidctl.console.host import Host
    from rapidctl.out import Out
    from rapidctl.settings import Settings

SCREENS = ("overview", "requests", "partition", "prompt", "log", "device", "hosts")


def add_parser(commands: common.Commands) -> None:
    """Declare the command."""
    parser = common.add_command(commands, "top", run, "the console (also: rapidctl alone)")
    feed = parser.add_mutually_exclusive_group()
    feed.add_argument("--demo", action="store_true", help="a make-believe daemon: no daemon is needed")
    feed.add_argument("--replay", metavar="FILE", help="a recording instead of a daemon")
    parser.add_argument("--control", action="store_true", help="start unlocked: changes are possible")
    parser.add_argument(
        "--with-text", action="store_true", help="recordings (R) also hold the prompts sent from here and their answers"
    )
    add_display_options(parser)


def add_display_options(parser: ArgumentParser) -> None:
    """How the console is shown."""
    parser.add_argument("--screen", choices=SCREENS, default="overview", help="begin there")
    parser.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal")
    parser.add_argument("--ascii", action="store_true", help="only ASCII characters")
    parser.add_argument("--theme", choices=["dark", "light", "contrast", "ansi"], help="colours (dark)")


def run(args: Namespace, out: Out) -> int:
    """Open it."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the console needs a terminal", "without one, use: rapidctl status")
    if is_dumb():
        raise UsageError("the console needs a terminal to draw on, and TERM says dumb", "use: rapidctl status --watch")
    chosen = with_flags(settings.load().settings, args)
    hosts = _hosts(args, chosen)
    from rapidctl.console.app import run_console

    return run_console(hosts, chosen, screen=args.screen)


def with_flags(found: Settings, args: Namespace) -> Settings:
    """Flags come before the file."""
    from msgspec.structs import replace

    return replace(
        found,
        theme=args.theme or found.theme,
        ascii=args.ascii or found.ascii,
        mouse=found.mouse and not args.no_mouse,
        control=args.control or found.control,
    )


def _hosts(args: Namespace, chosen: Settings) -> list[Host]:
    """What to watch: the make-believe daemon, a recording, one endpoint, or every context, the chosen one first."""
    from rapidctl.console.host import Host
    from rapidctl.source import LiveSource

    clock, wall = time.monotonic, time.time
    if args.demo:
        from rapidctl.demo.source import DemoSource

        return [
            Host(
                DemoSource(),
                "demo",
                clock=clock,
                wall=wall,
                kind="demo",
                control=chosen.control,
                with_text=args.with_text,
            )
        ]
    if args.replay is not None:
        from rapidctl.replay import ReplaySource

        source = ReplaySource(Path(args.replay))
        return [Host(source, args.replay, clock=clock, wall=wall, kind="replay", tape=source.tape)]
    endpoints = common.endpoints(args)
    first = next(iter(endpoints))
    return [
        Host(
            LiveSource(endpoint), endpoint, clock=clock, wall=wall, control=chosen.control and endpoint == first,
            name=name if len(endpoints) > 1 else "", with_text=args.with_text,
        )
        for endpoint, name in endpoints.items()
    ]  # fmt: skip
