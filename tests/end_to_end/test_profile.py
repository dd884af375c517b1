"""From `rapidd calibrate` to a daemon that predicts with what was measured, and tells how well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.daemon import MODEL, Daemon, rapidctl, rapidctl_json
from support.process import python_module, run


def test_a_daemon_finds_what_was_calibrated_for_it_and_corrects_it(
    folder: Callable[[], Path], started: Callable[..., Daemon]
) -> None:
    state = folder()
    options = ("--model", str(MODEL), "--dtype", "float32", "--kv-blocks", "64")
    where = ("--listen", f"ipc://{folder()}/request.sock")
    command = python_module("rapidd.cli", "calibrate", *options, *where, "--seconds", "1", "--note", "of a test")
    done = run(command, RAPIDD_STATE_DIR=str(state))
    assert done.returncode == 0, done.stderr
    assert f"written to {state}/profiles/" in done.stdout

    daemon = started(*options, RAPIDD_STATE_DIR=str(state))
    daemon.check_serves()
    shown = rapidctl_json(daemon, "profile", "show", "--slo-itl", "10m")
    profile = shown["profile"]
    assert (profile["source"], profile["note"]) == ("state", "of a test")
    assert shown["notes"] == []
    assert sum(one["n"] for one in profile["corrections"]) > 0
    assert {row["decode_units"] is None for row in shown["knee"]["rows"]} == {False}, "ten minutes are enough"
    assert rapidctl_json(daemon, "partition", "show")["profile"].startswith("stories260K_hf on ")
    assert "of a test" in rapidctl(daemon, "profile", "show").stdout
