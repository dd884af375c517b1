"""A rapidd daemon as the target of a replay and as what is watched meanwhile, both over ZeroMQ."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from msgspec import Struct

from rapidctl.bench.records import Record
from rapidctl.bench.trace import Prompts, TraceRequest
from rapidctl.client import Client, Feed, Stream, new_id, operator_name
from rapidctl.errors import RapidctlError, Refused, TimedOut, Unreachable
from rapidctl.wire import (
    Accepted,
    Delta,
    Failed,
    Finished,
    Generate,
    GetPartition,
    GetSnapshot,
    GetStatus,
    Sampling,
    SetPolicy,
    Snapshot,
)

SETTLE_S: Final = 60.0
"""Longest wait for a daemon to become idle between two runs."""
TOLD_S: Final = 1.5
"""Longest wait for totals that are newer than a run."""
LOOK_S: Final = 0.1
"""Between two looks at a daemon that is not idle yet."""


class DaemonTarget:
    """Requests as streams of one client: greedy, to the recorded output length whatever the model says."""

    def __init__(self, client: Client, prompts: Prompts) -> None:
        self._client = client
        self._prompts = prompts
        self._streams: dict[str, tuple[Stream, Record]] = {}

    @property
    def open(self) -> int:  # noqa: D102 - as in Target
        return len(self._streams)

    def prepare(self, request: TraceRequest) -> Generate:  # noqa: D102
        sampling = Sampling(max_tokens=request.output_tokens, ignore_eos=True)
        return Generate(id=new_id(), prompt_ids=self._prompts(request), sampling=sampling)

    def send(self, record: Record, message: Generate) -> None:  # noqa: D102
        try:
            if not self._client.connected:  # `submit` would wait for it, and the next request would be late
                raise Unreachable("the connection is lost")
            self._streams[message.id] = (self._client.submit(message), record)
        except Unreachable:
            record.end("refused", time.monotonic(), "unreachable")

    def poll(self, timeout_s: float) -> None:  # noqa: D102
        self._client.poll(timeout_s)
        now_ns = time.monotonic_ns()
        ended = [
            id_ for id_, (stream, record) in self._streams.items() if stream.events and _take(stream, record, now_ns)
        ]
        for id_ in ended:
            del self._streams[id_]

    def abandon(self) -> None:  # noqa: D102
        for id_, (_, record) in self._streams.items():
            self._client.abandon(id_)
            record.end("unfinished", time.monotonic())
        self._streams.clear()


def _take(stream: Stream, record: Record, now_ns: int) -> bool:
    """Read a stream's events; true when it has ended. The engine's stamps are of the same machine's monotonic clock."""
    now_s = now_ns / 1e9
    while stream.events:
        match stream.events.popleft():
            case Delta() as delta:
                record.stamps.extend([now_s] * (len(delta.token_ids) // 4))
                record.delays.extend([(now_ns - at_ns) / 1e9 for at_ns in delta.at_mono_ns])
            case Finished() as finished:
                record.cached_tokens, record.preemptions = finished.cached_tokens, finished.preemptions
                record.end("finished", now_s)
            case Failed() as failed:
                record.end("failed" if stream.accepted else "refused", now_s, failed.code, failed.message)
            case Accepted():
                pass
    return stream.ended is not None


# --- watching -----------------------------------------------------------------------------------------------------


class Sample(Struct, frozen=True, array_like=True):
    """One snapshot, as far as a picture of a run needs it. Busy shares are of the lane's own units, over a second."""

    at_s: float
    mode: str | None
    decode_units: int | None
    prefill_units: int | None
    decode_busy: float | None
    prefill_busy: float | None
    waiting: int
    prefilling: int
    decoding: int


class Realised(Struct, frozen=True, kw_only=True):
    """What the daemon did between two snapshots. Null where its engine was replaced in between."""

    policy: str | None
    modes: dict[str, float] | None
    """Share of the time by realised mode, ``transition`` and ``idle`` included."""
    decode_units: float | None
    """Mean of the decode lane's units over the snapshots in which anything ran."""
    preemptions: int | None
    prefix_hit_share: float | None
    """Of the prompt tokens asked for, whoever asked."""
    samples: list[Sample]


class Observer:
    """Watches one daemon during a run by its published snapshots. Use as a context manager."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._feed = Feed(client.endpoint)
        self._first = client.call(GetSnapshot(call=0)).snapshot
        self._seen: Snapshot | None = None
        self.samples: list[Sample] = []
        """Of every snapshot seen, on the monotonic clock."""

    def __enter__(self) -> "Observer":
        return self

    def __exit__(self, *error: object) -> None:
        self._feed.close()

    def begin(self) -> None:
        """The warm-up is over: totals count from the next snapshot on. Those before it stay in the picture."""
        self._first = self._seen or self._first

    def observe(self) -> None:
        """Take in the newest snapshot, if there is one."""
        now_s = time.monotonic()
        self._feed.poll(0)
        self._feed.take_events()
        if self._feed.snapshot is not None and self._feed.snapshot is not self._seen:
            self._seen = self._feed.snapshot
            self.samples.append(_sample(self._seen, now_s))

    def end(self, begin_s: float) -> Realised:
        """What was seen; sample times are counted from ``begin_s``. A daemon that is gone counts as replaced."""
        try:
            last = self._latest()
        except RapidctlError:
            last = None
        return realised(self._first, last, [_moved(sample, begin_s) for sample in self.samples])

    def _latest(self) -> Snapshot:
        """One whose totals hold all that happened until now: the engine tells them now and then."""
        last = known = self._client.call(GetSnapshot(call=0)).snapshot
        until_s = time.monotonic() + TOLD_S
        while last.mode_seconds == known.mode_seconds and time.monotonic() < until_s:
            time.sleep(TOLD_S / 30)
            last = self._client.call(GetSnapshot(call=0)).snapshot
        return last


def _sample(snapshot: Snapshot, at_s: float) -> Sample:
    plan = snapshot.partition.plan if snapshot.partition else None
    lanes = {lane.lane: lane.busy for lane in snapshot.lanes}
    counts = snapshot.requests
    return Sample(
        at_s,
        plan.mode if plan else None,
        plan.decode_units if plan else None,
        plan.prefill_units if plan else None,
        lanes.get("decode"),
        lanes.get("prefill"),
        counts.waiting,
        counts.prefilling,
        counts.decoding,
    )


def _moved(sample: Sample, begin_s: float) -> Sample:
    return Sample(round(sample.at_s - begin_s, 3), *[getattr(sample, name) for name in sample.__struct_fields__[1:]])


def realised(first: Snapshot, last: Snapshot | None, samples: list[Sample]) -> Realised:
    """Totals of ``last`` less those of ``first``."""
    busy = [sample.decode_units for sample in samples if sample.decode_units and sample.prefilling + sample.decoding]
    policy = first.partition.policy if first.partition else None
    units = sum(busy) / len(busy) if busy else None
    if last is None or last.boot_id != first.boot_id or last.front_boot_id != first.front_boot_id:
        return Realised(
            policy=policy, modes=None, decode_units=units, preemptions=None, prefix_hit_share=None, samples=samples
        )
    spent = {mode: seconds - first.mode_seconds.get(mode, 0.0) for mode, seconds in last.mode_seconds.items()}
    total = sum(spent.values())
    hits = asked = 0
    if first.kv is not None and last.kv is not None:
        hits = last.kv.prefix_hit_tokens_total - first.kv.prefix_hit_tokens_total
        asked = last.kv.prefix_query_tokens_total - first.kv.prefix_query_tokens_total
    return Realised(
        policy=policy,
        modes={mode: seconds / total for mode, seconds in spent.items() if seconds > 0} if total > 0 else {},
        decode_units=units,
        preemptions=last.requests.preempted_total - first.requests.preempted_total,
        prefix_hit_share=hits / asked if asked else None,
        samples=samples,
    )


# --- steering -----------------------------------------------------------------------------------------------------


def wait_until_idle(client: Client, timeout_s: float = SETTLE_S) -> None:
    """Wait until the daemon serves and has no request. Raises `TimedOut`."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        status = client.call(GetStatus(call=0))
        counts = status.requests
        live = counts.waiting + counts.prefilling + counts.decoding
        if status.state == "serving" and not live:
            return
        if time.monotonic() >= deadline_s:
            raise TimedOut(
                f"the daemon is not idle after {timeout_s:g} s: {status.state}, {live} requests",
                "a benchmark needs it alone: end what else uses it",
            )
        client.poll(LOOK_S)


def set_policy(client: Client, policy: str) -> None:
    """Change the policy. Raises as `Client.call` does."""
    client.call(SetPolicy(call=0, policy=policy, by=operator_name()))


@contextmanager
def policy_kept(client: Client) -> Iterator[None]:
    """Whatever happens inside, the policy is afterwards what it was. Raises `Refused` while an override is in force."""
    info = client.call(GetPartition(call=0))
    if info.override is not None:
        raise Refused(
            "invalid_request", "an override is in force, so no policy decides", "end it: rapidctl partition auto"
        )
    try:
        yield
    finally:
        set_policy(client, info.policy)
