"""The engine's loop turned by hand: a real engine on a real socket, whose front and clock are the test's."""

import os
import socket
from pathlib import Path
from typing import TypeVar

import zmq

from rapidctl.wire import pack_ids
from rapidd import ipc
from rapidd.config import Config, EngineConfig, ModelConfig, PolicyConfig
from rapidd.engine.build import build
from rapidd.engine.loop import Engine
from rapidd.paths import RuntimeDir
from support.process import WAIT_MS
from support.tiny import MODEL

T = TypeVar("T", bound=ipc.EngineMessage)
MOST_TURNS = 15_000
"""Of at least two milliseconds where nothing happens; only a failing test ever takes so many."""


class FakeClock:
    """Nanoseconds that pass when told."""

    def __init__(self) -> None:
        self.now = 10**12

    def __call__(self) -> int:
        return self.now


class Bench:
    """A real engine on a real socket, turned by hand; the test is its front."""

    def __init__(self, tmp_path: Path, profile: Path | None = None) -> None:
        os.environ["RAPIDD_STATE_DIR"] = str(tmp_path)  # no profile of this machine leaks in
        endpoint = f"ipc://{tmp_path}/request.sock"
        directory = RuntimeDir(endpoint)
        directory.prepare()
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(directory.engine_endpoint)
        self.ours, theirs = socket.socketpair()
        config = Config(
            model=ModelConfig(path=str(MODEL), dtype="float32"),
            engine=EngineConfig(device="cpu", kv_blocks=64, max_batch_requests=4, policy="hybrid:32"),
            policy=PolicyConfig(profile=str(profile) if profile else None),
        )
        self.engine: Engine = build(config, directory, ipc.Channel(theirs), lambda detail, percent: None)
        assert self.engine._link.socket.poll(WAIT_MS, zmq.POLLOUT)  # connected: before that a hello would be lost
        self.clock = FakeClock()
        self.engine._clock = self.clock
        self.engine._heard_ns = self.clock()

    def send(self, message: ipc.FrontMessage) -> None:
        self.socket.send_multipart([ipc.ENGINE_IDENTITY, ipc.encode(message)])

    def until(self, kind: type[T], turns: int = MOST_TURNS) -> T:
        """Turn the engine until it says something of this kind."""
        for _ in range(turns):
            self.engine._link.socket.poll(1)
            self.engine.turn()
            while self.socket.poll(1):
                message = ipc.decode_engine(self.socket.recv_multipart()[1])
                parts = [message, message.state] if isinstance(message, ipc.Step) else [message]
                for part in parts:
                    if isinstance(part, kind):
                        return part
        raise AssertionError(f"the engine never said {kind}")

    def greet(self, boot_id: str = "front-1", epoch: int = 0, policy: str | None = None) -> ipc.EngineState:
        assert self.engine._link.socket.poll(WAIT_MS, zmq.POLLOUT), "the engine never connected"
        self.engine._link.send(self.engine._hello)
        self.until(ipc.EngineHello)
        self.send(ipc.FrontHello(boot_id, epoch, policy))
        assert self.engine._link.socket.poll(WAIT_MS)
        self.engine.turn()
        while self.socket.poll(1):
            self.socket.recv_multipart()
        self.engine._state_ns = 0
        return self.until(ipc.EngineState)

    def submit(self, rid: int, prompt: list[int], max_tokens: int = 400) -> None:
        self.send(
            ipc.Submit(
                rid, 0, pack_ids(prompt), b"", max_tokens, 0, [], [], 0.0, 0, 1.0, 0.0, 1.0, 0.0, 0.0, 1, None, 0,
                "interactive", self.clock(),
            )
        )  # fmt: skip

    @property
    def live(self) -> set[int]:
        """The requests that the engine has."""
        return {request.rid for request in self.engine._scheduler.requests}

    def until_idle(self, rid: int) -> None:
        """Drop the request that runs, and wait for its last batch."""
        self.send(ipc.Abort([rid]))
        for _ in range(MOST_TURNS):
            self.engine._link.socket.poll(1)
            self.engine.turn()
            if not self.engine.busy and not self.live:
                return
        raise AssertionError("the engine never became idle")

    def close(self) -> None:
        for lane in self.engine._lanes.values():
            lane.wait()  # a batch that outlives the interpreter crashes it
        self.engine._link.close()
        self.engine._channel.close()
        self.ours.close()
        self.socket.close()
        self.context.term()
