"""An operator's day with the daemon under a real systemd; run by `box.sh`, told by `test_booted.py`.

Installs the units as docs/operations.md says, over the 260K-parameter test model, and does to them what operators and
accidents do. Each thing seen goes to /out/seen as a JSON line [name, value]; the test judges. Standard library only.
"""

import json
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

SRC = Path("/opt/src")
OUT = Path("/out")
UNIT = "rapidd.service"
LOCAL, REMOTE = "ipc:///run/rapidd/request.sock", "tcp://127.0.0.1:7071"
CONFIG = Path("/etc/rapidd/rapidd.toml")
SETTINGS = """
[model]
path = "/opt/src/tests/data/stories260K_hf"
dtype = "float32"
[engine]
compute-units = 1
[server]
hang-timeout-s = 2.0
max-waiting-requests = 7
"""
DROP_IN = """
[Service]
WatchdogSec=5s
TimeoutAbortSec=1s
"""
PYTHON = "/opt/python/bin/python3"
PACKAGES = (OUT / "packages").read_text()
"""PYTHONPATH of the checkout's environment, as the test sees it."""
WAIT_S = 90.0


def see(name: str, value: object) -> None:
    with (OUT / "seen").open("a") as file:
        file.write(json.dumps([name, value]) + "\n")


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)


def show(name: str, unit: str = UNIT) -> str:
    return run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()


def until(holds: Callable[[], object]) -> bool:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def rapidctl(*arguments: str, user: str = "root") -> list[str]:
    """The command as this user, for this checkout."""
    return [
        *("runuser", "-u", user, "--", "env", f"PYTHONPATH={PACKAGES}", PYTHON, "-P", "-m", "rapidctl.cli"),
        *arguments,
    ]


def status(user: str = "root", endpoint: str = LOCAL) -> dict[str, object]:
    """What `rapidctl status` tells this user; empty when it is not let in."""
    done = run(*rapidctl("status", "--json", "--endpoint", endpoint, user=user))
    return dict(json.loads(done.stdout)) if done.stdout else {}


def processes() -> set[int]:
    path = Path(f"/sys/fs/cgroup{show('ControlGroup')}/cgroup.procs")
    return set(map(int, path.read_text().split())) if show("ControlGroup") and path.exists() else set()


def pid(child: str) -> int:
    """Of a child of the daemon that is ready; 0 while nobody tells."""
    found = status().get(child)
    return int(found["pid"] or 0) if isinstance(found, dict) else 0


def known_pid(child: str) -> int:
    """The same of a daemon that serves: a busy machine may answer late. A signal to 0 would be one to ourselves."""
    found = 0

    def told() -> bool:
        nonlocal found
        found = pid(child)
        return found > 0

    assert until(told), f"nobody tells the pid of the {child}"
    return found


def install() -> None:
    """As docs/operations.md says; the daemon's program is this checkout's."""
    program = Path("/opt/rapid-serve/bin/rapidd")
    program.parent.mkdir(parents=True)
    program.write_text(
        f'#!/bin/sh\nexec env PYTHONPATH={PACKAGES} LD_LIBRARY_PATH=/opt/python/lib {PYTHON} -P -m rapidd.cli "$@"\n'
    )
    program.chmod(0o755)
    for source, target in (
        ("systemd/rapidd.service", "/etc/systemd/system/"),
        ("systemd/rapidd@.service", "/etc/systemd/system/"),
        ("systemd/rapidd-http.service", "/etc/systemd/system/"),
        ("systemd/sysusers.d/rapidd.conf", "/etc/sysusers.d/"),
        ("systemd/tmpfiles.d/rapidd.conf", "/etc/tmpfiles.d/"),
        ("systemd/drop-ins/cpu.conf", "/etc/systemd/system/rapidd.service.d/"),
        ("systemd/drop-ins/cpu.conf", "/etc/systemd/system/rapidd@.service.d/"),
        ("systemd/drop-ins/memory-deny-write-execute.conf", "/etc/systemd/system/rapidd.service.d/"),
    ):
        run("install", "-D", "-m", "644", "-t", target, str(SRC / source))
    see("sysusers", run("systemd-sysusers", "rapidd.conf").returncode)
    see("tmpfiles", run("systemd-tmpfiles", "--create", "rapidd.conf").returncode)
    CONFIG.write_text(SETTINGS)
    for unit, drop_in in (("rapidd", DROP_IN), ("rapidd-http", "[Service]\n")):
        folder = Path(f"/etc/systemd/system/{unit}.service.d")
        folder.mkdir(exist_ok=True)
        (folder / "test.conf").write_text(drop_in + f"StandardError=append:/out/{unit}.log\n")
    see("reloaded units", run("systemctl", "daemon-reload").returncode)


def life() -> None:
    """Start, who may connect, what systemd is told."""
    see("started", run("systemctl", "start", UNIT).returncode)
    see("active", show("ActiveState"))
    see("user", pwd.getpwuid(Path(f"/proc/{show('MainPID')}").stat().st_uid).pw_name)
    for name in ("member", "outsider"):
        run("useradd", "-r", name)
    run("usermod", "-aG", "rapidd", "member")
    see("member", status("member").get("state"))
    see("outsider", status("outsider").get("state"))
    see("keys", f"{Path('/etc/rapidd/keys').stat().st_mode & 0o777:o}")
    see("status", until(lambda: "serving" in show("StatusText")))


def accidents() -> None:
    """Every process is killed or hangs once."""
    main, front, engine = int(show("MainPID")), known_pid("front"), known_pid("engine")
    os.kill(engine, signal.SIGKILL)
    see("engine killed", until(lambda: status().get("state") == "serving" and pid("engine") not in (0, engine)))
    see("front stayed", known_pid("front") == front)

    hung = known_pid("engine")
    began = time.monotonic()
    os.kill(hung, signal.SIGSTOP)
    see("hung engine replaced", until(lambda: status().get("state") == "serving" and pid("engine") not in (0, hung)))
    see("seconds until a hung engine was replaced", round(time.monotonic() - began, 1))
    see("supervisor stayed", int(show("MainPID")) == main)
    see("restarts by systemd before", show("NRestarts"))

    old = processes()
    os.kill(main, signal.SIGKILL)
    # for a moment the front of before may still answer
    restarted = until(lambda: show("NRestarts") == "1" and status().get("state") == "serving")
    see("restarted after the supervisor's death", restarted)
    see("orphans", sorted(old & processes()))
    see("restarts by systemd", show("NRestarts"))

    os.kill(int(show("MainPID")), signal.SIGSTOP)
    see("watchdog", until(lambda: show("NRestarts") == "2" and show("ActiveState") == "active"))


def reload() -> None:
    """Hot settings all or none; a configuration that is wrong is not retried."""
    CONFIG.write_text(SETTINGS.replace("max-waiting-requests = 7", "max-waiting-requests = 9"))
    see("reload", run("systemctl", "reload", UNIT).returncode)
    see("reload done", until(lambda: "reloaded: server.max-waiting-requests" in log()))
    CONFIG.write_text(SETTINGS.replace("compute-units = 1", "compute-units = 1\nkv-blocks = 20"))
    run("systemctl", "reload", UNIT)
    see("reload refused", until(lambda: "engine.kv-blocks: needs a restart" in log()))
    see("still serving", until(lambda: status().get("state") == "serving"))


def log() -> str:
    return (OUT / "rapidd.log").read_text()


def http() -> None:
    """Keys come as a credential; without the file the unit does not start."""
    see("http without keys", run("systemctl", "start", "rapidd-http").returncode != 0)
    run("systemctl", "reset-failed", "rapidd-http")
    made = run("/opt/rapid-serve/bin/rapidd", "http", "--make-key")
    words = dict(line.split() for line in made.stdout.replace(":", "").splitlines())
    path = Path("/etc/rapidd/keys/http-keys")
    path.write_text(words["line"] + "\n")
    path.chmod(0o600)
    see("http", run("systemctl", "start", "rapidd-http").returncode)
    url = "http://127.0.0.1:8000/v1/models"
    see("http with the key", answer(url, words["key"]))
    see("http with another", answer(url, "sk-rapid-wrong"))
    run("systemctl", "stop", "rapidd-http")
    see("http stopped", show("Result", "rapidd-http.service"))


def answer(url: str, key: str) -> int:
    import urllib.error
    import urllib.request

    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def remote() -> None:
    """The keys of docs/security.md; the daemon gets its own as credentials."""
    keys = Path("/etc/rapidd/keys")
    public = run(*rapidctl("keys", "make", "--out", str(keys / "curve.key"))).stdout.strip()
    mine = run(*rapidctl("keys", "make")).stdout.strip()
    authorized = ("--file", str(keys / "authorized-keys"))
    see("authorized", run(*rapidctl("keys", "authorize", mine, "me", "--operator", *authorized)).returncode)
    run(*rapidctl("keys", "trust", REMOTE, public))
    run("install", "-m", "644", str(SRC / "systemd/drop-ins/tcp.conf"), "/etc/systemd/system/rapidd.service.d/")
    CONFIG.write_text(SETTINGS + f'[tcp]\nlisten = "{REMOTE}"\n')
    run("systemctl", "daemon-reload")
    see("restarted with keys", run("systemctl", "restart", UNIT).returncode)
    see("over tcp", status(endpoint=REMOTE).get("state"))
    see("checked beside tcp", run("/opt/rapid-serve/bin/rapidd", "config", "check").returncode)
    see("http beside tcp", run("systemctl", "start", "rapidd-http").returncode)
    run("systemctl", "stop", "rapidd-http")


def end() -> None:
    """Stop while a stream runs, and a configuration that cannot be served."""
    ask = rapidctl("run", "Once upon a time", "--max-tokens", "400", "--quiet", "--endpoint", REMOTE)
    with subprocess.Popen(ask, stdout=subprocess.PIPE) as stream:
        assert stream.stdout is not None
        see("the stream began", bool(stream.stdout.read(1)))
        see("stopped", run("systemctl", "stop", UNIT).returncode)
        stream.stdout.read()
    see("status of the stream", stream.returncode)
    see("result", show("Result"))
    see("left", sorted(processes()))
    CONFIG.write_text("[server]\nmax-que = 1\n")
    see("bad configuration", run("systemctl", "start", UNIT).returncode != 0)
    see("exit status", show("ExecMainStatus"))
    see("state after a bad configuration", [show("ActiveState"), show("SubState")])  # else activating, auto-restart
    run("systemctl", "reset-failed", UNIT)
    CONFIG.write_text(SETTINGS.replace("/opt/src/tests/data", "/home"))
    see("started from a home", run("systemctl", "start", UNIT).returncode == 0)
    see("exit status of a model in a home", show("ExecMainStatus"))


def instances() -> None:
    """One daemon a GPU, here of none: each has its sockets and its settings."""
    CONFIG.write_text(SETTINGS)
    Path("/etc/rapidd/1.env").write_text("RAPIDD__MODEL__MAX_MODEL_LEN=100\n")
    see("instances started", run("systemctl", "start", "rapidd@0", "rapidd@1").returncode)
    asked = [json.loads(run(*rapidctl("status", "--json", "--gpu", gpu)).stdout or "{}") for gpu in "01"]
    see("instances", [(told.get("state"), told.get("model_info", {}).get("max_model_len")) for told in asked])
    see("instances stopped", run("systemctl", "stop", "rapidd@0", "rapidd@1").returncode)


def main() -> None:
    for part in (install, life, accidents, reload, http, remote, end, instances):
        began = time.monotonic()
        part()
        see(f"seconds of {part.__name__}", round(time.monotonic() - began, 1))


if __name__ == "__main__":
    main()
