"""`rapidctl`: the argument tree, dispatch, and the exit code of everything that can happen.

0 ok · 1 refused or degraded · 2 usage · 3 unreachable · 4 timeout · 5 not permitted · 6 protocol · 70 our bug ·
130 interrupt; a reader that closed the pipe is 0. `check` has codes of its own. Knows no message and no socket:
commands do the work.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Final

from rapidctl.commands import common
from rapidctl.errors import OutputError, RapidctlError, Refused
from rapidctl.out import Out, seconds
from rapidctl.wire import EndpointError

EXIT_USAGE: Final = 2
EXIT_BUG: Final = 70
EXIT_INTERRUPT: Final = 130

COMMANDS: Final = (
    "top", "run", "status", "stats", "requests", "partition", "policy", "profile", "events", "drain", "reload", "wait",
    "version", "completion", "bench", "record", "replay", "export", "check", "context", "hosts", "config", "doctor",
    "schema", "keys",
)  # fmt: skip
EPILOG: Final = """exit codes: 0 ok, 1 refused or degraded, 2 usage, 3 no daemon, 4 timeout, 5 not permitted,
6 protocol mismatch, 70 bug, 130 interrupted"""


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The argument tree, or the branch of one command: loading all of them takes as long as asking the daemon."""
    parser = argparse.ArgumentParser(
        prog="rapidctl",
        description="Watch and steer a rapidd daemon, and send it prompts. Without a command: the console.",
        epilog=EPILOG,
        parents=[common.common_options(None)],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(color="auto", json=False, quiet=False, verbose=False)
    commands = parser.add_subparsers(metavar="COMMAND")
    for name in COMMANDS if only is None else (only,):
        import_module(f"rapidctl.commands.{name}").add_parser(commands)
    return parser


def first_word(words: Sequence[str]) -> str | None:
    """What a command line begins with, past the common options before it; null: it holds options alone."""
    rest = iter(words)
    for word in rest:
        if word in common.VALUE_OPTIONS:
            next(rest, None)
        elif not word.startswith("-"):
            return word
    return None


def named_command(words: Sequence[str]) -> str | None:
    """The command that a command line names; null: none, or none that exists."""
    word = first_word(words)
    return word if word in COMMANDS else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code."""
    _open_standard_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    if first_word(words) is None and not {"-h", "--help"} & set(words):
        words.insert(0, "top")
    name = named_command(words)
    parser = build_parser(name)
    try:
        args = parser.parse_args(words)
        if args.quiet and args.verbose:
            parser.error("-q and -v exclude each other")
    except SystemExit as stop:  # argparse has said why
        code = stop.code if isinstance(stop.code, int) else EXIT_USAGE
        code = _unknown(words) if name == "check" and code == EXIT_USAGE else code
        return _flush(code)
    _never_fail_to_encode()
    out = Out(json=args.json, color=args.color, quiet=args.quiet)
    started = time.monotonic()
    try:
        with _ended_as_interrupted():
            code = args.run(args, out)
        out.flush()
        if args.verbose:
            out.note(f"rapidctl: exit code {code} after {seconds(time.monotonic() - started)}")
        return int(code)
    except KeyboardInterrupt:
        return EXIT_INTERRUPT
    except BrokenPipeError:
        _forget_stdout()
        return 0
    except OutputError as error:
        _forget_stdout()
        out.error(error.message, error.hint)
        return error.exit_code
    except Refused as error:
        out.error(f"{error.code}: {error.message}", error.hint)
        return error.exit_code
    except RapidctlError as error:
        out.error(error.message, error.hint)
        return error.exit_code
    except EndpointError as error:
        out.error(str(error))
        return EXIT_USAGE
    except UnicodeEncodeError:  # only what the caller wrote can be such text
        out.error("an argument or the environment is not valid UTF-8")
        return EXIT_USAGE
    except Exception:
        sys.excepthook(*sys.exc_info())
        out.error("this is a bug in rapidctl; please report it with the lines above")
        return EXIT_BUG


@contextmanager
def _ended_as_interrupted() -> Iterator[None]:
    """SIGTERM (of `timeout`, say) and SIGHUP (the terminal is gone) end a command as ^C does: what it was to keep is
    kept, and what it changed for a while is put back. Who ignores one of them, as under `nohup`, goes on to."""
    ours = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _unknown(words: Sequence[str]) -> int:
    """`check` with arguments that cannot be used is UNKNOWN to Nagios, which reads stdout; 2 would be CRITICAL."""
    from rapidctl.commands import check

    if "--json" not in words:
        with suppress(OSError):
            print("RAPID UNKNOWN - the arguments cannot be used, see: rapidctl check --help")
    return check.CODES["UNKNOWN"]


def _flush(code: int) -> int:
    """Of help and usage the code holds, whether or not anybody can read them."""
    try:
        sys.stdout.flush()
    except OSError:
        _forget_stdout()
    return code


def _open_standard_streams() -> None:
    """Instead of those that the caller closed: none to read from, one that cannot be written, and one for nobody.

    Their numbers are taken too, so that no socket gets them.
    """
    for name, flags, mode in (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode))


def _never_fail_to_encode() -> None:
    """A terminal that cannot show a character shows a substitute instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # what tests put in their place has none
        if reconfigure is not None:
            reconfigure(errors="replace")


def _forget_stdout() -> None:
    """It takes no more: keep Python from complaining about it when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
