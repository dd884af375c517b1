"""How a daemon ends, what is left of it, and who may take its place."""

import os
import signal
import subprocess
from collections.abc import Callable

import pytest

from rapidctl.errors import Refused
from rapidctl.wire import GetStatus
from support.daemon import MODEL, PROMPTS, WAIT_S, Daemon, finish, pump, serve_command, story, until_running
from support.process import environment, wait_for_end


def test_a_drain_finishes_what_runs_and_refuses_what_is_new(started: Callable[[], Daemon]) -> None:
    """After SIGTERM; then no process is left and the endpoint can be used again, also after a ``kill -9``."""
    daemon = started()
    with daemon.client() as client:
        streams = [client.submit(story(prompt, 450)) for prompt in PROMPTS]
        until_running(client, streams)
        family = [os.pidfd_open(pid) for pid in daemon.family()]
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        pump(client, lambda: client.call(GetStatus(call=0)).state == "draining")
        with pytest.raises(Refused) as refused:
            list(client.generate(story("Too late", 5)))
        assert refused.value.code == "draining"
        assert [last.output_tokens for last in finish(client, streams)] == [450] * len(PROMPTS)
    assert daemon.process.wait(WAIT_S) == 0
    assert all(map(wait_for_end, family))
    assert "draining" in daemon.said()

    daemon.start()
    daemon.check_serves()
    family = [os.pidfd_open(pid) for pid in daemon.family()]
    assert len(family) == 2
    daemon.process.kill()
    daemon.process.wait(WAIT_S)
    assert all(map(wait_for_end, family)), "an orphan keeps the device's memory"

    daemon.start()
    daemon.check_serves()
    assert daemon.stop() == 0


def test_a_second_daemon_on_the_endpoint_is_refused_and_the_first_unharmed(daemon: Daemon) -> None:
    before = daemon.status()
    second = subprocess.run(
        serve_command(daemon.endpoint, "--model", str(MODEL)),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert second.returncode == 78
    assert f"is served by another rapidd (pid {daemon.pid})" in second.stderr
    assert "--listen" in second.stderr
    daemon.check_serves()
    after = daemon.status()
    assert (after.front, after.engine, after.boot_id) == (before.front, before.engine, before.boot_id)
