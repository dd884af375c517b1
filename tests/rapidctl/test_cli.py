"""The command line as scripts see it: stdout parses or is empty, exit codes, questions, completion, light imports."""

import argparse
import errno
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from rapidctl import cli, wire
from rapidctl.commands import common
from rapidctl.commands.schema import DOCUMENTS, document_type
from rapidctl.wire import Failed, Generate
from support import samples
from support.command import Rapidctl
from support.hostile import controls, hostile
from support.peer import Peer

READING = [
    ["status"],
    ["stats"],
    ["stats", "latency"],
    ["stats", "units"],
    ["stats", "queue"],
    ["stats", "kv"],
    ["stats", "device"],
    ["stats", "work"],
    ["requests"],
    ["requests", "ls"],
    ["requests", "show", "r-1"],
    ["partition"],
    ["partition", "show"],
    ["partition", "predict", "--mode", "split", "--decode-units", "1"],
    ["partition", "log"],
    ["policy"],
    ["policy", "show"],
    ["profile"],
    ["profile", "show", "--slo-itl", "25ms", "--context", "2048"],
    ["events"],
    ["events", "--since", "3"],
    ["wait", "healthy"],
    ["wait", "epoch=5"],
    ["run", "Hello"],
    ["version"],
]
CHANGING = [
    ["requests", "cancel", "r-1"],
    ["partition", "set", "--mode", "serial", "--chunk", "all", "--yes"],
    ["partition", "auto", "--reason", "done", "--if-epoch", "5"],
    ["partition", "undo"],
    ["policy", "set", "hybrid:512"],
    ["drain"],
    ["drain", "--off"],
    ["reload"],
]
ASKING = [*READING, *CHANGING]
SHOWN_ALONE = {
    "requests": "ls", "partition": "show", "policy": "show", "profile": "show", "context": "ls", "config": "show",
    "keys": "show",
}  # fmt: skip
"""What a group shows without a command."""


def document_name(command: list[str], document: dict[str, Any]) -> str:
    """Under which name `rapidctl schema` describes it."""
    if command[0] == "run":
        return f"run {document['type']}"
    if command[0] in SHOWN_ALONE and len(command) == 1:
        return f"{command[0]} {SHOWN_ALONE[command[0]]}"
    return next(name for name in (" ".join(command[:2]), command[0]) if name in DOCUMENTS)


def words_of(command: list[str]) -> str:
    return "-".join(command)


# --- the contract of every command -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ASKING, ids=words_of)
def test_json_is_one_document_a_line_with_its_schema_version_first(
    command: list[str], peer: Peer, rapidctl: Rapidctl
) -> None:
    ran = rapidctl(*command, "--json")
    assert ran.code == 0
    assert len(ran.documents) == (3 if command[0] == "run" else 1)
    for line, document in zip(ran.stdout.splitlines(), ran.documents, strict=True):
        assert next(iter(document)) == "schema_version"
        assert document["schema_version"] == wire.SCHEMA_VERSION
        msgspec.json.decode(line, type=document_type(document_name(command, document)))
    assert "\x1b" not in ran.stdout


@pytest.mark.parametrize("more", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize(("group", "shown"), SHOWN_ALONE.items())
def test_a_group_alone_shows_what_its_command_does(
    group: str, shown: str, more: tuple[str, ...], peer: Peer, rapidctl: Rapidctl
) -> None:
    """Most were usage errors, and two were not."""
    alone = rapidctl(group, *more)
    assert (alone.code, bool(alone.stdout)) == (0, True)
    assert _without_ages(alone.stdout) == _without_ages(rapidctl(group, shown, *more).stdout)
    assert f"Without a command: {shown}." in " ".join(rapidctl(group, "--help").stdout.split())


def _without_ages(text: str) -> str:
    """Of what is shown as so long ago only the words."""
    return re.sub(r"[0-9.]+", "N", text)


@pytest.mark.parametrize("command", ASKING, ids=words_of)
def test_json_may_be_asked_for_before_the_command(command: list[str], peer: Peer, rapidctl: Rapidctl) -> None:
    assert rapidctl("--json", *command).documents


@pytest.mark.parametrize("command", ASKING, ids=words_of)
def test_text_has_no_control_characters(command: list[str], peer: Peer, rapidctl: Rapidctl) -> None:
    ran = rapidctl(*command)
    assert ran.code == 0
    assert not [char for char in ran.stdout if ord(char) < 0x20 and char != "\n"]


@pytest.mark.parametrize("more", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize("command", [*ASKING, ["check"]], ids=words_of)
def test_nothing_that_a_daemon_says_drives_the_terminal(
    command: list[str], more: tuple[str, ...], peer: Peer, rapidctl: Rapidctl
) -> None:
    """It repeats what its clients say: names, reasons, ids. `undo`, for one, printed the name that another operator
    had given itself, escape sequences and all; a document held DEL and the controls above 0x7f as they are."""
    for kind, answer in list(peer.script.items()):
        if kind not in (wire.Hello, wire.Generate):
            peer.script[kind] = lambda ask, answer=answer: [hostile(reply) for reply in answer(ask) or ()]
    ran = rapidctl(*command, *more)
    assert ran.code == 0
    assert controls(ran.stdout + ran.stderr) == []


@pytest.mark.parametrize("command", [*ASKING[:-1], ["events", "-f"]], ids=words_of)
def test_without_a_daemon_every_command_says_how_to_start_one(
    command: list[str], tmp_path: Path, rapidctl: Rapidctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapidctl.client.CONNECT_TIMEOUT_S", 0.01)
    ran = rapidctl("--endpoint", f"ipc://{tmp_path}/request.sock", *command, "--timeout", "20ms")
    assert ran.stdout == "" or command == ["version"]
    if command[0] == "wait":
        assert ran.code == 4
        assert "not reachable" in ran.stderr
    elif command != ["version"]:
        assert ran.code == 3
        assert "rapidd serve" in ran.stderr


@pytest.mark.parametrize(
    ("failed", "code"),
    [
        (Failed(code="draining", message="draining"), 1),
        (Failed(code="epoch_conflict", message="the epoch is 6"), 1),
        (Failed(code="not_permitted", message="read-only"), 5),
    ],
)
def test_refusals_have_their_exit_code_and_say_why(failed: Failed, code: int, peer: Peer, rapidctl: Rapidctl) -> None:
    for kind in (wire.SetPolicy, wire.GetStatus):
        peer.script[kind] = lambda ask: [replace(failed, call=ask.call, hint="do this")]
    for command in (["policy", "set", "shared"], ["status", "--json"]):
        ran = rapidctl(*command)
        assert (ran.code, ran.stdout) == (code, "")
        assert failed.message in ran.stderr
        assert "do this" in ran.stderr


def test_silence_is_a_timeout(peer: Peer, rapidctl: Rapidctl) -> None:
    peer.script[wire.GetStatus] = lambda ask: None
    assert rapidctl("status", "--timeout", "50ms").code == 4


def test_no_common_protocol_is_6(peer: Peer, rapidctl: Rapidctl) -> None:
    peer.script[wire.Hello] = lambda hello: [Failed(code="protocol", message="speaks 2 to 3")]
    assert rapidctl("status").code == 6


def test_our_bug_is_70(rapidctl: Rapidctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rapidctl.commands.version.wire", None)
    ran = rapidctl("version")
    assert ran.code == 70
    assert "bug" in ran.stderr


def test_an_error_of_the_system_that_is_none_of_the_output_stays_our_bug(
    rapidctl: Rapidctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what stdout does not take is said to be the output's fault."""

    def no_space(*args: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("rapidctl.commands.common.connect", no_space)
    ran = rapidctl("status")
    assert (ran.code, "cannot write the output" in ran.stderr) == (70, False)


def test_an_interrupt_is_130(rapidctl: Rapidctl, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rapidctl.out.Out.text", interrupt)
    assert rapidctl("version").code == 130


@pytest.mark.parametrize(
    "command",
    [
        ["nonsense"],
        ["status", "--bogus"],
        ["status", "--endpoint", "tcp://127.0.0.1:1"],
        ["status", "--endpoint", "tcp://*:5"],
        ["status", "--timeout", "soon"],
        ["status", "--timeout", "0s"],
        ["wait", "forever"],
        ["run", "x", "--seed", "1e3"],
        ["run", "x", "--seed", str(2**64)],
        ["run", "x", "--no-chat", "--system", "y"],
        ["bench"],
        ["partition", "--probe"],
        ["partition", "set", "--mode", "sideways", "--yes"],
        ["partition", "set", "--mode", "shared", "--decode-units", "1", "--yes"],
        ["partition", "set", "--mode", "hybrid", "--chunk", "all", "--yes"],
        ["partition", "set", "--mode", "shared"],
        ["completion", "tcsh"],
        ["top"],
        [],
    ],
    ids=lambda command: ascii("-".join(command)),
)
def test_a_wrong_command_line_is_2_and_sends_nothing(command: list[str], peer: Peer, rapidctl: Rapidctl) -> None:
    ran = rapidctl(*command)
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr
    assert peer.heard.empty()


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["run", "\udcff"], 2),
        (["requests", "show", "\udcff"], 2),
        (["policy", "set", "\udcff"], 2),
        (["partition", "set", "--mode", "shared", "--yes", "--reason", "\udcff"], 2),
        (["status", "--endpoint", "ipc:///\udcff"], 2),
        (["status", "--endpoint", "tcp://\udcff:5"], 2),
        (["check", "--endpoint", "ipc:///\udcff"], 3),
    ],
    ids=lambda value: ascii(value),
)
def test_what_is_no_text_is_no_bug(command: list[str], code: int, peer: Peer, rapidctl: Rapidctl) -> None:
    """Arguments may be any bytes. All but a prompt ended with a traceback, exit code 70 and a bug to report."""
    ran = rapidctl(*command)
    assert ran.code == code
    assert "Traceback" not in ran.stderr
    heard = [peer.heard.get() for _ in range(peer.heard.qsize())]
    assert all(isinstance(message, wire.Hello | wire.GetPartition) for message in heard)


def test_help_names_every_command(rapidctl: Rapidctl) -> None:
    ran = rapidctl("--help")
    assert ran.code == 0
    for name in cli.COMMANDS:
        assert f"    {name} " in ran.stdout


@pytest.mark.parametrize("command", [["top"], []], ids=words_of)
def test_the_console_without_a_terminal_names_status(command: list[str], rapidctl: Rapidctl) -> None:
    assert "rapidctl status" in rapidctl(*command).stderr


# --- durations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [("30s", 30), ("5m", 300), ("1h", 3600), ("2d", 172_800), ("250ms", 0.25), ("1.5", 1.5), ("0", 0)],
)
def test_durations(text: str, value: float) -> None:
    assert common.duration_s(text) == value


@pytest.mark.parametrize("text", ["", "s", "-5s", "5 m", "1h30m", "nan", "inf", "1e3s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        common.duration_s(text)


# --- as real processes ---------------------------------------------------------------------------------------------


def spawn(*words: str, **how: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rapidctl.cli", *words]
    return subprocess.run(command, text=True, timeout=60, check=False, **{"capture_output": True, **how})


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


@pytest.mark.parametrize("command", [["status"], ["status", "--json"], ["run", "Hello"]], ids=words_of)
def test_a_full_disk_is_said_in_one_line(command: list[str], peer: Peer) -> None:
    """It was a traceback, a bug to report, and exit code 70."""
    with Path("/dev/full").open("w") as full:
        ran = spawn(*command, stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert (ran.returncode, ran.stderr) == (1, "rapidctl: cannot write the output: No space left on device\n")


@pytest.mark.parametrize("command", [["check"], ["check", "--json"], ["check", "nosuch"]], ids=words_of)
@pytest.mark.parametrize("redirected", [">/dev/full", ">&-"])
def test_a_verdict_that_cannot_be_written_is_unknown(command: list[str], redirected: str, peer: Peer) -> None:
    """A monitor reads a code of 0 as OK and of 1 as WARNING, whatever the verdict was that nobody could read: a full
    disk gave 1, and so did a closed output."""
    assert redirect(*command, redirected=redirected).returncode == 3


@pytest.mark.parametrize("command", [["check"], ["check", "nosuch"]], ids=words_of)
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


@pytest.fixture(scope="module")
def bash_script() -> str:
    return spawn("completion", "bash").stdout


def complete(script: str, *words: str) -> set[str]:
    """What bash offers for the last word."""
    line = " ".join(f'"{word}"' for word in ("rapidctl", *words))
    script += f'\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}; _rapidctl; printf "%s\\n" "${{COMPREPLY[@]}}"'
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stderr == ""
    return set(ran.stdout.split())


def test_completion_knows_the_tree(bash_script: str) -> None:
    assert complete(bash_script, "par") == {"partition"}
    assert complete(bash_script, "--json", "partition", "") >= {"show", "predict", "set", "auto", "log"}
    assert complete(bash_script, "partition", "set", "--de") == {"--decode-units"}
    assert complete(bash_script, "stats", "l") == {"latency"}


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_by_the_same_function(bash_script: str) -> None:
    """It used to complain of an "unrecognized modifier" at every tab: ``${words[@]:1:NAME}`` is another thing there."""
    script = f"""autoload -Uz compinit && compinit -D
{bash_script}
emulate ksh -c 'COMP_WORDS=(rapidctl --json partition set --de); COMP_CWORD=4; _rapidctl'
print -l -- $COMPREPLY"""
    ran = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stderr == ""
    offered = set(ran.stdout.split())  # the words of this command; which of them fit is for zsh's own matching
    assert "--decode-units" in offered
    assert "--demo" not in offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_every_command(shell: str, rapidctl: Rapidctl) -> None:
    script = rapidctl("completion", shell).stdout
    for name in (*cli.COMMANDS, "predict", "decode-units"):
        assert name in script


@pytest.mark.parametrize("words", [[], ["--demo"], ["-c", "lab", "--ascii"], ["--gpu", "all", "--control"]])
def test_without_a_command_it_is_the_console(words: list[str], rapidctl: Rapidctl) -> None:
    ran = rapidctl(*words)
    assert (ran.code, "the console needs a terminal" in ran.stderr) == (2, True)


def test_without_a_command_help_is_of_all(rapidctl: Rapidctl) -> None:
    ran = rapidctl("--help")
    assert (ran.code, "Without a command: the console" in ran.stdout) == (0, True)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["status"], "status"),
        (["-c", "check", "status"], "status"),
        (["--endpoint", "ipc:///run", "--timeout", "3s", "run", "status"], "run"),
        (["--context=record", "events", "-f"], "events"),
        (["-c", "check"], None),
        (["--demo"], None),
        (["nothing", "status"], None),
    ],
)
def test_a_command_is_told_from_the_value_of_an_option(words: list[str], name: str | None) -> None:
    assert cli.named_command(words) == name


def test_every_common_option_that_takes_a_value_is_known_as_one() -> None:
    actions = common.common_options(None)._actions
    assert {name for action in actions if action.nargs is None for name in action.option_strings} == set(
        common.VALUE_OPTIONS
    )
