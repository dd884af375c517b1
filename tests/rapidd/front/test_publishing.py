"""Snapshots and events as subscribers and callers see them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from msgspec.structs import replace

from rapidctl import wire
from rapidd import ipc
from rapidd.front.admission import TextModel
from rapidd.model.chat import ChatTemplate
from rapidd.model.tokenizer import byte_tokenizer
from support import samples
from support.front import CONTEXT, KV, VOCAB, Peer, Rig, ScriptedEngine


class Subscriber:
    def __init__(self, rig: Rig) -> None:
        self.snapshots: list[wire.Snapshot] = []
        self.events: list[wire.Event] = []
        self.rig = rig
        self.socket: zmq.Socket[bytes] = rig.context.socket(zmq.SUB)
        self.socket.set(zmq.LINGER, 0)
        self.socket.subscribe(b"")
        self.socket.connect(rig.runtime.metrics_endpoint)
        rig.until(lambda: bool(self.snapshots), self, meanwhile=lambda: rig.pass_time(1))
        self.settle()
        self.snapshots.clear()

    def read(self) -> None:
        while self.socket.poll(0):
            frame = self.socket.recv()
            assert not self.socket.get(zmq.RCVMORE)
            if frame.startswith(wire.SNAPSHOT_TOPIC):
                self.snapshots.append(wire.decode_snapshot(frame))
            else:
                self.events.append(wire.decode_event(frame))

    def settle(self) -> None:
        """Everything that was published until now has arrived: this comes behind it."""
        last = replace(samples.EVENT, seq=10**6 + len(self.events))
        self.rig.server.publish(wire.EVENT_TOPIC + wire.encode(last))
        self.rig.until(lambda: last in self.events, self)


@pytest.fixture
def subscriber(rig: Rig) -> Iterator[Subscriber]:
    subscriber = Subscriber(rig)
    yield subscriber
    subscriber.socket.close()


def snapshot_of(peer: Peer) -> wire.Snapshot:
    return peer.ask(wire.GetSnapshot(call=1), wire.SnapshotReply).snapshot


def test_idle_snapshots_come_once_a_second_and_busy_ones_at_the_set_rate(rig: Rig, subscriber: Subscriber) -> None:
    peer, engine = rig.ready()
    rig.pass_time(1)
    subscriber.settle()
    subscriber.snapshots.clear()
    for _ in range(8):
        rig.pass_time(0.25)
    subscriber.settle()
    assert len(subscriber.snapshots) == 2
    peer.generate()
    engine.submitted()
    subscriber.settle()
    subscriber.snapshots.clear()
    for _ in range(8):
        rig.pass_time(0.25)
    subscriber.settle()
    assert len(subscriber.snapshots) == 8
    seqs = [snapshot.seq for snapshot in subscriber.snapshots]
    assert seqs == list(range(seqs[0], seqs[0] + 8))


def test_the_engine_hears_whether_anybody_wants_to_know_how_it_is(rig: Rig) -> None:
    peer, engine = rig.ready()

    def hears(watched: bool, seconds: float = 0) -> None:
        """The next ping says so; it comes at once, or after so many seconds at the latest."""
        engine.inbox.clear()
        rig.until(
            lambda: any(ping.watched is watched for ping in engine.inbox if isinstance(ping, ipc.Ping)),
            engine,
            meanwhile=lambda: rig.clock.advance(seconds),
        )

    hears(False, 1)
    rig.front.subscription(True, wire.SNAPSHOT_TOPIC, "ipc")
    hears(True)
    hears(True, 1)
    rig.front.subscription(False, wire.SNAPSHOT_TOPIC, "ipc")
    hears(False, 1)
    peer.send(wire.GetRequests(call=1))
    hears(True)
    hears(False, 1)


@pytest.mark.parametrize("template", [None, "{{ messages }}"])
def test_clients_learn_whether_messages_can_be_rendered(tmp_path: Path, template: str | None) -> None:
    rig = Rig(tmp_path, text=TextModel(byte_tokenizer(VOCAB), ChatTemplate(template), CONTEXT))
    peer, _ = rig.ready()
    model = snapshot_of(peer).model
    assert peer.hello().has_chat_template is bool(template)
    assert model is not None
    assert model.has_chat_template is bool(template)
    rig.close()


def test_nothing_is_published_while_nobody_subscribes_and_who_comes_is_served_at_once(rig: Rig) -> None:
    """Snapshots used to be made, at a cost, when nobody read them."""
    rig.ready()
    published = list[bytes]()
    rig.front.publisher._transport.publish = published.append
    for _ in range(4):
        rig.pass_time(1)
    assert published == []
    for _ in range(2):
        rig.front.subscription(True, wire.SNAPSHOT_TOPIC, "ipc")
        rig.front.tick()
        assert len(published) == 1
        rig.front.subscription(False, wire.SNAPSHOT_TOPIC, "ipc")
        rig.pass_time(2)
        assert len(published) == 1
        published.clear()
    rig.front.subscription(True, wire.EVENT_TOPIC, "ipc")
    rig.pass_time(2)
    assert published == []


def test_the_last_who_leaves_one_socket_ends_nothing_on_the_other(rig: Rig) -> None:
    for where in ("ipc", "tcp"):
        rig.front.subscription(True, wire.SNAPSHOT_TOPIC, where)
    rig.front.subscription(False, wire.SNAPSHOT_TOPIC, "tcp")
    assert rig.front.publisher.watched
    rig.front.subscription(False, wire.SNAPSHOT_TOPIC, "ipc")
    assert not rig.front.publisher.watched


@pytest.mark.parametrize("said", [[b"\x02"], [b"x"], [b""], [b"x", b"\x00"], [b"x", b"\x00", b"\x00"], [b"\x00"]])
def test_nothing_that_one_subscriber_says_ends_the_snapshots_of_another(
    rig: Rig, subscriber: Subscriber, said: list[bytes]
) -> None:
    """Whoever could reach the metrics socket ended everybody's, until somebody new came: a message that was neither the
    beginning nor the end of a subscription counted as the end of the last one."""
    rig.ready()
    with rig.context.socket(zmq.XSUB) as other:
        other.set(zmq.LINGER, 0)
        other.connect(rig.runtime.metrics_endpoint)
        other.send_multipart(said)
        other.send(b"\x01" + wire.EVENT_TOPIC)
        rig.until(lambda: any(topic == wire.EVENT_TOPIC for topic, _ in rig.front.publisher._topics))
        subscriber.snapshots.clear()
        rig.until(lambda: len(subscriber.snapshots) > 1, subscriber, meanwhile=lambda: rig.pass_time(1))


def test_a_snapshot_tells_requests_without_their_text(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate("secret", prompt="top secret", n=2)
    first, _ = engine.submitted(), engine.submitted()
    engine.state([ipc.RequestState(first.rid, "prefilling", 4, 8, 2, 1, rig.clock())])
    rig.until(lambda: rig.front.link.state is not None)
    rig.clock.advance(2)
    snapshot = snapshot_of(peer)
    assert b"top secret" not in wire.encode(snapshot)
    assert (snapshot.requests.waiting, snapshot.requests.prefilling, snapshot.requests.decoding) == (1, 1, 0)
    assert snapshot.requests.waiting_tokens == len("top secret")
    assert snapshot.rows_total == 2
    row = snapshot.rows[0]
    assert (row.id, row.phase, row.cached_tokens, row.computed_tokens, row.kv_blocks, row.preemptions) == (
        "secret", "prefilling", 4, 8, 2, 1,
    )  # fmt: skip
    assert row.age_s == pytest.approx(2)
    assert row.client.startswith("test/")


def test_rows_are_bounded_in_snapshots_and_complete_on_request(rig: Rig) -> None:
    peer, _ = rig.ready()
    for number in range(5):
        peer.generate(f"r{number}", n=16)
    snapshot = snapshot_of(peer)
    assert (len(snapshot.rows), snapshot.rows_total) == (64, 80)
    assert snapshot.rows[0].id == "r0"
    assert len(peer.ask(wire.GetRequests(call=2), wire.RequestList).rows) == 80
    assert len(peer.ask(wire.GetRequests(call=3, id="r4"), wire.RequestList).rows) == 16
    peer.send(wire.GetRequests(call=4, id="r9"))
    assert peer.fails().code == "not_found"


def test_latency_windows_count_what_finished(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate("good")
    rid = engine.submitted().rid
    rig.clock.advance(1)
    engine.say(rid, "ab", "length")
    peer.expect(wire.Finished)
    peer.generate("late")
    rid = engine.submitted().rid
    rig.clock.advance(3)  # TTFT SLO on a CPU: 2 s
    engine.say(rid, "ab", "length")
    peer.expect(wire.Finished)
    window = snapshot_of(peer).latency[0]
    assert window.window_s == 10
    assert window.ttft_s.n == 2
    assert window.ttft_s.max == pytest.approx(3)
    assert (window.ttft_met, window.itl_met, window.both_met) == (0.5, 1.0, 0.5)
    assert peer.ask(wire.GetStatus(call=1), wire.Status).slo_met is False
    assert snapshot_of(peer).streamed_tokens_total == 4


def test_kv_headroom_is_told_while_the_cache_fills(rig: Rig) -> None:
    peer, engine = rig.ready()
    for used in (10, 20):
        engine.state(kv=replace(KV, blocks_used=used))
        rig.until(lambda: rig.front.link.state is not None and rig.front.link.state.kv.blocks_used == used)  # noqa: B023
        rig.clock.advance(2)
    kv = snapshot_of(peer).kv
    assert kv is not None
    assert kv.headroom_s == pytest.approx((63 - 20) / 5)


def test_a_state_that_comes_with_a_step_is_taken(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate(n=2)
    first, second = engine.submitted(), engine.submitted()
    state = engine.make_state([ipc.RequestState(second.rid, "prefilling", 0, 4, 1, 0, rig.clock())])
    engine.step(ipc.Token(first.rid, 97), state=state)
    assert peer.expect(wire.Deltas).items[0].text == "a"
    rows = peer.ask(wire.GetRequests(call=1), wire.RequestList).rows
    assert [row.phase for row in rows] == ["decoding", "prefilling"]


def test_without_an_engine_its_figures_are_null(rig: Rig) -> None:
    peer, engine = rig.ready()
    engine.state()
    rig.until(lambda: rig.front.link.state is not None)
    engine.die()
    rig.until(lambda: not rig.front.link.connected, meanwhile=lambda: rig.pass_time(1))
    snapshot = snapshot_of(peer)
    assert (snapshot.boot_id, snapshot.kv, snapshot.partition, snapshot.lanes) == ("", None, None, [])
    assert snapshot.model is not None


def test_events_are_numbered_published_and_kept(rig: Rig, subscriber: Subscriber) -> None:
    peer, engine = rig.ready()
    peer.generate()
    rid = engine.submitted().rid
    engine.send(ipc.Notice("decision", "info", "split 1 because", "policy", 3, 41, None, None))
    engine.send(ipc.Notice("preempted", "warn", "to make room", "engine", 3, 41, rid, None))
    rig.until(lambda: any(event.kind == "preempted" for event in subscriber.events), subscriber)
    decision, preempted = subscriber.events[-2:]
    assert (decision.text, decision.epoch, decision.decision) == ("split 1 because", 3, 41)
    assert preempted.request_id == "r"
    assert preempted.seq == decision.seq + 1
    listed = peer.ask(wire.GetEvents(call=1, from_seq=decision.seq), wire.EventList)
    assert listed.events == [decision, preempted]
    assert snapshot_of(peer).decisions[-1].text == "split 1 because"


def test_the_ring_of_events_says_what_it_lost(rig: Rig) -> None:
    peer, engine = rig.ready()
    for number in range(1010):
        engine.send(ipc.Notice("warning", "info", str(number), "engine", 0, 0, None, None))
    rig.until(lambda: rig.front.events.next_seq >= 1010)
    listed = peer.ask(wire.GetEvents(call=1, from_seq=0, limit=5), wire.EventList)
    assert listed.oldest_seq == listed.next_seq - 1000
    assert [event.seq for event in listed.events] == list(range(listed.oldest_seq, listed.oldest_seq + 5))


def test_loading_progress_is_one_line_for_people(rig: Rig) -> None:
    peer = Peer(rig)
    peer.hello()
    rig.front.note(ipc.SupervisorNote(7, 8, "starting", "loading weights", 63.0, 0, {"exit": 1}, {"hang": 2}))
    status = peer.ask(wire.GetStatus(call=1), wire.Status)
    assert (status.state, status.detail) == ("starting", "loading weights 63 %")
    assert (status.supervisor.pid, status.engine.pid, status.engine.restarts, status.front.restarts) == (7, 8, 1, 2)
    engine = ScriptedEngine(rig)
    engine.hello()
    assert peer.ask(wire.GetStatus(call=2), wire.Status).engine.pid == engine.hello_message.pid


def test_the_uptime_is_the_daemons_and_the_fronts_own_is_beside_it(rig: Rig) -> None:
    """It was the front's, so a daemon of weeks was a minute old once its front had been replaced."""
    peer, _ = rig.ready()
    rig.front.note(ipc.SupervisorNote(7, 8, "ready", "", None, rig.clock() - 3600 * 10**9, front_causes={"exit": 1}))
    rig.clock.advance(2.0)
    status = peer.ask(wire.GetStatus(call=1), wire.Status)
    assert (status.uptime_s, status.front_uptime_s) == (3602.0, 2.0)
    assert status.front.restarts == 1


def test_without_a_supervisor_the_uptime_is_the_fronts(rig: Rig) -> None:
    peer, _ = rig.ready()
    rig.clock.advance(2.0)
    assert snapshot_of(peer).uptime_s == 2.0


def test_failures_refusals_and_outputs_are_counted_by_why(rig: Rig) -> None:
    peer, engine = rig.ready()
    for stream_id, finish in (("a", "stop"), ("b", "length")):
        peer.generate(stream_id)
        engine.say(engine.submitted().rid, "ok", finish)  # type: ignore[arg-type]
        peer.stream()
    peer.generate("c")
    engine.send(ipc.Dropped(engine.submitted().rid, "out_of_memory", "no memory"))
    assert peer.fails().code == "out_of_memory"
    peer.send(wire.Generate(id="d", prompt=""))
    assert peer.fails().code == "empty_prompt"
    gone = Peer(rig)
    gone.hello()
    gone.generate("e")
    engine.submitted()
    gone.vanish()
    rig.until(lambda: not rig.front.serving.journal.streams, meanwhile=lambda: rig.pass_time(0.5))
    counts = snapshot_of(peer).requests
    assert counts.outputs_by == {"stop": 1, "length": 1}
    assert counts.failed_by == {"out_of_memory": 1, "client_lost": 1}
    assert counts.refused_by == {"empty_prompt": 1}
    assert (counts.failed_total, counts.refused_total) == (2, 1)


def test_messages_that_are_none_are_counted_by_socket(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.socket.send(b"\xc1")
    assert peer.fails().code == "malformed"
    peer.socket.send_multipart([b"a", b"b"])
    assert peer.fails().code == "malformed"
    engine.socket.send(b"\xc1")
    rig.until(lambda: rig.front.serving.totals.unreadable["engine", "malformed"] == 1)
    assert snapshot_of(peer).unreadable == {"requests": {"malformed": 2}, "engine": {"malformed": 1}}


def test_how_long_the_loop_let_the_supervisor_wait_is_published_once_there_is_one(rig: Rig) -> None:
    peer, _ = rig.ready()
    assert snapshot_of(peer).loop_lag_s is None
    rig.front.note(ipc.SupervisorNote(7, 8, "ready", "", None, 0, engine_causes={"hang": 1}))
    rig.supervisor.send(ipc.Probe(rig.clock() - 40_000_000))
    rig.until(lambda: rig.front.publisher.loop_lag.counts().n == 1)
    snapshot = snapshot_of(peer)
    assert snapshot.loop_lag_s is not None
    assert snapshot.loop_lag_s.counts[wire.LATENCY_EDGES_S.index(0.04)] == 1
    assert snapshot.engine.causes == {"hang": 1}


def test_the_age_of_the_last_step_goes_by_the_batches_that_the_engine_reports(rig: Rig) -> None:
    peer, engine = rig.ready()
    assert snapshot_of(peer).last_step_age_s is None
    engine.state()
    rig.until(lambda: snapshot_of(peer).last_step_age_s == 0.0)
    rig.clock.advance(3.0)
    engine.state()  # as many batches as before
    rig.until(lambda: rig.front.link.state is not None and rig.front.link.state.at_mono_ns == rig.clock())
    assert snapshot_of(peer).last_step_age_s == 3.0


def test_a_front_that_has_not_met_a_ready_engine_yet_does_not_say_that_it_starts_a_model(rig: Rig) -> None:
    """A restarted front said "starting SmolLM2, 2 cores of cpu, float32" for a moment."""
    peer = Peer(rig)
    peer.hello()
    rig.front.note(ipc.SupervisorNote(7, 8, "ready", "SmolLM2, 2 cores of cpu", None, 0, front_causes={"exit": 1}))
    status = peer.ask(wire.GetStatus(call=1), wire.Status)
    assert (status.state, status.detail) == ("starting", "")
