"""Reloads: by a signal or by an operator, taken over by all or by nobody, and told to whoever waits."""

import json
import os
import signal

import pytest

from support.supervised import Daemon, Manager


def test_a_reload_goes_to_the_engine_then_to_the_front_and_to_children_that_start_later(
    daemon: Daemon, manager: "Manager"
) -> None:
    daemon.start(NOTIFY_SOCKET=manager.path)
    daemon.until_ready()
    manager.until("READY=1")
    (daemon.folder / "rapidd.toml").write_text("[server]\nsnapshot-hz = 9.0\n[http]\nport = 1\n")
    daemon.signal(signal.SIGHUP)
    assert daemon.until("engine", "reload")["snapshot_hz"] == 9.0
    assert daemon.until("front", "reload")["snapshot_hz"] == 9.0
    assert manager.until("RELOADING=1")[1].startswith("MONOTONIC_USEC=")
    manager.until("READY=1")
    written = json.loads((daemon.folder / "run/request.d/config.json").read_bytes())
    assert (written["server"]["snapshot-hz"], written["server"]["listen"]) == (9.0, daemon.endpoint)
    daemon.signal(signal.SIGHUP)
    manager.until("STATUS=reloaded: nothing has changed")
    daemon.signal(signal.SIGTERM)
    assert "rapidd: reloaded: server.snapshot-hz\n" in daemon.end()[1]


def test_a_reload_that_cannot_be_written_down_is_taken_over_all_the_same(daemon: Daemon) -> None:
    """A runtime directory that was full by then ended the daemon, with the streams that it served."""
    daemon.start()
    daemon.until_ready()
    (daemon.folder / "run/request.d/config.new").mkdir()  # in the way of the file
    (daemon.folder / "rapidd.toml").write_text("[server]\nsnapshot-hz = 9.0\n")
    daemon.signal(signal.SIGHUP)
    assert daemon.until("front", "reload")["snapshot_hz"] == 9.0
    daemon.signal(signal.SIGTERM)
    status, said = daemon.end()
    assert (status, "processes that start from now on have the configuration before" in said) == (0, True)


@pytest.mark.parametrize(
    ("text", "engine", "problem"),
    [
        ("[server]\nsnapshot-hz = 9.0\n[engine]\nkv-blocks = 7\n", "serve", "engine.kv-blocks: needs a restart"),
        ("[server]\nsnapshot-hz = 'nine'\n", "serve", "server.snapshot-hz: Expected `float`"),
        ("[server]\nsnapshot-hz = 9.0\n", "picky", "engine.policy: not here"),
    ],
    ids=["needs a restart", "invalid", "refused by the engine"],
)
def test_a_refused_reload_changes_nothing(
    daemon: Daemon, manager: "Manager", text: str, engine: str, problem: str
) -> None:
    daemon.start("serve", engine, NOTIFY_SOCKET=manager.path)
    daemon.until_ready()
    manager.until("READY=1")
    before = (daemon.folder / "run/request.d/config.json").read_bytes()
    (daemon.folder / "rapidd.toml").write_text(text)
    daemon.signal(signal.SIGHUP)
    manager.until("RELOADING=1")
    manager.until("READY=1")
    assert (daemon.folder / "run/request.d/config.json").read_bytes() == before
    daemon.signal(signal.SIGTERM)
    status, said = daemon.end()
    assert status == 0
    refused = [line for line in said.splitlines() if "reload refused, the old configuration stays: " in line]
    assert len(refused) == 1
    assert problem in refused[0]


@pytest.mark.parametrize(
    ("text", "refused", "outcome"),
    [
        ("[server]\nsnapshot-hz = 9.0\n", False, "reloaded: server.snapshot-hz"),
        ("", False, "reloaded: nothing has changed"),
        (
            "[engine]\nkv-blocks = 7\n",
            True,
            "reload refused, the old configuration stays: engine.kv-blocks: needs a restart; nothing was changed",
        ),
    ],
    ids=["taken", "nothing", "refused"],
)
def test_a_reload_that_the_front_asks_for_is_made_and_its_outcome_told(
    daemon: Daemon, text: str, refused: bool, outcome: str
) -> None:
    daemon.start()
    daemon.until_ready()
    (daemon.folder / "rapidd.toml").write_text(text)
    daemon.ask_reload()
    done = daemon.until("front", "reload done")
    assert (done["refused"], done["text"]) == (refused, outcome)


def test_a_reload_that_the_engine_never_answers_is_refused_when_it_ends_and_no_other_is_begun_before(
    daemon: Daemon,
) -> None:
    daemon.start("serve", "mute,serve")
    daemon.until_ready()
    (daemon.folder / "rapidd.toml").write_text("[server]\nsnapshot-hz = 9.0\n")
    daemon.signal(signal.SIGHUP)
    daemon.until("engine", "reload")
    daemon.ask_reload()
    assert "reloads already" in daemon.until("front", "reload done")["text"]
    os.kill(daemon.pid("engine"), signal.SIGKILL)
    assert "the engine ended before it answered" in daemon.until("front", "reload done")["text"]
    daemon.until_ready()
    daemon.ask_reload()
    assert daemon.until("front", "reload done")["text"] == "reloaded: server.snapshot-hz"


def test_the_same_outcome_twice_is_told_twice(daemon: Daemon, manager: "Manager") -> None:
    daemon.start(NOTIFY_SOCKET=manager.path)
    daemon.until_ready()
    manager.until("READY=1")
    for _ in range(2):
        daemon.signal(signal.SIGHUP)
        manager.until("STATUS=reloaded: nothing has changed")


def test_a_reload_while_it_starts_is_refused_and_does_not_call_it_ready(daemon: Daemon, manager: "Manager") -> None:
    """systemd takes READY=1 at its word: the end of a reload said it of a daemon whose engine still loaded."""
    daemon.start("serve", "loading", NOTIFY_SOCKET=manager.path)
    daemon.until("engine", "loading")
    daemon.signal(signal.SIGHUP)
    daemon.until("front", "reload done", lambda done: bool(done["refused"]))
    daemon.signal(signal.SIGTERM)
    told = [line for lines in manager.all_until("STOPPING=1") for line in lines]
    assert any(line.startswith("STATUS=reload refused") for line in told)
    assert not {"READY=1", "RELOADING=1"} & set(told)
