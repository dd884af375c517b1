"""Every refusal of the HTTP server, as the OpenAI API shapes it: status, `{"error": {message, type, param, code}}`.

The daemon's own codes keep their names but for those that OpenAI clients look for. Pure.
"""

import math
import re
from collections.abc import Mapping
from typing import Final, get_args

import msgspec

from rapidctl.errors import RapidctlError
from rapidctl.wire import ErrorCode, Failed, Generate, Sampling, SloClass

_STATUS: Final[dict[ErrorCode, tuple[int, str]]] = {
    "malformed": (400, "invalid_request"),
    "invalid_request": (400, "invalid_request"),
    "unsupported": (400, "unsupported"),
    "empty_prompt": (400, "empty_prompt"),
    "prompt_too_long": (400, "context_length_exceeded"),
    "kv_too_small": (400, "kv_too_small"),
    "quarantined": (400, "quarantined"),
    "queue_full": (429, "queue_full"),
    "quota_exceeded": (429, "quota_exceeded"),
    "starting": (503, "starting"),
    "draining": (503, "draining"),
    "engine_lost": (503, "engine_lost"),
    "front_restarted": (503, "daemon_lost"),
    "out_of_memory": (503, "out_of_memory"),
    "slow_consumer": (503, "slow_consumer"),
    "deadline_exceeded": (504, "deadline_exceeded"),
}
"""Daemon's code -> HTTP status and code in the body; any other is a bug between the two processes: 500."""
RETRY_AFTER_S: Final = 1.0
"""For refusals that pass by themselves, when the daemon names no time."""
_FIELD: Final = re.compile(r"(?P<problem>.*) - at `\$\.?(?P<path>.*)`", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(?P<name>.*)`")
_BLAMED: Final = re.compile(r"(?P<name>[a-z_]+)(?P<rest>[^\s:]*)(?=:? )")
"""The beginning of a message of the daemon that is about one field: `max_tokens 9 ...`, `messages[0].content: ...`."""
_DAEMON_FIELDS: Final = frozenset((*Generate.__struct_fields__, *Sampling.__struct_fields__))
_ABOUT_THE_PROMPT: Final = ("empty_prompt", "prompt_too_long")
_SAME: Final[Mapping[str, str]] = {}
"""The body calls every field as the daemon does."""
_CHOICES: Final = {"slo_class": get_args(SloClass)}
"""Of a field that takes one of few words: msgspec does not list them."""
_MAX_ECHO_CHARS: Final = 200
"""Of a field's name that a client made up."""


class ApiError(Exception):
    """One refusal. ``param`` names the field of the body that is to blame, ``retry_after_s`` when to ask again."""

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    @property
    def kind(self) -> str:
        """OpenAI's ``type``: whose fault it is."""
        if self.status == 401:
            return "authentication_error"
        if self.status == 429:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < 500 else "server_error"

    def body(self) -> bytes:
        """The JSON document."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What HTTP wants beside the body."""
        headers = []
        if self.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % max(1, math.ceil(self.retry_after_s))))
        if self.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        return headers


def invalid(message: str, param: str | None = None) -> ApiError:
    """A body that makes no sense."""
    return ApiError(400, "invalid_request", message, param=param)


def unsupported(param: str, instead: str) -> ApiError:
    """A feature of the API that this server does not have; ``instead`` says what to do."""
    return ApiError(400, "unsupported", f"{param} is not supported: {instead}", param=param)


def from_validation(error: Exception, names: Mapping[str, str] = _SAME) -> ApiError:
    """What msgspec says about a body, naming the field. ``names``: see `translate.field_names`."""
    if isinstance(error, RecursionError):
        return invalid("the body is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return invalid(f"a string in the body is not valid UTF-8 ({error})")
    text = str(error)
    problem, path = (found["problem"], found["path"]) if (found := _FIELD.fullmatch(text)) else (text, "")
    if unknown := _UNKNOWN.fullmatch(problem):
        name = ".".join(filter(None, (path, unknown["name"])))[:_MAX_ECHO_CHARS]
        return ApiError(400, "unknown_field", f"unknown field: {name}", param=name)
    if missing := _MISSING.fullmatch(problem):
        name = ".".join(filter(None, (path, missing["name"])))
        return invalid(f"missing field: {name}", name)
    path = names.get(path, path)[:_MAX_ECHO_CHARS]
    if not problem.startswith("JSON"):
        problem = f"{problem[:1].lower()}{problem[1:]}".replace("`", "")
    if path in _CHOICES:
        problem += f"; use {' or '.join(_CHOICES[path])}"
    return invalid(f"{path}: {problem}" if path else problem, path or None)


def from_failed(failed: Failed, names: Mapping[str, str] = _SAME) -> ApiError:
    """What the daemon says about a request: a message that blames one field begins with its name."""
    status, code = _STATUS.get(failed.code, (500, failed.code))
    retry_after_s = failed.retry_after_s
    if retry_after_s is None and status == 503:
        retry_after_s = RETRY_AFTER_S
    message, param = failed.message, None
    blamed = _BLAMED.match(message) if status == 400 else None
    if failed.code in _ABOUT_THE_PROMPT:
        param = names.get("prompt", "prompt")
    elif blamed and blamed["name"] in _DAEMON_FIELDS:
        param = names.get(blamed["name"], blamed["name"]) + blamed["rest"]
        message = param + message[blamed.end() :]
    if failed.hint:
        message += f" ({failed.hint})"
    return ApiError(status, code, message, param=param, retry_after_s=retry_after_s)


def from_client(error: RapidctlError) -> ApiError:
    """The daemon cannot be asked."""
    message = f"{error.message} ({error.hint})" if error.hint else error.message
    return ApiError(503, "daemon_unreachable", message, retry_after_s=RETRY_AFTER_S)
