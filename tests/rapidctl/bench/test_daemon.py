"""A daemon as a target, scripted at the transport seam: what each end of a stream becomes, and what is watched."""

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from rapidctl import wire
from rapidctl.bench.daemon import DaemonTarget, Observer, policy_kept, realised, wait_until_idle
from rapidctl.bench.records import Record
from rapidctl.bench.replay import replay
from rapidctl.bench.trace import Prompts, shape_trace
from rapidctl.client import Client
from rapidctl.errors import Refused, TimedOut
from rapidctl.wire import Accepted, Delta, Deltas, Failed, pack_ids
from support import samples
from support.peer import Peer

PROMPTS = Prompts(512)
TRACE = shape_trace("40/3@inf", count=2)


@pytest.fixture
def client(peer: Peer) -> Iterator[Client]:
    with Client(peer.endpoint, control=True, timeout_s=10, patience_s=0.05) as connected:
        yield connected


def records_of(client: Client, drain_s: float = 10.0) -> list[Record]:
    return replay(TRACE, DaemonTarget(client, PROMPTS), drain_s=drain_s).records


def three_tokens(ask: wire.Generate) -> list[wire.Reply]:
    """The first alone, the others in one message."""
    return [
        Accepted(id=ask.id, prompt_tokens=40, seed=1),
        Deltas(items=[Delta(id=ask.id, index=0, token_ids=pack_ids([5]), at_mono_ns=[1])]),
        Deltas(items=[Delta(id=ask.id, index=1, token_ids=pack_ids([6, 7]), at_mono_ns=[2, 3])]),
        replace(samples.FINISHED, id=ask.id, cached_tokens=16, preemptions=2),
    ]


def test_requests_are_greedy_of_the_recorded_lengths_and_every_token_is_stamped(peer: Peer, client: Client) -> None:
    peer.script[wire.Generate] = three_tokens
    records = records_of(client)
    asked = [peer.hear(wire.Generate) for _ in records]
    assert [ask.prompt_ids for ask in asked] == [PROMPTS(request) for request in TRACE.requests]
    assert {(a.sampling.max_tokens, a.sampling.ignore_eos, a.sampling.temperature) for a in asked} == {(3, True, 0.0)}
    assert [(r.outcome, len(r.stamps), len(r.delays)) for r in records] == [("finished", 3, 3)] * 2
    assert [(r.cached_tokens, r.preemptions) for r in records] == [(16, 2)] * 2


@pytest.mark.parametrize("accepted", [False, True])
def test_a_refusal_is_told_from_a_failure(peer: Peer, client: Client, accepted: bool) -> None:
    peer.script[wire.Generate] = lambda ask: [
        *([Accepted(id=ask.id, prompt_tokens=40, seed=1)] if accepted else []),
        Failed(code="queue_full", message="full", id=ask.id),
    ]
    outcome = "failed" if accepted else "refused"
    assert [(r.outcome, r.error, r.said) for r in records_of(client)] == [(outcome, "queue_full", "full")] * 2


def test_what_is_open_at_the_end_is_given_up_and_cancelled(peer: Peer, client: Client) -> None:
    peer.script[wire.Generate] = lambda ask: [Accepted(id=ask.id, prompt_tokens=40, seed=1)]
    records = records_of(client, drain_s=0.0)
    assert [(r.outcome, r.error) for r in records] == [("unfinished", "")] * 2
    client.poll(0)
    asked = {peer.hear(wire.Generate).id for _ in records}
    assert {peer.hear(wire.Cancel).id for _ in records} == asked
    assert not client.streams


def test_a_daemon_that_is_gone_costs_its_requests_and_not_the_run(peer: Peer, client: Client) -> None:
    peer.script[wire.Generate] = lambda ask: [Accepted(id=ask.id, prompt_tokens=40, seed=1)]
    target = DaemonTarget(client, PROMPTS)
    open_, late = (Record(request, 0.0, 0.0) for request in TRACE.requests)
    target.send(open_, target.prepare(open_.request))
    (stream,) = client.streams.values()
    while stream.accepted is None:
        target.poll(1.0)
    peer.stop()
    while target.open:
        target.poll(1.0)
    target.send(late, target.prepare(late.request))
    assert (open_.outcome, open_.error) == ("failed", "front_restarted")
    assert (late.outcome, late.error) == ("refused", "unreachable")
    peer.start()


# --- watching -----------------------------------------------------------------------------------------------------


def test_what_a_run_took_is_the_difference_of_two_snapshots() -> None:
    first = replace(samples.SNAPSHOT, mode_seconds={"hybrid": 10.0, "idle": 5.0})
    kv = replace(
        samples.KV,
        prefix_hit_tokens_total=samples.KV.prefix_hit_tokens_total + 25,
        prefix_query_tokens_total=samples.KV.prefix_query_tokens_total + 100,
    )
    counts = replace(first.requests, preempted_total=first.requests.preempted_total + 3)
    last = replace(first, mode_seconds={"hybrid": 16.0, "idle": 5.0, "split": 2.0}, kv=kv, requests=counts)
    found = realised(first, last, [])
    assert found.modes == {"hybrid": 0.75, "split": 0.25}
    assert (found.prefix_hit_share, found.preemptions, found.policy) == (0.25, 3, "auto")


@pytest.mark.parametrize("change", [{"boot_id": "another"}, {"front_boot_id": "another"}, None])
def test_totals_of_a_daemon_that_was_replaced_say_nothing(change: dict[str, str] | None) -> None:
    last = None if change is None else replace(samples.SNAPSHOT, **change)
    found = realised(samples.SNAPSHOT, last, [])
    assert (found.modes, found.preemptions, found.prefix_hit_share) == (None, None, None)


def test_published_snapshots_become_samples_and_the_warm_up_is_not_counted(peer: Peer, client: Client) -> None:
    """What the daemon knew at the end of a short run was older than the run, whose modes were then missing."""
    early = replace(samples.SNAPSHOT, mode_seconds={"hybrid": 1.0})
    warm = replace(samples.SNAPSHOT, seq=2, mode_seconds={"hybrid": 5.0})
    old = replace(samples.SNAPSHOT, seq=3, mode_seconds={"hybrid": 6.0})
    last = replace(samples.SNAPSHOT, seq=4, mode_seconds={"hybrid": 6.0, "split": 3.0})
    peer.script[wire.GetSnapshot] = lambda ask: [wire.SnapshotReply(call=ask.call, snapshot=early)]
    with Observer(client) as observer:
        peer.subscribed(2)
        peer.publish(warm)
        while not observer.samples:
            observer.observe()
        observer.begin()
        told = iter([old, old, last])
        peer.script[wire.GetSnapshot] = lambda ask: [wire.SnapshotReply(call=ask.call, snapshot=next(told))]
        found = observer.end(begin_s=0.0)
    assert found.modes == {"hybrid": 0.25, "split": 0.75}
    (sample,) = found.samples
    assert (sample.mode, sample.decode_units, sample.prefill_units) == ("split", 1, 1)


# --- steering -----------------------------------------------------------------------------------------------------


def test_a_busy_daemon_is_waited_for_and_then_named(peer: Peer, client: Client) -> None:
    busy = replace(samples.STATUS, state="serving", requests=replace(samples.STATUS.requests, decoding=1))
    peer.script[wire.GetStatus] = lambda ask: [replace(busy, call=ask.call)]
    with pytest.raises(TimedOut, match="not idle"):
        wait_until_idle(client, timeout_s=0.0)


def test_the_policy_is_put_back_whatever_happens(peer: Peer, client: Client) -> None:
    peer.script[wire.GetPartition] = lambda ask: [
        replace(samples.PARTITION, call=ask.call, policy="shared", override=None)
    ]
    with pytest.raises(KeyboardInterrupt), policy_kept(client):
        raise KeyboardInterrupt
    assert peer.hear(wire.SetPolicy).policy == "shared"


def test_under_an_override_no_policy_is_compared(client: Client) -> None:
    with pytest.raises(Refused, match="override"), policy_kept(client):
        raise AssertionError("not reached")
