"""The whole daemon as users run it: `rapidd serve` over the 260K-parameter test model, with its sockets and processes.

`Daemon` starts, looks and signals; `story`, `until_running` and `finish` stream through the one client; `rapidctl` runs
the command. Every wait is for something that must happen, within `WAIT_S`. What must be found while a request still
runs is looked for while the engine is `paused`: then it does not matter who gets the processor.
"""

import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psutil

from rapidctl.client import Client, Stream, new_id
from rapidctl.errors import Refused, TimedOut, Unreachable
from rapidctl.wire import Delta, Event, Finished, Generate, GetEvents, GetStatus, Sampling, Status, unpack_ids
from support.process import ROOT, environment, python_module, run, wait_for_end

MODEL = ROOT / "tests/data/stories260K_hf"
ON_ALL_CORES = ("--model", str(MODEL), "--dtype", "float32")
ON_ONE_CORE = (*ON_ALL_CORES, "--compute-units", "1")
"""What most tests use: a team of threads waits for each other wherever other processes, such as the test, run too."""
WAIT_S = 90.0
"""Longest wait for something that must happen: also a start with every core taken by others."""
PATIENT = {"RAPIDD__SERVER__HANG_TIMEOUT_S": f"{WAIT_S:g}"}
"""An engine that a test pauses, or that gets no processor, is no engine that hangs."""
LOOK_S = 0.05
"""Pause between two looks at the status."""
PROMPTS = (
    "Once upon a time",
    "The dog ran to the park",
    "Lily had a red ball",
    "One day, Tom found",
    "There was a big tree",
    "Mom said",
    "In the garden a cat",
    "The sun was hot",
)
"""The two best tokens of their greedy outputs are never closer than 0.0009: float32 noise does not change them."""


class Daemon:
    """``rapidd serve`` with an endpoint in ``folder``. May be started again once it has ended."""

    def __init__(self, folder: Path, *options: str, **environ: str) -> None:
        self.endpoint = f"ipc://{folder}/run/request.sock"
        self.log = folder / "log"
        self._options = options or ON_ONE_CORE
        self._environ = PATIENT | environ
        self._news_path = folder / "news"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it and wait until it says that it is ready, as a service manager would."""
        self._news_path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as news, self.log.open("ab") as log:
            news.bind(str(self._news_path))
            self.process = subprocess.Popen(
                serve_command(self.endpoint, *self._options),
                env=environment(NOTIFY_SOCKET=str(self._news_path), **self._environ),
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
            end = os.pidfd_open(self.process.pid)
            try:
                while True:
                    ready, _, _ = select.select([news.fileno(), end], [], [], WAIT_S)
                    assert news.fileno() in ready, f"the daemon is not ready:\n{self.said()}"
                    if "READY=1" in news.recv(4096).decode().splitlines():
                        return self
            finally:
                os.close(end)

    def said(self) -> str:
        """All that it has written to standard error."""
        return self.log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        assert self.process is not None
        return self.process.pid

    def family(self) -> list[int]:
        """Pids of all processes below the supervisor."""
        return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]

    def pid_of(self, child: str) -> int:
        """Of the "front" or the "engine" that runs now. Asks the kernel: sooner answered than by the daemon."""
        (pid,) = [
            process.pid
            for process in psutil.Process(self.pid).children()
            if process.status() != psutil.STATUS_ZOMBIE and f"rapidd.{child}" in process.cmdline()
        ]
        return pid

    def kill(self, child: str) -> int:
        """``kill -9`` of "front" or "engine"; the pid it had."""
        pid = self.pid_of(child)
        os.kill(pid, signal.SIGKILL)
        return pid

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The engine does nothing during the block: what runs cannot end meanwhile, however long the block takes."""
        with _stopped(self.pid_of("engine")):
            yield

    @contextmanager
    def without_engine(self) -> Iterator[None]:
        """The engine is killed, and the next one starts after the block: whoever looks has time to see it lost."""
        with _stopped(self.pid):
            self.kill("engine")
            yield

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal the supervisor, wait for the end of every process, and give the exit status."""
        assert self.process is not None
        family = [os.pidfd_open(pid) for pid in self.family()]
        self.process.send_signal(number)
        status = self.process.wait(WAIT_S)
        assert all(map(wait_for_end, family)), "a process of the daemon outlived it"
        return status

    def close(self) -> None:
        """Whatever happened, leave nothing behind."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    # --- as a client ---------------------------------------------------------------------------------------------

    def client(self, *, control: bool = False) -> Client:
        """Connects as a context manager."""
        return Client(self.endpoint, control=control, name="test", timeout_s=WAIT_S, patience_s=WAIT_S)

    def status(self) -> Status:
        """As `rapidctl status` sees it."""
        with self.client() as client:
            return client.call(GetStatus(call=0))

    def events(self) -> list[Event]:
        """All events of this front that are kept."""
        with self.client() as client:
            return client.call(GetEvents(call=0)).events

    def until(self, holds: Callable[[Status], bool]) -> Status:
        """Look at the status until it is so; a daemon that does not answer at the moment is looked at again."""
        deadline = time.monotonic() + WAIT_S
        while True:
            seen: object = None
            try:
                seen = status = self.status()
                if holds(status):
                    return status
            except (Unreachable, TimedOut, Refused) as error:
                seen = error
            assert time.monotonic() < deadline, f"never came about; last seen: {seen}\n{self.said()}"
            time.sleep(LOOK_S)

    def until_idle(self) -> Status:
        """No request lives and none holds a block."""
        return self.until(lambda status: is_idle(status) and status.kv is not None and status.kv.blocks_used == 0)

    def check_serves(self) -> None:
        """The next request is answered, and then the daemon is idle."""
        with self.client() as client:
            assert finish(client, [client.submit(story("Once upon a time", 4))])[0].output_tokens == 4
        self.until_idle()


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def is_idle(status: Status) -> bool:
    """Serving, with nothing to do."""
    counts = status.requests
    return status.state == "serving" and counts.waiting == counts.prefilling == counts.decoding == 0


def serve_command(endpoint: str, *options: str) -> list[str]:
    """``rapidd serve`` as a command."""
    return python_module("rapidd.cli", "serve", "--listen", endpoint, *options)


@contextmanager
def running(folder: Path, *options: str, **environ: str) -> Iterator[Daemon]:
    """A daemon that is stopped at the end, whatever happened to it meanwhile."""
    daemon = Daemon(folder, *options, **environ)
    try:
        yield daemon.start()
    finally:
        daemon.close()


def rapidctl(daemon: Daemon, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command against ``daemon``."""
    return run(python_module("rapidctl.cli", "--endpoint", daemon.endpoint, *arguments))


def rapidctl_json(daemon: Daemon, *arguments: str) -> dict[str, Any]:
    """The document that the command prints; it must succeed."""
    done = rapidctl(daemon, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


# --- streams -----------------------------------------------------------------------------------------------------


def story(prompt: str, max_tokens: int, *, ignore_eos: bool = True, **sampling: Any) -> Generate:
    """A greedy request of exactly so many tokens, unless told otherwise."""
    return Generate(
        id=new_id(), prompt=prompt, sampling=Sampling(max_tokens=max_tokens, ignore_eos=ignore_eos, **sampling)
    )


def pump(client: Client, until: Callable[[], bool]) -> None:
    """Let the client work until something is so."""
    deadline = time.monotonic() + WAIT_S
    while not until():
        assert time.monotonic() < deadline, f"never came about; open: {client.streams.keys()}"
        client.poll(1.0)


def until_running(client: Client, streams: Iterable[Stream], tokens: int = 3) -> None:
    """Every stream has a few more tokens than now, in each of its choices."""
    wanted = [(stream, [count + tokens for count in lengths(stream)]) for stream in streams]

    def there() -> bool:
        ended = [stream.ended for stream, _ in wanted if stream.ended is not None]
        assert not ended, f"ended before it could be disturbed: {ended}"
        return all(
            have >= want for stream, counts in wanted for have, want in zip(lengths(stream), counts, strict=True)
        )

    pump(client, there)


def lengths(stream: Stream) -> list[int]:
    """Output tokens received, by choice."""
    return [len(ids) for ids in stream.output_ids]


def finish(client: Client, streams: list[Stream]) -> list[Finished]:
    """Wait for the last messages. What was streamed must be what they say: nothing lost, nothing twice."""
    pump(client, lambda: all(stream.ended is not None for stream in streams))
    finished = []
    for stream in streams:
        last = stream.ended
        assert isinstance(last, Finished), last
        texts = [""] * len(last.choices)
        for event in stream.events:
            if isinstance(event, Delta):
                texts[event.choice] += event.text
        for choice, text in zip(last.choices, texts, strict=True):
            assert choice.text.endswith(text) if stream.request.resume_ids else choice.text == text
        assert stream.output_ids == outputs(last)
        finished.append(last)
    return finished


def outputs(finished: Finished) -> list[list[int]]:
    """Output ids by choice."""
    return [unpack_ids(choice.token_ids) for choice in finished.choices]
