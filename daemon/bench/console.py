"""``make bench-console BENCH="[--seconds N] [--out FILE]"``, or ``PYTHONPATH=daemon python -m bench.console``.

Measures the console in a pseudo-terminal against a make-believe daemon behind real sockets: a table, then one JSON
line. What it writes and uses is counted by the kernel; times on a busy machine are noise, and the JSON says how busy
it was.
"""

import argparse
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path
from typing import Any, Self

import psutil
import zmq

from bench.figures import SCHEMA_VERSION, Figure, table
from rapidctl import wire
from rapidctl.demo.daemon import TICK_S, DemoDaemon

COLUMNS, LINES = 120, 36
LIVE_REQUESTS = 500
SNAPSHOT_HZ = 4.0
FAST_HZ = 200.0
KEY_PRESSES = 20
START_REPEATS = 5
STATUS_REPEATS = 10
SETTLE_S = 5.0
FEED_HOURS = 8.0
WAIT_S = 30.0
"""Longest wait for something on the screen."""


class Publisher:
    """The make-believe daemon behind a request and a metrics socket, in a thread of this process."""

    def __init__(self, endpoint: str, rate_hz: float) -> None:
        self._endpoint = endpoint
        self._rate_hz = rate_hz
        self._daemon = DemoDaemon(time.time(), live=LIVE_REQUESTS)
        while self._daemon.now_s < 60.0:
            self._daemon.tick()
        self._sent = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        with context.socket(zmq.ROUTER) as router, context.socket(zmq.PUB) as publisher:
            router.linger = publisher.linger = 0
            router.bind(self._endpoint)
            publisher.bind(wire.metrics_endpoint(self._endpoint))
            due = time.monotonic()
            while not self._stop.is_set():
                if router.poll(max(0, round((due - time.monotonic()) * 1000))):
                    identity, frame = router.recv_multipart()
                    for reply in self._answer(wire.decode_request(frame)):
                        router.send_multipart([identity, wire.encode(reply)])
                if time.monotonic() >= due:
                    due = max(due + 1 / self._rate_hz, time.monotonic())
                    publisher.send(wire.SNAPSHOT_TOPIC + wire.encode(self._next()))

    def _next(self) -> wire.Snapshot:
        """The daemon's time goes by quarter seconds, whatever the rate: more messages are more of the same."""
        self._sent += 1
        if self._sent % max(1, round(self._rate_hz * TICK_S)) == 0:
            self._daemon.tick()
        return self._daemon.snapshot()

    def _answer(self, request: wire.Request) -> list[Any]:
        match request:
            case wire.Hello():
                limits = wire.Limits(max_model_len=None)
                metrics = wire.metrics_endpoint(self._endpoint)
                return [
                    wire.Welcome(
                        protocol=wire.PROTOCOL_MAX, version="bench", boot_id="bench", front_boot_id="bench",
                        metrics_endpoint=metrics, model=None, control=False, limits=limits,
                    )
                ]  # fmt: skip
            case wire.Ping(call=call):
                return [wire.Pong(call=call, at_mono_ns=time.monotonic_ns())]
            case wire.GetStatus(call=call):
                return [_status(call, self._daemon.snapshot())]
            case wire.GetEvents() | wire.GetRequests():
                answer = self._daemon.answer(request)
                assert not isinstance(answer, Exception)
                answer.call = request.call
                return [answer]
        return []


def _status(call: int, found: wire.Snapshot) -> wire.Status:
    shared = {name: getattr(found, name) for name in wire.Status.__struct_fields__ if name in found.__struct_fields__}
    return wire.Status(call=call, slo_met=None, **shared)


class Pane:
    """`rapidctl` on a pseudo-terminal that nobody looks at."""

    def __init__(self, endpoint: str, *words: str) -> None:
        self.started_s = time.monotonic()
        self.written = 0
        self._seen = b""
        command = [sys.executable, "-P", "-m", "rapidctl.cli", "--endpoint", endpoint, *words]
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], command, {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"})
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.process = psutil.Process(self.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)

    def cpu_s(self) -> float:
        """CPU seconds used so far."""
        return sum(self.process.cpu_times()[:2])

    def drawing_s(self) -> float:
        """CPU seconds that its first thread, which takes keys and draws, has used; waiting for a core is not in it."""
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/schedstat").read_text().split()[0]) / 1e9

    def press(self, keys: bytes) -> None:
        """Type."""
        self._seen = b""
        os.write(self._fd, keys)

    def until(self, words: bytes) -> float:
        """Read until these bytes were written; when that was, on the monotonic clock."""
        deadline = time.monotonic() + WAIT_S
        while words not in self._seen:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the console never showed {words!r}")
            self._read(0.5)
        return time.monotonic()

    def let_run(self, seconds: float) -> None:
        """Read and forget."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._read(left)
            self._seen = b""

    def _read(self, timeout_s: float) -> None:
        if select.select([self._fd], [], [], timeout_s)[0]:
            found = os.read(self._fd, 65536)
            self.written += len(found)
            self._seen += found


def measure_running(endpoint: str, seconds: float) -> list[Figure]:
    """Bytes and CPU of the overview, and of the screen with every request, with 500 live ones."""
    figures = []
    with Pane(endpoint, "top") as pane:
        pane.until(b"LIVE")
        for name, keys in (("overview", b""), ("requests", b"2")):
            pane.press(keys)
            pane.let_run(SETTLE_S)
            begin_s, begin_cpu_s, begin_bytes = time.monotonic(), pane.cpu_s(), pane.written
            pane.let_run(seconds)
            took = time.monotonic() - begin_s
            core = (pane.cpu_s() - begin_cpu_s) / took * 100
            figures.append(Figure(f"{name}, CPU", [core], "% of a core", "at most", 10.0))
            kilobytes = (pane.written - begin_bytes) / took / 1000
            figures.append(Figure(f"{name}, written", [kilobytes], "kB/s", "at most", 30.0))
    return figures


def measure_keys(endpoint: str) -> list[Figure]:
    """From a key press to the screen that it opens, under a feed of 200 messages a second; and the work in between."""
    samples, worked = [], []
    with Pane(endpoint, "top") as pane:
        pane.until(b"LIVE")
        pane.let_run(SETTLE_S)
        for _ in range(KEY_PRESSES):
            begin, begin_cpu_s = time.monotonic(), pane.drawing_s()
            pane.press(b"?")
            samples.append((pane.until(b"HELP") - begin) * 1000)
            worked.append((pane.drawing_s() - begin_cpu_s) * 1000)
            pane.press(b"\x1b")
            pane.let_run(0.5)
    return [
        Figure("key press to screen at 200 msg/s", samples, "ms", "at most", 100.0),
        Figure("  of that the console's own CPU", worked, "ms"),
    ]


def measure_start(endpoint: str) -> list[Figure]:
    """To the first frame, and a whole `rapidctl status`."""
    first, status = [], []
    for _ in range(START_REPEATS):
        with Pane(endpoint, "top") as pane:
            first.append(pane.until(b"\xe2\x95\xad") - pane.started_s)  # a box's corner: the screen is drawn
    for _ in range(STATUS_REPEATS):
        command = [sys.executable, "-P", "-m", "rapidctl.cli", "--endpoint", endpoint, "status"]
        begin = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        status.append(time.monotonic() - begin)
    return [
        Figure("first frame", first, "s", "at most", 0.7),
        Figure("rapidctl status", status, "s", "at most", 0.25),
    ]


def measure_memory(hours: float) -> Figure:
    """Resident memory of a process with the console loaded, after so many hours of one daemon's feed."""
    command = [sys.executable, "-P", "-m", "bench.console", "--feed-hours", str(hours)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Figure(f"memory after {hours:g} h of feed", [float(done.stdout)], "MB", "at most", 150.0)


def feed(hours: float) -> float:
    """Let hours of feed go through a `Host` on a clock that runs ahead; this process's memory afterwards, in MB."""
    from msgspec.structs import replace

    from rapidctl.console import app  # for its memory: all of the console is loaded  # noqa: F401
    from rapidctl.console.host import Host
    from rapidctl.source import Received, Update

    daemon = DemoDaemon(time.time(), live=LIVE_REQUESTS)
    minute = []
    for _ in range(240):
        daemon.tick()
        minute.append(daemon.snapshot())
    now = [0.0]

    class Ahead:
        def __init__(self) -> None:
            self.tick = 0

        def poll(self) -> list[Update]:
            self.tick += 1
            now[0] += TICK_S
            found = minute[self.tick % len(minute)]
            fresh = replace(found, seq=self.tick, at_unix_s=found.at_unix_s + now[0], rows=list(found.rows))
            return [Received(fresh, now[0])]

    host = Host(Ahead(), "bench", clock=lambda: now[0], wall=time.time)  # type: ignore[arg-type]
    while now[0] < hours * 3600:
        host.poll()
    return psutil.Process().memory_info().rss / 1e6


def main() -> int:
    """Measure everything, print it."""
    parser = argparse.ArgumentParser(prog="make bench-console", description="Measure the console.")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each screen is watched (20)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the JSON, samples included")
    parser.add_argument("--feed-hours", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.feed_hours is not None:
        print(feed(arguments.feed_hours))
        return 0
    psutil.cpu_percent()
    with tempfile.TemporaryDirectory(prefix="rapidctl-bench-") as folder:
        endpoint = f"ipc://{folder}/request.sock"
        with Publisher(endpoint, SNAPSHOT_HZ):
            figures = [*measure_start(endpoint), *measure_running(endpoint, arguments.seconds)]
        with Publisher(endpoint, FAST_HZ):
            figures += measure_keys(endpoint)
    figures.append(measure_memory(FEED_HOURS))
    print(table(figures))
    document = {
        "schema_version": SCHEMA_VERSION,
        "cores": len(os.sched_getaffinity(0)),
        "size": f"{COLUMNS}x{LINES}",
        "live_requests": LIVE_REQUESTS,
        "cores_busy_share": psutil.cpu_percent() / 100,
        "figures": [figure.document() for figure in figures],
    }
    print(json.dumps(document), flush=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
