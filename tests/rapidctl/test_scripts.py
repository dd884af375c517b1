"""Commands for scripts: record and what reads recordings, check, doctor, contexts, schemas, completion files."""

import csv
import io
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from rapidctl import cli, settings, wire
from rapidctl.commands.check import CODES, LIMITS, Level, judge
from rapidctl.commands.schema import DOCUMENTS, document_type
from rapidctl.export import COLUMNS
from rapidctl.tape import Exchange, FileTape, Record, Recorder
from rapidctl.wire import Accepted, Failed, Generate, Snapshot
from support import samples
from support.command import Rapidctl
from support.console import event, snapshot
from support.peer import Peer

COMPLETIONS = Path(cli.__file__).parent / "completions"


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    """Ten seconds, with an event in the middle."""
    path = tmp_path / "ten.tape"
    with Recorder(path) as recorder:
        for tick in range(40):
            recorder.add(Record(tick / 4, snapshot(tick)))
            if tick == 20:
                recorder.add(Record(tick / 4, event(1, "override", "ana: split 160")))
    return path


# --- recordings -----------------------------------------------------------------------------------------------------


def test_what_is_published_is_recorded_until_it_is_interrupted(
    peer: Peer, rapidctl: Rapidctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tape"
    enough = threading.Event()
    add = Recorder.add

    def spy(recorder: Recorder, record: Record) -> None:
        add(recorder, record)
        if recorder.snapshots == 3:
            enough.set()

    def publish() -> None:
        peer.subscribed(2)
        seq = 100
        while not enough.wait(0.02):
            peer.publish(replace(samples.SNAPSHOT, seq=seq))
            seq += 1
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Recorder, "add", spy)
    publisher = threading.Thread(target=publish)
    publisher.start()
    ran = rapidctl("record", "-o", str(path), "--json")
    publisher.join()
    document = ran.document("record")
    found = FileTape(path)
    items = [record.item for record in found]
    found.close()
    snapshots = [item for item in items if isinstance(item, Snapshot)]
    assert (ran.code, document["snapshots"], document["file"]) == (0, len(snapshots), str(path))
    assert [item.seq for item in snapshots] == sorted({item.seq for item in snapshots})
    assert samples.EVENT in items, "and what had happened before"


def test_a_recording_of_nothing_is_a_timeout(peer: Peer, rapidctl: Rapidctl, tmp_path: Path) -> None:
    ran = rapidctl("record", "-o", str(tmp_path / "a.tape"), "--for", "20ms")
    assert (ran.code, ran.stdout) == (4, "")
    assert rapidctl("record", "-o", str(tmp_path / "a.tape")).code == 1, "it is there now, and not overwritten"


@pytest.fixture
def publishing(peer: Peer) -> Iterator[Peer]:
    """A daemon that publishes snapshots as fast as they are looked for."""
    done = threading.Event()

    def publish() -> None:
        peer.subscribed(2)
        seq = 100
        while not done.wait(0.01):
            peer.publish(replace(samples.SNAPSHOT, seq=seq))
            seq += 1

    publisher = threading.Thread(target=publish)
    publisher.start()
    yield peer
    done.set()
    publisher.join()


def recorded(path: Path) -> list[Snapshot | wire.Event | Exchange]:
    found = FileTape(path)
    items = [record.item for record in found]
    found.close()
    return items


def test_a_prompt_is_sent_meanwhile_and_its_text_is_kept_only_if_asked(
    publishing: Peer, rapidctl: Rapidctl, tmp_path: Path
) -> None:
    ran = rapidctl("record", "-o", str(tmp_path / "without.tape"), "why is it so", "--max-tokens", "9")
    assert ran.code == 0, "it ends with the answer"
    sent = publishing.hear(Generate)
    assert (sent.messages, sent.sampling.max_tokens) == ([wire.ChatMessage("user", "why is it so")], 9)
    items = recorded(tmp_path / "without.tape")
    assert any(isinstance(item, Snapshot) for item in items)
    assert not any(isinstance(item, Exchange) for item in items)


def test_with_text_the_prompt_and_the_answer_are_kept_as_they_came(
    publishing: Peer, rapidctl: Rapidctl, tmp_path: Path
) -> None:
    publishing.script[wire.Hello] = lambda hello: [replace(samples.WELCOME, has_chat_template=False)]
    path = tmp_path / "with.tape"
    assert rapidctl("record", "-o", str(path), "--with-text", "why is it so").code == 0
    [kept] = [item for item in recorded(path) if isinstance(item, Exchange)]
    assert (kept.request.prompt, kept.partition, kept.problem) == ("why is it so", samples.PARTITION, "")
    assert kept.finished is not None
    assert [delta.text for _, delta in kept.deltas] == [samples.DELTA.text]
    times = [kept.sent_s, *(at for at, _ in kept.deltas), kept.finished[0], kept.end_s]
    assert times == sorted(times)


def test_an_answer_that_the_recording_outruns_is_kept_as_far_as_it_came(
    publishing: Peer, rapidctl: Rapidctl, tmp_path: Path
) -> None:
    publishing.script[Generate] = lambda ask: [Accepted(id=ask.id, prompt_tokens=1, seed=1)]
    path = tmp_path / "cut.tape"
    assert rapidctl("record", "-o", str(path), "--with-text", "why", "--for", "300ms").code == 0
    [kept] = [item for item in recorded(path) if isinstance(item, Exchange)]
    assert (kept.finished, kept.problem) == (None, "the recording ended before the answer")
    assert kept.accepted is not None


def test_a_prompt_that_fails_is_recorded_and_told(publishing: Peer, rapidctl: Rapidctl, tmp_path: Path) -> None:
    publishing.script[Generate] = lambda ask: [Failed(code="queue_full", message="the queue is full", id=ask.id)]
    path = tmp_path / "failed.tape"
    ran = rapidctl("record", "-o", str(path), "--with-text", "why")
    assert (ran.code, "the queue is full" in ran.stderr) == (1, True)
    assert [item.problem for item in recorded(path) if isinstance(item, Exchange)] == ["the queue is full"]


def test_a_table_can_be_recorded_at_once(publishing: Peer, rapidctl: Rapidctl, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    document = rapidctl("record", "-o", str(path), "--csv", "--for", "300ms", "--json").document("record")
    header, *rows = list(csv.reader(io.StringIO(path.read_text())))
    assert (header, len(rows)) == (list(COLUMNS), document["snapshots"])
    assert path.stat().st_mode & 0o777 == 0o600
    assert rapidctl("record", "-o", str(path), "--csv").code == 1, "never overwritten"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--with-text"], "publishes no text of others'"),
        (["--with-text", "why", "--csv"], "a table holds no text"),
        (["--max-tokens", "3"], "there is none"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_anything_is_written(
    words: list[str], hint: str, rapidctl: Rapidctl, tmp_path: Path
) -> None:
    ran = rapidctl("record", "-o", str(tmp_path / "a.tape"), *words)
    assert (ran.code, hint in ran.stderr, (tmp_path / "a.tape").exists()) == (2, True, False)


def test_a_recording_can_be_printed(tape: Path, rapidctl: Rapidctl) -> None:
    lines = rapidctl("replay", str(tape), "--json").stdout.splitlines()
    assert len(lines) == 41
    for line in lines:
        msgspec.json.decode(line, type=document_type(f"replay {json.loads(line)['type']}"))
    assert json.loads(lines[21])["event"]["text"] == "ana: split 160"


def test_a_recorded_prompt_is_printed_too_and_is_no_row_of_the_table(tmp_path: Path, rapidctl: Rapidctl) -> None:
    path = tmp_path / "a.tape"
    exchange = Exchange(
        sent_s=1.0, request=Generate(id="r-1", prompt="why"), partition=samples.PARTITION, problem="", end_s=2.0,
        accepted=(1.1, Accepted(id="r-1", prompt_tokens=1, seed=1)), deltas=[(1.5, replace(samples.DELTA, id="r-1"))],
        finished=(2.0, replace(samples.FINISHED, id="r-1")), changes=[],
    )  # fmt: skip
    with Recorder(path) as recorder:
        recorder.add(Record(0.0, snapshot()))
        recorder.add(Record(2.0, exchange))
    last = rapidctl("replay", str(path), "--json").stdout.splitlines()[-1]
    found = msgspec.json.decode(last, type=document_type("replay exchange"))
    assert found.exchange == exchange  # type: ignore[attr-defined]
    assert len(rapidctl("export", str(path)).stdout.splitlines()) == 2


def test_replaying_in_the_console_needs_a_terminal(tape: Path, rapidctl: Rapidctl) -> None:
    assert rapidctl("replay", str(tape)).code == 2


def test_a_recording_becomes_a_table(tape: Path, rapidctl: Rapidctl, tmp_path: Path) -> None:
    ran = rapidctl("export", str(tape), "--csv")
    header, *rows = list(csv.reader(io.StringIO(ran.stdout)))
    assert (header, len(rows)) == (list(COLUMNS), 40)
    first = dict(zip(header, rows[0], strict=True))
    assert (first["mode"], first["decode_units"], first["itl_n"]) == ("split", "160", "21840")
    out = tmp_path / "out.csv"
    assert rapidctl("export", str(tape), "-o", str(out), "--json").document("export")["rows"] == 40
    assert out.read_text() == ran.stdout
    assert rapidctl("export", str(tape), "-o", str(out)).code == 2, "never overwritten"
    assert rapidctl("export", str(tape), "--json").code == 2


def test_what_is_unknown_is_empty_in_the_table(tmp_path: Path, rapidctl: Rapidctl) -> None:
    path = tmp_path / "a.tape"
    with Recorder(path) as recorder:
        bare = replace(snapshot(), partition=None, kv=None, device=None, latency=[], lanes=[])
        recorder.add(Record(0.0, bare))
    _, row = csv.reader(io.StringIO(rapidctl("export", str(path)).stdout))
    found = dict(zip(COLUMNS, row, strict=True))
    assert {name for name, value in found.items() if value == ""} == set(COLUMNS) - {
        "at", "at_mono_ns", "boot_id", "state", "waiting", "prefilling", "decoding",
    }  # fmt: skip


def test_what_is_no_recording_is_refused(tmp_path: Path, rapidctl: Rapidctl) -> None:
    (tmp_path / "a").write_text("no")
    for command in (["export", str(tmp_path / "a")], ["replay", str(tmp_path / "a"), "--json"]):
        ran = rapidctl(*command)
        assert (ran.code, ran.stdout) == (1, "")
        assert "cannot be read as a recording" in ran.stderr


# --- check ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "warning", "critical", "level"),
    [
        (None, None, None, "OK"),
        ("latency", None, None, "WARNING"),  # 14 % missed an objective
        ("latency", 0.2, None, "OK"),
        ("latency", None, 0.13, "CRITICAL"),
        ("units", 0.9, None, "WARNING"),
        ("queue", None, None, "OK"),
        ("queue", 1.0, 3.0, "CRITICAL"),
        ("kv", 0.5, 0.9, "WARNING"),
    ],
)
def test_verdicts(subject: str | None, warning: float | None, critical: float | None, level: Level) -> None:
    assert judge(snapshot(), subject, warning, critical).level == level


@pytest.mark.parametrize(
    ("state", "level"),
    [("starting", "WARNING"), ("draining", "WARNING"), ("drained", "WARNING"), ("engine_lost", "CRITICAL")],
)
def test_a_daemon_that_does_not_serve_is_no_ok(state: Any, level: Level) -> None:
    found = replace(snapshot(), state=state, detail="loading")
    assert judge(found, None, None, None).level == level
    if state != "draining":
        assert judge(found, "kv", None, None).level == level, "whatever was asked"


@pytest.mark.parametrize(("subject", "level"), [("latency", "OK"), ("units", "UNKNOWN"), ("kv", "UNKNOWN")])
def test_what_nobody_measured_is_not_judged(subject: str, level: Level) -> None:
    bare = replace(snapshot(), latency=[], lanes=[], kv=None)
    assert judge(bare, subject, None, None).level == level


def test_check_prints_one_line_and_its_code(peer: Peer, rapidctl: Rapidctl) -> None:
    ran = rapidctl("check", "queue", "-w", "1", "-c", "100")
    assert (ran.code, ran.stdout) == (
        CODES["WARNING"], "RAPID WARNING - 1 waiting, 1 prefilling, 3 decoding | waiting=1 decoding=3\n",
    )  # fmt: skip
    document = rapidctl("check", "queue", "--json").document("check")
    assert document["perfdata"] == {"waiting": 1, "decoding": 3}


def test_no_daemon_is_critical_and_a_strange_one_unknown(
    peer: Peer, rapidctl: Rapidctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.script[wire.Hello] = lambda hello: [Failed(code="protocol", message="speaks 2 to 3")]
    assert rapidctl("check").code == CODES["UNKNOWN"]
    monkeypatch.setattr("rapidctl.client.CONNECT_TIMEOUT_S", 0.01)
    ran = rapidctl("check", "--endpoint", f"ipc://{tmp_path}/nobody.sock")
    assert ran.code == CODES["CRITICAL"]
    assert ran.stdout.startswith("RAPID CRITICAL - ")


@pytest.mark.parametrize(
    "words",
    [
        ["check", "latncy"],
        ["check", "kv", "-w", "much"],
        ["--color", "never", "check", "--strange"],
        ["check", "-w", "0.5"],
        ["check", "kv", "-w", "nan"],
        ["check", "kv", "-w", "0.9", "-c", "0.5"],
    ],
)
def test_arguments_that_cannot_be_used_are_unknown_and_not_critical(words: list[str], rapidctl: Rapidctl) -> None:
    ran = rapidctl(*words)
    assert ran.code == CODES["UNKNOWN"]
    assert ran.stdout.startswith("RAPID UNKNOWN - ")


def test_what_cannot_be_parsed_is_no_document_either(rapidctl: Rapidctl) -> None:
    ran = rapidctl("check", "latncy", "--json")
    assert (ran.code, ran.stdout) == (CODES["UNKNOWN"], "")


def test_every_subject_has_limits_that_make_sense() -> None:
    assert all(0 < warning < critical for warning, critical in LIMITS.values())


# --- the fleet ------------------------------------------------------------------------------------------------------


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Peer]:
    """A second daemon, which is draining."""
    (tmp_path / "edge").mkdir()
    with Peer(tmp_path / "edge") as running:
        draining = replace(samples.SNAPSHOT, state="draining")
        running.script[wire.GetSnapshot] = lambda ask: [wire.SnapshotReply(call=ask.call, snapshot=draining)]
        yield running


def test_hosts_tell_of_every_daemon_by_itself(
    peer: Peer, edge: Peer, rapidctl: Rapidctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapidctl.client.CONNECT_TIMEOUT_S", 0.05)
    monkeypatch.delenv("RAPIDCTL_ENDPOINT")
    for name, endpoint in (("lab", peer.endpoint), ("edge", edge.endpoint), ("gone", f"ipc://{tmp_path}/gone.sock")):
        rapidctl("context", "add", name, endpoint)
    rapidctl("context", "use", "edge")
    ran = rapidctl("hosts", "--json")
    first, lab, gone = ran.document("hosts")["hosts"]
    assert ran.code == 1, "not all of them serve"
    assert (first["name"], first["state"]) == ("edge", "draining"), "the chosen one comes first"
    assert (lab["name"], lab["state"], lab["mode"], lab["decoding"], lab["problem"]) == (
        "lab",
        "serving",
        "split",
        3,
        "",
    )
    assert "no daemon answers" in gone["problem"]
    assert {value for key, value in gone.items() if key not in ("name", "endpoint", "problem")} == {None}
    table = rapidctl("hosts").stdout.splitlines()
    assert [line.split()[0] for line in table] == ["NAME", "edge", "lab", "gone"]


def test_one_host_by_its_address_and_none_at_all(
    peer: Peer, rapidctl: Rapidctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapidctl.client.CONNECT_TIMEOUT_S", 0.05)
    ran = rapidctl("hosts", "--endpoint", peer.endpoint, "--json")
    assert (ran.code, len(ran.document("hosts")["hosts"])) == (0, 1)
    assert rapidctl("hosts", "--endpoint", f"ipc://{tmp_path}/gone.sock").code == 3


# --- doctor, contexts, settings -----------------------------------------------------------------------------------


def levels(document: dict[str, Any]) -> dict[str, str]:
    return {found["name"]: found["level"] for found in document["findings"]}


def test_doctor_goes_all_the_way_to_the_feed(peer: Peer, rapidctl: Rapidctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rapidctl.commands.doctor.FEED_WAIT_S", 0.1)
    silent = rapidctl("doctor", "--json")
    assert silent.code == 1
    assert levels(silent.document("doctor"))["feed"] == "fail"
    done = threading.Event()

    def publish() -> None:
        while not done.wait(0.02):
            peer.publish(samples.SNAPSHOT)

    publisher = threading.Thread(target=publish)
    publisher.start()
    monkeypatch.setattr("rapidctl.commands.doctor.FEED_WAIT_S", 10.0)
    try:
        ran = rapidctl("doctor", "--json")
    finally:
        done.set()
        publisher.join()
    assert ran.code == 0
    found = levels(ran.document("doctor"))
    assert (found["daemon"], found["feed"], found["clocks"]) == ("ok", "ok", "warn")


def test_doctor_says_where_it_stops(rapidctl: Rapidctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rapidctl.client.CONNECT_TIMEOUT_S", 0.01)
    monkeypatch.setenv("RAPIDCTL_ENDPOINT", f"ipc://{tmp_path}/nobody.sock")
    ran = rapidctl("doctor")
    assert ran.code == 1
    assert "is not there" in ran.stdout
    settings.config_path().write_text("colour = 1")
    ran = rapidctl("doctor", "--json")
    assert levels(ran.document("doctor")) == {"client": "ok", "terminal": "ok", "settings": "fail"}


def test_contexts_are_added_listed_and_chosen(peer: Peer, rapidctl: Rapidctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAPIDCTL_ENDPOINT")
    assert rapidctl("context", "add", "lab", peer.endpoint, "--json").document("context add")["context"] == "lab"
    assert rapidctl("-c", "lab", "status").code == 0
    assert rapidctl("context", "use", "lab", "--json").document("context use")["context"] == "lab"
    assert rapidctl("status").code == 0
    (listed,) = rapidctl("context", "ls", "--json").document("context ls")["contexts"]
    assert listed == {"name": "lab", "endpoint": peer.endpoint, "chosen": True}
    assert "*  lab" in rapidctl("context", "ls").stdout
    ran = rapidctl("--context", "edge", "status")
    assert (ran.code, ran.stdout) == (2, "")


def test_the_settings_can_be_shown_with_their_origin(rapidctl: Rapidctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPIDCTL_THEME", "ansi")
    document = rapidctl("config", "show", "--json").document("config show")
    assert (document["settings"]["theme"], document["origin"]) == ("ansi", {"theme": "RAPIDCTL_THEME"})
    assert "RAPIDCTL_THEME" in rapidctl("config", "show", "--origin").stdout
    path = rapidctl("config", "path").stdout.strip()
    assert rapidctl("config", "init", "--json").document("config init")["path"] == path
    assert rapidctl("config", "init").code == 2


# --- what is shipped ------------------------------------------------------------------------------------------------


def test_schemas_are_json_schema_of_all_documents_or_of_one(rapidctl: Rapidctl) -> None:
    everything = json.loads(rapidctl("schema").stdout)
    assert everything["documents"].keys() == DOCUMENTS.keys()
    one = json.loads(rapidctl("schema", "partition", "show").stdout)
    assert list(one["documents"]) == ["partition show"]
    definition = one["$defs"]["PartitionShow"]
    assert definition["properties"].keys() == {"schema_version", *DOCUMENTS["partition show"]}
    assert rapidctl("schema", "nothing").code == 2


@pytest.mark.parametrize(
    ("shell", "name"), [("bash", "rapidctl.bash"), ("zsh", "rapidctl.bash"), ("fish", "rapidctl.fish")]
)
def test_the_completion_files_are_those_that_the_command_prints(shell: str, name: str, rapidctl: Rapidctl) -> None:
    """``UPDATE_PICTURES=1``, as `make docs` sets it, writes them anew."""
    printed = rapidctl("completion", shell).stdout
    stored = COMPLETIONS / name
    if os.environ.get("UPDATE_PICTURES"):
        stored.parent.mkdir(exist_ok=True)
        stored.write_text(printed)
    assert printed == stored.read_text()
