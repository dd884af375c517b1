"""Keys for tcp: files that only their owner reads, and errors that say what to do without telling a secret."""

import json
from pathlib import Path

import pytest
import zmq
from zmq.auth.thread import ThreadAuthenticator

from rapidctl import cli, keys
from rapidctl.errors import UsageError


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAPIDCTL_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


def test_make_keeps_the_pair_for_its_owner_alone_and_prints_the_public_key_only(
    own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["keys", "make"]) == 0
    path = own_folder / keys.CLIENT_KEY
    pair = keys.read(path)
    said = capsys.readouterr()
    assert said.out.strip() == pair.public
    assert pair.secret not in said.out + said.err
    assert (path.stat().st_mode & 0o777, own_folder.stat().st_mode & 0o777) == (0o600, 0o700)
    assert cli.main(["keys", "make"]) == 2, "a key is never replaced"
    assert keys.read(path) == pair


def test_show_tells_the_public_key_and_the_daemons_that_are_trusted_and_no_secret(
    own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["keys"]) == 0
    assert "none, make one: rapidctl keys make" in capsys.readouterr().out
    assert cli.main(["keys", "make"]) == 0
    assert cli.main(["keys", "trust", "tcp://gpu1:7071", "5" * 64]) == 0
    capsys.readouterr()
    pair = keys.read(own_folder / keys.CLIENT_KEY)
    assert (cli.main(["keys", "show"]), cli.main(["keys", "--json"])) == (0, 0)
    text = capsys.readouterr().out
    assert json.loads(text.splitlines()[-1]) == {
        "schema_version": 1,
        "file": str(own_folder / keys.CLIENT_KEY),
        "public": pair.public,
        "servers": {"tcp://gpu1:7071": "5" * 64},
    }
    assert text.count(pair.public) == text.count("5" * 64) == text.count("tcp://gpu1:7071") == 2
    assert pair.secret not in text


def test_authorize_adds_and_changes_a_client(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, (alice, bob) = tmp_path / "authorized", (keys.make().public, keys.make().public)
    for words in ([alice, "alice"], [bob, "bob", "--operator"], [alice, "alice2", "--operator"]):
        assert cli.main(["keys", "authorize", *words, "--file", str(path), "--json"]) == 0
    assert keys.read_authorized(path) == {
        alice: keys.Authorized("alice2", True),
        bob: keys.Authorized("bob", True),
    }
    assert path.stat().st_mode & 0o777 == 0o600
    assert "may connect" in json.loads(capsys.readouterr().out.splitlines()[0])["text"]


def test_what_people_wrote_beside_the_keys_stays(tmp_path: Path, own_folder: Path) -> None:
    """Both files may have comments, and a key that is let in or trusted later swept them away."""
    alice, bob, carol = (keys.make().public for _ in range(3))
    path = tmp_path / "authorized"
    path.write_text(f"# the team\n{alice} alice # until May\n\n# left: {bob} bob\n{carol} carol\n{alice} again\n")
    keys.authorize(path, alice, "alice", operator=True)
    keys.authorize(path, bob, "bob", operator=False)
    told = f"# the team\n\n# left: {bob} bob\n{carol} carol\n{alice} alice operator\n{bob} bob\n"
    assert path.read_text() == told
    own_folder.mkdir()
    servers = own_folder / keys.SERVERS
    servers.write_text(f"# the lab\n{alice} tcp://gpu1:7071\n{bob} tcp://gpu2:7071\n")
    keys.trust(servers, "tcp://gpu1:7071", carol)
    assert servers.read_text() == f"# the lab\n{bob} tcp://gpu2:7071\n{carol} tcp://gpu1:7071\n"


@pytest.mark.parametrize("words", [["abc", "alice"], ["A" * 64, "alice"], ["0" * 64, "two words"], ["0" * 64, ""]])
def test_what_is_no_key_or_no_name_is_refused(words: list[str], tmp_path: Path) -> None:
    assert cli.main(["keys", "authorize", *words, "--file", str(tmp_path / "a")]) == 2
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("words", [["authorize", "0" * 64, "alice", "--file", f"/{'x' * 300}"], ["show"]])
def test_a_file_that_may_not_even_be_looked_at_is_no_bug(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who authorized a key without the right to open the daemon's folder was told to report a bug, with status 70. A
    name that is too long stands for it here, since nothing is forbidden to root."""
    monkeypatch.setenv("RAPIDCTL_KEYS", f"/{'x' * 300}")
    assert cli.main(["keys", *words]) == 2
    assert "File name too long" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["abc alice", "0" * 64, f"{'0' * 64} alice boss", f"{'0' * 64} alice operator x"])
def test_a_line_that_is_wrong_lets_nobody_in(line: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text(f"# the team\n{'1' * 64} bob\n{line}\n")
    with pytest.raises(UsageError, match=":3: a line is KEY NAME"):
        keys.read_authorized(tmp_path / "a")


@pytest.mark.parametrize("text", ["", "public 00\nsecret 00\n", "\0", f"public {'0' * 64}\nsecret {'g' * 64}\n"])
def test_a_file_without_a_pair_is_named_and_not_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "k").write_text(text)
    with pytest.raises(UsageError) as caught:
        keys.read(tmp_path / "k")
    assert str(tmp_path / "k") in caught.value.message
    assert "00" not in (caught.value.message + caught.value.hint).replace(str(tmp_path), "")


@pytest.mark.parametrize(
    "endpoint", ["tcp://", "tcp://host", "tcp://host:0", "tcp://host:65535", "tcp://:1", "tcp://h:x"]
)
def test_an_endpoint_without_host_and_port_is_refused(endpoint: str) -> None:
    assert cli.main(["status", "--endpoint", endpoint]) == 2


def test_a_server_is_trusted_before_it_is_asked(own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    endpoint = "tcp://localhost:7071"
    assert cli.main(["status", "--endpoint", endpoint]) == 2
    assert "rapidctl keys make" in capsys.readouterr().err
    assert cli.main(["keys", "make"]) == 0
    assert cli.main(["status", "--endpoint", endpoint]) == 2
    assert f"rapidctl keys trust {endpoint} KEY" in capsys.readouterr().err
    assert cli.main(["keys", "trust", endpoint, keys.make().public]) == 0
    assert cli.main(["status", "--endpoint", endpoint, "--timeout", "100ms"]) == 3
    assert "no daemon answers" in capsys.readouterr().err


@pytest.mark.parametrize("known", [False, True], ids=["another daemon's key", "not authorized"])
def test_keys_that_do_not_fit_are_told_as_what_it_may_be(
    known: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint was to start a daemon, and named no key."""
    monkeypatch.setattr("rapidctl.client.CONNECT_TIMEOUT_S", 0.3)
    pair = keys.make()
    context = zmq.Context[zmq.Socket[bytes]]()
    letting_in = ThreadAuthenticator(context)
    letting_in.start()
    letting_in.configure_curve(domain="*", location=tmp_path)  # nobody: no key is there
    with context.socket(zmq.ROUTER) as server:
        server.curve_server = True
        server.curve_secretkey = keys.encode(pair.secret)
        server.linger = 0
        endpoint = f"tcp://127.0.0.1:{server.bind_to_random_port('tcp://127.0.0.1')}"
        assert cli.main(["keys", "make"]) == 0
        assert cli.main(["keys", "trust", endpoint, pair.public if known else keys.make().public]) == 0
        capsys.readouterr()
        assert cli.main(["status", "--endpoint", endpoint]) == 3
    letting_in.stop()
    context.term()
    said = capsys.readouterr().err
    for words in ("or not with these keys", "rapidctl keys authorize KEY NAME", f"rapidctl keys trust {endpoint} KEY"):
        assert words in said
    assert "rapidd serve" not in said
