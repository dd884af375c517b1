"""What several commands share: their options, the connection they open, watching, durations."""

import argparse
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from rapidctl.client import DEFAULT_TIMEOUT_S, Client
from rapidctl.errors import Refused, TimedOut, Unreachable, UsageError
from rapidctl.out import Out, safe_line, say
from rapidctl.wire import check_client_endpoint

if TYPE_CHECKING:
    from rapidctl.wire import PartitionInfo, Welcome

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

Run = Callable[[argparse.Namespace, Out], int]
"""A command: arguments and streams in, exit code out."""

PASSING: Final = frozenset({"starting", "engine_lost"})
"""Refusals of a daemon whose engine is on its way: the same question is answered later."""
OUTCOME_TIMEOUT_S: Final = 60.0
"""How long commands that wait for an outcome wait unless told."""
LEAST_WAIT_S: Final = 0.05
"""For an answer, however little time is left."""
VALUE_OPTIONS: Final = ("--endpoint", "-c", "--context", "--gpu", "--timeout", "--color")
"""Common options whose value is the next word."""
RUNTIME: Final = Path("/run")
"""Of system services; see `gpu_endpoint`."""
_UNITS_S: Final = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration_s(text: str) -> float:
    """Seconds of "30s", "5m", "1h", "250ms", "2d" or a bare number of seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)(ms|[smhd]?)", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write 25ms, 30s, 5m or 1h")
    return float(match[1]) * _UNITS_S[match[2]]


def positive_duration_s(text: str) -> float:
    """As `duration_s`, but not zero."""
    value = duration_s(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be longer than zero")
    return value


def integer(text: str) -> int:
    """An integer that fits the wire; its bounds are the daemon's to judge."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no integer") from None
    if not -(2**63) <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{text} does not fit 64 bits")
    return value


def gpu(text: str) -> int | Literal["all"]:
    """A GPU's number, or all of them."""
    if text == "all":
        return "all"
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no GPU: write 0, 1, … or all")
    return int(text)


def add_if_epoch(parser: argparse.ArgumentParser) -> None:
    """Of commands that change control state; see `expected_epoch`."""
    text = "only if this is still the epoch (default: the one that this command finds)"
    parser.add_argument("--if-epoch", metavar="N", type=integer, help=text)


def expected_epoch(args: argparse.Namespace, now: "PartitionInfo") -> int:
    """The epoch that a change goes by: given, or of what was just read, so that nothing is overwritten unseen."""
    given: int | None = args.if_epoch
    return now.epoch if given is None else given


def common_options(default: object) -> argparse.ArgumentParser:
    """Options that every command takes, before or after its name. ``default``: of all, SUPPRESS after the name."""
    parser = argparse.ArgumentParser(add_help=False, argument_default=default)
    group = parser.add_argument_group("common options")
    group.add_argument("--endpoint", metavar="E", help="the daemon's request socket, ipc:///path (RAPIDCTL_ENDPOINT)")
    group.add_argument(
        "-c", "--context", dest="daemon", metavar="NAME", help="a daemon named in the settings (RAPIDCTL_CONTEXT)"
    )
    group.add_argument("--gpu", metavar="I|all", type=gpu, help="the daemon of GPU I (unit rapidd@I); all: hosts, top")
    group.add_argument(
        "--timeout",
        metavar="DUR",
        type=positive_duration_s,
        help=f"longest wait for an answer ({DEFAULT_TIMEOUT_S:g}s), or for an outcome ({OUTCOME_TIMEOUT_S:g}s)",
    )
    group.add_argument("--json", action="store_true", default=default, help="one JSON document on one line")
    group.add_argument("--color", choices=["auto", "always", "never"], help="styles in text (auto)")
    group.add_argument("-q", "--quiet", action="store_true", default=default, help="nothing on stderr but errors")
    group.add_argument(
        "-v", "--verbose", action="store_true", default=default, help="tell on stderr who answered and how long it took"
    )
    return parser


def add_command(commands: "Commands", name: str, run: Run, summary: str, epilog: str = "") -> argparse.ArgumentParser:
    """Declare a command that takes the common options."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        parents=[common_options(argparse.SUPPRESS)],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        conflict_handler="resolve",  # a command's own short option comes before a common one
    )
    parser.set_defaults(run=run)
    return parser


def add_group(commands: "Commands", name: str, summary: str) -> "Commands":
    """Declare a command that only holds others; see `alone`."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        parents=[common_options(argparse.SUPPRESS)],
        allow_abbrev=False,
    )
    return parser.add_subparsers(metavar="COMMAND", required=True)


def alone(commands: "Commands", group: "Commands", name: str, shown: str) -> None:
    """The group ``name`` without a command shows what its command ``shown`` does without options."""
    parser = commands.choices[name]
    parser.set_defaults(**vars(group.choices[shown].parse_args([])))
    parser.description = f"{parser.description} Without a command: {shown}."
    group.required = False


def add_watch_options(parser: argparse.ArgumentParser) -> None:
    """``--watch`` and ``-n``."""
    parser.add_argument(
        "--watch", metavar="SEC", nargs="?", const=2.0, type=positive_duration_s, help="repeat, every 2 s unless told"
    )
    parser.add_argument("-n", dest="count", metavar="COUNT", type=integer, help="with --watch: stop after so many")


def connect(args: argparse.Namespace, *, control: bool = False) -> Client:
    """An open client for the command's endpoint; a context manager that connects."""
    kind = _Telling if args.verbose else Client
    return kind(endpoint(args), control=control, timeout_s=args.timeout or DEFAULT_TIMEOUT_S)


class _Telling(Client):
    """A client under ``-v``."""

    def connect(self) -> "Welcome":
        """As `Client.connect`, and say who answered."""
        welcome = super().connect()
        rights = "operator's rights" if welcome.control else "read-only"
        who = f"rapidd {welcome.version}, protocol {welcome.protocol}, front boot {welcome.front_boot_id}, {rights}"
        say(safe_line(f"rapidctl: {self.endpoint}: {who}"), sys.stderr)
        return welcome


def endpoint(args: argparse.Namespace) -> str:
    """Where the daemon is: ``--endpoint``, ``--gpu``, ``-c``, RAPIDCTL_ENDPOINT, the chosen context, the default.

    Raises `UsageError`, `ConfigError` and `EndpointError`.
    """
    if sum(named is not None for named in (args.endpoint, args.gpu, args.daemon)) > 1:
        raise UsageError("--endpoint, --gpu and --context each name a daemon", "give one of them")
    if args.endpoint:
        return check_client_endpoint(args.endpoint)
    if args.gpu == "all":
        raise UsageError("this command talks to one daemon", "name one (--gpu 0), or see them all: rapidctl hosts")
    if args.gpu is not None:
        return gpu_endpoint(args.gpu)
    from rapidctl import settings  # reads TOML; most scripts name the endpoint

    return settings.endpoint_of(settings.load().settings, args.daemon)


def endpoints(args: argparse.Namespace) -> dict[str, str]:
    """What there is to watch, names by endpoint: what is named by address or GPU, else every context, the chosen first.

    Raises `UsageError`, `ConfigError` and `EndpointError`.
    """
    if args.gpu == "all" and args.endpoint is None and args.daemon is None:
        return _every_gpu()
    first = endpoint(args)
    if args.endpoint:
        return {first: "default"}
    if args.gpu is not None:
        return {first: f"gpu-{args.gpu}"}
    from rapidctl import settings

    contexts = settings.load().settings.contexts
    named = {check_client_endpoint(context.endpoint): name for name, context in contexts.items()}
    return {first: named.get(first, "default"), **named}


def gpu_endpoint(number: int) -> str:
    """The request socket of a GPU's own daemon, as the unit ``rapidd@.service`` names it."""
    return f"ipc://{RUNTIME}/rapidd-{number}/request.sock"


def _every_gpu() -> dict[str, str]:
    numbers = sorted(
        int(path.parent.name.removeprefix("rapidd-"))
        for path in RUNTIME.glob("rapidd-*/request.sock")
        if path.parent.name.removeprefix("rapidd-").isdecimal()
    )
    if not numbers:
        raise UsageError(
            f"no daemon of a GPU listens under {RUNTIME}", "systemctl start rapidd@0, or name daemons: context add"
        )
    return {gpu_endpoint(number): f"gpu-{number}" for number in numbers}


def outcome_deadline_s(args: argparse.Namespace) -> float:
    """Until when, on the monotonic clock, to wait for an outcome."""
    return time.monotonic() + (args.timeout or OUTCOME_TIMEOUT_S)


def left_s(deadline_s: float) -> float:
    """How long one answer may take, where no outcome is waited for after the deadline."""
    return max(LEAST_WAIT_S, min(DEFAULT_TIMEOUT_S, deadline_s - time.monotonic()))


def watch(args: argparse.Namespace, out: Out, client: Client | None, show: Callable[[], int]) -> int:
    """Show once, or again and again under ``--watch``; then a daemon that went away, or its engine, is waited for.

    ``client``: whose connection is kept alive between two times. The exit code is that of the last time.
    """
    code = show()
    shown = 1
    while args.watch is not None and (args.count is None or shown < args.count):
        if client is None:
            time.sleep(args.watch)
        else:
            pause(client, args.watch)
        if not out.json:
            out.clear()
        try:
            code = show()
        except (Unreachable, TimedOut, Refused) as error:
            if isinstance(error, Refused) and error.code not in PASSING:
                raise
            out.error(error.message, "still trying")
            code = error.exit_code
        shown += 1
    return code


def pause(client: Client, duration: float) -> None:
    """Let time pass while the connection is kept alive."""
    until = time.monotonic() + duration
    while (left := until - time.monotonic()) > 0:
        client.poll(left)


def try_until(deadline_s: float, attempt: Callable[[float], bool]) -> bool:
    """Repeat until it is so; a daemon that is away is a no. False when the deadline passed before.

    ``attempt`` is told how long it may wait for its answer (`left_s`).
    """
    while True:
        try:
            if attempt(left_s(deadline_s)):
                return True
        except (Unreachable, TimedOut):
            pass
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(0.1)
