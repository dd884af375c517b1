"""The runtime directory: modes, owners, the lock, and what a full disk does."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rapidctl.wire import EndpointError
from rapidd.errors import EndpointInUse, RuntimeDirError
from rapidd.paths import RuntimeDir, profile_dir, state_dir

NOBODY = 65534


def runtime_dir(folder: Path) -> RuntimeDir:
    return RuntimeDir(f"ipc://{folder}/run/request.sock")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_group_reaches_the_sockets_and_only_the_owner_the_rest(folder: Path) -> None:
    directory = runtime_dir(folder)
    directory.prepare()
    config = directory.write_config(b"{}")
    os.close(directory.lock(0.0))
    assert (mode(directory.root), mode(directory.private)) == (0o750, 0o700)
    assert (mode(config), mode(directory.lock_file)) == (0o600, 0o600)


def test_a_directory_that_exists_keeps_its_mode_but_the_private_one_is_closed(folder: Path) -> None:
    directory = runtime_dir(folder)
    directory.private.mkdir(parents=True)
    directory.root.chmod(0o755)
    directory.private.chmod(0o755)
    directory.prepare()
    assert (mode(directory.root), mode(directory.private)) == (0o755, 0o700)


def test_two_daemons_may_share_a_directory(folder: Path) -> None:
    first, second = RuntimeDir(f"ipc://{folder}/a.sock"), RuntimeDir(f"ipc://{folder}/b.sock")
    locks = []
    for directory in (first, second):
        directory.prepare()
        locks.append(directory.lock(0.0))
    paths = [(d.metrics_endpoint, d.engine_endpoint, d.config_file, d.lock_file) for d in (first, second)]
    assert not set(paths[0]) & set(paths[1])
    for lock in locks:
        os.close(lock)


def test_the_lock_names_its_owner_until_it_is_let_go(folder: Path) -> None:
    directory = runtime_dir(folder)
    assert directory.owner() is None
    directory.prepare()
    assert directory.owner() is None
    lock = directory.lock(0.0)
    assert directory.owner() == os.getpid()
    with pytest.raises(EndpointInUse, match=f"pid {os.getpid()}"):
        directory.lock(0.0)
    os.close(lock)
    assert directory.owner() is None
    os.close(directory.lock(0.0))


def test_a_child_keeps_the_lock_of_an_owner_that_died(folder: Path) -> None:
    """An old front that still runs would unlink the new front's socket when it ends."""
    directory = runtime_dir(folder)
    directory.prepare()
    lock = directory.lock(0.0)
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(lock,))
    dead = subprocess.Popen(["true"])
    dead.wait()
    os.pwrite(lock, f"{dead.pid}\n".encode(), 0)
    os.close(lock)
    with pytest.raises(EndpointInUse, match=f"pid {dead.pid}"):
        directory.lock(0.05)
    child.communicate()
    os.close(directory.lock(0.0))


@pytest.mark.parametrize("content", [b"", b"no number\n", b"\xff"])
def test_a_damaged_lock_file_still_locks(folder: Path, content: bytes) -> None:
    directory = runtime_dir(folder)
    directory.prepare()
    lock = directory.lock(0.0)
    directory.lock_file.write_bytes(content)
    with pytest.raises(EndpointInUse, match="pid unknown"):
        directory.lock(0.0)
    os.close(lock)


@pytest.mark.parametrize(
    ("endpoint", "fragment"),
    [
        ("ipc://" + "/" + "x" * 107, "108 bytes long"),
        ("ipc:///" + "x" * 93 + "/r.sock", "bytes long"),  # the socket fits, the ones beside it do not
        ("ipc://run/request.sock", "not absolute"),
        ("ipc://@abstract", "not absolute"),
        ("ipc://", "no ipc endpoint"),
        ("tcp://127.0.0.1:5555", "no ipc endpoint"),
    ],
)
def test_endpoints_that_cannot_be_bound_are_refused(endpoint: str, fragment: str) -> None:
    with pytest.raises(EndpointError, match=fragment):
        RuntimeDir(endpoint)


def test_a_file_in_the_way_is_named(folder: Path) -> None:
    (folder / "run").write_text("")
    with pytest.raises(RuntimeDirError, match=f"{folder}/run"):
        runtime_dir(folder).prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("foreign", ["", "run", "run/request.d"])
def test_a_directory_of_somebody_else_is_refused(folder: Path, foreign: str) -> None:
    directory = runtime_dir(folder)
    directory.prepare()
    os.chown(folder / foreign, NOBODY, NOBODY)
    with pytest.raises(RuntimeDirError, match=f"belongs to uid {NOBODY}"):
        directory.prepare()


def test_a_directory_open_to_everybody_is_refused(folder: Path) -> None:
    directory = runtime_dir(folder)
    directory.prepare()
    directory.root.chmod(0o777)
    with pytest.raises(RuntimeDirError, match="everybody may write"):
        directory.prepare()


@pytest.fixture
def full_disk(folder: Path) -> Iterator[Path]:
    """A file system of two pages, which are used."""
    mount = folder / "full"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8k,nr_inodes=100", "none", str(mount)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"cannot mount a small file system here: {made.stderr.decode(errors='replace').strip()}")
    (mount / "filler").write_bytes(bytes(8192))
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_full_disk_is_said_with_the_path(full_disk: Path) -> None:
    directory = runtime_dir(full_disk)
    directory.prepare()
    with pytest.raises(RuntimeDirError, match=rf"{full_disk}/run: No space left on device \({directory.private}"):
        directory.write_config(b"{}")
    with pytest.raises(RuntimeDirError, match="No space left on device"):
        directory.lock(0.0)
    (full_disk / "filler").unlink()
    directory.write_config(b"{}")
    os.close(directory.lock(0.0))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"RAPIDD_STATE_DIR": "/a", "STATE_DIRECTORY": "/b", "XDG_STATE_HOME": "/c", "HOME": "/d"}, "/a"),
        ({"STATE_DIRECTORY": "/b:/other", "XDG_STATE_HOME": "/c", "HOME": "/d"}, "/b"),
        ({"XDG_STATE_HOME": "/c", "HOME": "/d"}, "/c/rapidd"),
        ({"RAPIDD_STATE_DIR": "relative", "XDG_STATE_HOME": "", "HOME": "/d"}, "/d/.local/state/rapidd"),
        ({}, "/var/lib/rapidd"),
    ],
)
def test_the_state_directory_is_the_operators_the_service_managers_or_the_users(
    environ: dict[str, str], expected: str
) -> None:
    assert state_dir(environ) == Path(expected)
    assert profile_dir(environ) == Path(expected) / "profiles"
