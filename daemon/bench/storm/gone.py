"""Clients that are killed or stopped while their request is in each of seven phases: noticed in time, and nothing kept.

On a model with random weights that is slow enough for its phases to be seen.
"""

import contextlib
import itertools
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from bench.processes import Daemon, daemon
from bench.storm import victim
from bench.storm.site import MODEL, PATIENCE_S, request
from rapidctl.client import Client, Stream
from rapidctl.wire import Generate, GetEvents, GetRequests, GetStatus, RequestRow

KV_BLOCKS: Final = 96
BIG: Final = 1200
"""Prompt tokens: two such requests do not fit the cache of 1,536, and one takes a while to prefill."""
SHAPE: Final = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 12,
    "max_position_embeddings": 8192,
}
NOTICED_S: Final = 6.0
"""At the latest; where tokens flow to a client that was killed, the next one tells."""
ATTEMPTS: Final = 5
Rows = list[RequestRow]


_numbers = itertools.count()


class Ask(msgspec.Struct, frozen=True):
    """A request's shape."""

    prompt_tokens: int
    max_tokens: int
    n: int = 1
    priority: int = 0

    def request(self, name: str) -> Generate:
        """Another prompt each time: no prefix of it is cached."""
        number = next(_numbers)
        head = [3 + number % 500, 3 + number // 500 % 500]
        prompt = [*head, *(3 + index * 7 % 500 for index in range(self.prompt_tokens - len(head)))]
        asked = request(prompt, self.max_tokens, self.n)
        return replace(asked, id=f"{name}-{number}", priority=self.priority)


class Phase(msgspec.Struct, frozen=True):
    """How a request gets into it, and how that is seen. ``rival``: what keeps it waiting, or takes its blocks away."""

    ask: Ask
    reached: Callable[[Rows], bool]
    rival: Ask | None = None
    rival_first: bool = True


def _all(phase: str, tokens: int = 0) -> Callable[[Rows], bool]:
    return lambda rows: bool(rows) and all(row.phase == phase and row.output_tokens >= tokens for row in rows)


def phases() -> dict[str, Phase]:
    """The seven."""
    return {
        "waiting": Phase(Ask(BIG, 50), _all("waiting"), rival=Ask(BIG, 300)),
        "prefilling": Phase(Ask(BIG, 50), _all("prefilling")),
        "first token": Phase(Ask(8, 1000), _all("decoding", 1)),
        "decoding": Phase(Ask(8, 1000), _all("decoding", 8)),
        "several choices": Phase(Ask(8, 300, n=4), _all("decoding", 2)),
        "preempted": Phase(Ask(BIG, 200), _all("waiting", 1), rival=Ask(400, 50, priority=1), rival_first=False),
        "last token": Phase(Ask(8, 60), _all("decoding", 58)),
    }


def slow_options(folder: Path) -> tuple[str, ...]:
    """Of a daemon whose batches take long enough; its shape goes into ``folder``.

    On one core: a team of threads takes ten times as long wherever other processes run too.
    """
    shape = folder / "config.json"
    small = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    head_dim = SHAPE["hidden_size"] // small["num_attention_heads"]
    shape.write_text(json.dumps(small | SHAPE | {"head_dim": head_dim}), encoding="utf-8")
    model = ("--weights", "random", "--shape", str(shape), "--tokenizer", str(MODEL), "--dtype", "float32")
    return *model, "--kv-blocks", str(KV_BLOCKS), "--compute-units", "1"


@contextlib.contextmanager
def slow_daemon() -> Iterator[Daemon]:
    """Start one."""
    with tempfile.TemporaryDirectory(prefix="storm-") as folder, daemon(*slow_options(Path(folder))) as server:
        yield server


def run(rounds: int) -> dict[str, Any]:
    """Every phase so many times, killed and stopped."""
    noticed: dict[str, list[float]] = {}
    freed: dict[str, list[float]] = {}
    failures: list[str] = []
    with slow_daemon() as server, server.client() as client:
        for how in (signal.SIGKILL, signal.SIGSTOP):
            for name, phase in phases().items():
                ends = [vanish(client, server.endpoint, phase, how) for _ in range(rounds)]
                failures += [f"{name}, {how.name}: {problem}" for end in ends for problem in end.problems]
                noticed_s, freed_s = [end.noticed_s for end in ends], [end.freed_s for end in ends]
                noticed[f"{name}, {how.name}"] = _median_and_most(noticed_s)
                freed[f"{name}, {how.name}"] = _median_and_most(freed_s)
                if max(noticed_s) > NOTICED_S:
                    failures.append(f"{name}, {how.name}: noticed after {max(noticed_s):.1f} s")
    return {
        "rounds": rounds,
        "noticed_s_median_and_most": noticed,
        "then_blocks_free_s_median_and_most": freed,
        "failures": failures,
    }


def _median_and_most(seconds: Sequence[float]) -> list[float]:
    return [round(statistics.median(seconds), 3), round(max(seconds), 3)]


class End(NamedTuple):
    """Of a request whose client is gone. ``noticed_s``: until nobody waits for it any more. ``freed_s``: from then on,
    until the daemon says that no block is held; it says so up to `loop.STATE_BUSY_NS` late, and a rival ends then too.
    """

    noticed_s: float
    freed_s: float
    problems: list[str]


class _MissedError(Exception):
    """The request ended before it was seen in its phase, or before its client was gone: others had the processor."""


def vanish(client: Client, endpoint: str, phase: Phase, how: signal.Signals) -> End:
    """One client that is gone. ``client`` looks on. Raises TimeoutError."""
    for _ in range(ATTEMPTS):
        with contextlib.suppress(_MissedError):
            return _vanish(client, endpoint, phase, how)
    raise TimeoutError(f"{ATTEMPTS} requests in a row ended before they were seen in their phase")


def _vanish(client: Client, endpoint: str, phase: Phase, how: signal.Signals) -> End:
    first_seq = client.call(GetEvents(call=0)).next_seq
    asked = phase.ask.request("gone")
    rival: Stream | None = None
    if phase.rival and phase.rival_first:
        rival = first = client.submit(phase.rival.request("rival"))
        _until(client, lambda: first.accepted is not None, "be accepted")
    command = [sys.executable, "-P", victim.__file__, endpoint, msgspec.json.encode(asked).decode()]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def seen(holds: Callable[[Rows], bool], what: str) -> None:
        _until(client, lambda: holds(_rows(client, asked.id)) or process.poll() is not None, what)
        if process.poll() is not None:
            raise _MissedError

    try:
        if phase.rival and not phase.rival_first:
            seen(lambda rows: any(row.output_tokens for row in rows), "decode")
            rival = client.submit(phase.rival.request("rival"))
        seen(phase.reached, "get where it should")
        process.send_signal(how)
        gone_s = time.monotonic()
        _until(client, lambda: not _rows(client, asked.id), "be dropped")
        noticed_s = time.monotonic() - gone_s
        if "client_lost" not in _kinds(client, first_seq):
            raise _MissedError
    finally:
        process.kill()
        process.wait()
        if rival is not None:
            client.abandon(rival.id)
    problems = _kept(client, first_seq)
    return End(noticed_s, time.monotonic() - gone_s - noticed_s, problems)


def _kept(client: Client, first_seq: int) -> list[str]:
    """Blocks that nobody gives back, and events that should not be."""
    found = []
    try:
        _until(client, lambda: _used(client) == 0, "give its blocks back")
    except TimeoutError:
        found.append("its blocks are still held")
    return found + [f"event {kind}" for kind in sorted(_kinds(client, first_seq) & {"engine_lost", "internal_error"})]


def _kinds(client: Client, first_seq: int) -> set[str]:
    return {event.kind for event in client.call(GetEvents(call=0, from_seq=first_seq)).events}


def _used(client: Client) -> int | None:
    kv = client.call(GetStatus(call=0)).kv
    return kv.blocks_used if kv is not None else None


def _rows(client: Client, name: str) -> Rows:
    return [row for row in client.call(GetRequests(call=0)).rows if row.id == name]


def _until(client: Client, holds: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"a request did not {what} in time")
        client.poll(0.002)
