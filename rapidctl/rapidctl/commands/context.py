"""`rapidctl context`: the named daemons of the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rapidctl import settings
from rapidctl.commands import common

if TYPE_CHECKING:
    from argparse import Namespace

    from rapidctl.out import Out


def add_parser(commands: common.Commands) -> None:
    """Declare the commands."""
    group = common.add_group(commands, "context", "named daemons: list, choose, add")
    common.add_command(group, "ls", run_ls, "list them; * is the chosen one")
    use = common.add_command(group, "use", run_use, "choose the one that commands talk to")
    use.add_argument("name", metavar="NAME")
    add = common.add_command(group, "add", run_add, "name a daemon")
    add.add_argument("name", metavar="NAME")
    add.add_argument("address", metavar="ENDPOINT", help="ipc:///path/request.sock")
    common.alone(commands, group, "context", "ls")


def run_ls(args: Namespace, out: Out) -> int:
    """List them."""
    found = settings.load().settings
    if out.json:
        contexts = [
            {"name": name, "endpoint": context.endpoint, "chosen": name == found.context}
            for name, context in found.contexts.items()
        ]
        out.document({"contexts": contexts})
    else:
        rows = [["*" if name == found.context else "", name, known.endpoint] for name, known in found.contexts.items()]
        out.table(["", "NAME", "ENDPOINT"], rows)
    return 0


def run_use(args: Namespace, out: Out) -> int:
    """Choose one."""
    path = settings.use_context(args.name)
    return _said(out, path.as_posix(), args.name, f"{args.name} is the chosen context now")


def run_add(args: Namespace, out: Out) -> int:
    """Add one."""
    path = settings.add_context(args.name, args.address)
    return _said(out, path.as_posix(), args.name, f"added {args.name}; rapidctl context use {args.name} chooses it")


def _said(out: Out, path: str, name: str, text: str) -> int:
    if out.json:
        out.document({"file": path, "context": name})
    else:
        out.note(text)
    return 0
