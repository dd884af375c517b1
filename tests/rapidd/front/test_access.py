"""Who may command, how much one of them may have, and what is written down of it."""

import grp
import json
import logging
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from msgspec.structs import replace

from rapidctl.wire import (
    Cancel,
    ControlReply,
    Drain,
    Failed,
    Finished,
    Generate,
    GetPartition,
    Hello,
    PartitionInfo,
    Sampling,
    UndoPartition,
    Welcome,
    encode,
)
from rapidd import faults, ipc, log
from rapidd.config import AccessConfig, LogConfig
from rapidd.errors import RequestError
from rapidd.front import access
from rapidd.front.access import Peer, Usage, check_request, may_control, peer_of
from rapidd.front.admission import LONG_CHARS
from rapidd.front.clients import FULL_NS
from support.front import Peer as Client
from support.front import Rig


def limit(rig: Rig, **bounds: object) -> None:
    rig.front.reload(replace(rig.config, access=AccessConfig(**bounds)))  # type: ignore[arg-type]


@pytest.mark.parametrize("address", [None, "", "127.0.0.1", "localhost:1:2", "localhost:-1:2:3", "localhost:a:b:c"])
def test_an_address_that_names_no_process_is_nobody(address: str | None) -> None:
    assert peer_of(address) is None
    assert not may_control(peer_of(address), None)


def test_root_the_daemons_own_user_and_the_operators_may_command() -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    user = pwd.getpwall()[1]
    groups = {grp.getgrgid(gid).gr_name for gid in os.getgrouplist(user.pw_name, user.pw_gid)}
    others = next(entry.gr_name for entry in grp.getgrall() if entry.gr_name not in groups)
    assert peer_of("localhost:0:0:7") == Peer(0, 0, 7)
    assert may_control(Peer(0, 0, 1), None)
    assert may_control(Peer(os.geteuid(), 5, 1), None)
    stranger = Peer(user.pw_uid, user.pw_gid, 1)
    assert not may_control(stranger, None)
    assert not may_control(stranger, others)
    assert may_control(stranger, next(iter(groups)))
    assert not may_control(Peer(4_000_000_000, 4_000_000_000, 1), group), "a user that this machine does not know"
    assert not may_control(stranger, "no such group")


def test_root_may_command_a_daemon_of_another_user_and_that_user_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)
    assert [may_control(Peer(uid, 5, 1), None) for uid in (0, 4_000_000_000, 4_000_000_001)] == [True, True, False]


def test_the_operators_group_may_be_a_peers_own_or_one_that_its_user_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    group, user = grp.getgrall()[0], next(user for user in pwd.getpwall() if user.pw_uid not in (0, os.geteuid()))
    assert may_control(Peer(4_000_000_000, group.gr_gid, 1), group.gr_name), "nobody knows its user"
    for groups, may in ([7, group.gr_gid], True), ([7], False):
        monkeypatch.setattr(os, "getgrouplist", lambda name, gid, groups=groups: groups)
        assert may_control(Peer(user.pw_uid, 4_000_000_000, 1), group.gr_name) == may


def test_more_clients_than_allowed_are_refused_and_those_inside_are_served(rig: Rig) -> None:
    limit(rig, max_clients=2)
    first, _ = rig.ready()
    second = Client(rig)
    second.hello()
    third = Client(rig)
    third.send(Hello(client="third"))
    refused = third.fails()
    assert (refused.code, refused.retry_after_s) == ("quota_exceeded", 1.0)
    first.ask(Hello(client="first again"), Welcome)
    limit(rig, max_clients=9)
    third.hello()
    rig.serves()


def test_clients_that_left_make_room_for_the_next_one(rig: Rig) -> None:
    """A closed connection was taken for a client for up to 30 s: whoever looked at the status a hundred times a second,
    with a connection each, met "1024 clients are connected" after ten seconds, and so did everybody else."""
    limit(rig, max_clients=3)
    first, _ = rig.ready()
    for _ in range(2):
        left = Client(rig)
        left.hello()
        left.vanish()
    rig.until_unreachable([client.identity for client in rig.front.clients][1:])
    rig.clock.advance(FULL_NS / 1e9)
    Client(rig).hello()
    first.ask(Hello(client="first again"), Welcome)
    full = [Client(rig), Client(rig)]
    full[0].hello()
    full[1].send(Hello(client="one too many"))
    assert full[1].fails().code == "quota_exceeded"
    limit(rig, max_clients=9)
    rig.serves()


def test_a_connection_has_so_many_requests_and_each_that_ends_makes_room(rig: Rig) -> None:
    limit(rig, max_requests_per_client=2)
    peer, engine = rig.ready()
    peer.generate("a")
    peer.generate("b")
    peer.send(Generate(id="c", prompt="hi"))
    assert peer.fails().code == "quota_exceeded"
    engine.say(engine.submitted().rid, "ok", "length")
    peer.expect(Finished)
    peer.generate("c")


def test_a_user_has_so_many_requests_over_all_connections(rig: Rig) -> None:
    limit(rig, max_requests_per_user=2)
    peer, _ = rig.ready()
    peer.generate("a")
    other = Client(rig)
    other.hello()
    other.generate("b")
    for client in (peer, other):
        client.send(Generate(id="c", prompt="hi"))
        refused = client.fails()
        assert isinstance(refused, Failed)
        assert (refused.code, refused.id) == ("quota_exceeded", "c")
        assert "max-requests-per-user" in refused.hint


def test_a_user_has_a_share_of_the_queue_and_choices_count(rig: Rig) -> None:
    rig.config = replace(rig.config, server=replace(rig.config.server, max_waiting_requests=8))
    limit(rig, max_queue_share=0.5)
    peer, _ = rig.ready()
    peer.generate("a", n=3, sampling=Sampling(seed=1))
    peer.send(Generate(id="b", prompt="hi", n=2))
    assert "max-queue-share" in peer.fails().hint
    peer.generate("c")


def test_every_choice_of_a_prompt_that_is_encoded_counts_for_its_users_share(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a request counted as one, whatever its ``n``: long prompts took more of the queue than a user's share."""
    rig.config = replace(rig.config, server=replace(rig.config.server, max_waiting_requests=8))
    limit(rig, max_queue_share=0.5)
    peer, _ = rig.ready()
    monkeypatch.setattr(rig.front.calls, "_encode", lambda request, capacity: None)  # it takes its time
    peer.send(Generate(id="a", prompt="x" * (LONG_CHARS + 1), n=3))
    peer.send(Generate(id="b", prompt="hi", n=2))
    refused = peer.fails()
    assert (refused.code, refused.id) == ("quota_exceeded", "b")
    assert "5 waiting requests" in refused.message


class NamedClient(Client):
    """Chooses the name of its connection."""

    def connect(self) -> None:
        self.socket.set(zmq.ROUTING_ID, b"console")
        super().connect()


def test_who_takes_over_the_name_of_another_users_connection_has_nothing_of_it(rig: Rig, lines: "LogLines") -> None:
    """Clients may choose that name, and any that is free. Who took an operator's before the front missed the operator
    had the rights, without a Hello, and the audit log named the operator; the streams went on to the stranger."""
    _, engine = rig.ready()
    client = NamedClient(rig)
    client.hello()
    client.generate("secret")
    engine.submitted()
    log.start(LogConfig(format="json"), "front")
    stranger = Peer(4_000_000_000, 4_000_000_000, 1)
    rig.front.client_frame(b"console", [encode(Drain(call=1))], stranger)
    assert client.fails().code == "hello_required"
    assert not rig.front.calls.draining
    assert not [line for line in lines.read() if line.get("event") == "audit"]
    assert not rig.front.serving.journal.streams
    rig.front.client_frame(b"console", [encode(Hello(control=True))], stranger)
    assert not client.expect(Welcome).control
    rig.serves()


@pytest.mark.parametrize("usage", [Usage(0, 0, 0), Usage(4095, 10_000, 10_000)])
def test_without_quotas_only_the_connections_own_bound_counts(usage: Usage) -> None:
    access.check_request(AccessConfig(), usage, 16, 1024)


# --- the log


class LogLines:
    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self.capfd = capfd

    def read(self) -> list[dict[str, object]]:
        """What was logged since the last call; lines from before the format was changed are plain text."""
        return [json.loads(line) for line in self.capfd.readouterr().err.splitlines() if line.startswith("{")]


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Iterator[LogLines]:
    yield LogLines(capfd)
    logging.getLogger("rapidd").handlers.clear()


def test_every_action_of_an_operator_is_written_down_with_who_the_kernel_says_they_are(
    rig: Rig, lines: LogLines
) -> None:
    peer, _ = rig.ready()
    log.start(LogConfig(format="json"), "front")
    assert peer.ask(Drain(call=1, by="somebody else"), ControlReply).text
    told = [line for line in lines.read() if line.get("event") == "audit"]
    assert len(told) == 1
    assert told[0]["message"] == "operator: Drain carried out or passed on"
    assert (told[0]["uid"], told[0]["gid"], told[0]["pid"]) == (os.getuid(), os.getgid(), os.getpid())
    assert (told[0]["by"], told[0]["asked"]) == ("somebody else", "{'on': True}")
    peer.hello(control=False)
    peer.send(Drain(call=2))
    assert peer.fails().code == "not_permitted"
    (refused,) = [line for line in lines.read() if line.get("event") == "audit"]
    assert refused["message"] == "operator: Drain refused: not_permitted"


def test_an_action_over_tcp_is_written_down_with_whose_key_it_was_and_one_of_nobody_with_nothing(
    lines: LogLines,
) -> None:
    log.start(LogConfig(format="json"), "front")
    for peer in (Peer(name="ana", operator=True), None):
        access.audit(peer, "x", UndoPartition(call=1), "carried out")
    told = [tuple(line.get(name) for name in ("client", "key", "uid", "by", "asked")) for line in lines.read()]
    assert told == [("x", "ana", None, None, "{}"), ("x", None, None, None, "{}")]


def test_a_probe_of_the_placement_is_written_down_and_looking_at_the_partition_is_not(
    rig: Rig, lines: LogLines
) -> None:
    peer, engine = rig.ready()
    log.start(LogConfig(format="json"), "front")
    engine.state()
    rig.until(lambda: rig.front.link.state is not None)
    peer.ask(GetPartition(call=1), PartitionInfo)
    peer.send(GetPartition(call=2, probe=True))
    engine.expect(ipc.ProbePlacement)
    (told,) = [line for line in lines.read() if line.get("event") == "audit"]
    assert told["message"] == "operator: GetPartition carried out or passed on"
    assert told["asked"] == "{'probe': True}"


def test_cancelling_the_request_of_others_is_written_down_whether_it_was_allowed_or_not(
    rig: Rig, lines: LogLines
) -> None:
    peer, _ = rig.ready()
    peer.generate("theirs")
    other = Client(rig)
    other.hello(control=False)
    log.start(LogConfig(format="json"), "front")
    other.send(Cancel(call=1, id="theirs"))
    assert other.fails().code == "not_permitted"
    other.hello()
    other.ask(Cancel(call=2, id="theirs"), ControlReply)
    told = [line for line in lines.read() if line.get("event") == "audit"]
    assert [line["message"] for line in told] == [
        "operator: Cancel refused: not_permitted",
        "operator: Cancel carried out",
    ]
    assert {(line["uid"], line["asked"]) for line in told} == {(os.getuid(), "{'id': 'theirs'}")}


def test_a_bug_is_a_line_with_its_traceback_and_the_request_that_met_it(
    rig: Rig, lines: LogLines, tmp_path: Path
) -> None:
    peer, _ = rig.ready()
    log.start(LogConfig(format="json"), "front")
    faults.arm("front.receive:raise@1", tmp_path, "front.")
    try:
        peer.send(Generate(id="unlucky", prompt="a secret"))
        assert peer.fails().code == "internal_error"
    finally:
        faults.arm("", tmp_path, "front.")
    (told,) = [line for line in lines.read() if line["level"] == "error"]
    assert told["request_id"] == "unlucky"
    assert "InjectedFault" in str(told["exception"])
    assert "secret" not in str(told)
    rig.serves()


def test_a_request_that_the_engine_failed_by_a_bug_is_named_at_error(rig: Rig, lines: LogLines) -> None:
    peer, engine = rig.ready()
    log.start(LogConfig(format="json"), "front")
    peer.generate("unlucky", prompt="a secret")
    engine.send(ipc.Dropped(engine.submitted().rid, "internal_error", "the forward pass failed: KeyError"))
    assert peer.fails().code == "internal_error"
    (told,) = [line for line in lines.read() if line["level"] == "error"]
    assert (told["request_id"], told["message"]) == ("unlucky", "request failed: the forward pass failed: KeyError")


def test_lines_about_a_request_are_at_debug_name_it_and_never_its_text(rig: Rig, lines: LogLines) -> None:
    peer, engine = rig.ready()
    log.start(LogConfig(format="json", level="info"), "front")
    peer.generate("quiet", prompt="a secret")
    engine.say(engine.submitted().rid, "an answer", "length")
    peer.expect(Finished)
    assert not [line for line in lines.read() if line.get("request_id")]
    log.start(LogConfig(format="json", level="debug"), "front")
    peer.generate("told", prompt="a secret")
    engine.say(engine.submitted().rid, "an answer", "length")
    peer.expect(Finished)
    told = [line for line in lines.read() if "request" in str(line["message"])]
    assert [line["message"] for line in told] == ["request accepted", "request finished"]
    assert {line["request_id"] for line in told} == {"told"}
    assert "secret" not in str(told)
    assert "answer" not in str(told)


def test_a_share_of_less_than_one_request_is_one() -> None:
    """A hundredth of a queue of ten let nobody's requests in, ever: one would have been more than 0.1."""
    config = AccessConfig(max_queue_share=0.01)
    check_request(config, Usage(0, 0, 0), 1, 10)
    with pytest.raises(RequestError, match="2 waiting requests of this user would be more than 1"):
        check_request(config, Usage(1, 1, 1), 1, 10)


def test_more_choices_than_a_users_share_are_refused_for_good() -> None:
    """Sixteen choices where ten may wait were told to try again in a second, for ever."""
    config = AccessConfig(max_queue_share=0.01)
    check_request(config, Usage(0, 0, 0), 10, 1024)
    with pytest.raises(RequestError, match="n 11 is more than the 10 requests of one user") as refused:
        check_request(config, Usage(0, 0, 0), 11, 1024)
    assert (refused.value.code, refused.value.retry_after_s) == ("invalid_request", None)
