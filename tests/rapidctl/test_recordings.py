"""Recordings on the command line: record, and what reads them: replay and export."""

import csv
import io
import json
import math
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from rapidctl import wire
from rapidctl.commands.record import _Recording
from rapidctl.commands.schema import document_type
from rapidctl.export import COLUMNS
from rapidctl.tape import Exchange, FileTape, Record, Recorder
from rapidctl.wire import Accepted, Failed, Generate, Snapshot
from support import samples
from support.command import Rapidctl
from support.hostile import full_disk
from support.peer import Peer
from support.snapshots import event, snapshot


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


@pytest.fixture
def _a_snapshot_takes_100_ms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a recording passes with what it has: on a busy machine nothing may come within 300 ms."""
    monkeypatch.setattr(_Recording, "_now", lambda recording: recording._recorder.snapshots / 10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_published_is_recorded_until_it_is_interrupted(
    number: signal.Signals, publishing: Peer, rapidctl: Rapidctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM, as `timeout` sends it, lost the last seconds, and of a short recording all."""
    path = tmp_path / "a.tape"
    kinds: list[type] = []
    add = Recorder.add

    def spy(recorder: Recorder, record: Record) -> None:
        add(recorder, record)
        kinds.append(type(record.item))
        if recorder.snapshots >= 3 and wire.Event in kinds:
            monkeypatch.setattr(Recorder, "add", add)
            signal.raise_signal(number)

    monkeypatch.setattr(Recorder, "add", spy)
    ran = rapidctl("record", "-o", str(path), "--json")
    document = ran.document("record")
    items = recorded(path)
    snapshots = [item for item in items if isinstance(item, Snapshot)]
    assert (ran.code, document["snapshots"], document["file"]) == (0, len(snapshots), str(path))
    assert [item.seq for item in snapshots] == sorted({item.seq for item in snapshots})
    assert samples.EVENT in items, "and what had happened before"


def test_a_recording_of_nothing_is_a_timeout(peer: Peer, rapidctl: Rapidctl, tmp_path: Path) -> None:
    ran = rapidctl("record", "-o", str(tmp_path / "a.tape"), "--for", "20ms")
    assert (ran.code, ran.stdout) == (4, "")
    assert rapidctl("record", "-o", str(tmp_path / "a.tape")).code == 1, "it is there now, and not overwritten"


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
    publishing: Peer, rapidctl: Rapidctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publishing.script[Generate] = lambda ask: [Accepted(id=ask.id, prompt_tokens=1, seed=1)]
    path = tmp_path / "cut.tape"

    def now_s(recording: _Recording) -> float:
        return 0.0 if recording._stream is None or recording._stream.accepted is None else 1.0

    monkeypatch.setattr(_Recording, "_now", now_s)
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


@pytest.mark.usefixtures("_a_snapshot_takes_100_ms")
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


def test_a_table_for_a_full_disk_is_an_error_of_one_line(tape: Path) -> None:
    """It was a traceback: the table went past what speaks of stdout's errors."""
    command = [sys.executable, "-m", "rapidctl.cli", "export", str(tape)]
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (1, "rapidctl: cannot write the output: No space left on device\n")


@pytest.mark.usefixtures("_a_snapshot_takes_100_ms")
@pytest.mark.parametrize("more", [(), ("--csv",)], ids=["tape", "table"])
def test_a_recording_on_a_full_disk_is_an_error_of_one_line(
    more: tuple[str, ...], publishing: Peer, rapidctl: Rapidctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a table it was a traceback and a bug to report."""
    for module in ("tape", "export"):
        monkeypatch.setattr(f"rapidctl.{module}.new_file", full_disk)
    path = tmp_path / "a"
    ran = rapidctl("record", "-o", str(path), "--for", "300ms", *more)
    assert (ran.code, ran.stderr) == (1, f"rapidctl: {path} cannot be written: No space left on device\n")


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


@pytest.mark.parametrize("at_unix_s", [1e300, -1.0, math.nan, math.inf])
def test_a_moment_that_no_calendar_has_is_an_error_of_one_line(
    at_unix_s: float, tmp_path: Path, rapidctl: Rapidctl
) -> None:
    """The table of such a recording ended in a traceback, and so did a console that came to it."""
    path = tmp_path / "a.tape"
    with Recorder(path) as recorder:
        recorder.add(Record(0.0, replace(snapshot(), at_unix_s=at_unix_s)))
    for command in (["export", str(path)], ["replay", str(path), "--json"]):
        ran = rapidctl(*command)
        assert (ran.code, ran.stderr.count("\n"), "at_unix_s" in ran.stderr) == (1, 1, True)


def test_what_is_no_recording_is_refused(tmp_path: Path, rapidctl: Rapidctl) -> None:
    (tmp_path / "a").write_text("no")
    for command in (["export", str(tmp_path / "a")], ["replay", str(tmp_path / "a"), "--json"]):
        ran = rapidctl(*command)
        assert (ran.code, ran.stdout) == (1, "")
        assert "cannot be read as a recording" in ran.stderr
