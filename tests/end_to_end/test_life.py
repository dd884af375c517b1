"""How a daemon ends, what is left of it, and who may take its place."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.storm import gone
from rapidctl.client import Client
from rapidctl.errors import Refused
from rapidctl.wire import Failed, GetStatus
from support.daemon import MODEL, PROMPTS, WAIT_S, Daemon, finish, pump, rapidctl, serve_command, story, until_running
from support.process import run, wait_for_end

TOKENS = 300


def play(daemon: Daemon, disturb: Callable[[Client], object]) -> None:
    """Eight long streams; none of their tokens is lost or repeated, whatever happens while they run."""
    with daemon.client() as client:
        streams = [client.submit(story(prompt, TOKENS)) for prompt in PROMPTS]
        until_running(client, streams)
        disturb(client)
        assert [last.output_tokens for last in finish(client, streams)] == [TOKENS] * len(PROMPTS)


def test_a_daemon_drains_loses_its_engine_is_killed_and_always_comes_back(started: Callable[..., Daemon]) -> None:
    """On one endpoint, in bfloat16: tokens may then differ after a restart of the engine, but none is missing."""
    daemon = started("--model", str(MODEL), "--dtype", "bfloat16", "--compute-units", "1")
    assert daemon.process is not None

    family = [os.pidfd_open(pid) for pid in daemon.family()]
    play(daemon, lambda client: drain(daemon, client))
    assert daemon.process.wait(WAIT_S) == 0
    assert all(map(wait_for_end, family))
    assert "draining" in daemon.said()

    daemon.start()
    play(daemon, lambda client: daemon.kill("engine"))
    family = [os.pidfd_open(pid) for pid in daemon.family()]
    assert len(family) == 2
    daemon.process.kill()
    daemon.process.wait(WAIT_S)
    assert all(map(wait_for_end, family)), "an orphan keeps the device's memory"

    daemon.start()
    daemon.check_serves()
    assert daemon.stop() == 0


def drain(daemon: Daemon, client: Client) -> None:
    """As a service manager does it; who comes before its end is refused."""
    assert daemon.process is not None
    with daemon.paused():
        daemon.process.send_signal(signal.SIGTERM)
        pump(client, lambda: client.call(GetStatus(call=0)).state == "draining")
        with pytest.raises(Refused) as refused:
            list(client.generate(story("Too late", 5)))
    assert refused.value.code == "draining"


def test_what_a_daemon_said_before_it_ended_reaches_a_client_that_reads_late(started: Callable[..., Daemon]) -> None:
    """A short answer: a client that says nothing for six seconds has lost its streams."""
    daemon = started()
    with daemon.client() as client:
        stream = client.submit(story(PROMPTS[0], 30))
        until_running(client, [stream], tokens=1)
        assert daemon.stop() == 0
        assert [last.output_tokens for last in finish(client, [stream])] == [30]


def test_a_drain_that_runs_out_of_time_fails_its_streams_and_still_ends_cleanly(
    started: Callable[..., Daemon], folder: Callable[[], Path]
) -> None:
    """The engine is in the middle of a batch then."""
    daemon = started(*gone.slow_options(folder()), RAPIDD__SERVER__DRAIN_TIMEOUT_S="0.1")
    with daemon.client() as client:
        stream = client.submit(gone.Ask(prompt_tokens=8, max_tokens=1000, n=4).request("long"))
        until_running(client, [stream])
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        pump(client, lambda: stream.ended is not None)
        assert isinstance(stream.ended, Failed)
        assert stream.ended.code == "draining"
    assert daemon.process.wait(WAIT_S) == 0
    assert "shutting down; 1 requests left" in daemon.said()
    assert "stacks" not in daemon.said(), "the engine crashed"


def test_a_second_daemon_on_the_endpoint_is_refused_and_the_first_unharmed(daemon: Daemon) -> None:
    before = daemon.status()
    second = run(serve_command(daemon.endpoint, "--model", str(MODEL)))
    assert second.returncode == 78
    assert f"is served by another rapidd (pid {daemon.pid})" in second.stderr
    assert "--listen" in second.stderr
    daemon.check_serves()
    after = daemon.status()
    assert (after.front, after.engine, after.boot_id) == (before.front, before.engine, before.boot_id)


def test_an_operator_reloads_a_setting_and_is_told_why_another_needs_a_restart(
    started: Callable[..., Daemon], folder: Callable[[], Path]
) -> None:
    """The outcome is one line of the log: the front repeated what the supervisor had said."""
    config = folder() / "rapidd.toml"

    def write(settings: str) -> None:
        config.write_text(f'[model]\npath = "{MODEL}"\ndtype = "float32"\n{settings}')

    write("")
    daemon = started("--config", str(config))
    write("[server]\nmax-waiting-requests = 7\n")
    taken = rapidctl(daemon, "reload", "--wait")
    assert (taken.returncode, taken.stdout) == (0, "reloaded: server.max-waiting-requests\n")
    write("[engine]\nkv-blocks = 50\n")
    refused = rapidctl(daemon, "reload", "--wait")
    assert refused.returncode == 1
    assert "engine.kv-blocks: needs a restart; nothing was changed" in refused.stderr
    said = daemon.said()
    assert said.count("reloaded: server.max-waiting-requests") == 1
    assert said.count("engine.kv-blocks: needs a restart; nothing was changed") == 1
    daemon.check_serves()
