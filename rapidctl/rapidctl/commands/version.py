"""`rapidctl version`: of this client; asks no daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rapidctl import __version__, wire
from rapidctl.commands import common
from rapidctl.out import Out

if TYPE_CHECKING:
    from argparse import Namespace


def add_parser(commands: common.Commands) -> None:
    """Declare the command."""
    common.add_command(commands, "version", run, "version of this client and of the protocol it speaks")


def run(args: Namespace, out: Out) -> int:
    """Print it."""
    if out.json:
        out.document({"version": __version__, "protocol_min": wire.PROTOCOL_MIN, "protocol_max": wire.PROTOCOL_MAX})
    else:
        out.text(f"rapidctl {__version__}, protocol {wire.PROTOCOL_MIN} to {wire.PROTOCOL_MAX}")
    return 0
