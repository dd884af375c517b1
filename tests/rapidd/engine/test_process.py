"""The engine's process: with which status it ends, for the supervisor to know whether another one may do better."""

import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from rapidd.config import Config, ModelConfig, ServerConfig
from rapidd.engine.openmp import SPINS
from rapidd.errors import EXIT_CONFIG, EXIT_FAILED
from support.process import RUN_S, environment

BUILD_FAILS = """
import atexit, os, sys
from rapidd.engine import __main__ as engine, build
from rapidd.engine.device_stream import DeviceTask
from rapidd.errors import DeviceError

def absent(*_):
    raise DeviceError("there is none", "look for one")

def lost(*_):
    atexit.register(os.abort)  # as torch does when it frees what it had there
    task = DeviceTask(lambda: None, None)
    task.launch(None)  # a stream that takes nothing
    task.value

build.build = {how}
sys.exit(engine.main())
"""
LOOP_FAILS = """
import sys, threading
import torch
from rapidd.engine import __main__ as engine, build
from rapidd.errors import DeviceError

started = threading.Event()

def batch():
    while True:
        torch.ones(1 << 22).sqrt_()
        started.set()

class Engine:
    busy = True

    def run(self):
        threading.Thread(target=batch, daemon=True).start()
        started.wait()
        raise {error}

build.build = lambda *_: Engine()
sys.exit(engine.main())
"""

IDLE_LOOP_FAILS = """
import atexit, os, sys
from rapidd.engine import __main__ as engine, build
from rapidd.errors import DeviceLost

class Engine:
    busy = False

    def run(self):
        atexit.register(os.abort)  # as torch does when it frees what it had there
        raise DeviceLost("the device failed", "see dmesg")

build.build = lambda *_: Engine()
sys.exit(engine.main())
"""

FINDS_NO_MODEL = "import sys; from rapidd.engine import __main__ as engine; sys.exit(engine.main())"


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("absent", EXIT_CONFIG, "rapidd: there is none (look for one)\n"),
        ("lost", EXIT_FAILED, "(see dmesg; the engine starts anew)\n"),
    ],
)
def test_a_device_that_fails_in_the_warm_up_is_tried_again_unlike_one_that_is_not_there(
    tmp_path: Path, how: str, status: int, said: str
) -> None:
    """The log said that the engine starts anew, and the daemon ended for good, as with a wrong setting."""
    ended = engine(tmp_path, BUILD_FAILS.format(how=how))
    assert (ended.returncode, ended.stderr[-len(said) :]) == (status, said)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("AssertionError('blocks were lost')", "AssertionError: blocks were lost"),
        ("DeviceError('the device failed', 'see dmesg')", "rapidd: the device failed (see dmesg)\n"),
    ],
)
def test_a_loop_that_fails_while_a_batch_runs_ends_the_process_in_order(tmp_path: Path, error: str, said: str) -> None:
    """The interpreter's end aborted it under the batch: the log told of SIGABRT and kept stacks, as of a hang."""
    ended = engine(tmp_path, LOOP_FAILS.format(error=error))
    assert (ended.returncode, said in ended.stderr, "terminate" in ended.stderr) == (EXIT_FAILED, True, False)


def test_a_device_that_is_lost_while_nothing_runs_ends_the_process_in_order(tmp_path: Path) -> None:
    """Torch aborts a process that frees what it had on such a device: the log told of SIGABRT and kept stacks."""
    ended = engine(tmp_path, IDLE_LOOP_FAILS)
    assert (ended.returncode, ended.stderr) == (EXIT_FAILED, "rapidd: the device failed (see dmesg)\n")


@pytest.mark.parametrize(
    ("given", "spins"), [({}, str(SPINS)), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "0")]
)
def test_its_threads_wait_for_each_other_for_a_moment_and_then_sleep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], spins: str
) -> None:
    """They looked 300,000 times: with one busy process beside it on two cores a step took 30 times as long."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    ended = engine(tmp_path, FINDS_NO_MODEL, OMP_DISPLAY_ENV="verbose", **given)
    assert (ended.returncode, f"GOMP_SPINCOUNT = '{spins}'" in ended.stderr) == (EXIT_CONFIG, True)


def engine(folder: Path, code: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run a program that is given what the supervisor gives the engine."""
    file = folder / "config.json"
    server, model = ServerConfig(listen=f"ipc://{folder}/request.sock"), ModelConfig(path="/nowhere")
    file.write_bytes(msgspec.json.encode(Config(server=server, model=model)))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        return subprocess.run(
            [sys.executable, "-P", "-c", code, "--config", str(file), "--channel", str(theirs.fileno())],
            env=environment(**environ),
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
