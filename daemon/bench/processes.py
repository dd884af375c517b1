"""The two sides of a comparison as processes: a `rapidd` of its own, and the baseline. Both end with their context."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from rapidctl.client import Client

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 45.0
"""More than the daemon's drain timeout."""


class Daemon:
    """A running `rapidd`; ``ready_s`` is the time from its start to READY=1, as a service manager sees it."""

    def __init__(self, process: "subprocess.Popen[bytes]", endpoint: str, ready_s: float, log: Path) -> None:
        self.endpoint = endpoint
        self.ready_s = ready_s
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        return self._process.pid

    def wait(self) -> int:
        """Its exit status, once it has ended by itself. Raises subprocess.TimeoutExpired."""
        return self._process.wait(STOP_TIMEOUT_S)

    def said(self) -> str:
        """All that it has written to standard error; gone when its context ends."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def cpu_s(self) -> float:
        """CPU seconds that all its processes have used."""
        main = psutil.Process(self._process.pid)
        return sum(sum(process.cpu_times()[:2]) for process in (main, *main.children(recursive=True)))

    def rapidctl(self, *arguments: str) -> float:
        """Run a command; its wall time. Raises CalledProcessError when it fails."""
        command = [sys.executable, "-P", "-m", "rapidctl.cli", "--endpoint", self.endpoint, *arguments]
        begin = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - begin

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """A connection with operator rights, for long prompts on a slow machine."""
        with Client(self.endpoint, name="bench", control=True, timeout_s=60) as client:
            yield client


@contextlib.contextmanager
def daemon(*options: str) -> Iterator[Daemon]:
    """Start one on a private endpoint and wait until it serves. Raises RuntimeError with its log if it does not.

    Meanwhile SIGTERM ends this process as `sys.exit` does, so that whoever stops a benchmark leaves no daemon behind.
    """
    with (
        exit_on_sigterm(),
        tempfile.TemporaryDirectory(prefix="rapidd-bench-") as folder,
        (Path(folder) / "log").open("wb+") as log,
    ):
        news = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        news.bind(f"{folder}/notify")
        endpoint = f"ipc://{folder}/request.sock"
        begin = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "rapidd.cli", "serve", "--listen", endpoint, *options],
            stdin=subprocess.DEVNULL,
            stderr=log,
            process_group=0,
            env={**os.environ, "NOTIFY_SOCKET": f"{folder}/notify"},
        )
        try:
            with news:
                _wait_until_ready(news, process, log, begin + READY_TIMEOUT_S)
            yield Daemon(process, endpoint, time.monotonic() - begin, Path(folder) / "log")
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Meanwhile SIGTERM ends this process as `sys.exit` does: contexts end what they started."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait_until_ready(
    news: socket.socket, process: "subprocess.Popen[bytes]", log: IO[bytes], deadline_s: float
) -> None:
    news.settimeout(0.5)
    while time.monotonic() < deadline_s and process.poll() is None:
        with contextlib.suppress(TimeoutError):
            if b"READY=1" in news.recv(4096).splitlines():
                return
    log.seek(0)
    raise RuntimeError(f"rapidd did not become ready:\n{log.read().decode(errors='replace')}")


class Peer:
    """The baseline's process: a question, an answer."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        self.version: str = self._read()["transformers"]

    def generate(self, prompt: Sequence[int], max_tokens: int) -> tuple[list[int], list[int]]:
        """Output ids, and when each was there in nanoseconds."""
        answer = self._ask({"do": "generate", "prompt": list(prompt), "max_tokens": max_tokens})
        return answer["token_ids"], answer["at_ns"]

    def prefill(self, prompt: Sequence[int]) -> float:
        """Seconds of one forward pass."""
        seconds: float = self._ask({"do": "prefill", "prompt": list(prompt)})["seconds"]
        return seconds

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        print(json.dumps(question), file=self._in, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._out.readline()
        if not line:
            raise RuntimeError("the baseline's process ended; what it said is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def peer(dtype: str, threads: int) -> Iterator[Peer]:
    """Start the baseline with this dtype and thread count."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "bench.peer", dtype, str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Peer(process)
        finally:
            process.kill()
