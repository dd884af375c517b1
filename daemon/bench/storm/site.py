"""The daemon that storms hit: the test model on one core, few rows, a short queue, a cache too small for its rows."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import psutil
import zmq

from bench.processes import Daemon, daemon
from rapidctl import wire
from rapidctl.client import Client, Stream, new_id
from rapidctl.wire import Finished, Generate, GetStatus, Sampling, Status, pack_ids

MODEL: Final = Path(__file__).resolve().parents[3] / "tests/data/stories260K_hf"
VOCAB: Final = 512
MAX_ROWS: Final = 4
MAX_WAITING: Final = 128
KV_BLOCKS: Final = 64
"""Of 16 tokens: rows of some hundred tokens preempt each other."""
CHECK_S: Final = 11.0
"""An idle engine checks its block pool every 10 s, and ends when it is wrong."""
PATIENCE_S: Final = 120.0
PROBE: Final = "Once upon a time"

TEMPLATE: Final = "{% for message in messages %}{{ message.content }} {% endfor %}"

CONFIG: Final = f"""
[server]
max-waiting-requests = {MAX_WAITING}
[engine]
device = "cpu"
compute-units = 1
max-batch-requests = {MAX_ROWS}
block-tokens = 16
kv-blocks = {KV_BLOCKS}
"""


class Site:
    """A daemon, and whether it is still the one that was started and has everything back."""

    def __init__(self, server: Daemon) -> None:
        self.server = server
        self.endpoint = server.endpoint
        self._processes = self._pids(self.status())
        self._probe = self._answer()

    def client(self, *, control: bool = False) -> Client:
        """Connects as a context manager."""
        return Client(self.endpoint, name="storm", control=control, timeout_s=PATIENCE_S)

    def status(self) -> Status:
        """Of now."""
        with self.client() as client:
            return client.call(GetStatus(call=0))

    def problems(self, *, idle_s: float = 0.0) -> list[str]:
        """Once all is quiet: processes that are others, blocks and requests that are held, another answer than before.

        ``idle_s`` at least `CHECK_S`: the engine has looked at its own books too.
        """
        found = []
        deadline_s = time.monotonic() + PATIENCE_S
        while held := self._held(status := self.status()):
            if time.monotonic() > deadline_s:
                found.append(f"an idle daemon holds {held}")
                break
            time.sleep(0.1)
        time.sleep(idle_s)
        if self._answer() != self._probe:
            found.append("the same greedy request has another answer than before the storm")
        if (now := self._pids(status := self.status())) != self._processes:
            found.append(f"processes were {self._processes} and are {now}")
        if status.state != "serving":
            found.append(f"the daemon is {status.state}: {status.detail}")
        return found

    @staticmethod
    def _held(status: Status) -> str:
        counts, blocks = status.requests, status.kv.blocks_used if status.kv else 0
        live = counts.waiting + counts.prefilling + counts.decoding
        return f"{live} requests and {blocks} blocks" if live or blocks else ""

    def _pids(self, status: Status) -> dict[str, int | None]:
        assert psutil.pid_exists(self.server.pid)
        return {"front": status.front.pid, "engine": status.engine.pid}

    def _answer(self) -> bytes:
        """Output ids of a greedy request."""
        sampling = Sampling(max_tokens=16, ignore_eos=True)
        with self.client() as client:
            for event in client.generate(Generate(id=new_id(), prompt=PROBE, sampling=sampling)):
                if isinstance(event, Finished):
                    return event.choices[0].token_ids
        raise AssertionError("a stream ends with its last message")


@contextlib.contextmanager
def site() -> Iterator[Site]:
    """Start one. Raises RuntimeError if it does not come up."""
    with tempfile.TemporaryDirectory(prefix="storm-") as folder:
        model, config = Path(folder) / "model", Path(folder) / "rapidd.toml"
        shutil.copytree(MODEL, model)
        (model / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
        config.write_text(CONFIG, encoding="utf-8")
        with daemon("--config", str(config), "--model", str(model), "--dtype", "float32") as server:
            yield Site(server)


def pump(client: Client, until: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    """Let messages in until it is so. Raises TimeoutError."""
    deadline_s = time.monotonic() + timeout_s
    while not until():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"nothing came of {len(client.streams)} streams within {timeout_s:.0f} s")
        client.poll(0.1)


def request(prompt: Sequence[int], max_tokens: int, n: int = 1) -> Generate:
    """A greedy request of exactly so many tokens."""
    sampling = Sampling(max_tokens=max_tokens, ignore_eos=True)
    return Generate(id=new_id(), prompt_ids=pack_ids(prompt), sampling=sampling, n=n)


def whole(stream: Stream) -> bool:
    """Whether it ended as asked, and its last message holds what was streamed."""
    last = stream.ended
    return (
        isinstance(last, Finished)
        and [wire.unpack_ids(choice.token_ids) for choice in last.choices] == stream.output_ids
        and all(len(ids) == stream.request.sampling.max_tokens for ids in stream.output_ids)
    )


@contextlib.contextmanager
def raw_socket(endpoint: str) -> "Iterator[zmq.Socket[bytes]]":
    """A DEALER that said Hello and may send what no client would. Reads wait at most `PATIENCE_S`."""
    sock: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    try:
        sock.linger = 0
        sock.rcvtimeo = int(PATIENCE_S * 1000)
        sock.connect(endpoint)
        sock.send(wire.encode(wire.Hello(client="raw")))
        yield sock
    finally:
        sock.close()
