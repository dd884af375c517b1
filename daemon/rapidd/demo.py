"""``python -m rapidd.demo [rapidd serve options]``: the daemon on a private endpoint, with a look at it.

In a terminal the console opens; elsewhere the status and one streamed answer are printed. The daemon is stopped
in any case: when the terminal is closed, and by the kernel when this process is killed. Drives the two commands as a
user would, and hears of progress as a service manager would.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

PROMPT: Final = "Explain in two sentences why the sky is blue."
MAX_TOKENS: Final = 64
HEARTBEAT_S: Final = 0.5
"""How often a silent daemon is checked to be alive."""
STOP_S: Final = 45.0
"""More than the default drain timeout and what the supervisor adds."""
PR_SET_PDEATHSIG: Final = 1
"""Of prctl(2): the signal that a process gets when its parent ends."""


def main(options: list[str]) -> int:
    """Serve with ``options``, show it, stop; the exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="rapidd-demo-") as folder:
            endpoint = f"ipc://{folder}/request.sock"
            with _daemon(Path(folder), endpoint, options) as ready:
                return _show(endpoint) if ready else 1
    except KeyboardInterrupt:
        return 130


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def _daemon(folder: Path, endpoint: str, options: list[str]) -> Iterator[bool]:
    """A daemon for the duration; whether it became ready. What it says goes to a file, shown when it fails."""
    log = folder / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as news, log.open("wb") as said:
        news.bind(str(folder / "notify"))
        news.settimeout(HEARTBEAT_S)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "rapidd.cli", "serve", "--listen", endpoint, *options],
            stdin=subprocess.DEVNULL,
            stderr=said,
            process_group=0,  # a Ctrl-C is for the console
            preexec_fn=_end_with_parent,
            env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify")},
        )
        try:
            ready = _wait_until_ready(process, news)
            if not ready:
                sys.stderr.write(log.read_text(errors="replace"))
                _say(f"the daemon ended with status {process.returncode}")
            yield ready
        finally:
            _stop(process)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_ready(process: "subprocess.Popen[bytes]", news: socket.socket) -> bool:
    while process.poll() is None:
        try:
            states = news.recv(4096).decode().splitlines()
        except TimeoutError:
            continue
        for state in states:
            if state == "READY=1":
                return True
            if state.startswith("STATUS="):
                _say(state.removeprefix("STATUS="))
    return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _show(endpoint: str) -> int:
    if sys.stdin.isatty() and sys.stdout.isatty():
        return _rapidctl(endpoint, "top")
    _say("rapidctl status")
    status = _rapidctl(endpoint, "status")
    _say(f"rapidctl run {PROMPT!r} --max-tokens {MAX_TOKENS}")
    return _rapidctl(endpoint, "run", PROMPT, "--max-tokens", str(MAX_TOKENS)) or status


def _rapidctl(endpoint: str, *arguments: str) -> int:
    command = [sys.executable, "-P", "-m", "rapidctl.cli", "--endpoint", endpoint, *arguments]
    return subprocess.run(command, check=False).returncode


def _say(line: str) -> None:
    print(f"demo: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
