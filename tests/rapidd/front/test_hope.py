"""The order in which the front expects prompts to be computed, and what it makes of it."""

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bench.storm.machine import Machine
from rapidctl import wire
from rapidd.config import PolicyConfig
from rapidd.engine.messages import to_request
from rapidd.engine.observe import Limits
from rapidd.front.admission import Capacity, admit
from rapidd.front.hope import Order
from rapidd.front.journal import Journal
from support.front import EOS, TEXT, VOCAB, Rig

CAPACITY = Capacity(max_model_len=64, kv_tokens=1000, vocab_size=VOCAB, eos_token_ids=(EOS,), max_output_tokens=None)
SLO = wire.Slo(itl_s=0.1, ttft_floor_s=2.0, ttft_per_1k_s=500.0)
SECOND = 10**9
ASKED = st.tuples(
    st.integers(1, 20),
    st.integers(0, 200),
    st.sampled_from([0, 0, 0, 1, -1]),
    st.sampled_from(["interactive", "interactive", "batch"]),
)
"""Prompt tokens, arrival in seconds, priority and class."""


@given(st.lists(ASKED, min_size=2, max_size=8), st.booleans(), st.integers(0, 30))
def test_prompts_are_expected_in_the_order_in_which_the_engine_computes_them(
    asked: list[tuple[int, int, int, wire.SloClass]], by_deadline: bool, give_way_s: int
) -> None:
    machine, journal = Machine(400), Journal()
    limits = Limits(slo=SLO, max_chunk_s=1.0, max_chunk_tokens=64, give_way_s=give_way_s)
    now_ns = max(arrival_s for _, arrival_s, _, _ in asked) * SECOND
    order = Order(SLO, by_deadline, give_way_s, now_ns)
    ids: dict[int, str] = {}
    for number, (tokens, arrival_s, priority, slo_class) in enumerate(sorted(asked, key=lambda one: one[1])):
        request = wire.Generate(id=str(number), prompt="x", priority=priority, slo_class=slo_class)
        stream = admit(request, [1] * tokens, b"client", TEXT, CAPACITY, arrival_s * SECOND)
        journal.add(stream)
        submit = journal.submit(stream.choices[0])
        machine.scheduler.add(to_request(submit, limits))
        ids[submit.rid] = stream.id
    if by_deadline:
        machine.scheduler.give_way(now_ns, limits.give_way_ns)
    ordered = machine.scheduler.prompts if by_deadline else machine.scheduler.waiting
    assume(not by_deadline or all(request.gave_way for request in ordered if request.due_ns <= now_ns))
    streams = [journal.streams[ids[request.rid]] for request in ordered]
    assert streams == sorted(streams, key=order.turn_ns)


@pytest.mark.parametrize("by_deadline", [False, True])
def test_what_is_computed_later_takes_no_hope(tmp_path: Path, by_deadline: bool) -> None:
    """Everything in line counted, so behind a long prompt that has time a short one was refused which the engine would
    have computed first."""
    rig = Rig(tmp_path, policy=PolicyConfig(refuse_hopeless=True))
    try:
        peer, engine = rig.ready()
        rig.front.latency.slo = wire.Slo(itl_s=0.1, ttft_floor_s=2.0, ttft_per_1k_s=200.0)
        engine.state(prefill_tokens_per_s=10.0, by_deadline=by_deadline)
        rig.until(lambda: rig.front.link.state is not None)
        peer.generate("long", prompt="x" * 50)  # 5 s, due in 10
        peer.generate("batch", prompt="x" * 5, slo_class="batch")
        peer.send(wire.Generate(id="short", prompt="x" * 5))  # 0.5 s, due in 2
        if by_deadline:
            assert peer.expect(wire.Accepted).id == "short"
        else:
            failed = peer.fails()
            assert failed.code == "queue_full"
            assert failed.retry_after_s == pytest.approx(3.5)
            assert "50 prompt tokens come first" in failed.message
    finally:
        rig.close()


def test_twice_the_objective_is_not_hopeless_yet(tmp_path: Path) -> None:
    rig = Rig(tmp_path, policy=PolicyConfig(refuse_hopeless=True))
    try:
        peer, engine = rig.ready()
        rig.front.latency.slo = wire.Slo(itl_s=0.1, ttft_floor_s=2.0, ttft_per_1k_s=0.0)
        engine.state(prefill_tokens_per_s=10.0)
        rig.until(lambda: rig.front.link.state is not None)
        peer.generate("behind", prompt="x" * 30)
        peer.generate("in time", prompt="x" * 40, priority=1)
        peer.send(wire.Generate(id="late", prompt="x" * 41, priority=2))
        assert "0 prompt tokens come first" in peer.fails().message
    finally:
        rig.close()


def test_who_is_late_takes_no_hope_while_it_gives_way(tmp_path: Path) -> None:
    rig = Rig(tmp_path, policy=PolicyConfig(refuse_hopeless=True, give_way_s=6.0))
    try:
        peer, engine = rig.ready()
        rig.front.latency.slo = wire.Slo(itl_s=0.1, ttft_floor_s=2.0, ttft_per_1k_s=0.0)
        engine.state(prefill_tokens_per_s=10.0, by_deadline=True)
        rig.until(lambda: rig.front.link.state is not None)
        peer.generate("late", prompt="x" * 38)
        peer.send(wire.Generate(id="behind", prompt="x" * 5))
        assert peer.fails().code == "queue_full"
        rig.clock.advance(2.0)
        peer.generate("before", prompt="x" * 5)
        rig.clock.advance(4.0)  # the late one's turn is now 2 s away, as is that of who comes now
        peer.send(wire.Generate(id="behind again", prompt="x" * 5))
        assert peer.expect(wire.Failed).code == "queue_full"
    finally:
        rig.close()
