"""The command as a process: what pipes, terminals, full disks and signals make of it."""

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from rapidctl import wire
from rapidctl.wire import Generate
from support import samples
from support.command import spawn
from support.peer import Peer


def redirect(*words: str, redirected: str) -> subprocess.CompletedProcess[str]:
    """With the streams as a shell redirects them."""
    shell = ["bash", "-c", f"{shlex.join([sys.executable, '-m', 'rapidctl.cli', *words])} {redirected}"]
    return subprocess.run(shell, capture_output=True, text=True, timeout=60, check=False)


def test_a_command_loads_no_console_and_no_torch(peer: Peer) -> None:
    code = (
        "import sys; from rapidctl.cli import main; assert main(['status', '--json']) == 0; "
        "print(sorted({'textual', 'rich', 'torch', 'asyncio', 'rapidd'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.splitlines()[1] == "[]"


def test_a_reader_that_goes_away_is_no_error(peer: Peer) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ran = spawn("status", stdout=writer, stderr=subprocess.PIPE, capture_output=False)
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_console_draws_on_no_terminal_that_shows_escape_sequences() -> None:
    """It filled the buffer of an editor's shell with them."""
    person, terminal = pty.openpty()
    ran = spawn(
        "top", "--demo", stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, capture_output=False,
        env={**os.environ, "TERM": "dumb"},
    )  # fmt: skip
    os.close(person)
    os.close(terminal)
    assert (ran.returncode, "TERM says dumb" in ran.stderr) == (2, True)


def test_an_answer_that_is_interrupted_ends_its_line(peer: Peer) -> None:
    """The shell's prompt came behind its last word."""
    peer.script[Generate] = lambda ask: [
        wire.Accepted(id=ask.id, prompt_tokens=1, seed=1),
        wire.Deltas(items=[replace(samples.DELTA, id=ask.id)]),
    ]
    command = [sys.executable, "-m", "rapidctl.cli", "run", "Hello"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.read(len(samples.DELTA.text)) == samples.DELTA.text
        running.send_signal(signal.SIGINT)
        assert running.stdout.read() == "\n"
        assert running.wait(60) == 130


def test_who_follows_events_is_told_of_a_daemon_that_goes_and_comes_back(peer: Peer) -> None:
    """Nothing was said: no event and no daemon looked alike."""
    command = [sys.executable, "-m", "rapidctl.cli", "events", "-f"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert follower.stderr is not None
        assert samples.EVENT.text in follower.stdout.readline()
        peer.stop()
        assert follower.stderr.readline() == "rapidctl: the daemon is away, still trying\n"
        peer.start()
        assert follower.stderr.readline() == "rapidctl: the daemon is back\n"
        follower.send_signal(signal.SIGINT)
        assert follower.wait(60) == 130


@pytest.mark.parametrize("command", [["status"], ["status", "--json"], ["run", "Hello"]], ids="-".join)
def test_a_full_disk_is_said_in_one_line(command: list[str], peer: Peer) -> None:
    """It was a traceback, a bug to report, and exit code 70."""
    with Path("/dev/full").open("w") as full:
        ran = spawn(*command, stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert (ran.returncode, ran.stderr) == (1, "rapidctl: cannot write the output: No space left on device\n")


@pytest.mark.parametrize("command", [["check"], ["check", "--json"], ["check", "nosuch"]], ids="-".join)
@pytest.mark.parametrize("redirected", [">/dev/full", ">&-"])
def test_a_verdict_that_cannot_be_written_is_unknown(command: list[str], redirected: str, peer: Peer) -> None:
    """A monitor reads a code of 0 as OK and of 1 as WARNING, whatever the verdict was that nobody could read: a full
    disk gave 1, and so did a closed output."""
    assert redirect(*command, redirected=redirected).returncode == 3


@pytest.mark.parametrize("command", [["check"], ["check", "nosuch"]], ids="-".join)
def test_a_verdict_that_nobody_reads_is_unknown(command: list[str], peer: Peer) -> None:
    """It was OK, whatever it was."""
    reader, writer = os.pipe()
    os.close(reader)
    ran = spawn(*command, stdout=writer, stderr=subprocess.PIPE, capture_output=False)
    os.close(writer)
    assert ran.returncode == 3


@pytest.mark.parametrize("redirected", ["2>/dev/full", "2>&-", "2> >(true)"])
def test_what_goes_beside_the_data_decides_neither_the_code_nor_the_data(redirected: str, peer: Peer) -> None:
    """Where stderr was full or closed, `status -v` ended with 1 and `status` without a daemon, too; a line for stderr
    came with the data on stdout."""
    ran = redirect("status", "--json", "-v", redirected=redirected)
    assert ran.returncode == 0
    assert json.loads(ran.stdout)["state"] == "serving"
    ran = redirect("status", "--endpoint", "ipc:///nowhere/request.sock", redirected=redirected)
    assert (ran.returncode, ran.stdout) == (3, "")


def test_what_the_caller_closed_is_no_bug_of_ours(peer: Peer) -> None:
    """Each of these was a traceback: no prompt, nobody to ask, no terminal, an output that cannot be written."""
    assert redirect("run", redirected="<&-").stdout == "The\n"
    assert peer.hear(Generate).messages == [wire.ChatMessage("user", "")]
    for command in (["partition", "set", "--mode", "shared"], ["top"]):
        ran = redirect(*command, redirected="<&-")
        assert ran.returncode == 2
        assert "Traceback" not in ran.stderr
    ran = redirect("status", redirected=">&-")
    assert (ran.returncode, ran.stderr) == (1, "rapidctl: cannot write the output: Bad file descriptor\n")
    assert redirect("--help", redirected=">&-").stderr == ""


def test_a_prompt_may_come_from_a_pipe(peer: Peer) -> None:
    assert spawn("run", "-", input="piped ✓").stdout == "The\n"
    ask = peer.hear(Generate)
    assert ask.messages == [wire.ChatMessage("user", "piped ✓")]
    assert spawn("run", stdin=subprocess.DEVNULL).returncode == 0


def test_a_terminal_that_cannot_show_a_character_gets_a_substitute(peer: Peer) -> None:
    ran = spawn("status", env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert ran.returncode == 0
    assert ran.stdout.startswith("? serving")


@pytest.mark.parametrize(("answer", "sent"), [(b"y\n", True), (b"n\n", False), (b"\n", False)])
def test_a_person_is_asked_before_a_change(answer: bytes, sent: bool, peer: Peer) -> None:
    person, terminal = pty.openpty()
    os.write(person, answer)
    ran = spawn("partition", "set", "--mode", "shared", stdin=terminal)
    os.close(person)
    os.close(terminal)
    assert "pin it? [y/N]" in ran.stderr
    assert ran.returncode == (0 if sent else 1)
    heard = [peer.heard.get() for _ in range(peer.heard.qsize())]
    assert any(isinstance(message, wire.SetPartition) for message in heard) is sent
