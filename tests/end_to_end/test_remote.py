"""Another machine's operator: keys, and the command line over tcp."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from support.daemon import MODEL, Daemon
from support.net import free_ports
from support.process import python_module, run


def rapidctl(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command with a user's own folder of keys."""
    return run(python_module("rapidctl.cli", *arguments), RAPIDCTL_KEYS=str(folder))


def test_keys_are_made_exchanged_and_used(started: Callable[..., Daemon], tmp_path: Path) -> None:
    """The secrets are in no command line, environment or log of the daemon."""
    server, authorized, mine, theirs = (tmp_path / name for name in ("server.key", "authorized", "mine", "theirs"))
    endpoint = f"tcp://127.0.0.1:{free_ports(2)}"
    public = rapidctl(mine, "keys", "make", "--out", str(server)).stdout.strip()
    for folder in (mine, theirs):
        key = rapidctl(folder, "keys", "make").stdout.strip()
        assert rapidctl(folder, "keys", "trust", endpoint, public).returncode == 0
        if folder is mine:
            assert rapidctl(folder, "keys", "authorize", key, "me", "--file", str(authorized)).returncode == 0
    daemon = started(
        *("--model", str(MODEL), "--dtype", "float32", "--compute-units", "1"),
        RAPIDD__TCP__LISTEN=endpoint,
        RAPIDD__TCP__KEY=str(server),
        RAPIDD__TCP__AUTHORIZED_KEYS=str(authorized),
    )
    at = ("--endpoint", endpoint)
    answer = rapidctl(mine, "run", "Once upon a time", "--max-tokens", "4", "--json", *at)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(rapidctl(mine, "events", "--json", *at).stdout.splitlines()[0])
    assert rapidctl(mine, "drain", *at).returncode == 5, "not authorized to command"
    assert rapidctl(theirs, "status", "--timeout", "500ms", *at).returncode == 3, "not let in at all"
    (secret,) = [line.split()[1] for line in server.read_text().splitlines() if line.startswith("secret")]
    for pid in (daemon.pid, *daemon.family()):
        assert (
            secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        )
    assert secret not in daemon.said()
