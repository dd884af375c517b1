"""The front as the supervisor starts it: a process of its own, told by a channel and by signals."""

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from rapidctl import wire
from rapidd import ipc
from rapidd.config import Config, ModelConfig, ServerConfig
from rapidd.front.__main__ import MEMORY_BYTES
from support.process import WAIT_S, environment

MODEL = Path(__file__).parents[2] / "data" / "stories260K_hf"


class FrontProcess:
    def __init__(self, folder: Path, model: str = str(MODEL)) -> None:
        self.endpoint = f"ipc://{folder}/request.sock"
        config = Config(model=ModelConfig(path=model), server=ServerConfig(listen=self.endpoint))
        config_file = folder / "config.json"
        config_file.write_bytes(msgspec.json.encode(config))
        ours, theirs = socket.socketpair()
        self.lines = ours.makefile("rb")
        self.supervisor = ours
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "rapidd.front",
                "--config",
                str(config_file),
                "--channel",
                str(theirs.fileno()),
            ],
            pass_fds=(theirs.fileno(),),
            env=environment(),
            stderr=subprocess.PIPE,
        )
        theirs.close()

    def reports(self) -> list[ipc.ChildReport]:
        return [msgspec.json.decode(line, type=ipc.ChildReport) for line in self.lines]

    def ready(self) -> None:
        assert msgspec.json.decode(self.lines.readline(), type=ipc.ChildReport).state == "ready"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.lines.close()
        self.supervisor.close()


@pytest.fixture
def front(tmp_path: Path) -> Iterator[FrontProcess]:
    front = FrontProcess(tmp_path)
    yield front
    front.close()


def test_it_serves_status_and_drains_at_sigterm(front: FrontProcess, tmp_path: Path) -> None:
    front.ready()
    for name in ("request.sock", "request-metrics.sock"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o770
    assert (tmp_path / "request.d").stat().st_mode & 0o777 == 0o700
    assert resource.prlimit(front.process.pid, resource.RLIMIT_DATA)[0] == MEMORY_BYTES
    with zmq.Context() as context, context.socket(zmq.DEALER) as client:
        client.set(zmq.LINGER, 0)
        client.connect(front.endpoint)
        client.send(wire.encode(wire.Hello()))
        client.send(wire.encode(wire.GetStatus(call=1)))
        assert isinstance(wire.decode_reply(client.recv()), wire.Welcome)
        status = wire.decode_reply(client.recv())
        assert isinstance(status, wire.Status)
        assert (status.state, status.front.pid) == ("starting", front.process.pid)
    front.process.send_signal(signal.SIGTERM)
    assert [report.state for report in front.reports()] == ["draining", "drained"]
    assert front.process.wait(WAIT_S) == 0


def test_it_ends_with_its_supervisor(front: FrontProcess) -> None:
    front.ready()
    front.supervisor.shutdown(socket.SHUT_RDWR)
    assert front.process.wait(WAIT_S) == 1


def test_it_never_imports_torch(front: FrontProcess) -> None:
    front.ready()
    maps = Path(f"/proc/{front.process.pid}/maps").read_text()
    assert "torch" not in maps
    assert "tokenizers" in maps


def test_a_model_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    front = FrontProcess(tmp_path, model=str(tmp_path / "nothing"))
    try:
        assert front.process.wait(WAIT_S) == os.EX_CONFIG
        assert front.process.stderr is not None
        assert b"nothing" in front.process.stderr.read()
    finally:
        front.close()
