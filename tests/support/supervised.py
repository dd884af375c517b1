"""A supervisor as a process, over stand-ins for its children (`stand_in`), and a service manager that hears of it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.process import ROOT, WAIT_S, environment

Event = dict[str, Any]


class Daemon:
    """A supervisor process and what its children told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.endpoint = f"ipc://{folder}/run/request.sock"
        self.started: dict[str, Event] = {}
        """What the children started last told first."""
        self.process: subprocess.Popen[str] | None = None
        self._events = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._events.bind(f"{folder}/events")
        self._events.settimeout(WAIT_S)

    def start(self, front: str = "serve", engine: str = "serve", *more: str, **environ: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(ROOT / "tests/support/supervise.py"), str(self.folder), front, engine, *more],
            env=environment(**environ),
            stderr=subprocess.PIPE,
            text=True,
        )

    def pid(self, child: str) -> int:
        return int(self.started[child]["pid"])

    def until(self, child: str, event: str, accept: Callable[[Event], bool] = lambda _: True) -> Event:
        """The next such event; those before it are dropped."""
        while True:
            got: Event = json.loads(self._events.recv(65536))
            if got["event"] == "started":
                self.started[got["child"]] = got
            if got["child"] == child and got["event"] == event and accept(got):
                return got

    def until_ready(self) -> Event:
        return self.until("front", "note", lambda got: got["note"]["engine_state"] == "ready")

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ask_reload(self) -> None:
        """As an operator would: the front passes it on."""
        os.kill(self.pid("front"), signal.SIGUSR1)

    def end(self) -> tuple[int, str]:
        """Wait for the supervisor's end: exit status and what it said."""
        assert self.process is not None
        _, said = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, said

    def close(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            self.process.communicate()
        self._events.close()


class Manager:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "s")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(WAIT_S)

    def until(self, state: str) -> list[str]:
        """The next datagram that begins with this assignment; those before it are dropped."""
        return self.all_until(state)[-1]

    def all_until(self, state: str) -> list[list[str]]:
        """Every datagram up to the next that begins with this assignment."""
        heard: list[list[str]] = []
        while not heard or heard[-1][0] != state:
            heard.append(self.socket.recv(4096).decode().splitlines())
        return heard

    def heard(self) -> list[list[str]]:
        """Every datagram that is there."""
        heard: list[list[str]] = []
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                heard.append(self.socket.recv(4096).decode().splitlines())
        return heard
