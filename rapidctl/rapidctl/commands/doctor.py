"""`rapidctl doctor`: from here to the daemon and back, step by step, and what the terminal can do. Changes nothing."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from rapidctl import __version__, keys, settings, wire
from rapidctl.client import DEFAULT_TIMEOUT_S, Client, Feed
from rapidctl.commands import common
from rapidctl.errors import RapidctlError, UsageError, how_to_reach
from rapidctl.out import Out, safe_line, seconds
from rapidctl.wire import EndpointError, GetSnapshot

if TYPE_CHECKING:
    from argparse import Namespace

FEED_WAIT_S = 2.0
SKEW_S = 1.0
"""Clocks further apart make the times in logs misleading."""
PACKAGES = ("pyzmq", "msgspec", "textual", "rich")


class Finding(NamedTuple):
    """One step. ``hint`` says what to do, "" when nothing is to be done."""

    name: str
    level: Literal["ok", "warn", "fail"]
    text: str
    hint: str = ""


def add_parser(commands: common.Commands) -> None:
    """Declare the command."""
    common.add_command(
        commands, "doctor", run, "why it does not work: settings, socket, protocol, feed, clocks, terminal"
    )


def run(args: Namespace, out: Out) -> int:
    """Look at everything; exit code 1 when something failed."""
    findings = []
    for found in _look(args):
        findings.append(found)
        if not out.json:
            mark = {"ok": "✓", "warn": "!", "fail": "✗"}[found.level]
            style = {"ok": "good", "warn": "warn", "fail": "bad"}[found.level]
            hint = f"  ({found.hint})" if found.hint else ""
            out.text(f"{out.style(mark, style)} {found.name:<10} {safe_line(found.text + hint)}")
    if out.json:
        out.document({"findings": [found._asdict() for found in findings]})
    return 1 if any(found.level == "fail" for found in findings) else 0


def _look(args: Namespace) -> Iterator[Finding]:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("client", "ok", f"rapidctl {__version__}, Python {python}, {versions}")
    yield from _terminal()
    try:
        loaded = settings.load()
        there = "" if loaded.path.exists() else " (not there: defaults)"
        yield Finding("settings", "ok", f"{loaded.path}{there}")
        endpoint = common.endpoint(args)
    except (RapidctlError, EndpointError) as error:
        yield Finding("settings", "fail", str(error), getattr(error, "hint", ""))
        return
    yield _keys() if endpoint.startswith("tcp://") else _socket(endpoint)
    client = Client(endpoint, name="rapidctl-doctor", timeout_s=args.timeout or DEFAULT_TIMEOUT_S)
    try:
        yield from _daemon(client)
    finally:
        client.close()


def _terminal() -> Iterator[Finding]:
    if not sys.stdout.isatty():
        yield Finding("terminal", "ok", "none: the console needs one, every other command does not")
        return
    columns, lines = shutil.get_terminal_size()
    term, depth = os.environ.get("TERM", ""), os.environ.get("COLORTERM", "")
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    colours = "true colour" if depth in ("truecolor", "24bit") else "256 colours" if "256" in term else "few colours"
    if os.environ.get("NO_COLOR"):
        colours = "no colour (NO_COLOR)"
    text = f"{columns}x{lines}, {term or 'TERM is not set'}, {colours}, {sys.stdout.encoding}"
    if not unicode:
        yield Finding("terminal", "warn", text, "without UTF-8 use: rapidctl top --ascii")
    elif colours == "few colours":
        yield Finding("terminal", "warn", text, "rapidctl top --theme ansi keeps to 16 colours")
    else:
        yield Finding("terminal", "ok", text)


def _keys() -> Finding:
    """Of a daemon on tcp, which has no file here. Whether it takes them is for its answer to tell."""
    path = keys.folder() / keys.CLIENT_KEY
    try:
        keys.read(path)
    except UsageError as error:
        return Finding("keys", "fail", error.message, error.hint)
    return Finding("keys", "ok", str(path))


def _socket(endpoint: str) -> Finding:
    path = Path(endpoint.removeprefix("ipc://"))
    try:
        if not path.is_socket():
            return Finding("socket", "fail", f"{path} is not there", how_to_reach(endpoint))
    except OSError as error:
        return Finding("socket", "fail", f"{path}: {error.strerror}", "the folder must let you in")
    if not os.access(path, os.R_OK | os.W_OK):
        return Finding("socket", "fail", f"{path} may not be opened by you", "join the daemon's group")
    return Finding("socket", "ok", str(path))


def _daemon(client: Client) -> Iterator[Finding]:
    started = time.monotonic()
    try:
        welcome = client.connect()
        took = time.monotonic() - started
        snapshot = client.call(GetSnapshot(call=0)).snapshot
    except RapidctlError as error:
        yield Finding("daemon", "fail", error.message, error.hint)
        return
    yield Finding("daemon", "ok", f"rapidd {welcome.version}, protocol {welcome.protocol}, answered in {seconds(took)}")
    if welcome.version != __version__:
        yield Finding("versions", "warn", f"rapidd {welcome.version} and rapidctl {__version__} differ")
    state = snapshot.state.replace("_", " ") + (f": {snapshot.detail}" if snapshot.detail else "")
    yield Finding("state", "ok" if snapshot.state == "serving" else "warn", state)
    try:
        with Feed(client.endpoint) as feed:
            feed.poll(FEED_WAIT_S)
            now, fresh = time.time(), feed.snapshot
    except RapidctlError as error:
        yield Finding("feed", "fail", error.message, error.hint)
        return
    metrics = wire.metrics_endpoint(client.endpoint)
    if fresh is None:
        yield Finding("feed", "fail", f"nothing came from {metrics} in {seconds(FEED_WAIT_S)}", "is its socket yours?")
        return
    yield Finding("feed", "ok", metrics)
    skew = abs(now - fresh.at_unix_s)
    hint = "times in the log are the daemon's" if skew > SKEW_S else ""
    yield Finding("clocks", "warn" if hint else "ok", f"{seconds(skew)} apart at most", hint)
    yield Finding("profile", "ok" if fresh.partition and fresh.partition.profile else "warn",
                  (fresh.partition and fresh.partition.profile) or "none: nothing is predicted")  # fmt: skip
