"""The open loop on a clock of the test's: requests leave when the trace says, whatever the server does."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapidctl.bench import session
from rapidctl.bench.metrics import has_missed
from rapidctl.bench.records import Record
from rapidctl.bench.replay import LOOK_S, NO_WARMUP, Replay, Warmup, replay
from rapidctl.bench.session import Rules, Session
from rapidctl.bench.trace import Trace
from rapidctl.wire import Slo
from support.load import FakeServer, request


def trace(*arrivals_s: float) -> Trace:
    return Trace("t", tuple(request(at_s, index=index) for index, at_s in enumerate(arrivals_s)))


def run(load: Trace, server: FakeServer, **options: object) -> Replay:
    return replay(load, server, clock=server.clock, cpu_clock=lambda: 0.0, **options)  # type: ignore[arg-type]


SLO = Slo(itl_s=1.0, ttft_floor_s=0.5, ttft_per_1k_s=0.1)


def search_of(warmup: Warmup = NO_WARMUP) -> Session:
    return Session(client=None, vocab_size=9, rules=Rules(slo=SLO, warmup=warmup), salt="")


@given(
    arrivals=st.lists(st.floats(0, 20), min_size=1, max_size=30).map(sorted),
    prefill_s=st.sampled_from([0.001, 0.3, 5.0]),
)
def test_every_request_leaves_on_time_however_slow_the_server(arrivals: list[float], prefill_s: float) -> None:
    result = run(trace(*arrivals), FakeServer(prefill_s), drain_s=1e4)
    assert [r.sent_s - result.begin_s for r in result.records] == pytest.approx(arrivals)
    assert [r.outcome for r in result.records] == ["finished"] * len(arrivals)
    assert result.generator.lateness_s.max == pytest.approx(0, abs=1e-6)
    assert (result.ending, result.problems()) == ("whole", [])


def test_latency_counts_from_sending() -> None:
    """One at a time, half a second each: the third of three at once waits for the other two."""
    result = run(trace(0.0, 0.0, 0.0), FakeServer(prefill_s=0.5, step_s=0.0))
    assert [r.ttft_s for r in result.records] == pytest.approx([0.5, 1.0, 1.5])


def test_a_late_generator_makes_a_run_invalid() -> None:
    server = FakeServer()
    server.slow_send_s = 0.05
    result = run(trace(*[0.001 * number for number in range(20)]), server)
    assert "the generator was late" in result.problems()[0]
    assert result.problems(max_lateness_s=10.0) == []


def test_the_drain_is_bounded() -> None:
    server = FakeServer(prefill_s=100.0)
    result = run(trace(0.0, 1.0), server, drain_s=5.0)
    assert [r.outcome for r in result.records] == ["unfinished"] * 2
    assert server.abandoned == 2
    assert result.end_s - result.begin_s == pytest.approx(6.0)


def test_the_run_ends_with_its_last_request() -> None:
    result = run(trace(0.0), FakeServer(prefill_s=0.1, step_s=0.0), drain_s=60.0)
    assert result.end_s - result.begin_s == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("warmup", "measured"),
    [
        (Warmup(), [0, 1, 2, 3]),
        (Warmup(seconds=1.0), [2, 3]),
        (Warmup(requests=1), [1, 2, 3]),
        (Warmup(seconds=0.5, requests=3), [3]),
    ],
)
def test_the_warm_up_is_sent_and_marked(warmup: Warmup, measured: list[int]) -> None:
    began: list[float] = []
    server = FakeServer()
    result = run(trace(0.0, 0.9, 1.0, 2.0), server, warmup=warmup, measuring=lambda: began.append(server.now_s))
    assert [r.request.index for r in result.records if r.measured] == measured
    assert [r.outcome for r in result.records] == ["finished"] * 4
    assert began == pytest.approx([next(r.sent_s for r in result.records if r.measured)])


def test_a_warm_up_that_takes_all_is_a_problem() -> None:
    assert "no request was measured" in run(trace(0.0), FakeServer(), warmup=Warmup(requests=9)).problems()[0]
    assert "no request was measured" in run(trace(), FakeServer()).problems()[0]


def test_a_stop_ends_it_at_once_with_what_there_is() -> None:
    server = FakeServer(prefill_s=0.1)
    result = run(trace(*range(10)), server, stop=lambda: server.now_s > 1003.0)
    assert result.ending == "stopped"
    assert 3 <= len(result.records) <= 4 + LOOK_S
    assert result.records[0].outcome == "finished"
    assert "stopped" in result.problems()[0]


def test_a_hopeless_run_is_given_up() -> None:
    server = FakeServer(limit=1, prefill_s=100.0)
    result = run(
        trace(*range(50)),
        server,
        hopeless=lambda records, now_s: sum(r.outcome == "refused" for r in records) > 5,
    )
    assert result.ending == "hopeless"
    assert len(result.records) <= 8
    assert {r.error for r in result.records[1:]} == {"queue_full"}


def test_a_search_looks_no_more_at_requests_that_are_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look was at all that had been sent: of some thousand requests it delayed what is due, and the stamps."""
    looked: Counter[int] = Counter()

    def look(record: Record, slo: Slo, now_s: float) -> bool:
        looked[record.request.index] += 1
        return has_missed(record, slo, now_s)

    monkeypatch.setattr(session, "has_missed", look)
    load = trace(*range(60))
    warmup = Warmup(requests=1)
    result = run(load, FakeServer(prefill_s=0.1), warmup=warmup, hopeless=search_of(warmup)._hopeless(load))
    assert result.ending == "whole"
    assert 0 not in looked
    assert len(looked) >= 58
    assert max(looked.values()) <= 1 + 1 / LOOK_S


@given(
    arrivals=st.lists(st.floats(0, 5), min_size=1, max_size=40).map(sorted),
    prefill_s=st.sampled_from([0.01, 0.2, 0.6, 9.0]),
    limit=st.none() | st.integers(1, 3),
)
def test_a_search_gives_up_as_soon_as_more_than_a_tenth_has_missed(
    arrivals: list[float], prefill_s: float, limit: int | None
) -> None:
    load = trace(*arrivals)
    hopeless = search_of()._hopeless(load)
    allowed = len(arrivals) // 10

    def look(records: Sequence[Record], now_s: float) -> bool:
        given_up = hopeless(records, now_s)
        assert given_up == (sum(has_missed(record, SLO, now_s) for record in records) > allowed)
        return given_up

    run(load, FakeServer(prefill_s, limit=limit), hopeless=look)


def test_the_observer_is_called_all_the_time() -> None:
    server = FakeServer(prefill_s=3.0)
    seen: list[float] = []
    run(trace(0.0, 10.0), server, observe=lambda: seen.append(server.now_s))
    assert max(after - before for before, after in pairwise(seen)) <= 2 * LOOK_S


def test_a_generator_that_is_busy_itself_makes_a_run_invalid() -> None:
    server = FakeServer()
    result = replay(trace(0.0, 1.0), server, clock=server.clock, cpu_clock=lambda: 0.95 * server.now_s)
    assert "95% of a core" in result.problems()[0]
