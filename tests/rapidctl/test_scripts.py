"""Commands for scripts: check, hosts, doctor, contexts, schemas, completion files."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from rapidctl import cli, settings, wire
from rapidctl.commands.check import CODES, LIMITS, Level, judge
from rapidctl.commands.schema import DOCUMENTS
from rapidctl.wire import Failed
from support import samples
from support.command import Rapidctl
from support.net import free_ports
from support.peer import Peer
from support.snapshots import snapshot

COMPLETIONS = Path(cli.__file__).parent / "completions"


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


def test_check_prints_one_line_whatever_the_daemon_says(peer: Peer, rapidctl: Rapidctl) -> None:
    """What stands behind the first | is performance data, and lines below the first are read as more of it."""
    found = replace(samples.SNAPSHOT, state="engine_lost", detail="a | b\nc=9\x1b[2J")
    peer.script[wire.GetSnapshot] = lambda ask: [wire.SnapshotReply(call=ask.call, snapshot=found)]
    ran = rapidctl("check")
    assert ran.code == CODES["CRITICAL"]
    assert ran.stdout.startswith("RAPID CRITICAL - engine_lost: a / b c=9[2J | live=")
    assert ran.stdout.count("\n") == 1


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
    monkeypatch.setattr("rapidctl.client.CONNECT_TIMEOUT_S", 0.5)  # two of them have to be found
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
    ran = rapidctl("hosts", "--endpoint", peer.endpoint, "--json")
    assert (ran.code, len(ran.document("hosts")["hosts"])) == (0, 1)
    monkeypatch.setattr("rapidctl.client.CONNECT_TIMEOUT_S", 0.05)
    assert rapidctl("hosts", "--endpoint", f"ipc://{tmp_path}/gone.sock").code == 3


# --- doctor, contexts, settings -----------------------------------------------------------------------------------


def levels(document: dict[str, Any]) -> dict[str, str]:
    return {found["name"]: found["level"] for found in document["findings"]}


@contextmanager
def publishing(peer: Peer, frame: bytes = wire.SNAPSHOT_TOPIC + wire.encode(samples.SNAPSHOT)) -> Iterator[None]:
    """The peer's feed is alive meanwhile."""
    done = threading.Event()

    def publish() -> None:
        while not done.wait(0.02):
            peer.publish_raw(frame)

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        yield
    finally:
        done.set()
        publisher.join()


def test_doctor_goes_all_the_way_to_the_feed(peer: Peer, rapidctl: Rapidctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rapidctl.commands.doctor.FEED_WAIT_S", 0.1)
    silent = rapidctl("doctor", "--json")
    assert silent.code == 1
    assert levels(silent.document("doctor"))["feed"] == "fail"
    monkeypatch.setattr("rapidctl.commands.doctor.FEED_WAIT_S", 10.0)
    with publishing(peer):
        ran = rapidctl("doctor", "--json")
    assert ran.code == 0
    found = levels(ran.document("doctor"))
    assert (found["daemon"], found["feed"], found["clocks"]) == ("ok", "ok", "warn")
    with publishing(peer, wire.SNAPSHOT_TOPIC + b"\xc1"):
        ran = rapidctl("doctor", "--json")
    assert (ran.code, levels(ran.document("doctor"))["feed"]) == (1, "fail"), "what it cannot read is no bug of its own"


def test_doctor_looks_for_keys_and_for_no_file_of_a_daemon_on_tcp(
    rapidctl: Rapidctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took the address for the path of a socket, and failed although the daemon answered."""
    monkeypatch.setattr("rapidctl.commands.doctor.FEED_WAIT_S", 10.0)
    monkeypatch.setattr("rapidctl.keys.secure", lambda socket, endpoint: None)  # the peer has no key
    monkeypatch.setenv("RAPIDCTL_KEYS", str(tmp_path / "keys"))
    peer = Peer(tmp_path)
    peer.endpoint = f"tcp://127.0.0.1:{free_ports(2)}"
    with peer, publishing(peer):
        without = rapidctl("doctor", "--json", "--endpoint", peer.endpoint)
        rapidctl("keys", "make")
        ran = rapidctl("doctor", "--json", "--endpoint", peer.endpoint)
    assert (without.code, levels(without.document("doctor"))["keys"]) == (1, "fail")
    assert (ran.code, "socket" in levels(ran.document("doctor"))) == (0, False)
    (found,) = (found for found in ran.document("doctor")["findings"] if found["name"] == "keys")
    assert found == {"name": "keys", "level": "ok", "text": str(tmp_path / "keys/client.key"), "hint": ""}


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
    ("shell", "name"), [("bash", "rapidctl.bash"), ("zsh", "_rapidctl"), ("fish", "rapidctl.fish")]
)
def test_the_completion_files_are_those_that_the_command_prints(shell: str, name: str, rapidctl: Rapidctl) -> None:
    """``UPDATE_PICTURES=1``, as `make docs` sets it, writes them anew."""
    printed = rapidctl("completion", shell).stdout
    stored = COMPLETIONS / name
    if os.environ.get("UPDATE_PICTURES"):
        stored.parent.mkdir(exist_ok=True)
        stored.write_text(printed)
    assert printed == stored.read_text()
