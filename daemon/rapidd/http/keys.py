"""API keys: made once, kept as hashes, compared in constant time.

A key is 256 random bits, so a plain SHA-256 of it cannot be reversed or guessed. The file holds one hash a line in hex;
``#`` begins a comment. It is read at start.
"""

import hashlib
import hmac
import ipaddress
import re
import secrets
from pathlib import Path
from typing import Final

from rapidd.config import HttpConfig
from rapidd.errors import ConfigError

PREFIX: Final = "sk-rapid-"
_HASH: Final = re.compile(r"[0-9a-f]{64}")
MAX_KEYS: Final = 1000


def make() -> tuple[str, str]:
    """A new key, and its line of the file."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, digest(key)


def digest(key: str) -> str:
    """As the file has it."""
    return hashlib.sha256(key.encode()).hexdigest()


class Keys:
    """The keys that are let in. None at all lets nobody in."""

    def __init__(self, hashes: list[str]) -> None:
        self._hashes = [bytes.fromhex(line) for line in hashes]

    def __contains__(self, key: str) -> bool:
        found = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        return sum(hmac.compare_digest(found, known) for known in self._hashes) > 0


def of_server(config: HttpConfig) -> Keys | None:
    """The keys that a server lets in; null: it is for this machine alone. Raises `ConfigError` for others without."""
    if config.api_keys:
        return read(Path(config.api_keys))
    if config.uds is None and not is_loopback(config.host):
        raise ConfigError(
            [
                f"http.host: {config.host} can be reached from other machines, so API keys are needed: "
                "rapidd http --make-key, then --api-keys FILE"
            ]
        )
    return None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server on ``host``."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read(path: Path) -> Keys:
    """The keys of a file. Raises `ConfigError`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError([f"http.api-keys: {path}: {error}"]) from error
    hashes = [text for line in lines if (text := line.partition("#")[0].strip())]
    if bad := [number for number, text in enumerate(hashes, start=1) if not _HASH.fullmatch(text)]:
        raise ConfigError(
            [f"http.api-keys: {path}: entry {bad[0]} is no SHA-256 in hex; make one: rapidd http --make-key"]
        )
    if not hashes:
        raise ConfigError(
            [f"http.api-keys: {path}: no keys, so nobody could be let in; make one: rapidd http --make-key"]
        )
    if len(hashes) > MAX_KEYS:
        raise ConfigError([f"http.api-keys: {path}: {len(hashes)} keys; at most {MAX_KEYS}"])
    return Keys(hashes)
