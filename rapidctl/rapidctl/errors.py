"""What can go wrong on the operator's side, and the exit code each becomes on the command line.

RapidctlError
├── Unreachable        3  no daemon answers at the endpoint
├── TimedOut           4  it is there but did not answer in time
├── ProtocolMismatch   6  it speaks no version that this client speaks
├── OutputError        1  what a command prints cannot be written
├── UsageError         2  the arguments contradict each other or the terminal
│   └── TraceError     2  a request trace cannot be used (rapidctl.bench.trace)
└── Refused            1  it answered no: code, sentence, what to do
    └── NotPermitted   5  this connection may not do that
"""

import re
from typing import ClassVar, Final

from rapidctl.wire import ErrorCode, Failed, WireError

_OF_GPU: Final = re.compile(r"ipc:///run/rapidd-(\d+)/request\.sock")
"""Where the unit ``rapidd@.service`` lets a GPU's own daemon listen."""


class RapidctlError(Exception):
    """Base of all errors below. ``hint`` says what to do about it, "" when there is nothing to say."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Unreachable(RapidctlError):
    """Nobody answers at the endpoint, or the connection was lost before the answer came."""

    exit_code = 3


class TimedOut(RapidctlError):
    """The daemon is connected but gave no answer in time; whether it acted is unknown."""

    exit_code = 4


class ProtocolMismatch(RapidctlError):
    """Daemon and client share no protocol version, or the daemon's message cannot be read."""

    exit_code = 6


class OutputError(RapidctlError):
    """Standard output takes no more: a full disk, say. A reader that went away is a `BrokenPipeError` instead."""


class UsageError(RapidctlError):
    """A command line that argparse accepts and that still makes no sense."""

    exit_code = 2


class Refused(RapidctlError):
    """The daemon said no, or a stream ended without finishing.

    ``retry_after_s``: when asking again makes sense, null when it never does. ``output_ids``: for a stream, the
    output ids of each choice that had arrived by then (empty lists before the first).
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        hint: str = "",
        retry_after_s: float | None = None,
        output_ids: list[list[int]] | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.code: ErrorCode = code
        self.retry_after_s = retry_after_s
        self.output_ids = output_ids or []


class NotPermitted(Refused):
    """The connection asked for something that only an operator's connection may do."""

    exit_code = 5


def refusal(failed: Failed, output_ids: list[list[int]] | None = None) -> Refused:
    """The exception for a `Failed` message."""
    kind = NotPermitted if failed.code == "not_permitted" else Refused
    return kind(failed.code, failed.message, failed.hint, failed.retry_after_s, output_ids)


def unreadable(error: WireError) -> ProtocolMismatch:
    """The exception for a daemon's message that cannot be read."""
    return ProtocolMismatch(str(error), "use the rapidctl that came with this daemon")


def nobody_at(endpoint: str) -> Unreachable:
    """The exception for an endpoint where nobody answers."""
    over_tcp = ", or not with these keys" if endpoint.startswith("tcp://") else ""
    return Unreachable(f"no daemon answers at {endpoint}{over_tcp}", how_to_reach(endpoint))


def how_to_reach(endpoint: str) -> str:
    """What to do where no daemon answers. Over tcp one that knows other keys is as silent as one that is not there."""
    if endpoint.startswith("tcp://"):
        return (
            "check there that it listens (tcp.listen) and lets in your key (rapidctl keys authorize KEY NAME), "
            f"and here that you trust its own (rapidctl keys trust {endpoint} KEY); rapidctl keys shows both"
        )
    unit = _OF_GPU.fullmatch(endpoint)
    start = f"systemctl start rapidd@{unit[1]}" if unit else "rapidd serve"
    return f"start one with: {start}   (or name another with --endpoint)"
