"""The daemon under a real systemd, installed as docs/operations.md says: `scenario.py` in a box of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.process import ROOT

TOOLS = ("unshare", "pivot_root", "runuser", "useradd")
SYSTEMD = Path("/lib/systemd/systemd")
TIMEOUT_S = 400.0
"""Of the whole scenario, on a machine that does much else; alone it takes a tenth of that."""
pytestmark = pytest.mark.timeout(TIMEOUT_S + 30)
NAMESPACES = ("--mount", "--pid", "--fork", "--kill-child", "--cgroup", "--uts", "--ipc", "--net")
PROBE = "set -e; d=$(mktemp -d); mount -t tmpfs tmpfs $d; mkdir $d/u $d/w $d/m $d/c; " + (
    "mount -t overlay overlay -o lowerdir=/,upperdir=$d/u,workdir=$d/w $d/m; mount -t cgroup2 cgroup2 $d/c"
)


def why_not() -> str | None:
    """Why no systemd can be booted here."""
    if os.geteuid() != 0:
        return "needs root"
    if not SYSTEMD.exists():
        return "needs systemd"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"needs {', '.join(missing)}"
    probe = subprocess.run(["unshare", *NAMESPACES, "sh", "-c", PROBE], capture_output=True, text=True, check=False)
    return f"no namespaces, overlayfs or cgroup2 here: {probe.stderr.strip()}" if probe.returncode else None


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the scenario saw, by name."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    out = tmp_path_factory.mktemp("box")
    packages = [*(str(ROOT / name) for name in ("rapidctl", "daemon", "kernels"))]
    packages += [path for path in sys.path if "site-packages" in path or "dist-packages" in path]
    (out / "packages").write_text(":".join(packages).replace(str(ROOT), "/opt/src"))
    program = "/opt/src/tests/systemd/scenario.py"
    box = [str(ROOT / "tests/systemd/box.sh"), str(ROOT), sys.base_prefix, str(out), program]
    done = subprocess.run(
        ["unshare", *NAMESPACES, "bash", *box], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    said = "".join(
        path.read_text() for name in ("said", "rapidd.log", "rapidd-http.log") if (path := out / name).exists()
    )
    assert (out / "seen").exists(), f"{done.stderr}\n{said}"
    told = dict(map(json.loads, (out / "seen").read_text().splitlines()))
    assert "seconds of instances" in told, f"the scenario did not get to its end: {told}\n{said}"
    return told


def test_the_documented_commands_install_it(seen: dict[str, Any]) -> None:
    assert [seen[name] for name in ("sysusers", "tmpfiles", "reloaded units")] == [0, 0, 0]
    assert seen["keys"] == "700"


def test_start_waits_for_the_warm_up_and_the_group_may_connect(seen: dict[str, Any]) -> None:
    assert (seen["started"], seen["active"], seen["user"]) == (0, "active", "rapidd")
    assert (seen["member"], seen["outsider"]) == ("serving", None)
    assert seen["status"], "systemctl status says what it does"


def test_a_dead_or_hung_engine_is_the_supervisors_business(seen: dict[str, Any]) -> None:
    assert seen["engine killed"]
    assert seen["front stayed"]
    assert seen["hung engine replaced"]
    assert seen["supervisor stayed"]
    assert seen["restarts by systemd before"] == "0"


def test_a_dead_supervisor_is_systemds_and_leaves_no_orphan(seen: dict[str, Any]) -> None:
    assert seen["restarted after the supervisor's death"]
    assert (seen["orphans"], seen["restarts by systemd"]) == ([], "1")


def test_a_supervisor_that_hangs_is_found_by_the_watchdog(seen: dict[str, Any]) -> None:
    assert seen["watchdog"]


def test_reload_takes_over_hot_settings_or_nothing(seen: dict[str, Any]) -> None:
    assert seen["reload"] == 0
    assert seen["reload done"]
    assert seen["reload refused"]
    assert seen["still serving"]


def test_the_http_server_gets_its_keys_as_a_credential_and_nothing_without(seen: dict[str, Any]) -> None:
    assert seen["http without keys"]
    assert (seen["http"], seen["http with the key"], seen["http with another"]) == (0, 200, 401)
    assert seen["http stopped"] == "success"


def test_keys_of_other_machines_are_credentials_too(seen: dict[str, Any]) -> None:
    assert (seen["authorized"], seen["restarted with keys"], seen["over tcp"]) == (0, 0, "serving")


def test_nobody_but_the_daemon_looks_for_its_credentials(seen: dict[str, Any]) -> None:
    assert (seen["checked beside tcp"], seen["http beside tcp"]) == (0, 0)


def test_a_model_that_the_unit_does_not_see_is_a_bad_configuration(seen: dict[str, Any]) -> None:
    assert (seen["started from a home"], seen["exit status of a model in a home"]) == (False, "78")


def test_stop_lets_a_stream_finish(seen: dict[str, Any]) -> None:
    assert (seen["the stream began"], seen["status of the stream"]) == (True, 0)


def test_stop_leaves_nothing_and_a_bad_configuration_is_not_tried_again(seen: dict[str, Any]) -> None:
    assert (seen["stopped"], seen["result"], seen["left"]) == (0, "success", [])
    assert seen["bad configuration"]
    assert (seen["exit status"], seen["state after a bad configuration"]) == ("78", ["failed", "failed"])


def test_each_gpus_instance_has_its_sockets_and_its_settings(seen: dict[str, Any]) -> None:
    assert (seen["instances started"], seen["instances stopped"]) == (0, 0)
    assert seen["instances"] == [["serving", 512], ["serving", 100]]
