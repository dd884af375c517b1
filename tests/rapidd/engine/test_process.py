"""The engine's process: with which status it ends, for the supervisor to know whether another one may do better."""

import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from rapidd.config import Config, ServerConfig
from rapidd.errors import EXIT_CONFIG, EXIT_FAILED
from support.process import RUN_S, environment

BUILD_FAILS = """
import sys
from rapidd.engine import __main__ as engine, build
from rapidd.engine.device_stream import DeviceTask
from rapidd.errors import DeviceError

def absent(*_):
    raise DeviceError("there is none", "look for one")

def lost(*_):
    task = DeviceTask(lambda: None, None)
    task.launch(None)  # a stream that takes nothing
    task.value

build.build = {how}
sys.exit(engine.main())
"""


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
    file = tmp_path / "config.json"
    file.write_bytes(msgspec.json.encode(Config(server=ServerConfig(listen=f"ipc://{tmp_path}/request.sock"))))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        code = BUILD_FAILS.format(how=how)
        ended = subprocess.run(
            [sys.executable, "-P", "-c", code, "--config", str(file), "--channel", str(theirs.fileno())],
            env=environment(),
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
    assert (ended.returncode, ended.stderr[-len(said) :]) == (status, said)
