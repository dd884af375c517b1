"""The command line as scripts see it: stdout parses or is empty, exit codes, keys, confirmation, light imports."""

import argparse
import os
import pty
import shutil
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
from rapidctl.wire import Accepted, Deltas, Failed, Generate
from support import samples
from support.command import Rapidctl
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
    ["requests", "ls"],
    ["requests", "show", "r-1"],
    ["partition", "show"],
    ["partition", "predict", "--mode", "split", "--decode-units", "1"],
    ["partition", "log"],
    ["policy"],
    ["policy", "show"],
    ["profile", "show", "--slo-itl", "25ms", "--context", "2048"],
    ["events"],
    ["events", "--since", "3"],
    ["wait", "healthy"],
    ["wait", "epoch=5"],
    ["run", "Hello"],
    ["version"],
]
Changing = wire.SetPartition | wire.ReleasePartition | wire.UndoPartition | wire.SetPolicy
CHANGING = [
    ["requests", "cancel", "r-1"],
    ["partition", "set", "--mode", "serial", "--chunk", "all", "--yes"],
    ["partition", "auto", "--reason", "done", "--if-epoch", "5"],
    ["partition", "undo"],
    ["policy", "set", "hybrid:512"],
    ["drain"],
    ["drain", "--off"],
]
ASKING = [*READING, *CHANGING]


def document_name(command: list[str], document: dict[str, Any]) -> str:
    """Under which name `rapidctl schema` describes it."""
    if command[0] == "run":
        return f"run {document['type']}"
    if command == ["policy"]:
        return "policy show"
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


@pytest.mark.parametrize("command", ASKING, ids=words_of)
def test_json_may_be_asked_for_before_the_command(command: list[str], peer: Peer, rapidctl: Rapidctl) -> None:
    assert rapidctl("--json", *command).documents


@pytest.mark.parametrize("command", ASKING, ids=words_of)
def test_text_has_no_control_characters(command: list[str], peer: Peer, rapidctl: Rapidctl) -> None:
    ran = rapidctl(*command)
    assert ran.code == 0
    assert not [char for char in ran.stdout if ord(char) < 0x20 and char != "\n"]


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
        ["status", "--timeout", "soon"],
        ["status", "--timeout", "0s"],
        ["wait", "forever"],
        ["run", "x", "--seed", "1e3"],
        ["run", "x", "--seed", str(2**64)],
        ["run", "x", "--no-chat", "--system", "y"],
        ["run", "\udcff"],
        ["partition"],
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


def test_help_names_every_command(rapidctl: Rapidctl) -> None:
    ran = rapidctl("--help")
    assert ran.code == 0
    for name in cli.COMMANDS:
        assert f"    {name} " in ran.stdout


@pytest.mark.parametrize("command", [["top"], []], ids=words_of)
def test_the_console_without_a_terminal_names_status(command: list[str], rapidctl: Rapidctl) -> None:
    assert "rapidctl status" in rapidctl(*command).stderr


# --- what single commands promise --------------------------------------------------------------------------------


def test_status_has_the_documented_keys(peer: Peer, rapidctl: Rapidctl) -> None:
    (document,) = rapidctl("status", "--json").documents
    expected = {
        "state": "serving",
        "boot_id": "engine-1",
        "model": "SmolLM2-135M-Instruct",
        "device": "cpu",
        "uptime_s": 3725.0,
        "mode": "split",
        "policy": "auto",
    }
    assert document.items() >= expected.items()
    assert [document[name]["pid"] for name in ("supervisor", "front", "engine")] == [10, 11, 12]
    assert document["kv"].items() >= {"blocks_total": 1000, "blocks_used": 300, "blocks_cached": 100}.items()
    assert document["requests"].items() >= {"waiting": 1, "prefilling": 1, "decoding": 3}.items()


@pytest.mark.parametrize("state", ["starting", "draining", "drained", "engine_lost"])
def test_status_is_1_unless_serving_and_unknown_is_null(state: str, peer: Peer, rapidctl: Rapidctl) -> None:
    bare = replace(
        samples.STATUS,
        state=state,
        detail="loading weights 63 %",
        boot_id="",
        model=None,
        device=None,
        engine=wire.Process(pid=None),
        partition=None,
        kv=None,
        requests=wire.RequestCounts(waiting=0, prefilling=0, decoding=0),
        slo_met=None,
    )
    peer.script[wire.GetStatus] = lambda ask: [replace(bare, call=ask.call)]
    ran = rapidctl("status", "--json")
    assert ran.code == 1
    (document,) = ran.documents
    assert [document[name] for name in ("model", "device", "mode", "policy", "kv")] == [None] * 5
    assert document["engine"]["pid"] is None
    text = rapidctl("status")
    assert text.code == 1
    assert "loading weights 63 %" in text.stdout


def test_partition_show_has_the_documented_keys(peer: Peer, rapidctl: Rapidctl) -> None:
    (document,) = rapidctl("partition", "show", "--json").documents
    expected = {
        "mode": "split",
        "policy": "auto",
        "units_total": 2,
        "decode_units": 1,
        "prefill_units": 1,
        "epoch": 5,
        "decision": 12,
        "reason": "override by ana",
        "source": "override",
    }
    assert document.items() >= expected.items()
    assert document["override"].items() >= {"ttl_s": 297.5, "reason": "stalls", "by": "ana"}.items()
    assert [lane["units"] for lane in document["measured"]["lanes"]] == [[0], [1]]
    info = replace(samples.PARTITION, override=None, measured=None, source="policy")
    peer.script[wire.GetPartition] = lambda ask: [replace(info, call=ask.call)]
    (document,) = rapidctl("partition", "show", "--json").documents
    assert (document["override"], document["measured"]) == (None, None)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("partition", "set", "--mode", "shared", "--yes"), wire.SetPartition),
        (("partition", "auto"), wire.ReleasePartition),
        (("partition", "undo"), wire.UndoPartition),
        (("policy", "set", "auto"), wire.SetPolicy),
    ],
    ids=str,
)
def test_a_change_goes_by_the_epoch_that_the_command_found_unless_told(
    words: tuple[str, ...], kind: type[Changing], peer: Peer, rapidctl: Rapidctl
) -> None:
    assert rapidctl(*words).code == 0
    assert peer.hear(kind).if_epoch == samples.PARTITION.epoch
    assert rapidctl(*words, "--if-epoch", "77").code == 0
    assert peer.hear(kind).if_epoch == 77


def test_partition_show_tells_the_bounds_of_an_override(peer: Peer, rapidctl: Rapidctl) -> None:
    words = " ".join(rapidctl("partition", "show").stdout.split())
    assert "at most 1h00m" in words
    assert "ITL p95 > 1.5x or TTFT p95 > 2x the SLO for 10 s" in words
    peer.script[wire.GetPartition] = lambda ask: [replace(samples.PARTITION, call=ask.call, bounds=None)]
    assert "limits" not in rapidctl("partition", "show").stdout


def test_partition_show_counts_phases_by_what_holds_the_units(peer: Peer, rapidctl: Rapidctl) -> None:
    def lines() -> list[str]:
        return [" ".join(line.split()) for line in rapidctl("partition", "show").stdout.splitlines()]

    assert "socket 0 1 decode, 1 prefill of 2" in lines()
    unmeasured = replace(samples.PARTITION, measured=None)
    peer.script[wire.GetPartition] = lambda ask: [replace(unmeasured, call=ask.call)]
    assert "socket 0 2 not measured of 2" in lines()
    peer.script[wire.GetPartition] = lambda ask: [replace(unmeasured, call=ask.call, groups=None)]
    assert not any(line.startswith("socket") for line in lines()), "the system does not tell"


def test_predict_answers_nulls_without_a_profile(peer: Peer, rapidctl: Rapidctl) -> None:
    (document,) = rapidctl("partition", "predict", "--mode", "serial", "--json").documents
    assert (document["note"], document["itl_p95_s"], document["ttft_p95_s"]) == ("no profile", None, None)
    peer.script[wire.PredictPartition] = lambda ask: [wire.Prediction(call=ask.call, legal=False, note="one core")]
    assert rapidctl("partition", "predict", "--mode", "split").code == 1


def test_profile_show_asks_for_the_objective_and_tells_error_corrections_and_knee(
    peer: Peer, rapidctl: Rapidctl
) -> None:
    ran = rapidctl("profile", "show", "--slo-itl", "25ms", "--context", "2048")
    asked = next(message for message in iter(peer.heard.get, None) if isinstance(message, wire.GetProfile))
    assert (asked.itl_s, asked.kv_per_row) == (0.025, 2048)
    lines = [" ".join(line.split()) for line in ran.stdout.splitlines()]
    for line in (
        "profile SmolLM2-135M-Instruct on Some CPU (measured here)",
        "error median 4.0%, p95 12.0%, on 90 held-back measurements",
        "hybrid median 5.0%, p95 20.0% 10",
        "hybrid mixed 1.07 2.0% 512",
        "fewest decode units for 25 ms a step, 2048 tokens a row:",
        "1 1 20 ms beside prompts",
        "32 2 24 ms alone: prompts must wait",
        "64 — 31 ms not met, even alone on all units",
    ):
        assert line in lines
    assert "note: the profile old.json is not used: the driver changed" in ran.stderr


def test_profile_show_without_one_says_how_to_get_one(peer: Peer, rapidctl: Rapidctl) -> None:
    peer.script[wire.GetProfile] = lambda ask: [
        wire.ProfileReply(call=ask.call, calibration=None, notes=["corrupt"], itl_s=0.05, kv_per_row=1024, knee=[])
    ]
    ran = rapidctl("profile", "show")
    assert (ran.code, "rapidd calibrate" in ran.stdout, "corrupt" in ran.stderr) == (1, True, True)
    (document,) = rapidctl("profile", "show", "--json").documents
    assert (document["profile"], document["notes"], document["knee"]["rows"]) == (None, ["corrupt"], [])


def test_set_sends_what_was_asked_with_a_deadline(peer: Peer, rapidctl: Rapidctl) -> None:
    words = "partition set --mode split --decode-units 1 --chunk 64 --ttl 2m --no-guard --if-epoch 4 --yes --reason why"
    assert rapidctl(*words.split()).code == 0
    command = peer.hear(wire.SetPartition)
    assert command.plan == wire.PlanRequest(mode="split", decode_units=1, chunk=64)
    assert (command.ttl_s, command.guard, command.reason, command.if_epoch) == (120.0, False, "why", 4)
    assert command.by
    assert command.deadline_unix_s is not None
    rapidctl("partition", "set", "--mode", "shared", "--ttl", "0", "--yes")
    command = peer.hear(wire.SetPartition)
    assert (command.ttl_s, command.guard) == (None, True)


def test_set_with_wait_returns_when_the_lanes_run_it(peer: Peer, rapidctl: Rapidctl) -> None:
    asked: list[int] = []

    def events(ask: wire.GetEvents) -> list[wire.Reply]:
        asked.append(ask.from_seq)
        kept = [replace(samples.EVENT, seq=seq, epoch=epoch) for seq, epoch in ((8, 5), (9, 6))]
        return [wire.EventList(call=ask.call, oldest_seq=0, next_seq=8, events=kept if len(asked) > 3 else kept[:1])]

    peer.script[wire.GetEvents] = events
    (document,) = rapidctl("partition", "set", "--mode", "shared", "--yes", "--wait", "--json").documents
    assert document["applied"]["epoch"] == 6
    assert asked[1:] == [8, 8, 8]


def test_set_with_wait_does_not_call_an_unapplied_change_a_success(peer: Peer, rapidctl: Rapidctl) -> None:
    peer.script[wire.GetEvents] = lambda ask: [wire.EventList(call=ask.call, oldest_seq=0, next_seq=0, events=[])]
    ran = rapidctl("partition", "set", "--mode", "shared", "--yes", "--wait", "--timeout", "100ms")
    assert (ran.code, ran.stdout) == (4, "")


def test_an_idle_daemon_lists_no_requests(peer: Peer, rapidctl: Rapidctl) -> None:
    peer.script[wire.GetRequests] = lambda ask: [wire.RequestList(call=ask.call, rows=[])]
    assert rapidctl("requests", "ls", "--json").documents[0]["requests"] == []


def test_watch_repeats_so_many_times(peer: Peer, rapidctl: Rapidctl) -> None:
    ran = rapidctl("status", "--json", "--watch", "10ms", "-n", "3")
    assert [document["state"] for document in ran.documents] == ["serving"] * 3


def test_wait_idle_waits_for_the_last_request(peer: Peer, rapidctl: Rapidctl) -> None:
    left = iter([2, 1])
    peer.script[wire.GetStatus] = lambda ask: [
        replace(
            samples.STATUS,
            call=ask.call,
            requests=wire.RequestCounts(waiting=0, prefilling=0, decoding=next(left, 0)),
        )
    ]
    assert rapidctl("wait", "idle").code == 0
    assert next(left, None) is None


def test_wait_gives_up_with_4(peer: Peer, rapidctl: Rapidctl) -> None:
    assert rapidctl("wait", "epoch=6", "--timeout", "50ms").code == 4


def test_drain_with_wait(peer: Peer, rapidctl: Rapidctl) -> None:
    assert rapidctl("drain", "--wait", "--timeout", "50ms").code == 4
    idle = replace(samples.STATUS, requests=wire.RequestCounts(waiting=0, prefilling=0, decoding=0))
    peer.script[wire.GetStatus] = lambda ask: [replace(idle, call=ask.call)]
    assert rapidctl("drain", "--wait").code == 0


# --- run ----------------------------------------------------------------------------------------------------------


def test_run_sends_every_sampling_parameter(peer: Peer, rapidctl: Rapidctl) -> None:
    words = (
        "run Hi --max-tokens 9 --min-tokens 2 --temperature 0.5 --top-k 4 --top-p 0.9 --min-p 0.1 "
        "--repetition-penalty 1.1 --presence-penalty 0.2 --frequency-penalty 0.3 --seed 7 --stop END --stop . "
        "--stop-token-id 2 --n 2 --logprobs 1 --system Brief --ignore-eos --priority 3 --deadline 1m --id mine "
        "--slo-class batch"
    )
    assert rapidctl(*words.split()).code == 0
    assert peer.hear(Generate) == Generate(
        id="mine",
        messages=[wire.ChatMessage("system", "Brief"), wire.ChatMessage("user", "Hi")],
        sampling=wire.Sampling(
            temperature=0.5,
            top_k=4,
            top_p=0.9,
            min_p=0.1,
            repetition_penalty=1.1,
            presence_penalty=0.2,
            frequency_penalty=0.3,
            seed=7,
            max_tokens=9,
            min_tokens=2,
            stop_token_ids=[2],
            ignore_eos=True,
            logprobs=1,
        ),
        n=2,
        stop=["END", "."],
        priority=3,
        deadline_s=60.0,
        slo_class="batch",
    )
    assert rapidctl("run", "--no-chat", "raw").code == 0
    raw = peer.hear(Generate)
    assert (raw.prompt, raw.messages, raw.sampling) == ("raw", None, wire.Sampling())


def test_run_sends_a_bare_prompt_to_a_model_without_a_chat_template(peer: Peer, rapidctl: Rapidctl) -> None:
    peer.script[wire.Hello] = lambda hello: [replace(samples.WELCOME, has_chat_template=False)]
    ran = rapidctl("run", "Once upon", "--json")
    raw = peer.hear(Generate)
    assert (ran.code, raw.prompt, raw.messages) == (0, "Once upon", None)
    assert "no chat template" in ran.stderr
    rapidctl("run", "Once upon", "--system", "Be brief.")
    chat = peer.hear(Generate)
    assert chat.prompt is None, "a system message is not dropped: the daemon refuses it and says why"
    assert [message.role for message in chat.messages or ()] == ["system", "user"]


def test_run_json_ends_with_the_documented_line(peer: Peer, rapidctl: Rapidctl) -> None:
    ran = rapidctl("run", "Hi", "--json")
    assert [line["type"] for line in ran.documents] == ["accepted", "tokens", "finished"]
    assert ran.documents[1]["token_ids"] == [504, 2]
    last = ran.documents[-1]
    expected = {
        "text": "The",
        "token_ids": [504, 2],
        "finish_reason": "stop",
        "prompt_tokens": 14,
        "output_tokens": 2,
        "ttft_s": 0.12,
        "mode": "split",
    }
    assert last.items() >= expected.items()
    assert last["itl_s"].items() >= {"p50": 0.0101, "p95": 0.0202, "max": 0.0404}.items()
    assert ran.stderr == ""


def test_run_streams_text_to_stdout_and_timing_to_stderr(peer: Peer, rapidctl: Rapidctl) -> None:
    ran = rapidctl("run", "Hi")
    assert ran.stdout == "The\n"
    assert "TTFT 120 ms" in ran.stderr


def test_model_output_cannot_drive_the_terminal(peer: Peer, rapidctl: Rapidctl) -> None:
    evil = replace(samples.DELTA, text="a\x1b[2J\x9b31m\x07b\n\tc\r")
    peer.script[Generate] = lambda ask: [
        Accepted(id=ask.id, prompt_tokens=1, seed=1),
        Deltas(items=[replace(evil, id=ask.id)]),
        replace(samples.FINISHED, id=ask.id),
    ]
    assert rapidctl("run", "Hi").stdout == "a[2J31mb\n\tc\n"
    assert rapidctl("run", "Hi", "--json").documents[1]["text"] == evil.text


def test_several_choices_are_shown_one_after_the_other(peer: Peer, rapidctl: Rapidctl) -> None:
    choices = [replace(samples.FINISHED.choices[0], index=index, text=text) for index, text in enumerate("AB")]
    peer.script[Generate] = lambda ask: [
        Accepted(id=ask.id, prompt_tokens=1, seed=1),
        replace(samples.FINISHED, id=ask.id, choices=choices),
    ]
    assert rapidctl("run", "Hi", "--n", "2").stdout == "--- choice 0 (stop)\nA\n--- choice 1 (stop)\nB\n"


def test_a_run_that_fails_keeps_what_it_had(peer: Peer, rapidctl: Rapidctl) -> None:
    peer.script[Generate] = lambda ask: [
        Accepted(id=ask.id, prompt_tokens=1, seed=1),
        Deltas(items=[replace(samples.DELTA, id=ask.id)]),
        Failed(code="engine_lost", message="the engine died", id=ask.id),
    ]
    ran = rapidctl("run", "Hi")
    assert (ran.code, ran.stdout) == (1, "The\n")
    assert "the engine died" in ran.stderr
    lines = rapidctl("run", "Hi", "--json").documents
    assert lines[-1].items() >= {"type": "failed", "code": "engine_lost", "output_tokens": 2}.items()


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
