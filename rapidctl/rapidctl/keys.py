"""CURVE keys for tcp: made, kept in files with mode 0600, and given to sockets. Used by both sides.

Keys are 32 bytes, written in hex. A pair's file has the lines ``public HEX`` and ``secret HEX``; a list has lines of a
key and words (an authorized client's name, perhaps ``operator``; or a server's address). ``#`` begins a comment.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import zmq
from msgspec import Struct
from zmq.utils import z85

from rapidctl.errors import UsageError
from rapidctl.settings import config_home

OPERATOR: Final = "operator"
CLIENT_KEY: Final = "client.key"
SERVERS: Final = "servers"
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")


class Pair(Struct, frozen=True):
    """A public key and its secret one, in hex."""

    public: str
    secret: str


class Authorized(Struct, frozen=True):
    """A client that may connect, by its key."""

    name: str
    operator: bool


def make() -> Pair:
    """A new pair."""
    public, secret = zmq.curve_keypair()
    return Pair(z85.decode(public).hex(), z85.decode(secret).hex())


def check(key: str) -> str:
    """The key itself. Raises `UsageError`."""
    if not _HEX.fullmatch(key):
        raise UsageError("that is no key: a key has 64 hexadecimal digits", "rapidctl keys make prints one")
    return key


def folder() -> Path:
    """Where this user's keys are: RAPIDCTL_KEYS, else under XDG_CONFIG_HOME, else under ~/.config."""
    if chosen := os.environ.get("RAPIDCTL_KEYS"):
        return Path(chosen)
    return config_home() / "rapidctl/keys"


def write(path: Path, pair: Pair) -> None:
    """Keep a pair where only this user can read it. Raises `UsageError`, also when there is a file already."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"# A key of rapid-serve. Nobody else may read the secret one.\npublic {pair.public}\n")
            file.write(f"secret {pair.secret}\n")
    except FileExistsError:
        raise UsageError(f"{path} is there already", "keys are not replaced: choose another --out") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error


def read(path: Path) -> Pair:
    """A pair's file. Raises `UsageError`, never telling what is in it."""
    values = dict(line for _, line in _lines(path) if len(line) == 2)
    found = [values.get(name, "") for name in ("public", "secret")]
    if not all(map(_HEX.fullmatch, found)):
        raise UsageError(f"{path} holds no pair of keys", f"make one: rapidctl keys make --out {path}")
    return Pair(*found)


def read_authorized(path: Path) -> dict[str, Authorized]:
    """Who may connect, by public key. Raises `UsageError`."""
    known = {}
    for number, words in _lines(path):
        if len(words) < 2 or not _HEX.fullmatch(words[0]) or words[2:] not in ([], [OPERATOR]):
            raise UsageError(f"{path}:{number}: a line is KEY NAME, or KEY NAME {OPERATOR}")
        known[words[0]] = Authorized(words[1], len(words) == 3)
    return known


def authorize(path: Path, key: str, name: str, *, operator: bool) -> None:
    """Let a key in, instead of what the file says of it. Raises `UsageError`."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name: letters, digits and . _ @ -")
    if is_there(path):
        read_authorized(path)
    _set_line(path, 0, check(key), f"{key} {name}{f' {OPERATOR}' if operator else ''}")


def trust(path: Path, endpoint: str, key: str) -> None:
    """Remember a server's public key. Raises `UsageError`."""
    _set_line(path, 1, endpoint, f"{check(key)} {endpoint}")


def trusted() -> dict[str, str]:
    """The public keys of daemons that this user trusts, by endpoint. Raises `UsageError`."""
    return _servers(folder() / SERVERS)


def secure(socket: "zmq.Socket[bytes]", endpoint: str) -> None:
    """Prepare a client's socket for a tcp endpoint; a local one needs nothing. Raises `UsageError`."""
    if not endpoint.startswith("tcp://"):
        return
    pair = read(folder() / CLIENT_KEY)
    server = trusted().get(endpoint)
    if server is None:
        raise UsageError(
            f"the key of {endpoint} is not known", f"ask its operator, then: rapidctl keys trust {endpoint} KEY"
        )
    allow_ipv6(socket, endpoint)
    socket.curve_serverkey = encode(server)
    socket.curve_publickey = encode(pair.public)
    socket.curve_secretkey = encode(pair.secret)


def allow_ipv6(socket: "zmq.Socket[bytes]", endpoint: str) -> None:
    """Prepare a socket of either side for an address in brackets; a name is that of an IPv4 address."""
    socket.ipv6 = endpoint.startswith("tcp://[")


def encode(key: str) -> bytes:
    """A key as sockets take it."""
    return z85.encode(bytes.fromhex(key))


def is_there(path: Path) -> bool:
    """Whether there is a file to read. Of one that may not even be looked at, reading tells why."""
    try:
        return path.exists()
    except OSError:
        return True


def _servers(path: Path) -> dict[str, str]:
    """Public key by endpoint."""
    if not is_there(path):
        return {}
    return {words[1]: words[0] for _, words in _lines(path) if len(words) == 2 and _HEX.fullmatch(words[0])}


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Numbered lines as words, without comments."""
    for number, line in enumerate(_read(path).splitlines(), start=1):
        if words := _words(line):
            yield number, words


def _words(line: str) -> list[str]:
    return line.partition("#")[0].split()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise UsageError(f"{path}: {reason}", "make a key with: rapidctl keys make") from error


def _set_line(path: Path, position: int, word: str, line: str) -> None:
    """Put ``line`` at the end, instead of those that have ``word`` at ``position``; all others stay as they are."""
    lines = _read(path).splitlines() if is_there(path) else []
    _replace(path, [*(old for old in lines if _words(old)[position : position + 1] != [word]), line])


def _replace(path: Path, lines: Iterable[str]) -> None:
    """Write a file in one step: who reads it meanwhile sees the old one or the new one."""
    temporary = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.writelines(f"{line}\n" for line in lines)
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
