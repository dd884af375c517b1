"""The real front on real sockets, driven by hand: a scripted engine, raw clients, and a clock that tests move.

Nothing runs beside the test: `Rig.until` turns the front's loop until something has happened, so there is neither a
thread nor a sleep. The engine is a declared seam (transport): what it says is what the test sends.
"""

import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import zmq
from msgspec import Struct
from msgspec.structs import replace

from rapidctl import wire
from rapidd import ipc
from rapidd.config import Config, PolicyConfig, ServerConfig, TcpConfig
from rapidd.front.admission import TextModel
from rapidd.front.server import Server
from rapidd.model.chat import ChatTemplate
from rapidd.model.tokenizer import byte_tokenizer
from rapidd.paths import RuntimeDir
from support import samples
from support.process import WAIT_S

M = TypeVar("M", bound=Struct)
R = TypeVar("R")

VOCAB = 300
EOS = 299
START_NS = 1_000_000_000_000
"""When a rig's clock begins."""
CONTEXT = 64
TEXT = TextModel(
    byte_tokenizer(VOCAB),
    ChatTemplate("{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"),
    max_positions=2 * CONTEXT,
)
KV = replace(samples.KV, blocks_total=63, blocks_used=10)


def note(
    engine_pid: int | None, state: str = "ready", detail: str = "", *, draining: bool = False
) -> ipc.SupervisorNote:
    """What the supervisor says of the other processes."""
    return ipc.SupervisorNote(1, engine_pid, state, detail, None, 0, draining=draining)  # type: ignore[arg-type]


class Reader(Protocol):
    """Somebody whose socket is to be read while the front turns."""

    def read(self) -> None: ...


class FakeClock:
    """Monotonic and unix time at once; stands still until a test moves it."""

    def __init__(self) -> None:
        self.ns = START_NS

    def __call__(self) -> int:
        return self.ns

    def wall(self) -> float:
        return 1.7e9 + self.ns / 1e9

    def advance(self, seconds: float) -> None:
        self.ns += int(seconds * 1e9)


class Party(Generic[R]):
    """Whoever talks to the front: one socket, and everything it received in ``inbox``."""

    def __init__(self, rig: "Rig", decode: Callable[[bytes], R], kind: int = zmq.DEALER) -> None:
        self.rig = rig
        self.inbox: list[R] = []
        self.socket: zmq.Socket[bytes] = rig.context.socket(kind)
        self.socket.set(zmq.LINGER, 0)
        self._decode = decode

    def read(self) -> None:
        while True:
            try:
                frame = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.inbox.append(self._decode(frame))

    def next(self) -> R:
        self.rig.until(lambda: bool(self.inbox), self)
        return self.inbox.pop(0)

    def expect(self, kind: type[M]) -> M:
        """The next message of this kind; earlier ones of other kinds are skipped."""
        while not isinstance(message := self.next(), kind):
            pass
        return message


class Peer(Party[wire.Reply]):
    """A raw client."""

    def __init__(self, rig: "Rig", receive_hwm: int = 1000, kind: int = zmq.DEALER) -> None:
        super().__init__(rig, wire.decode_reply, kind)
        self.socket.set(zmq.RCVHWM, receive_hwm)
        self.connect()
        rig.peers.append(self)

    def connect(self) -> None:
        self.socket.connect(self.rig.runtime.endpoint)

    def send(self, message: Struct) -> None:
        self.raw(wire.encode(message))

    def raw(self, *frames: bytes) -> None:
        self.socket.send_multipart(frames)

    def fails(self) -> wire.Failed:
        """The next message, which must be a `Failed`."""
        message = self.next()
        assert isinstance(message, wire.Failed), message
        return message

    def ask(self, message: Struct, kind: type[M]) -> M:
        self.send(message)
        return self.expect(kind)

    def hello(self, control: bool = True) -> wire.Welcome:
        return self.ask(wire.Hello(client="test", control=control), wire.Welcome)

    def generate(self, stream_id: str = "r", **fields: Any) -> wire.Accepted:
        if not {"prompt", "messages", "prompt_ids"} & fields.keys():
            fields["prompt"] = "hello"
        return self.ask(wire.Generate(id=stream_id, **fields), wire.Accepted)

    def stream(self) -> tuple[str, list[int], wire.Finished]:
        """Everything up to `Finished`: the streamed text, the streamed ids, and the last message itself."""
        text, ids = "", list[int]()
        while True:
            message = self.next()
            if isinstance(message, wire.Deltas):
                for item in message.items:
                    assert item.index == len(ids)
                    text += item.text
                    ids += wire.unpack_ids(item.token_ids)
            elif isinstance(message, wire.Finished):
                return text, ids, message
            else:
                raise AssertionError(message)

    def vanish(self) -> None:
        self.socket.close()
        self.rig.peers.remove(self)


class ScriptedEngine(Party[ipc.FrontMessage]):
    """What the front takes for the engine; everything it was told in ``inbox``."""

    def __init__(self, rig: "Rig", boot_id: str = "boot-1", kv_blocks: int = 64) -> None:
        super().__init__(rig, ipc.decode_front)
        self.hello_message = ipc.EngineHello(
            build=ipc.BUILD,
            boot_id=boot_id,
            pid=4242,
            model=replace(samples.MODEL, vocab_size=VOCAB, max_model_len=CONTEXT),
            device=replace(samples.DEVICE, kind="cpu"),
            max_model_len=CONTEXT,
            kv_block_tokens=4,
            kv_blocks=kv_blocks,
            eos_token_ids=[EOS],
        )
        self.socket.set(zmq.ROUTING_ID, ipc.ENGINE_IDENTITY)
        self.socket.connect(rig.runtime.engine_endpoint)
        rig.engines.append(self)

    def send(self, message: Struct) -> None:
        self.socket.send(ipc.encode(message))

    def hello(self) -> ipc.FrontHello:
        self.send(self.hello_message)
        return self.expect(ipc.FrontHello)

    def submitted(self) -> ipc.Submit:
        return self.expect(ipc.Submit)

    def step(self, *tokens: ipc.Token, state: ipc.EngineState | None = None) -> None:
        self.send(ipc.Step(self.rig.clock(), "hybrid", list(tokens), state))

    def say(self, rid: int, text: str, finish: Literal["stop", "length"] | None = None) -> None:
        """One step for each byte of ``text``; ``finish`` goes with the last."""
        data = text.encode()
        for i, byte in enumerate(data):
            self.step(ipc.Token(rid, byte, finish if i == len(data) - 1 else None))

    def make_state(self, requests: Sequence[ipc.RequestState] = (), **fields: Any) -> ipc.EngineState:
        return ipc.EngineState(
            at_mono_ns=self.rig.clock(),
            partition=fields.get("partition", replace(samples.PARTITION, override=None)),
            lanes=list(samples.SNAPSHOT.lanes),
            kv=fields.get("kv", KV),
            preempted_total=0,
            mode_seconds={"hybrid": 1.0},
            requests=list(requests),
            memory_used_bytes=None,
            prefill_tokens_per_s=fields.get("prefill_tokens_per_s"),
            by_deadline=fields.get("by_deadline", False),
        )

    def state(self, requests: Sequence[ipc.RequestState] = (), **fields: Any) -> None:
        self.send(self.make_state(requests, **fields))

    def die(self) -> None:
        self.socket.close()
        self.rig.engines.remove(self)


class Rig:
    """The front under test and whoever talks to it."""

    def __init__(
        self,
        folder: Path,
        server: ServerConfig | None = None,
        send_hwm: int = 1000,
        policy: PolicyConfig | None = None,
        text: TextModel = TEXT,
        tcp: TcpConfig | None = None,
    ) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.clock = FakeClock()
        self.runtime = RuntimeDir(f"ipc://{folder}/request.sock")
        self.runtime.prepare()
        self.config = Config(server=server or ServerConfig(), policy=policy or PolicyConfig(), tcp=tcp or TcpConfig())
        self.text = text
        self.peers: list[Peer] = []
        self.engines: list[ScriptedEngine] = []
        ours, theirs = socket.socketpair()
        self.supervisor, self.channel = ipc.Channel(ours), ipc.Channel(theirs)
        self.server = self.start(send_hwm)

    def start(self, send_hwm: int = 1000) -> Server:
        self.server = Server(
            self.config,
            self.runtime,
            self.text,
            self.channel,
            clock=self.clock,
            wall=self.clock.wall,
            send_hwm=send_hwm,
        )
        return self.server

    @property
    def front(self) -> Any:
        return self.server.front

    def wishes(self) -> list[ipc.AskReload]:
        """What the supervisor was asked for."""
        lines = map(ipc.decode_child, self.supervisor.lines())
        return [line for line in lines if isinstance(line, ipc.AskReload)]

    def until(
        self,
        happened: Callable[[], bool],
        *readers: Reader,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Turn the front's loop until ``happened``, reading ``readers``; ``meanwhile`` runs before each turn."""
        give_up = time.monotonic() + WAIT_S
        while True:
            for reader in readers:
                reader.read()
            if happened():
                return
            assert time.monotonic() < give_up, "the front did not get there"
            meanwhile()
            self.server.turn(longest_ms=2)

    def until_unreachable(self, identities: list[bytes]) -> None:
        """Until ZeroMQ's thread has seen that these connections, which were closed, are gone."""
        nothing = wire.encode(wire.Deltas(items=[]))
        self.until(lambda: all(self.server.to_client(identity, nothing) == "gone" for identity in identities))

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.server.turn(longest_ms=0)

    def ready(self) -> tuple[Peer, ScriptedEngine]:
        """A greeted engine and a client that said hello."""
        engine = ScriptedEngine(self)
        engine.hello()
        peer = Peer(self)
        peer.hello()
        return peer, engine

    def serves(self, stream_id: str = "healthy") -> None:
        """A new client's request goes through: the front is well."""
        peer, engine = Peer(self), self.engines[-1]
        peer.hello()
        peer.generate(stream_id)
        engine.say(engine.submitted().rid, "ok", "length")
        text, _, finished = peer.stream()
        assert text == finished.choices[0].text == "ok"
        peer.vanish()

    def close(self) -> None:
        for peer in list(self.peers):
            peer.vanish()
        for engine in list(self.engines):
            engine.die()
        self.server.close()
        self.supervisor.close()
        self.channel.close()
        self.context.term()
