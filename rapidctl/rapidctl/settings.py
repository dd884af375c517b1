"""Settings of the operator's side: flags > RAPIDCTL_* > the chosen context > the file > defaults.

Unknown keys are errors. The file is TOML, ``$XDG_CONFIG_HOME/rapid/ctl.toml`` unless RAPIDCTL_CONFIG names another::

    context = "lab"
    theme = "dark"
    [contexts.lab]
    endpoint = "ipc:///run/rapidd/request.sock"
    [keys]
    "part.override" = "O"
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from rapidctl.errors import RapidctlError
from rapidctl.wire import EndpointError, check_client_endpoint, default_endpoint

ThemeName = Literal["dark", "light", "contrast", "ansi"]
NAME: Final = r"[A-Za-z0-9_-]{1,32}"


class ConfigError(RapidctlError):
    """The settings cannot be used; the message names the file and the key."""

    exit_code = 2


class Context(Struct, forbid_unknown_fields=True, frozen=True):
    """One named daemon."""

    endpoint: str


class Settings(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What the file may say. ``keys``: ids of bindings (see the console's help) and the keys they get instead."""

    context: Annotated[str, Meta(pattern=f"^{NAME}$")] | None = None
    theme: ThemeName = "dark"
    ascii: bool = False
    mouse: bool = True
    control: bool = False
    rate_hz: Annotated[float, Meta(ge=0.5, le=10)] = 4.0
    contexts: dict[Annotated[str, Meta(pattern=f"^{NAME}$")], Context] = {}
    keys: dict[str, str] = {}


class Loaded(Struct, frozen=True):
    """Settings and where each that is no default came from."""

    settings: Settings
    path: Path
    origin: dict[str, str]


def config_path() -> Path:
    """The file, whether or not it exists."""
    if named := os.environ.get("RAPIDCTL_CONFIG"):
        return Path(named)
    return config_home() / "rapid" / "ctl.toml"


def config_home() -> Path:
    """Where this user's settings are: XDG_CONFIG_HOME, else ~/.config."""
    return expand(os.environ.get("XDG_CONFIG_HOME") or "~/.config")


def expand(path: str) -> Path:
    """With a home for a leading ``~``; of a user that has none, or is none, a path where nothing is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path("/nonexistent", path)


def load() -> Loaded:
    """The file and the environment. Raises `ConfigError`; a file that is not there is an empty one."""
    path = config_path()
    found: dict[str, Any] = {}
    try:
        found = tomllib.loads(path.read_text())
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}", "correct it, or move it away") from error
    origin = dict.fromkeys(found, str(path))
    for name, kind in _FROM_ENVIRONMENT.items():
        variable = f"RAPIDCTL_{name.upper()}"
        if (text := os.environ.get(variable)) is not None:
            found[name] = _flag(text, variable) if kind is bool else text
            origin[name] = variable
    try:
        settings = msgspec.convert(found, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}", "rapidctl config show lists what there is") from error
    if settings.context is not None and settings.context not in settings.contexts:
        raise ConfigError(f"there is no context {settings.context!r}", "rapidctl context ls lists them")
    return Loaded(settings, path, origin)


_FROM_ENVIRONMENT: Final[dict[str, type]] = {"context": str, "theme": str, "ascii": bool}


def _flag(text: str, variable: str) -> bool:
    if text.lower() not in ("0", "1", "true", "false", ""):
        raise ConfigError(f"{variable}={text!r} is neither 1 nor 0")
    return text.lower() in ("1", "true")


def endpoint_of(settings: Settings, context: str | None = None) -> str:
    """Where to connect when no flag says so: a context named, RAPIDCTL_ENDPOINT, the chosen context, the default.

    Raises `ConfigError` and `EndpointError`.
    """
    if context is not None and context not in settings.contexts:
        known = ", ".join(settings.contexts) or "none"
        raise ConfigError(f"there is no context {context!r}: there are {known}", "rapidctl context add NAME ENDPOINT")
    name = context or (None if os.environ.get("RAPIDCTL_ENDPOINT") else settings.context)
    return default_endpoint() if name is None else check_client_endpoint(settings.contexts[name].endpoint)


# --- changing the file: by text, so that comments stay ------------------------------------------------------------


def use_context(name: str) -> Path:
    """Make a context the chosen one. Raises `ConfigError`."""
    loaded = load()
    if name not in loaded.settings.contexts:
        raise ConfigError(f"there is no context {name!r}", "rapidctl context ls lists them")
    text = loaded.path.read_text()
    chosen = f'context = "{name}"\n'
    replaced, count = re.subn(r"^context\s*=.*\n?", chosen, text, count=1, flags=re.MULTILINE)
    _write(loaded.path, replaced if count else chosen + text)
    return loaded.path


def add_context(name: str, endpoint: str) -> Path:
    """Append a context. Raises `ConfigError`."""
    if re.fullmatch(NAME, name) is None:
        raise ConfigError(f"{name!r} is no name for a context", "use up to 32 letters, digits, - and _")
    try:
        check_client_endpoint(endpoint)
    except EndpointError as error:
        raise ConfigError(str(error)) from error
    loaded = load()
    if name in loaded.settings.contexts:
        raise ConfigError(f"there is a context {name!r} already", f"edit {loaded.path}")
    text = loaded.path.read_text() if loaded.path.exists() else ""
    gap = "\n" if text and not text.endswith("\n") else ""
    quoted = msgspec.json.encode(endpoint).decode()  # TOML has JSON's escapes
    _write(loaded.path, f"{text}{gap}[contexts.{name}]\nendpoint = {quoted}\n")
    return loaded.path


def init() -> Path:
    """Write a file of defaults, all commented out. Raises `ConfigError` when there is one already."""
    path = config_path()
    if path.exists():
        raise ConfigError(f"{path} exists already", "edit it")
    _write(path, TEMPLATE)
    return path


def _write(path: Path, text: str) -> None:
    """Replace the file in one step, after checking that what it says is TOML; of a link, the file that it leads to."""
    try:
        tomllib.loads(text)
        file = path.resolve()
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be changed: {error}", "edit it by hand") from error


TEMPLATE: Final = """\
# Settings of rapidctl. Flags and RAPIDCTL_* come before this file.
# context = "lab"          # the daemon that commands talk to
# theme = "dark"           # dark, light, contrast, ansi (the terminal's own 16 colours)
# ascii = false            # only ASCII characters
# mouse = true
# control = false          # start the console unlocked
# rate_hz = 4.0            # how often the console draws, 0.5 to 10

# [contexts.lab]
# endpoint = "ipc:///run/rapidd/request.sock"

# [keys]                   # ids stand in the console's help
# "part.override" = "O"
"""
