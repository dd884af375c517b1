"""The command line as scripts see it: stdout parses or is empty, exit codes, wrong words, durations."""

import argparse
import errno
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from rapidctl import cli, wire
from rapidctl.commands import common
from rapidctl.commands.schema import DOCUMENTS, document_type
from rapidctl.wire import Failed
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


# --- the contract of every command -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ASKING, ids="-".join)
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


@pytest.mark.parametrize("command", ASKING, ids="-".join)
def test_json_may_be_asked_for_before_the_command(command: list[str], peer: Peer, rapidctl: Rapidctl) -> None:
    assert rapidctl("--json", *command).documents


@pytest.mark.parametrize("command", ASKING, ids="-".join)
def test_text_has_no_control_characters(command: list[str], peer: Peer, rapidctl: Rapidctl) -> None:
    ran = rapidctl(*command)
    assert ran.code == 0
    assert not [char for char in ran.stdout if ord(char) < 0x20 and char != "\n"]


@pytest.mark.parametrize("more", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize("command", [*ASKING, ["check"]], ids="-".join)
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


@pytest.mark.parametrize("command", [*ASKING[:-1], ["events", "-f"]], ids="-".join)
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


@pytest.mark.parametrize("command", [["top"], []], ids="-".join)
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


# --- without a command -----------------------------------------------------------------------------------------------


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
