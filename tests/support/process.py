"""Real processes for tests: the environment they need, and waiting for their end without polling."""

import os
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 30.0
"""Longest wait for something that must happen; only a failing test ever waits so long."""
WAIT_MS = int(WAIT_S * 1000)
RUN_S = 120.0
"""The same for a command that may load a model, on a busy machine."""


def environment(**extra: str) -> dict[str, str]:
    """For a subprocess: finds the three packages where nothing is installed; no setting and no profile leaks in.

    The state directory is one that not even root can make: a test that wrote into it would change all later ones."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAPID", "NOTIFY_"))}
    roots = os.pathsep.join(str(ROOT / folder) for folder in ("rapidctl", "daemon", "kernels"))
    alone = {"PYTHONPATH": roots, "PYTHONSAFEPATH": "1", "RAPIDD_STATE_DIR": "/dev/null/none"}
    return {**inherited, "RAPIDCTL_CONFIG": os.devnull, **alone, **extra}


def python_module(name: str, *arguments: str) -> list[str]:
    """``python -m NAME`` as a command, wherever it is run from."""
    return [sys.executable, "-P", "-m", name, *arguments]


def run(command: Sequence[str], **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, whatever that is, with nothing to read."""
    return subprocess.run(
        command,
        env=environment(**environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )


def wait_for_end(descriptor: int) -> bool:
    """Whether the process behind a pidfd ended in time; closes the descriptor."""
    try:
        return bool(select.select([descriptor], [], [], WAIT_S)[0])
    finally:
        os.close(descriptor)
