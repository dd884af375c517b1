"""Which settings a running daemon takes over, and why a new configuration is refused. Pure.

All or none: one setting that needs a restart, or one that is wrong, and everything stays as it is.
"""

from typing import Final

from rapidd.config import Config
from rapidd.errors import ConfigError
from rapidd.settings import values_of

HOT: Final = frozenset(
    {
        "access.max-clients",
        "access.max-queue-share",
        "access.max-requests-per-client",
        "access.max-requests-per-user",
        "access.operators",
        "engine.policy",
        "log.format",
        "log.level",
        "policy.give-way-s",
        "policy.refuse-hopeless",
        "server.load-timeout-s",
        "server.max-waiting-requests",
        "server.max-waiting-tokens",
        "server.max-output-tokens",
        "server.drain-timeout-s",
        "server.hang-timeout-s",
        "server.snapshot-hz",
        "slo.itl-s",
        "slo.ttft-floor-s",
        "slo.ttft-per-1k-s",
    }
)
"""Every key that `SIGHUP` changes; those of [http] belong to another process and are nobody's business here."""
OTHERS: Final = "http."


def changed(old: Config, new: Config) -> list[str]:
    """The daemon's keys whose values differ."""
    before = dict(values_of(old))
    return [key for key, value in values_of(new) if value != before[key] and not key.startswith(OTHERS)]


def check(old: Config, new: Config) -> list[str]:
    """The keys to change. Raises `ConfigError` naming those that need a restart."""
    keys = changed(old, new)
    cold = [f"{key}: needs a restart; nothing was changed" for key in keys if key not in HOT]
    if cold:
        raise ConfigError(cold)
    return keys
