"""`rapidctl hosts`: the console's fleet table for scripts: every daemon of the settings, each with its own liveness."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rapidctl import export
from rapidctl.client import DEFAULT_TIMEOUT_S, Client
from rapidctl.commands import common
from rapidctl.errors import RapidctlError, Unreachable
from rapidctl.export import Cell
from rapidctl.out import UNKNOWN, Out, number, percent, seconds
from rapidctl.wire import GetSnapshot, Snapshot

if TYPE_CHECKING:
    from argparse import Namespace

WINDOW_S: Final = 60.0
MAX_AT_ONCE: Final = 32
"""Daemons asked at a time: those that do not answer would else hold the others up."""


def known(value: str | None) -> str:
    """A word, or the sign for one that is not known."""
    return UNKNOWN if value is None else value


FIGURES: Final[dict[str, Callable[[Snapshot], Cell]]] = {
    "state": export.COLUMNS["state"],
    "model": lambda s: None if s.model is None else s.model.name,
    "policy": lambda s: None if s.partition is None else s.partition.policy,
    **{
        name: export.COLUMNS[name]
        for name in (
            "epoch", "mode", "decode_units", "prefill_units", "decode_busy", "prefill_busy", "waiting", "prefilling",
            "decoding", "kv_used",
        )
    },
    "ttft_p95_s": export.of_window(lambda w: w.ttft_s.p95, WINDOW_S),
    "itl_p95_s": export.of_window(lambda w: w.itl_s.p95, WINDOW_S),
    "both_met": export.of_window(lambda w: w.both_met, WINDOW_S),
}  # fmt: skip
"""What is said of each daemon, by key."""
COLUMNS: Final[dict[str, tuple[str, Callable[[Any], str]]]] = {
    "STATE": ("state", str), "MODEL": ("model", known), "MODE": ("mode", known),
    ">D BUSY": ("decode_busy", percent), ">P BUSY": ("prefill_busy", percent),
    ">WAIT": ("waiting", number), ">DEC": ("decoding", number), ">KV": ("kv_used", percent),
    ">TTFT P95": ("ttft_p95_s", seconds), ">ITL P95": ("itl_p95_s", seconds), ">MET": ("both_met", percent),
}  # fmt: skip
"""Of the text table, by title."""


class Host(NamedTuple):
    """A daemon of the settings and what it answered: a snapshot, or why there is none."""

    name: str
    endpoint: str
    answer: Snapshot | RapidctlError


def add_parser(commands: common.Commands) -> None:
    """Declare the command."""
    parser = common.add_command(
        commands,
        "hosts",
        run,
        "every daemon of the settings; exit code 0 all serve, 1 some do not, 3 none answers",
        "With --endpoint or --gpu I: that one alone; --gpu all: the daemon of every GPU.\n"
        "Latencies are of the last minute.",
    )
    common.add_watch_options(parser)


def run(args: Namespace, out: Out) -> int:
    """Ask all of them at once, and again under ``--watch``."""
    endpoints = common.endpoints(args)
    timeout_s = args.timeout or DEFAULT_TIMEOUT_S
    with ThreadPoolExecutor(min(len(endpoints), MAX_AT_ONCE)) as pool:

        def show() -> int:
            answers = pool.map(lambda endpoint: ask(endpoint, timeout_s), endpoints)
            found = zip(endpoints.items(), answers, strict=True)
            return _show([Host(name, endpoint, answer) for (endpoint, name), answer in found], out)

        return common.watch(args, out, None, show)


def _show(hosts: list[Host], out: Out) -> int:
    if out.json:
        out.document({"window_s": WINDOW_S, "hosts": [document(host) for host in hosts]})
    else:
        out.table(["NAME", *COLUMNS, "ENDPOINT"], [_row(host) for host in hosts])
    if not any(isinstance(host.answer, Snapshot) for host in hosts):
        return Unreachable.exit_code
    return 0 if all(isinstance(host.answer, Snapshot) and host.answer.state == "serving" for host in hosts) else 1


def ask(endpoint: str, timeout_s: float) -> Snapshot | RapidctlError:
    """What one daemon says of itself."""
    try:
        with Client(endpoint, timeout_s=timeout_s) as client:
            return client.call(GetSnapshot(call=0)).snapshot
    except RapidctlError as error:
        return error


def document(host: Host) -> dict[str, Cell]:
    """One daemon's keys; every figure of one that does not answer is null, and ``problem`` says why."""
    if isinstance(host.answer, Snapshot):
        return {"name": host.name, "endpoint": host.endpoint, "problem": "", **figures(host.answer)}
    unknown: dict[str, Cell] = dict.fromkeys(FIGURES)
    return {"name": host.name, "endpoint": host.endpoint, "problem": host.answer.message, **unknown}


def figures(found: Snapshot) -> dict[str, Cell]:
    """The fleet table's figures of a snapshot."""
    return {name: read(found) for name, read in FIGURES.items()}


def _row(host: Host) -> list[str]:
    if not isinstance(host.answer, Snapshot):
        return [host.name, "no answer", *[UNKNOWN] * (len(COLUMNS) - 1), host.endpoint]
    found = figures(host.answer)
    return [host.name, *(show(found[key]) for key, show in COLUMNS.values()), host.endpoint]
