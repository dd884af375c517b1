"""The runtime directory: where one daemon's sockets, lock and private files are; and the state directory.

    DIR/request.sock            public request socket (the endpoint)
    DIR/request-metrics.sock    public snapshots and events
    DIR/request.d/              0700, this daemon's own
        engine.sock             front <-> engine
        config.json             resolved configuration, 0600
        lock                    held while any process of the daemon lives; contains the supervisor's pid

Two daemons may share DIR under different socket names. The state directory is what outlives the daemon: calibrated
profiles, in ``profiles/``. Knows nothing of ZeroMQ and of processes.
"""

import fcntl
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rapidctl import wire
from rapidd.errors import EndpointInUse, RuntimeDirError

DIRECTORY_MODE: Final = 0o750
"""The group may reach the public sockets."""
PRIVATE_MODE: Final = 0o700
LOCK_RETRY_S: Final = 0.1
SYSTEM_STATE: Final = Path("/var/lib/rapidd")


class RuntimeDir:
    """Paths of the daemon behind ``endpoint``. Raises `rapidctl.wire.EndpointError` when one is too long."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = wire.check_endpoint(endpoint)
        self.metrics_endpoint = wire.metrics_endpoint(endpoint)
        self.request_socket = Path(endpoint.removeprefix("ipc://"))
        if not self.request_socket.is_absolute():
            raise wire.EndpointError(f"{endpoint} is not absolute, so clients elsewhere could not find it")
        self.root = self.request_socket.parent
        self.private = self.root / f"{self.request_socket.stem}.d"
        self.engine_endpoint = wire.check_endpoint(f"ipc://{self.private}/engine.sock")
        self.config_file = self.private / "config.json"
        self.lock_file = self.private / "lock"

    def prepare(self) -> None:
        """Make what is missing. Raises `RuntimeDirError` for a full disk, missing rights or a foreign owner.

        Modes of directories that exist are left alone: a service manager or a user chose them.
        """
        try:
            if not self.root.exists():
                self.root.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                self.root.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            self.private.mkdir(mode=PRIVATE_MODE, exist_ok=True)
            for directory in (self.root.parent, self.root, self.private):
                _check_owner(directory)
            self.private.chmod(PRIVATE_MODE)
        except OSError as error:
            raise self._unusable(error) from error

    def write_config(self, data: bytes) -> Path:
        """Write the resolved configuration for the children. Raises `RuntimeDirError`."""
        temporary = self.config_file.with_suffix(".new")
        try:
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            temporary.replace(self.config_file)
        except OSError as error:
            raise self._unusable(error) from error
        return self.config_file

    def lock(self, wait_s: float) -> int:
        """Take the daemon's lock; the descriptor returned holds it until every copy of it is closed.

        Children inherit the descriptor, so the endpoint stays taken while any of them lives: a new daemon must
        not bind sockets that an old front, about to exit, would then unlink. When the owner itself is gone,
        waits up to ``wait_s`` seconds for its children to end. Raises `EndpointInUse`, `RuntimeDirError`.
        """
        try:
            descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        deadline = time.monotonic() + wait_s
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            owner = self._recorded_owner()
            if (owner is not None and _is_alive(owner)) or time.monotonic() >= deadline:
                os.close(descriptor)
                raise EndpointInUse(
                    f"{self.endpoint} is served by another rapidd (pid {owner or 'unknown'})",
                    "stop it, or give this one its own socket: --listen ipc:///PATH/request.sock",
                )
            time.sleep(LOCK_RETRY_S)
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(descriptor)
            raise self._unusable(error) from error
        return descriptor

    def owner(self) -> int | None:
        """Pid of the daemon that holds the lock, null when it is free. Raises `RuntimeDirError` without rights."""
        try:
            descriptor = os.open(self.lock_file, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from error
        try:
            return None if _try_lock(descriptor, fcntl.LOCK_SH) else self._recorded_owner()
        finally:
            os.close(descriptor)

    def _recorded_owner(self) -> int | None:
        try:
            return int(self.lock_file.read_text().strip() or 0) or None
        except (OSError, ValueError):
            return None

    def _unusable(self, error: OSError) -> RuntimeDirError:
        reason = error.strerror or str(error)
        return RuntimeDirError(
            f"cannot use the runtime directory {self.root}: {reason} ({error.filename or self.private})",
            "free some space or grant the right, or choose another directory: --listen ipc:///PATH/request.sock",
        )


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _check_owner(directory: Path) -> None:
    """Nobody but this user and root may be able to replace what is in ``directory``. Raises `RuntimeDirError`."""
    status = directory.stat()
    if status.st_uid not in (0, os.geteuid()):
        raise RuntimeDirError(
            f"{directory} belongs to uid {status.st_uid}, who could replace the sockets in it",
            "choose a directory of your own: --listen ipc:///PATH/request.sock",
        )
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise RuntimeDirError(f"everybody may write to {directory} and replace the sockets", f"chmod o-w {directory}")


def state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Where what outlives the daemon is kept; perhaps not there yet.

    ``RAPIDD_STATE_DIR``, else systemd's ``STATE_DIRECTORY`` (the first one), else ``rapidd`` under ``XDG_STATE_HOME``,
    else under ``~/.local/state``; for a user without a home, `SYSTEM_STATE`. Relative paths count as unset.
    """
    known = os.environ if environ is None else environ
    for path, below in (
        (known.get("RAPIDD_STATE_DIR", ""), ""),
        (known.get("STATE_DIRECTORY", "").partition(":")[0], ""),
        (known.get("XDG_STATE_HOME", ""), "rapidd"),
        (known.get("HOME", ""), ".local/state/rapidd"),
    ):
        if Path(path).is_absolute():
            return Path(path) / below
    return SYSTEM_STATE


def profile_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Where calibrated profiles are kept."""
    return state_dir(environ) / "profiles"


def credential(name: str, environ: Mapping[str, str] | None = None) -> Path:
    """A secret's file: a path as it is, or the name of what the service manager gave (systemd.exec(5))."""
    folder = (os.environ if environ is None else environ).get("CREDENTIALS_DIRECTORY", "")
    return Path(folder, name) if folder and "/" not in name else Path(name)
