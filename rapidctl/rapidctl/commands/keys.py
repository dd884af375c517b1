"""`rapidctl keys`: for daemons on other machines, over tcp. Works on files; asks no daemon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from rapidctl.commands import common
from rapidctl.out import Out

if TYPE_CHECKING:
    from argparse import Namespace

AUTHORIZED: Final = Path("/etc/rapidd/keys/authorized-keys")


def add_parser(commands: common.Commands) -> None:
    """Declare the command and its branches."""
    group = common.add_group(commands, "keys", "keys for daemons on other machines")
    common.add_command(group, "show", _show, "this user's public key, and the daemons it trusts")
    make = common.add_command(group, "make", _make, "make a pair of keys and print the public one")
    make.add_argument("--out", metavar="FILE", type=Path, help="where to; this user's own by default")
    authorize = common.add_command(group, "authorize", _authorize, "let a client's public key into a daemon")
    authorize.add_argument("key", metavar="KEY")
    authorize.add_argument("name", metavar="NAME", help="whose it is, for quotas and the audit log")
    authorize.add_argument("--operator", action="store_true", help="may also change the daemon for everybody")
    authorize.add_argument(
        "--file", metavar="FILE", type=Path, default=AUTHORIZED, help=f"of the daemon ({AUTHORIZED})"
    )
    trust = common.add_command(group, "trust", _trust, "remember the public key of a daemon")
    trust.add_argument("server", metavar="ENDPOINT", help="tcp://HOST:PORT")
    trust.add_argument("key", metavar="KEY")
    common.alone(commands, group, "keys", "show")


def _show(args: Namespace, out: Out) -> int:
    from rapidctl import keys

    path = keys.folder() / keys.CLIENT_KEY
    public = keys.read(path).public if keys.is_there(path) else None
    servers = keys.trusted()
    if out.json:
        out.document({"file": str(path), "public": public, "servers": servers})
        return 0
    out.pairs([("public key", public or "none, make one: rapidctl keys make"), ("file", str(path))])
    if servers:
        out.text("")
        out.table(["DAEMON", "PUBLIC KEY"], [[endpoint, key] for endpoint, key in servers.items()])
    return 0


def _make(args: Namespace, out: Out) -> int:
    from rapidctl import keys  # loads zmq

    path = args.out or keys.folder() / keys.CLIENT_KEY
    pair = keys.make()
    keys.write(path, pair)
    if out.json:
        out.document({"file": str(path), "public": pair.public})
    else:
        out.text(pair.public)
        out.note(f"the pair is in {path}; the line above is public")
    return 0


def _authorize(args: Namespace, out: Out) -> int:
    from rapidctl import keys

    keys.authorize(args.file, args.key, args.name, operator=args.operator)
    return _say(out, f"{args.name} may connect{' and command' if args.operator else ''}: {args.file}")


def _trust(args: Namespace, out: Out) -> int:
    from rapidctl import keys, wire

    path = keys.folder() / keys.SERVERS
    keys.trust(path, wire.check_client_endpoint(args.server), args.key)
    return _say(out, f"{args.server} is known: {path}")


def _say(out: Out, text: str) -> int:
    if out.json:
        out.document({"text": text})
    else:
        out.text(text)
    return 0
