"""Every fault point and action in every phase of a request, in one process: a real front and engine, turned by hand.

What ends or hangs a process is replaced as the supervisor would: by another one, without waiting for the limits that
find a hang. `tests/end_to_end/test_faults.py` tries the same with real processes.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from rapidctl import wire
from rapidctl.wire import Generate, Sampling, pack_ids, unpack_ids
from rapidd import faults, ipc
from rapidd.config import Config, EngineConfig, ModelConfig
from rapidd.engine.build import build
from rapidd.engine.loop import Engine
from rapidd.engine.request import Request
from rapidd.front.admission import TextModel
from rapidd.model.chat import ChatTemplate
from rapidd.model.resolve import load_model, load_tokenizer
from support.front import Peer, Rig
from support.tiny import MODEL

PROMPT = [3 + index * 7 % 500 for index in range(100)]
"""Four chunks of at most 32."""
TOKENS = 12
PHASES = ("waiting", "prefilling", "decoding", "finishing")
MATRIX = {
    "engine.step:raise": "internal_error",
    "engine.step:oom": "out_of_memory",
    "engine.step:exit": "finished",
    "engine.step:hang": "finished",
    "engine.loop:raise": "finished",
    "engine.loop:exit": "finished",
    "engine.loop:hang": "finished",
    "engine.submit:raise": "finished",
    "engine.submit:exit": "finished",
    "engine.submit:hang": "finished",
    "front.receive:raise": "finished",
    "front.receive:exit": "finished",
    "front.receive:hang": "finished",
    "front.send:stall": "slow_consumer",
    "front.send:exit": "finished",
    "front.send:hang": "finished",
    "loader:raise": "finished",
    "loader:oom": "finished",
}
"""Fault -> how the request ends that is in a phase when it happens."""
ALIKE = (
    *(f"{point}:hang" for point in ("engine.loop", "engine.submit", "front.receive", "front.send")),
    *("engine.submit:exit", "loader:oom"),
)
"""Tried by ``make test-faults`` only: in one process they take the same course as another that always is."""


class Gone(BaseException):
    """A process is no more, or hangs until it is killed."""


class Inside:
    """A daemon in this process: whoever dies is replaced at once."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAPIDD_STATE_DIR", str(folder))  # no profile of this machine leaks in
        monkeypatch.setattr(faults, "_happen", self._happen)
        text = TextModel(load_tokenizer(load_model(ModelConfig(path=str(MODEL)))), ChatTemplate(""), 512)
        self.rig = Rig(folder, text=text)
        self.happened: list[str] = []
        self._over = threading.Event()
        self._stuck = False
        self._gone: list[Engine] = []
        self._sockets: list[socket.socket] = []
        self.engine = self._build()
        self.peer = Peer(self.rig)
        self.ids: dict[str, list[int]] = {}
        """Output so far, by request."""
        self.ended: dict[str, str] = {}
        """How each ended: "finished", or the code."""
        self._open: dict[str, Generate] = {}
        self.greet()

    def _happen(self, action: faults.Action) -> None:
        self.happened.append(action)
        if action == "raise":
            raise faults.InjectedFault("on purpose")
        if action == "oom":
            raise MemoryError("on purpose")
        if threading.current_thread() is threading.main_thread():
            raise Gone(action)
        self._stuck = True  # a batch on a lane's thread: it never ends
        self._over.wait()

    def _build(self) -> Engine:
        ours, theirs = socket.socketpair()
        self._sockets.append(ours)
        engine_config = EngineConfig(
            device="cpu", kv_blocks=64, max_batch_requests=1, policy="hybrid:32", compute_units=1
        )
        config = Config(model=ModelConfig(path=str(MODEL), dtype="float32"), engine=engine_config)
        while True:
            try:
                engine = build(config, self.rig.runtime, ipc.Channel(theirs), lambda detail, percent: None)
                break
            except (faults.InjectedFault, MemoryError, Gone):
                continue
        engine._clock = self.rig.clock
        engine._link.send(engine._hello)
        return engine

    def greet(self) -> None:
        """Let the client say Hello to a front that knows an engine."""
        self.until(lambda: self.rig.front.link.connected)
        self.peer.send(wire.Hello(client="test", control=True))
        self.until(lambda: any(isinstance(message, wire.Welcome) for message in self.peer.inbox))

    def kill_engine(self) -> None:
        self.engine._link.close()
        self.engine._channel.close()
        self._stuck = False
        self._gone.append(self.engine)
        self.engine = self._build()

    def _replace_front(self) -> None:
        """The client asks the next one for the rest, as every client of ours does."""
        self.rig.server.close()
        self.rig.start()
        self.greet()
        for name, request in list(self._open.items()):
            self.send(request, resume=[pack_ids(self.ids[name])])

    def send(self, request: Generate, resume: list[bytes] | None = None) -> None:
        self._open[request.id] = request
        self.ids.setdefault(request.id, [])
        self.peer.send(replace(request, resume_ids=resume) if resume else request)

    def turn(self) -> None:
        """Everybody's loop, once."""
        try:
            self.rig.server.turn(longest_ms=1)
        except Gone:
            self._replace_front()
        if self._stuck:
            self.kill_engine()
        try:
            self.engine.turn()
        except (faults.InjectedFault, Gone):
            self.kill_engine()
        self.peer.read()
        self._take()

    def _take(self) -> None:
        for message in self.peer.inbox:
            match message:
                case wire.Deltas(items=items):
                    for delta in items:
                        have = self.ids[delta.id]
                        have += unpack_ids(delta.token_ids)[len(have) - delta.index :]
                case wire.Finished(id=name):
                    self._end(name, "finished")
                case wire.Failed(id=str(name), code=code) if name in self._open:
                    self._end(name, code)
        self.peer.inbox = [message for message in self.peer.inbox if isinstance(message, wire.Welcome)]

    def _end(self, name: str, how: str) -> None:
        assert name not in self.ended, "a request ends once"
        self.ended[name] = how
        del self._open[name]

    def until(self, happened: Callable[[], bool]) -> None:
        """Let time pass, 10 ms a turn; the client renews its lease, as ours do."""
        for turn in range(20_000):
            if happened():
                return
            if turn % 200 == 199:
                self.peer.send(wire.Ping())
            self.rig.clock.advance(0.01)
            self.turn()
        raise AssertionError(f"never came about; happened: {self.happened}, ended: {self.ended}")

    def in_phase(self, name: str, phase: str) -> bool:
        """Whether the engine has the request there now."""
        rids = [choice.rid for choice in self.rig.front.serving.journal.live() if choice.stream.id == name]
        request = self.engine._scheduler.get(rids[0]) if rids else None
        return request is not None and _phase(request) == phase

    def close(self) -> None:
        """Batches that hung run to their end first: one that went on later counted as a passed fault of other tests."""
        faults.armed.clear()
        self._over.set()
        for engine in (*self._gone, self.engine):
            for lane in engine._lanes.values():
                lane.wait()
        self.engine._link.close()
        self.engine._channel.close()
        for sock in self._sockets:
            sock.close()
        self.rig.close()


def _phase(request: Request) -> str | None:
    """Null between phases."""
    if not request.slot:
        return "waiting"
    if request.computed < len(PROMPT):
        return "prefilling" if request.computed else None
    if 2 <= request.num_output <= TOKENS // 2:
        return "decoding"
    # A turn may see two steps; and two batches fly: of these tokens at least two are not launched yet.
    return "finishing" if request.num_output in (TOKENS - 5, TOKENS - 4) else None


def ask(name: str, max_tokens: int = TOKENS) -> Generate:
    return Generate(id=name, prompt_ids=pack_ids(PROMPT), sampling=Sampling(max_tokens=max_tokens, ignore_eos=True))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        inside = Inside(tmp_path_factory.mktemp("f"), monkeypatch)
        yield inside
        inside.close()


@pytest.fixture(scope="module")
def undisturbed(shared: Inside) -> list[int]:
    """The request's output where nothing happens."""
    shared.send(ask("alone"))
    shared.until(lambda: "alone" in shared.ended)
    return shared.ids["alone"]


@pytest.fixture
def inside(shared: Inside, undisturbed: list[int]) -> Inside:
    """Idle, with nothing of the tests before."""
    assert not shared._open, "a test before this one left requests"
    for remembered in (shared.ids, shared.ended, shared.happened):
        remembered.clear()
    return shared


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=[pytest.mark.faults] if fault in ALIKE else []) for fault in MATRIX]
)
def test_a_request_meets_a_fault_in_a_phase(inside: Inside, undisturbed: list[int], fault: str, phase: str) -> None:
    """It ends once, as the table says; what it got is undisturbed; the next one is served, and nothing is kept."""
    if phase == "waiting":  # there is one row
        inside.send(ask("ahead", 40))
        inside.until(lambda: inside.in_phase("ahead", "decoding"))
    inside.send(ask("victim"))
    inside.until(lambda: inside.in_phase("victim", phase))
    faults.armed[:] = [faults.Fault(f"{fault}@1")]
    provoke(inside, fault)
    inside.until(lambda: bool(inside.happened) or fault == "front.send:stall")
    inside.until(lambda: "victim" in inside.ended)

    spared = phase == "waiting" and fault.startswith("engine.step:") and MATRIX[fault] != "finished"
    assert inside.ended["victim"] == ("finished" if spared else MATRIX[fault])
    have = inside.ids["victim"]
    assert have == undisturbed[: len(have)]
    assert inside.ended["victim"] != "finished" or have == undisturbed
    faults.armed.clear()
    if fault == "front.send:stall":
        inside.greet()
    inside.until(lambda: not inside._open)
    inside.send(ask("next"))
    inside.until(lambda: "next" in inside.ended)
    assert (inside.ended["next"], inside.ids["next"]) == ("finished", undisturbed)
    inside.until(lambda: inside.engine._scheduler.pool.num_used == 0 and not inside.rig.front.serving.journal.choices)


def provoke(inside: Inside, fault: str) -> None:
    """What makes the point be passed, where the victim's own course does not."""
    point = fault.partition(":")[0]
    if point == "engine.submit":
        inside.send(ask("another"))
    elif point == "front.receive":
        inside.peer.send(wire.Ping(call=7))
    elif point == "loader":
        inside.kill_engine()


def test_the_matrix_has_every_point_and_action() -> None:
    """But those that need a process to load in: real ones meet them in the end-to-end matrix."""
    every = {f"{point}:{action}" for point, actions in faults.POINTS.items() for action in actions}
    assert MATRIX.keys() == every - {"loader:truncate", "loader:exit", "loader:hang"}
