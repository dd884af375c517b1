"""Flags that every command takes: which daemon is meant, and how much is said on stderr."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rapidctl.commands import common
from rapidctl.wire import Hello
from support import samples
from support.command import Rapidctl
from support.peer import Peer


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, Peer]]:
    """The daemons of GPUs 2 and 10, where their units' sockets would be; and one of no GPU."""
    monkeypatch.setattr(common, "RUNTIME", tmp_path)
    monkeypatch.setattr("rapidctl.client.CONNECT_TIMEOUT_S", 0.05)
    for name in ("rapidd-2", "rapidd-10", "rapidd-lab"):
        (tmp_path / name).mkdir()
    with (
        Peer(tmp_path / "rapidd-2") as two,
        Peer(tmp_path / "rapidd-10") as ten,
        Peer(tmp_path / "rapidd-lab"),
    ):
        yield {2: two, 10: ten}


# --- which daemon -------------------------------------------------------------------------------------------------


def test_a_gpus_daemon_is_found_where_its_unit_listens(gpus: dict[int, Peer], rapidctl: Rapidctl) -> None:
    assert rapidctl("status", "--gpu", "10", "--json").documents[0]["state"] == samples.STATUS.state
    gpus[10].hear(Hello)
    assert gpus[2].heard.empty()
    assert rapidctl("status", "--gpu", "3").code == 3


def test_all_gpus_are_for_commands_that_show_several_daemons(gpus: dict[int, Peer], rapidctl: Rapidctl) -> None:
    document = rapidctl("hosts", "--gpu", "all", "--json").document("hosts")
    assert [host["name"] for host in document["hosts"]] == ["gpu-2", "gpu-10"]
    assert [host["name"] for host in rapidctl("hosts", "--gpu", "2", "--json").document("hosts")["hosts"]] == ["gpu-2"]
    ran = rapidctl("status", "--gpu", "all")
    assert (ran.code, "rapidctl hosts" in ran.stderr) == (2, True)


def test_all_gpus_of_a_machine_without_their_daemons(
    rapidctl: Rapidctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "RUNTIME", tmp_path)
    ran = rapidctl("hosts", "--gpu", "all")
    assert (ran.code, "rapidd@0" in ran.stderr) == (2, True)


def test_a_gpus_daemon_that_is_not_there_is_a_unit_to_start(
    rapidctl: Rapidctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint was `rapidd serve`, which does not listen where ``--gpu`` looks."""
    monkeypatch.setattr("rapidctl.client.CONNECT_TIMEOUT_S", 0.01)
    for ran in (rapidctl("status", "--gpu", "98765"), rapidctl("doctor", "--gpu", "98765")):
        said = ran.stdout + ran.stderr
        assert "systemctl start rapidd@98765" in said
        assert "rapidd serve" not in said


def test_bench_goes_by_the_same_flags(rapidctl: Rapidctl) -> None:
    ran = rapidctl("bench", "run", "-c", "nowhere", "--shape", "8/8@1", "--requests", "1")
    assert (ran.code, "there is no context 'nowhere'" in ran.stderr) == (2, True)


@pytest.mark.parametrize("words", [["--endpoint", "ipc:///a"], ["-c", "lab"]])
def test_a_daemon_is_named_once(words: list[str], rapidctl: Rapidctl) -> None:
    assert rapidctl("status", "--gpu", "0", *words).code == 2


@pytest.mark.parametrize("value", ["-1", "x", "", "1.5", "²"])
def test_what_is_no_gpu(value: str, rapidctl: Rapidctl) -> None:
    ran = rapidctl("status", f"--gpu={value}")
    assert (ran.code, "write 0, 1, … or all" in ran.stderr) == (2, True)


# --- how much is said ---------------------------------------------------------------------------------------------


def test_quiet_says_nothing_but_data_and_errors(peer: Peer, rapidctl: Rapidctl) -> None:
    assert "TTFT" in rapidctl("run", "Hi").stderr
    for words in (["run", "Hi", "-q"], ["-q", "run", "Hi"]):
        ran = rapidctl(*words)
        assert (ran.stdout, ran.stderr) == ("The\n", "")
    assert "write 25ms, 30s" in rapidctl("-q", "wait", "idle", "--timeout", "soon").stderr


def test_verbose_tells_who_answered_and_how_long_it_took(peer: Peer, rapidctl: Rapidctl) -> None:
    ran = rapidctl("status", "--json", "-v")
    assert len(ran.documents) == 1, "stdout holds data alone"
    who, took = ran.stderr.splitlines()
    assert who.startswith(f"rapidctl: {peer.endpoint}: rapidd {samples.WELCOME.version}, protocol 1, ")
    assert who.endswith("read-only")
    assert took.startswith("rapidctl: exit code 0 after ")
    assert "operator's rights" in rapidctl("drain", "-v").stderr


def test_quiet_and_verbose_exclude_each_other(rapidctl: Rapidctl) -> None:
    assert rapidctl("status", "-q", "-v").code == 2


# --- watching several daemons -------------------------------------------------------------------------------------


def test_hosts_are_asked_again_while_watched(gpus: dict[int, Peer], rapidctl: Rapidctl) -> None:
    ran = rapidctl("hosts", "--gpu", "all", "--json", "--watch", "10ms", "-n", "3")
    assert [[host["name"] for host in document["hosts"]] for document in ran.documents] == [["gpu-2", "gpu-10"]] * 3
    assert ran.code == 0
    assert rapidctl("hosts", "--gpu", "2", "--watch", "10ms", "-n", "2").stdout.count("NAME") == 2


def test_a_watched_host_that_goes_away_is_a_line_and_not_the_end(gpus: dict[int, Peer], rapidctl: Rapidctl) -> None:
    gpus[10].stop()
    ran = rapidctl("hosts", "--gpu", "all", "--json", "--watch", "10ms", "-n", "2")
    assert ran.code == 1
    assert all("no daemon answers" in document["hosts"][1]["problem"] for document in ran.documents)
