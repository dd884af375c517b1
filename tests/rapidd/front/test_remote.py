"""Clients over tcp: only with a key that is authorized, and then as what the file says they are."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zmq

from rapidctl import keys, wire
from rapidctl.wire import ControlReply, Drain
from rapidd.config import TcpConfig
from rapidd.errors import ConfigError
from rapidd.front.remote import MARK
from rapidd.settings import check_keys
from support.front import Peer, Rig
from support.net import free_ports


class RemotePeer(Peer):
    """A raw client over tcp, with the server's key and perhaps its own."""

    def __init__(self, rig: Rig, config: TcpConfig, pair: keys.Pair | None, kind: int = zmq.DEALER) -> None:
        self.config, self.pair = config, pair
        super().__init__(rig, kind=kind)

    def connect(self) -> None:
        assert self.config.listen is not None
        keys.allow_ipv6(self.socket, self.config.listen)
        if self.pair is not None:
            self.socket.curve_serverkey = keys.encode(keys.read(Path(self.config.key)).public)
            self.socket.curve_publickey = keys.encode(self.pair.public)
            self.socket.curve_secretkey = keys.encode(self.pair.secret)
        is_client = self.socket.type == zmq.DEALER
        self.socket.connect(self.config.listen if is_client else wire.metrics_endpoint(self.config.listen))


@pytest.fixture
def address() -> str:
    """Where the server listens."""
    return "127.0.0.1"


@pytest.fixture
def config(tmp_path: Path, address: str) -> TcpConfig:
    """The server has a key; nobody is authorized yet."""
    config = TcpConfig(
        listen=f"tcp://{address}:{free_ports(2)}",
        key=str(tmp_path / "key"),
        authorized_keys=str(tmp_path / "authorized"),
    )
    keys.write(tmp_path / "key", keys.make())
    (tmp_path / "authorized").touch()
    return config


@pytest.fixture
def remote(tmp_path: Path, config: TcpConfig) -> Iterator[tuple[Rig, TcpConfig]]:
    """A front that listens on tcp too."""
    rig = Rig(tmp_path, tcp=config)
    yield rig, config
    rig.close()


def authorized(config: TcpConfig, name: str, *, operator: bool = False) -> keys.Pair:
    pair = keys.make()
    keys.authorize(Path(config.authorized_keys), pair.public, name, operator=operator)
    return pair


def test_a_key_that_is_authorized_meanwhile_is_let_in_and_its_stream_served(remote: tuple[Rig, TcpConfig]) -> None:
    rig, config = remote
    _, engine = rig.ready()
    peer = RemotePeer(rig, config, authorized(config, "alice"))
    assert not peer.hello().control, "it was not authorized to command"
    peer.generate("far")
    assert "test/key:alice" in {client.label for client in rig.front.clients}
    engine.say(engine.submitted().rid, "ok", "length")
    assert peer.stream()[0] == "ok"
    peer.send(Drain(call=1))
    assert peer.fails().code == "not_permitted"
    rig.serves("local")


def test_an_operators_key_may_command(remote: tuple[Rig, TcpConfig]) -> None:
    rig, config = remote
    rig.ready()
    peer = RemotePeer(rig, config, authorized(config, "bob", operator=True))
    assert peer.hello().control
    assert peer.ask(Drain(call=1), ControlReply).text == "drained"


def test_who_may_not_command_over_tcp_is_told_how_a_key_gets_the_right(remote: tuple[Rig, TcpConfig]) -> None:
    """They were told to be root or of a group, which over tcp nobody is."""
    rig, config = remote
    rig.ready()
    for name, is_operator in (("alice", False), ("bob", True)):
        peer = RemotePeer(rig, config, authorized(config, name, operator=is_operator))
        peer.hello(control=False)
        peer.send(Drain(call=1))
        hint = peer.fails().hint
        assert ("rapidctl keys authorize KEY alice --operator" in hint) == (not is_operator)
        assert ("Hello with control = true" in hint) == is_operator
        assert "root" not in hint


class Pretender(Peer):
    """A local client that calls itself as the front calls a remote one."""

    def connect(self) -> None:
        self.socket.set(zmq.ROUTING_ID, MARK + b"console")
        super().connect()


class NamedPeer(RemotePeer):
    """A remote client that chooses the name of its connection."""

    def connect(self) -> None:
        self.socket.set(zmq.ROUTING_ID, b"console")
        super().connect()


def test_no_local_client_can_pass_for_a_remote_one(remote: tuple[Rig, TcpConfig]) -> None:
    """ZeroMQ lets a client begin its name with a zero: with the front's mark before it a local one was the remote one
    of that name, and commanded with its key's rights."""
    rig, config = remote
    _, engine = rig.ready()
    bob = NamedPeer(rig, config, authorized(config, "bob", operator=True))
    bob.hello()
    bob.generate("far")
    engine.submitted()
    pretender = Pretender(rig)
    for message in (Drain(call=1), wire.Hello(client="bob", control=True), wire.Cancel(call=2, id="far")):
        pretender.send(message)
    rig.serves("local")
    assert bob.ask(wire.Ping(call=7), wire.Pong).call == 7
    assert bob.inbox == []
    assert not rig.front.calls.draining
    assert "far" in rig.front.serving.journal.streams


def knock(stranger: RemotePeer) -> None:
    with suppress(zmq.Again):  # turned away already
        stranger.socket.send(wire.encode(wire.Hello(client="stranger")), zmq.DONTWAIT)


def test_strangers_are_not_let_in_and_others_are_served_meanwhile(remote: tuple[Rig, TcpConfig]) -> None:
    """Without a key, with a key that nobody authorized, and after the file became unreadable.

    A stranger that is turned away before it speaks has nobody to speak to: the test waited for ever then.
    """
    rig, config = remote
    rig.ready()
    good = authorized(config, "alice")
    strangers = [RemotePeer(rig, config, None), RemotePeer(rig, config, keys.make())]
    for stranger in strangers:
        knock(stranger)
    RemotePeer(rig, config, good).hello()
    Path(config.authorized_keys).write_text("nonsense\n")
    late = RemotePeer(rig, config, good)
    knock(late)
    rig.serves("local")
    for stranger in (*strangers, late):
        stranger.read()
        assert stranger.inbox == []
    assert len(rig.front.clients) == 3  # ready's, alice's, and that of `serves` until it is reaped


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="needs IPv6")
@pytest.mark.parametrize("address", ["[::1]"])
def test_an_ipv6_address_is_listened_on(remote: tuple[Rig, TcpConfig], address: str) -> None:
    """It was a valid setting that the daemon then refused with "No such device"; clients never got through to one."""
    rig, config = remote
    rig.ready()
    assert RemotePeer(rig, config, authorized(config, "alice")).hello().front_boot_id == rig.front.boot_id


def test_snapshots_and_events_go_to_remote_subscribers_too(remote: tuple[Rig, TcpConfig]) -> None:
    rig, config = remote
    rig.ready()
    feed = RemotePeer(rig, config, authorized(config, "alice"), zmq.SUB)
    feed.socket.subscribe(wire.SNAPSHOT_TOPIC)
    rig.until(lambda: bool(feed.socket.poll(0)), meanwhile=lambda: rig.clock.advance(0.1))
    assert wire.decode_snapshot(feed.socket.recv()).front_boot_id == rig.front.boot_id
    rig.peers.remove(feed)
    feed.socket.close()


def _no_key(config: TcpConfig) -> TcpConfig:
    Path(config.key).unlink()
    return config


def _no_list(config: TcpConfig) -> TcpConfig:
    Path(config.authorized_keys).unlink()
    return config


@pytest.mark.parametrize("spoil", [_no_key, _no_list])
def test_tcp_without_keys_is_refused_before_anything_is_bound(
    spoil: Callable[[TcpConfig], TcpConfig], config: TcpConfig
) -> None:
    check_keys(config)
    spoil(config)
    with pytest.raises(ConfigError, match="tcp needs keys"):
        check_keys(config)


def test_a_credential_of_the_service_manager_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for name in ("curve.key", "authorized-keys"):
        (tmp_path / name).touch()
    check_keys(TcpConfig(listen="tcp://0.0.0.0:7071"))
    (tmp_path / "curve.key").unlink()
    with pytest.raises(ConfigError, match=r"curve\.key"):
        check_keys(TcpConfig(listen="tcp://0.0.0.0:7071"))
