"""``python -m bench.memory --minutes M``: does a daemon that serves for long grow?

A daemon with the test model and `rapidd http` before it, some requests a second, a fifth of them aborted (by a cancel,
by a client that leaves, by a connection that is closed) and a twentieth bad, and a reload every ten minutes. Of every
process it reads RssAnon + VmSwap, descriptors and threads, and fits a line to the least of each minute after the
warm-up. Prints a table, then one JSON line; exit status 1 when memory grows faster than `LIMIT_MIB_PER_HOUR`, or a
process gained descriptors or threads or was replaced.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psutil
import zmq

from bench.figures import SCHEMA_VERSION
from bench.mutate import HTTP_MODEL, Bodies, frames
from bench.processes import Daemon, daemon
from bench.served import http_server
from rapidctl import wire
from rapidctl.client import Client, Stream, new_id
from rapidctl.errors import RapidctlError
from rapidctl.wire import Failed, Generate, GetStatus, Sampling, pack_ids

MODEL: Final = Path(__file__).resolve().parents[2] / "tests/data/stories260K_hf"
LIMIT_MIB_PER_HOUR: Final = 1.0
WARM_UP: Final = 0.25
"""Share of the time that is not looked at: rings and histograms fill, and allocators find their size."""
LEAST_MINUTES: Final = 0.1
LOOK_S: Final = 10.0
LEAST_LOOKS: Final = 20
FLOOR_S: Final = 60.0
"""What grows is what a process holds when it holds least: an idle engine gives memory back every ten seconds."""
FEWEST_WINDOWS: Final = 5
RELOAD_S: Final = 600.0
ABORTED, BAD, BY_HTTP = 0.2, 0.05, 0.25
"""Shares of the requests; a bad one is a damaged frame or body."""
VOCAB: Final = 512
MAX_LIVE: Final = 16


@dataclass(slots=True)
class Seen:
    """One process at the looks, by seconds since the load began."""

    pid: int
    at_s: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)
    fds: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def look(self, at_s: float) -> None:
        """Read /proc; nothing once the process has ended."""
        try:
            text = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
            status = dict(line.split(":", 1) for line in text.splitlines())
            kib = sum(int(status[name].split()[0]) for name in ("RssAnon", "VmSwap"))
            fds = len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208
        except (FileNotFoundError, ProcessLookupError, KeyError):  # one that nobody has waited for yet has no memory
            return
        self.at_s.append(at_s)
        self.mib.append(kib / 1024)
        self.fds.append(fds)
        self.threads.append(int(status["Threads"]))

    def lives(self) -> bool:
        """Whether the process has not ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        return False

    def summary(self, from_s: float) -> dict[str, Any]:
        """Of the looks since ``from_s``; and some looks of all."""
        first = next(index for index, at_s in enumerate(self.at_s) if at_s >= from_s)
        mib, fds, threads = self.mib[first:], self.fds[first:], self.threads[first:]
        slope, _ = statistics.linear_regression(*_floor(self.at_s[first:], mib))
        every = max(1, len(self.at_s) // 24)
        return {
            "slope_mib_per_hour": round(3600 * slope, 3),
            "mib": [round(min(mib), 2), round(mib[0], 2), round(mib[-1], 2), round(max(mib), 2)],
            "descriptors": [min(fds), fds[0], fds[-1], max(fds)],
            "threads": [min(threads), threads[0], threads[-1], max(threads)],
            "course_mib": [round(value, 1) for value in self.mib[::every]],
        }


def _floor(at_s: Sequence[float], mib: Sequence[float]) -> tuple[list[float], list[float]]:
    """The least of each `FLOOR_S`, and when; all values where that leaves too few for a line."""
    least: dict[int, tuple[float, float]] = {}
    for when_s, value in zip(at_s, mib, strict=True):
        window = int(when_s // FLOOR_S)
        least[window] = min(least.get(window, (value, when_s)), (value, when_s))
    if len(least) < FEWEST_WINDOWS:
        return list(at_s), list(mib)
    return [when_s for _, when_s in least.values()], [value for value, _ in least.values()]


class Load:
    """Requests of every kind, one after the other at random times; at most `MAX_LIVE` live."""

    def __init__(self, endpoint: str, url: str, seed: int) -> None:
        self.counts = dict.fromkeys(("finished", "aborted", "left", "bad", "answered", "http", "http_closed"), 0)
        self.problems: list[str] = []
        self._endpoint, self._address = endpoint, urlsplit(url).netloc
        self._draw = random.Random(seed)
        self._frames, self._bodies = frames(seed), Bodies(seed)
        self._live: dict[str, tuple[Stream, int | None]] = {}
        """With the number of tokens after which each is cancelled."""

    def one(self, client: Client, raw: "zmq.Socket[bytes]") -> None:
        """The next request, whatever it is. One that nobody takes is a problem, not the end of the run."""
        try:
            self._one(client, raw)
        except (OSError, http.client.HTTPException, RapidctlError) as error:
            self.problems.append(repr(error))

    def _one(self, client: Client, raw: "zmq.Socket[bytes]") -> None:
        draw = self._draw
        by_http, kind = draw.random() < BY_HTTP, draw.random()
        if kind < BAD:
            self._bad_body() if by_http else self._bad_frame(raw)
        elif by_http:
            self._completion(abort=kind < BAD + ABORTED)
        elif kind < BAD + ABORTED / 4:
            self._leave()
        elif len(self._live) < MAX_LIVE:
            request = self._request()
            stop_at = draw.randrange(request.sampling.max_tokens or 1) if kind < BAD + ABORTED else None
            self._live[request.id] = client.submit(request), stop_at

    def settle(self, client: Client) -> None:
        """Cancel what is due; forget what has ended."""
        for stream, stop_at in list(self._live.values()):
            if stream.ended is not None:
                del self._live[stream.id]
                self.counts["finished"] += stop_at is None
                if isinstance(stream.ended, Failed):
                    self.problems.append(f"{stream.ended.code}: {stream.ended.message}")
            elif stop_at is not None and stream.output_tokens >= stop_at:
                client.abandon(stream.id)
                del self._live[stream.id]
                self.counts["aborted"] += 1

    def _request(self) -> Generate:
        draw = self._draw
        prompt = [draw.randrange(3, VOCAB) for _ in range(draw.randint(1, draw.choice((8, 64, 300))))]
        sampling = Sampling(max_tokens=draw.randint(1, 40), ignore_eos=True, temperature=draw.choice((0.0, 0.8)))
        return Generate(id=new_id(), prompt_ids=pack_ids(prompt), sampling=sampling, n=draw.choice((1, 1, 1, 2)))

    def _leave(self) -> None:
        """A client that goes with a stream open."""
        with Client(self._endpoint, name="leaver", timeout_s=60) as client:
            client.submit(self._request())
            client.poll(self._draw.random() * 0.05)
        self.counts["left"] += 1

    def _bad_frame(self, raw: "zmq.Socket[bytes]") -> None:
        raw.send(self._frames()[1])
        self.counts["bad"] += 1

    def read(self, raw: "zmq.Socket[bytes]") -> None:
        """Answers to bad frames; a client that does not read them would be cut."""
        with contextlib.suppress(zmq.Again):
            while True:
                wire.decode_reply(raw.recv(zmq.NOBLOCK))
                self.counts["answered"] += 1

    def _bad_body(self) -> None:
        with self._post(*self._bodies()) as answer:
            answer.read()
        if answer.status >= 500:
            self.problems.append(f"HTTP {answer.status} for a bad body")
        self.counts["bad"] += 1

    def _completion(self, *, abort: bool) -> None:
        max_tokens = self._draw.randint(1, 40)
        document = {"model": HTTP_MODEL, "prompt": "Once upon a time", "max_tokens": max_tokens, "stream": abort}
        with self._post("/v1/completions", json.dumps(document).encode()) as answer:
            answer.readline() if abort else answer.read()
        if answer.status != 200:
            self.problems.append(f"HTTP {answer.status} for a good body: {answer.reason}")
        self.counts["http_closed" if abort else "http"] += 1

    @contextlib.contextmanager
    def _post(self, path: str, body: bytes) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self._address, timeout=60)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            yield connection.getresponse()
        finally:
            connection.close()


def main() -> int:
    """Run it, print what was found."""
    parser = argparse.ArgumentParser(prog="bench.memory", description="Check that a serving daemon does not grow.")
    parser.add_argument("--minutes", type=float, required=True, metavar="M", help="of load, a quarter of it warm-up")
    parser.add_argument("--rate", type=float, default=6.0, metavar="R", help="requests a second")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the JSON")
    arguments = parser.parse_args()
    if arguments.minutes < LEAST_MINUTES:
        parser.error(f"--minutes must be at least {LEAST_MINUTES:g}")
    document = measure(60 * arguments.minutes, arguments.rate, arguments.seed)
    print(table(document))
    print(json.dumps(document), flush=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 1 if document["failures"] else 0


def measure(load_s: float, rate: float, seed: int = 0, look_s: float = LOOK_S) -> dict[str, Any]:
    """``load_s`` seconds of load; what was seen, and under ``failures`` what should not have been."""
    options = ("--model", str(MODEL), "--dtype", "float32", "--compute-units", "1", "--kv-blocks", "256")
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with daemon(*options) as server, _http(server) as (url, http_pid):
        load = Load(server.endpoint, url, seed)
        seen = {name: Seen(pid) for name, pid in _processes(server, http_pid).items()}
        _drive(server, load, list(seen.values()), load_s, rate, min(look_s, load_s / LEAST_LOOKS))
        now = _processes(server, http_pid)
        replaced = [name for name, one in seen.items() if now[name] != one.pid or not one.lives()]
        cpu_s = server.cpu_s()
    processes = {name: one.summary(WARM_UP * load_s) for name, one in seen.items() if name not in replaced}
    failures = [f"{name} ended, or was replaced" for name in replaced] + judge(processes) + load.problems[:20]
    return {
        "schema_version": SCHEMA_VERSION,
        "started": started,
        "minutes": load_s / 60,
        "rate": rate,
        "cpu_share": round(cpu_s / load_s, 3),
        "requests": load.counts,
        "processes": processes,
        "failures": failures,
    }


def _http(server: Daemon) -> contextlib.AbstractContextManager[tuple[str, int]]:
    return http_server(server.endpoint, "--served-model-name", HTTP_MODEL)


def judge(processes: dict[str, dict[str, Any]]) -> list[str]:
    """Sentences about what grew. Descriptors of connections come and go: their least may not rise above the first."""
    found = []
    for name, summary in processes.items():
        if summary["slope_mib_per_hour"] > LIMIT_MIB_PER_HOUR:
            found.append(f"{name} grows by {summary['slope_mib_per_hour']} MiB an hour")
        for what in ("descriptors", "threads"):
            least, first, last, _ = summary[what]
            if last > first + 2 and least >= first:
                found.append(f"{name} had {first} {what} after the warm-up and {last} at the end")
    return found


def _processes(server: Daemon, http_pid: int) -> dict[str, int]:
    with server.client() as client:
        status = client.call(GetStatus(call=0))
    return {
        "supervisor": server.pid,
        "front": status.front.pid or 0,
        "engine": status.engine.pid or 0,
        "http": http_pid,
    }


def _drive(server: Daemon, load: Load, seen: Sequence[Seen], load_s: float, rate: float, look_s: float) -> None:
    pace = random.Random(1)
    raw: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    raw.linger = 0
    raw.connect(server.endpoint)
    raw.send(wire.encode(wire.Hello(client="raw")))
    with server.client() as client, raw:
        begin = arrival = look = time.monotonic()
        reload = begin + RELOAD_S
        while (now := time.monotonic()) < begin + load_s:
            if now >= arrival:
                load.one(client, raw)
                arrival = max(now, arrival + pace.expovariate(rate))
            if now >= look:
                for one in seen:
                    one.look(now - begin)
                look += look_s
                _tell(now - begin, seen, load)
            if now >= reload:
                psutil.Process(server.pid).send_signal(signal.SIGHUP)
                reload += RELOAD_S
            load.read(raw)
            load.settle(client)
            client.poll(max(0.0, min(arrival, look) - time.monotonic()))
        for one in seen:
            one.look(now - begin)


def _tell(at_s: float, seen: Sequence[Seen], load: Load) -> None:
    now = " ".join(f"{one.mib[-1]:.1f}/{one.fds[-1]}/{one.threads[-1]}" for one in seen)
    sent = sum(load.counts.values())
    print(f"{at_s:.0f} s: MiB/descriptors/threads {now}, {sent} requests", file=sys.stderr, flush=True)


def table(document: dict[str, Any]) -> str:
    """A line a process, and what failed."""
    lines = [f"{'process':<12}{'MiB/h':>8}{'MiB':>8}{'fds':>6}{'threads':>9}"]
    for name, one in document["processes"].items():
        last = [one[what][2] for what in ("mib", "descriptors", "threads")]
        lines.append(f"{name:<12}{one['slope_mib_per_hour']:>8.2f}{last[0]:>8.1f}{last[1]:>6}{last[2]:>9}")
    return "\n".join([*lines, *(f"  - {failure}" for failure in document["failures"])])


if __name__ == "__main__":
    sys.exit(main())
