"""`rapidctl config`: where the settings are, what they are, and where each came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rapidctl import settings
from rapidctl.commands import common

if TYPE_CHECKING:
    from argparse import Namespace

    from rapidctl.out import Out


def add_parser(commands: common.Commands) -> None:
    """Declare the commands."""
    group = common.add_group(commands, "config", "settings of rapidctl: path, show, init")
    common.add_command(group, "path", run_path, "the file, whether or not it is there")
    show = common.add_command(group, "show", run_show, "every setting")
    show.add_argument("--origin", action="store_true", help="and where it came from")
    common.add_command(group, "init", run_init, "write a file with every setting, commented out")
    common.alone(commands, group, "config", "show")


def run_path(args: Namespace, out: Out) -> int:
    """Say where."""
    path = settings.config_path().as_posix()
    if out.json:
        out.document({"path": path})
    else:
        out.text(path)
    return 0


def run_show(args: Namespace, out: Out) -> int:
    """Show them."""
    loaded = settings.load()
    values = {name: getattr(loaded.settings, name) for name in loaded.settings.__struct_fields__}
    if out.json:
        out.document({"settings": values, "origin": loaded.origin})
        return 0
    rows = []
    for name, value in values.items():
        shown = ", ".join(value) or "none" if isinstance(value, dict) else "none" if value is None else str(value)
        rows.append([name, shown, *([loaded.origin.get(name, "default")] if args.origin else [])])
    out.table(["SETTING", "VALUE", *(["ORIGIN"] if args.origin else [])], rows)
    return 0


def run_init(args: Namespace, out: Out) -> int:
    """Write one."""
    path = settings.init().as_posix()
    if out.json:
        out.document({"path": path})
    else:
        out.note(f"wrote {path}")
    return 0
