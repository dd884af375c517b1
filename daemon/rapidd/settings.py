"""Loads `rapidd.config.Config` from its layers: built-in < file < environment < command line.

Every value keeps its origin, and every problem of every layer is reported at once, each with where it came
from and its key. Environment variables are ``RAPIDD__SECTION__KEY`` with dashes as underscores. "auto" stays
"auto" here: what it means is known only where the model and the device are.
"""

import difflib
import grp
import json
import math
import os
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import FieldInfo

from rapidctl.settings import expand
from rapidctl.wire import EndpointError, check_client_endpoint
from rapidd import faults
from rapidd.config import (
    AccessConfig,
    Config,
    EngineConfig,
    FaultsConfig,
    HttpConfig,
    LogConfig,
    ModelConfig,
    PolicyConfig,
    ServerConfig,
    SloConfig,
    TcpConfig,
)
from rapidd.engine.defaults import WARMUP_CACHE_TOKENS
from rapidd.errors import ConfigError, ProfileError
from rapidd.paths import RuntimeDir, credential
from rapidd.policy.policies import parse as parse_policy
from rapidd.policy.profile import load_profile

SYSTEM_FILE: Final = Path("/etc/rapidd/rapidd.toml")
"""Read when no file is named and it exists."""
ENV_PREFIX: Final = "RAPIDD__"
BUILT_IN: Final = "built-in"

SECTIONS: Final[dict[str, type[Struct]]] = {
    "model": ModelConfig,
    "engine": EngineConfig,
    "server": ServerConfig,
    "slo": SloConfig,
    "policy": PolicyConfig,
    "http": HttpConfig,
    "access": AccessConfig,
    "log": LogConfig,
    "tcp": TcpConfig,
    "faults": FaultsConfig,
}
FIELDS: Final[dict[str, FieldInfo]] = {
    f"{section}.{field.encode_name}": field
    for section, struct in SECTIONS.items()
    for field in msgspec.structs.fields(struct)
}
"""Every key there is, as "section.key"."""


class Setting(Struct, frozen=True):
    """One value as a layer gives it. ``label`` names it in problems, ``lax``: it is text to be converted."""

    key: str
    value: object
    origin: str
    label: str
    lax: bool = False


class Loaded(Struct, frozen=True):
    """A valid configuration and where each value came from; keys missing from ``origins`` are built-in."""

    config: Config
    origins: dict[str, str]


def load(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, tuple[str, object]] | None = None,
) -> Loaded:
    """Merge all layers. ``options`` are command-line values: key -> (option as typed, value).

    ``path`` null: the system's file, if there is one. Raises `ConfigError` with every problem found.
    """
    problems: list[str] = []
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    bad: set[str] = set()
    file = path if path is not None else SYSTEM_FILE if SYSTEM_FILE.exists() else None
    for setting in (
        *(_from_file(file, problems) if file is not None else ()),
        *_from_environment(os.environ if environ is None else environ, problems),
        *(Setting(key, value, option, option) for key, (option, value) in (options or {}).items()),
    ):
        try:
            values[setting.key] = _convert(setting)
        except ValueError as error:
            problems.append(f"{setting.label}: {error}")
            bad.add(setting.key)
        origins[setting.key] = setting.origin
    config = _build({key: value for key, value in values.items() if key not in bad})
    for keys, check in _CHECKS:
        if bad.isdisjoint(keys) and (problem := check(config)) is not None:
            problems.append(f"{origins.get(keys[0], BUILT_IN)}: {keys[0]}: {problem}")
    if problems:
        raise ConfigError(problems)
    return Loaded(config, origins)


def check_keys(config: TcpConfig) -> None:
    """Raise `ConfigError` when a file is missing that a daemon on tcp needs. Others need none, and may read none."""
    if config.listen is None:
        return
    for name, value in (("key", config.key), ("authorized-keys", config.authorized_keys)):
        if not os.access(credential(value), os.R_OK):
            raise ConfigError(
                [f"tcp.{name}: tcp needs keys, and {credential(value)} cannot be read: see rapidctl keys --help"]
            )


def values_of(config: Config) -> Iterator[tuple[str, object]]:
    """Every "section.key" and its value, in the order of the structs."""
    for section in SECTIONS:
        part = getattr(config, section)
        for field in msgspec.structs.fields(part):
            yield f"{section}.{field.encode_name}", getattr(part, field.name)


def to_toml(loaded: Loaded, *, effective: bool, origin: bool) -> str:
    """The configuration as a file that `load` reads back: what was set, or everything when ``effective``.

    ``origin`` adds where each value came from, as a comment. TOML has no null: such keys are comments.
    """
    lines: list[str] = []
    section = ""
    for key, value in values_of(loaded.config):
        if not effective and key not in loaded.origins:
            continue
        if key.partition(".")[0] != section:
            section = key.partition(".")[0]
            lines += ["", f"[{section}]"] if lines else [f"[{section}]"]
        name = FIELDS[key].encode_name
        line = f"# {name} is not set" if value is None else f"{name} = {_toml_value(value)}"
        lines.append(f"{line}  # {loaded.origins.get(key, BUILT_IN)}" if origin else line)
    return "".join(f"{line}\n" for line in lines)


def variable_name(key: str) -> str:
    """The environment variable that sets ``key``."""
    section, _, name = key.partition(".")
    return f"{ENV_PREFIX}{section.upper()}__{name.replace('-', '_').upper()}"


def _from_file(path: Path, problems: list[str]) -> Iterator[Setting]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"{path}: {error.strerror or error}")
        return
    except ValueError as error:  # TOML syntax, or no UTF-8
        problems.append(f"{path}: {error}")
        return
    for section, content in document.items():
        if section not in SECTIONS:
            problems.append(f"{path}: {section}: unknown section{_suggestion(section, SECTIONS)}")
        elif not isinstance(content, dict):
            problems.append(f"{path}: {section}: must be a table: [{section}]")
        else:
            for name, value in content.items():
                key = f"{section}.{name}"
                if key in FIELDS:
                    yield Setting(key, value, str(path), f"{path}: {key}")
                else:
                    problems.append(f"{path}: {key}: unknown key{_suggestion(key, FIELDS)}")


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> Iterator[Setting]:
    known = {variable_name(key): key for key in FIELDS}
    for name in sorted(environ):
        if not name.startswith(ENV_PREFIX):
            continue
        if name in known:
            yield Setting(known[name], environ[name], name, f"{name}: {known[name]}", lax=True)
        else:
            problems.append(f"{name}: unknown key{_suggestion(name, known)}")


def _convert(setting: Setting) -> object:
    field = FIELDS[setting.key]
    try:
        return msgspec.convert(setting.value, field.type, strict=not setting.lax)
    except msgspec.ValidationError as error:
        choices = typing.get_args(field.type)
        if choices and all(isinstance(choice, str) for choice in choices):
            raise ValueError(f"{error}; use one of {', '.join(choices)}") from error
        raise


def _build(values: Mapping[str, object]) -> Config:
    parts: dict[str, Any] = {}
    for section, struct in SECTIONS.items():
        given = {FIELDS[key].name: value for key, value in values.items() if key.startswith(f"{section}.")}
        parts[section] = struct(**given)
    return Config(**parts)


def _toml_value(value: object) -> str:
    """A TOML string is a JSON string, but for DEL, which must be escaped, and surrogate pairs, which must not."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _suggestion(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"


def _shape_needs_random_weights(config: Config) -> str | None:
    if config.model.shape is not None and config.model.weights != "random":
        return 'only means something with model.weights = "random" (--weights random)'
    return None


def _policy_parses(config: Config) -> str | None:
    try:
        parse_policy(config.engine.policy)
    except ValueError as error:
        return str(error)
    return None


def _split_leaves_units(config: Config) -> str | None:
    units = config.engine.compute_units
    try:
        plan = parse_policy(config.engine.policy)
    except ValueError:
        return None  # said by _policy_parses
    if plan is None or plan.decode_units is None or units is None or plan.decode_units < units:
        return None
    return f"{config.engine.policy} leaves prefill nothing of engine.compute-units = {units}"


def _cache_holds_the_warm_up(config: Config) -> str | None:
    blocks, tokens = config.engine.kv_blocks, config.engine.block_tokens
    if blocks is None or tokens is None or blocks * tokens >= WARMUP_CACHE_TOKENS:
        return None
    return (
        f"{blocks} blocks of engine.block-tokens = {tokens} hold fewer than the {WARMUP_CACHE_TOKENS} tokens that the "
        f"warm-up takes: set --kv-blocks to {math.ceil(WARMUP_CACHE_TOKENS / tokens)} or more"
    )


def _endpoint_fits(config: Config) -> str | None:
    if config.server.listen is None:
        return None
    try:
        RuntimeDir(config.server.listen)
    except EndpointError as error:
        return str(error)
    return None


def _profile_reads(config: Config) -> str | None:
    if config.policy.profile is None:
        return None
    try:
        load_profile(expand(config.policy.profile))
    except ProfileError as error:
        return f"{error} ({error.hint})"
    return None


def _operators_exist(config: Config) -> str | None:
    if config.access.operators is None:
        return None
    try:
        grp.getgrnam(config.access.operators)
    except KeyError:
        return f"there is no group {config.access.operators}: groupadd --system {config.access.operators}"
    return None


def _tcp_is_tcp(config: Config) -> str | None:
    if config.tcp.listen is None:
        return None
    try:
        if not config.tcp.listen.startswith("tcp://"):
            return f"{config.tcp.listen!r} is no tcp endpoint: use tcp://ADDRESS:PORT"
        check_client_endpoint(config.tcp.listen)
    except EndpointError as error:
        return str(error)
    return None


def _faults_parse(config: Config) -> str | None:
    try:
        for spec in faults.split(config.faults.points):
            faults.parse(spec)
    except ValueError as error:
        return str(error)
    return None


_CHECKS: Final[tuple[tuple[tuple[str, ...], Callable[[Config], str | None]], ...]] = (
    (("model.shape", "model.weights"), _shape_needs_random_weights),
    (("engine.policy",), _policy_parses),
    (("engine.policy", "engine.compute-units"), _split_leaves_units),
    (("engine.kv-blocks", "engine.block-tokens"), _cache_holds_the_warm_up),
    (("server.listen",), _endpoint_fits),
    (("access.operators",), _operators_exist),
    (("faults.points",), _faults_parse),
    (("tcp.listen",), _tcp_is_tcp),
    (("policy.profile",), _profile_reads),
)
"""What single values cannot tell: (keys it looks at, the one to blame first; problem or null)."""
