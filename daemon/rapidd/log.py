"""The daemon's log: lines on stderr, for people or as JSON for the journal. Standard library only.

A line is a sentence and fields: ``event``, ``request_id``, who asked. Lines about one request are at debug, so that
traffic does not fill the log; prompts and outputs are in no line at any level. Logging never raises.
"""

import contextlib
import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import Final

from rapidd.config import LogConfig

_LOGGER: Final = logging.getLogger("rapidd")
_UNHANDLED: Final = "an exception that nobody handled"
_ESCAPED: Final = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}
"""What JSON may hold as it is but a line may not: it moves a terminal's cursor, or ends a line for some readers."""
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def start(config: LogConfig, process: str) -> None:
    """Log from now on as configured; ``process`` is in every JSON line. May be called again."""
    handler = _Stderr()
    as_json = config.format == "json" or (config.format == "auto" and _is_journal(os.environ))
    handler.setFormatter(_JsonLines(process) if as_json else _Text())
    _LOGGER.handlers[:] = [handler]
    _LOGGER.propagate = False
    _LOGGER.setLevel(_LEVELS[config.level])


def adopt_libraries() -> None:
    """From now on the errors of libraries go where ours go, and look alike; what they say below that is noise."""
    root = logging.getLogger()
    root.handlers[:] = _LOGGER.handlers
    root.setLevel(logging.ERROR)


def adopt_crashes() -> None:
    """From now on an exception that ends this process or one of its threads is a line like the rest."""
    sys.excepthook = lambda _kind, exception, _trace: bug(_UNHANDLED, exception)
    threading.excepthook = lambda crash: bug(_UNHANDLED, crash.exc_value)


def debug_is_on() -> bool:
    """Whether lines about single requests are wanted: making them costs something."""
    return _LOGGER.isEnabledFor(logging.DEBUG)


def debug(text: str, **fields: object) -> None:
    """About one request."""
    _write(logging.DEBUG, text, fields)


def info(text: str, **fields: object) -> None:
    """What operators want to read later."""
    _write(logging.INFO, text, fields)


def warning(text: str, **fields: object) -> None:
    """Something that should not go on for long."""
    _write(logging.WARNING, text, fields)


def error(text: str, **fields: object) -> None:
    """Something that somebody has to look at."""
    _write(logging.ERROR, text, fields)


def bug(text: str, exception: BaseException | None = None, **fields: object) -> None:
    """An error with the traceback of an exception that nobody expected: by default of the one that is handled."""
    trace = "".join(traceback.format_exception(exception)) if exception is not None else traceback.format_exc()
    _write(logging.ERROR, text, {**fields, "exception": trace})


def event(level: str, text: str, **fields: object) -> None:
    """At a level as `wire.Event` names it."""
    _write(_LEVELS.get("warning" if level == "warn" else level, logging.INFO), text, fields)


def _write(level: int, text: str, fields: Mapping[str, object]) -> None:
    known = {name: value for name, value in fields.items() if value is not None}
    if any(isinstance(handler, _Stderr) for handler in _LOGGER.handlers):
        _LOGGER.log(level, "%s", text, extra={"fields": known})
    elif level >= logging.WARNING:  # a part of the daemon in another program, which asked for no log
        print(_line(text, known), file=sys.stderr)


def _is_journal(environ: Mapping[str, str]) -> bool:
    """Whether stderr goes to systemd's journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _Stderr(logging.Handler):
    """Whatever stderr is at the moment; what cannot be written is lost."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line, and no waiting for more."""
        with contextlib.suppress(OSError, ValueError):
            print(self.format(record), file=sys.stderr, flush=True)


class _Text(logging.Formatter):
    """``rapidd: the sentence (name value, name value)``; which kind of event it is, people see."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the sentence holds."""
        return _line(record.getMessage(), _fields(record))


def _line(text: str, fields: Mapping[str, object]) -> str:
    told = ", ".join(f"{name} {value}" for name, value in fields.items() if name != "event")
    line = f"rapidd: {text}" + (f" ({told})" if told else "")
    return "".join(char if char.isprintable() else " " for char in line)


class _JsonLines(logging.Formatter):
    """One JSON object a line; the journal's own fields are not repeated, but for the time."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Fields of the line come last; none can hide the four that every line has."""
        head = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "message": record.getMessage(),
        }
        return json.dumps({**_fields(record), **head}, ensure_ascii=False, default=str).translate(_ESCAPED)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What the line was given, or, of a library's, which one it is; and the exception, if there was one."""
    fields: dict[str, object] = vars(record).get("fields", {"library": record.name})
    if record.exc_info is None:
        return fields
    return {**fields, "exception": "".join(traceback.format_exception(*record.exc_info))}
