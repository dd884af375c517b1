"""The make-believe daemon: always the same, always consistent, and it answers as a daemon does."""

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapidctl.demo.daemon import ADOPT_S, TICK_S, DemoDaemon
from rapidctl.demo.load import SPLITS, UNITS, quantiles
from rapidctl.demo.source import DemoSource
from rapidctl.errors import Refused
from rapidctl.source import Received, Streamed
from rapidctl.wire import (
    Cancel,
    ControlReply,
    Delta,
    Finished,
    Generate,
    GetRequests,
    Mode,
    PlanRequest,
    Prediction,
    PredictPartition,
    ReleasePartition,
    RequestList,
    Sampling,
    SetPartition,
    decode_snapshot,
    encode,
)


def running(ticks: int, *, seed: int = 1, live: int | None = None) -> DemoDaemon:
    daemon = DemoDaemon(1_800_000_000.0, seed=seed, live=live)
    for _ in range(ticks):
        daemon.tick()
    return daemon


def test_the_same_seed_gives_the_same_history() -> None:
    assert running(60).snapshot() == running(60).snapshot()
    assert running(60).snapshot() != running(60, seed=2).snapshot()


@given(seed=st.integers(0, 100), ticks=st.integers(1, 120))
@settings(max_examples=15, deadline=None)
def test_what_it_publishes_adds_up(seed: int, ticks: int) -> None:
    found = running(ticks, seed=seed).snapshot()
    counts, kv, partition = found.requests, found.kv, found.partition
    assert decode_snapshot(b"s" + encode(found)) == found
    assert counts.waiting + counts.prefilling + counts.decoding == found.rows_total
    assert counts.accepted_total == counts.finished_total + found.rows_total
    assert kv is not None
    assert kv.blocks_used + kv.blocks_cached <= kv.blocks_total
    assert partition is not None
    assert partition.plan.decode_units in (*SPLITS, UNITS)
    assert all(0 <= (lane.busy or 0) <= 1 for lane in found.lanes)


@given(seed=st.integers(0, 100))
@settings(max_examples=5, deadline=None)
def test_its_time_is_counted_as_a_real_daemon_counts_it(seed: int) -> None:
    """A mode only while both phases had work."""
    daemon, spent = running(0, seed=seed), dict[str, float]()
    for ticks in range(1, 121):
        mode = daemon.plan.mode
        daemon.tick()
        before, spent = spent, daemon.snapshot().mode_seconds
        (doing,) = (name for name, seconds in spent.items() if seconds != before.get(name, 0.0))
        phases = {job.phase for job in daemon.load.jobs}
        assert (doing in get_args(Mode)) == (doing == mode) == (len(phases) > 1 and "decoding" in phases)
        assert sum(spent.values()) == pytest.approx(ticks * TICK_S)


def test_the_first_token_comes_when_the_prompts_before_it_and_its_own_are_computed() -> None:
    """Not at the end of the tick that it fell into: that made most of them 0 or a quarter of a second."""
    daemon = running(400)
    firsts = {row.ttft_s for row in daemon.snapshot().rows if row.ttft_s is not None}
    assert len(firsts) > 20
    assert min(firsts) > 0


def test_it_can_hold_as_many_requests_as_asked_for() -> None:
    assert running(40, live=500).snapshot().rows_total >= 450


def test_an_override_is_accepted_then_applied_and_ends_with_its_time() -> None:
    daemon = running(10)
    reply = daemon.answer(
        SetPartition(call=1, plan=PlanRequest(mode="split", decode_units=160), ttl_s=5.0, by="ana", if_epoch=0)
    )
    assert isinstance(reply, ControlReply)
    assert daemon.plan.decode_units == 160
    assert not [event for event in daemon.events if event.kind == "applied"]
    for _ in range(int(ADOPT_S / TICK_S)):
        daemon.tick()
    [applied] = [event for event in daemon.events if event.kind == "applied"]
    assert applied.epoch == reply.epoch
    assert applied.placement is not None
    for _ in range(int(5.0 / TICK_S)):
        daemon.tick()
    assert [event.kind for event in daemon.events if event.kind in ("override", "ttl")] == ["override", "ttl"]
    snapshot = daemon.snapshot()
    assert snapshot.partition is not None
    assert snapshot.partition.override is None


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (SetPartition(call=0, plan=PlanRequest(mode="shared"), if_epoch=7), "epoch_conflict"),
        (SetPartition(call=0, plan=PlanRequest(mode="split", decode_units=7)), "invalid_request"),
        (ReleasePartition(call=0), "not_found"),
    ],
)
def test_refusals(request_: SetPartition | ReleasePartition, code: str) -> None:
    answer = running(1).answer(request_)
    assert isinstance(answer, Refused)
    assert answer.code == code


@pytest.mark.parametrize("mode", ["serial", "hybrid", "shared", "split"])
def test_dry_runs_change_nothing(mode: Mode) -> None:
    daemon = running(40)
    before = daemon.plan
    units = SPLITS[3] if mode == "split" else None
    found = daemon.answer(PredictPartition(call=0, plan=PlanRequest(mode=mode, decode_units=units)))
    assert isinstance(found, Prediction)
    assert found.legal
    assert daemon.plan == before


def test_requests_are_listed_and_cancelled() -> None:
    daemon = running(40)
    listed = daemon.answer(GetRequests(call=3))
    assert isinstance(listed, RequestList)
    assert len(listed.rows) == len(daemon.load.jobs) > 0
    assert isinstance(daemon.answer(Cancel(call=0, id=listed.rows[0].id)), ControlReply)
    assert listed.rows[0].id not in [job.id for job in daemon.load.jobs]


def test_a_prompt_streams_by_the_clock_and_can_be_stopped() -> None:
    now = [1000.0]
    source = DemoSource(lambda: now[0], lambda: 1_800_000_000.0)
    source.start()
    assert [update for update in source.poll() if isinstance(update, Received)]
    source.generate(Generate(id="r-1", prompt="why", sampling=Sampling(max_tokens=6)))
    source.generate(Generate(id="r-2", prompt="why", sampling=Sampling(max_tokens=200)))
    now[0] += 1.0
    streamed = [update for update in source.poll() if isinstance(update, Streamed)]
    first = [update.event for update in streamed if update.id == "r-1"]
    assert [type(event) for event in first[1:-1]] == [Delta] * 6
    last = first[-1]
    assert isinstance(last, Finished)
    assert last.choices[0].text == "".join(event.text for event in first if isinstance(event, Delta))
    source.abandon("r-2")
    ended = [update.event for update in source.poll() if isinstance(update, Streamed) and update.id == "r-2"][-1]
    assert isinstance(ended, Finished)
    assert ended.choices[0].finish_reason == "cancelled"


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 50)), min_size=1, max_size=100))
def test_quantiles_of_weighted_values_are_those_of_the_values_written_out(found: list[tuple[float, int]]) -> None:
    written = sorted(value for value, count in found for _ in range(count))
    answer = quantiles(found)
    assert answer.n == len(written)
    for share, value in ((0.5, answer.p50), (0.95, answer.p95), (0.99, answer.p99)):
        assert value is not None
        assert sum(one < value for one in written) < share * len(written) <= sum(one <= value for one in written)
    assert answer.max == written[-1]
