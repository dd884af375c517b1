"""`rapidctl export`: a recording as CSV, one line a snapshot."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from rapidctl.commands import common
from rapidctl.errors import UsageError
from rapidctl.export import COLUMNS, write_csv
from rapidctl.tape import FileTape

if TYPE_CHECKING:
    from argparse import Namespace

    from rapidctl.out import Out


def add_parser(commands: common.Commands) -> None:
    """Declare the command."""
    columns = ", ".join(COLUMNS)
    parser = common.add_command(
        commands, "export", run, "a recording as CSV", f"Columns: {columns}. Latencies and rates are of 10 seconds."
    )
    parser.add_argument("file", metavar="FILE", help="made by: rapidctl record")
    parser.add_argument("--csv", action="store_true", help="the only format, and the default")
    parser.add_argument("-o", "--output", metavar="OUT", help="a new file instead of stdout")


def run(args: Namespace, out: Out) -> int:
    """Write it."""
    if args.output is None and out.json:
        raise UsageError("CSV goes to stdout, where --json puts its document", "name a file with -o")
    with closing(FileTape(Path(args.file))) as tape:
        if args.output is None:
            write_csv(tape, out)
            return 0
        written = _write(tape, Path(args.output))
    if out.json:
        out.document({"file": args.output, "rows": written})
    else:
        out.note(f"wrote {written} rows to {args.output}")
    return 0


def _write(tape: FileTape, path: Path) -> int:
    try:
        with path.open("x", newline="") as file:
            return write_csv(tape, file)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
