"""An engine without a device: two lanes on a virtual clock, everything above them the engine's own.

A batch takes as long as the cost model says for what it holds. While the other lane runs too it goes on at its pace
beside it, so a batch that overlaps for half of its time is slowed for half of its time. As many batches may be in
flight a lane as in the engine, and the first token is seen when the chunk that computed it ends. Of the host's time
only what starts a batch on an idle lane is modelled.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from rapidctl.wire import Slo
from rapidd.config import GIVE_WAY_S
from rapidd.engine.batch import Batch, BatchResult
from rapidd.engine.defaults import DEPTH, UNBOUNDED
from rapidd.engine.observe import Limits, policy_state
from rapidd.engine.realised import doing
from rapidd.engine.request import LANES, Lane
from rapidd.engine.scheduler import Scheduler
from rapidd.engine.timing import ALONE, BESIDE, load_of, predict, watch_gap
from rapidd.errors import RequestError
from rapidd.partition.table import PartitionTable
from rapidd.policy.calibration import Calibration
from rapidd.policy.override import Control
from rapidd.policy.pace import Load, Pace
from rapidd.simulate.errors import EXACT, Errors
from rapidd.simulate.load import Item


class Setup(Struct, frozen=True, kw_only=True):
    """What is served on what. ``kv_blocks``: block 0 not counted."""

    table: PartitionTable
    slo: Slo
    kv_blocks: int
    block_tokens: int
    max_running: int
    max_model_len: int
    max_chunk_s: float
    max_chunk_tokens: int
    lone_chunk_s: float | None = None
    max_prompts: int = UNBOUNDED
    prefill_depth: int = DEPTH
    """Batches in flight on the prefill lane."""
    give_way_s: float = GIVE_WAY_S
    host_s: float = 0.0
    """What the host needs to start a batch on a lane that is idle; behind a running batch it is hidden."""
    errors: Errors = EXACT
    """By how much batches miss their predictions."""


class Record(Struct):
    """What became of one request. ``token_s``: when each output token was seen; empty: it was refused."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    token_s: array[float]
    preemptions: int = 0


class Run(Struct):
    """One simulated run."""

    records: list[Record]
    seconds: float
    """Until the last token."""
    places: dict[str, float]
    """What ran, in seconds: idle, one lane alone, or how they were side by side."""
    changes: int
    """Of mode or units, by the policy."""
    decisions: int
    """Times the policy was asked."""
    steps: int
    prefix_hit_tokens: int
    preempted: int
    ended_early: bool = False
    """The watch had seen enough: what follows the last token is missing."""


class Watch(Protocol):
    """Looks at a run while it goes on."""

    def first_token(self, record: Record) -> None:
        """A request's first token was just seen."""

    def finished(self, record: Record) -> None:
        """A request's last token was just seen."""

    @property
    def enough(self) -> bool:
        """Whether the rest of the run would change nothing."""


class _Flight(NamedTuple):
    """A batch in flight. Seconds alone and beside the other lane: predicted, and what it takes from ``start_s`` on."""

    batch: Batch
    start_s: float
    predicted_alone_s: float
    predicted_beside_s: float
    alone_s: float
    beside_s: float


class _Lane:
    """Batches in flight. Of the first one: ``done`` is the share that ran, ``ran_s`` how long, ``beside_s`` of it."""

    __slots__ = ("beside_s", "done", "queue", "ran_s")

    def __init__(self) -> None:
        self.queue: deque[_Flight] = deque()
        self.done = self.ran_s = self.beside_s = 0.0

    def left_s(self, beside: bool) -> float:
        return (1.0 - self.done) * self._whole_s(beside)

    def pass_s(self, seconds: float, beside: bool) -> None:
        self.done += seconds / self._whole_s(beside)
        self.ran_s += seconds
        if beside:
            self.beside_s += seconds

    def _whole_s(self, beside: bool) -> float:
        first = self.queue[0]
        return first.start_s + (first.beside_s if beside else first.alone_s)


class Machine:
    """Serves one load under one policy. Raises ValueError, for people, when the policy is not legal on the device."""

    def __init__(self, known: Calibration, policy: str, setup: Setup) -> None:
        calibration = known.afresh()
        predictor = calibration.predictor()
        assert predictor is not None, "a device that nobody measured cannot be simulated"
        self.correction = calibration.correction
        """What this run has learnt of its predictions."""
        self._margin = calibration.margin
        self._cost = predictor.cost
        self._setup = setup
        self._limits = Limits(
            slo=setup.slo,
            max_chunk_s=setup.max_chunk_s,
            max_chunk_tokens=setup.max_chunk_tokens,
            give_way_s=setup.give_way_s,
        )
        self.control = Control(policy, setup.table)
        self.control.know(predictor)
        pace = Pace(
            max_chunk_s=setup.max_chunk_s,
            lone_chunk_s=setup.lone_chunk_s,
            itl_slo_s=setup.slo.itl_s,
            block_tokens=setup.block_tokens,
            calibration=calibration,
            load=lambda: load_of(self.scheduler),
        )
        self.scheduler = Scheduler(
            kv_blocks=setup.kv_blocks + 1,
            block_tokens=setup.block_tokens,
            max_running=setup.max_running,
            max_model_len=setup.max_model_len,
            max_prompts=setup.max_prompts,
            bound=lambda plan, units, decoding, context: min(
                pace.bound(plan, units, decoding, context), setup.max_chunk_tokens
            ),
            lone_bound=lambda plan, units, context: min(pace.lone_bound(plan, units, context), setup.max_chunk_tokens),
        )
        self._decode, self._prefill = _Lane(), _Lane()
        self._lanes = {"decode": self._decode, "prefill": self._prefill}
        self._depths: dict[Lane, int] = {"decode": DEPTH, "prefill": setup.prefill_depth}
        self._now_s = 0.0
        self._places: defaultdict[str, float] = defaultdict(float)
        self._decisions = self._steps = self._changes = 0

    def run(self, items: Sequence[Item], watch: Watch | None = None) -> Run:
        """Serve every request to its end, or until ``watch`` has seen enough."""
        records = [Record(i.arrival_s, i.prompt_tokens, i.output_tokens, array("d")) for i in items]
        arriving = iter(enumerate(items))
        index, item = next(arriving, (0, None))
        while True:
            arrival_s = item.arrival_s if item is not None else math.inf
            lane, end_s = self._next_end()
            if lane is None and item is None:
                break
            if arrival_s <= end_s:
                self._advance(arrival_s)
                while item is not None and item.arrival_s <= self._now_s:
                    self._admit(index, item)
                    index, item = next(arriving, (0, None))
            else:
                assert lane is not None
                self._advance(end_s)
                self._finish(lane, records, watch)
                if watch is not None and watch.enough:
                    break
            self._launch()
        ended_early = watch is not None and watch.enough
        assert ended_early or not any(True for _ in self.scheduler.requests), "requests are left but nothing runs"
        return Run(
            records=records,
            seconds=self._now_s,
            places=dict(self._places),
            changes=self._changes,
            decisions=self._decisions,
            steps=self._steps,
            prefix_hit_tokens=self.scheduler.prefix_hits,
            preempted=self.scheduler.num_preempted,
            ended_early=ended_early,
        )

    def _admit(self, index: int, item: Item) -> None:
        try:
            self.scheduler.add(item.request(index + 1, self._limits))
        except RequestError:  # it can never fit: it stays without a token, and so misses its objective
            return

    # --- time

    def _next_end(self) -> tuple[Lane | None, float]:
        decode, prefill = self._decode, self._prefill
        both = bool(decode.queue and prefill.queue)
        decode_s = decode.left_s(both) if decode.queue else math.inf
        prefill_s = prefill.left_s(both) if prefill.queue else math.inf
        if decode_s <= prefill_s:
            return ("decode" if decode.queue else None), self._now_s + decode_s
        return "prefill", self._now_s + prefill_s

    def _advance(self, to_s: float) -> None:
        seconds, self._now_s = to_s - self._now_s, to_s
        if seconds <= 0.0:
            return
        decode, prefill = self._decode.queue, self._prefill.queue
        both = bool(decode and prefill)
        if decode:
            self._decode.pass_s(seconds, both)
        if prefill:
            self._prefill.pass_s(seconds, both)
        first, second = decode[0].batch if decode else None, prefill[0].batch if prefill else None
        where = place(
            first,
            second,
            self._setup.table.units_total,
            num_decoding=self.scheduler.num_decoding,
            prefill_tokens=self.scheduler.prefill_tokens,
        )
        self._places[where] += seconds

    # --- batches

    def _launch(self) -> None:
        control, scheduler = self.control, self.scheduler
        now_ns = int(self._now_s * 1e9)
        before = control.plan
        plan = control.decide(policy_state(scheduler, control, self._limits, now_ns), now_ns)
        self._decisions += 1
        self._changes += before is not None and not plan.same_place(before)
        control.notices.clear()
        if plan.by_deadline:
            scheduler.give_way(now_ns, self._limits.give_way_ns, plan.prompt_time)
        for _ in range(2):
            room = {name: len(self._lanes[name].queue) < self._depths[name] for name in LANES}
            batches = scheduler.schedule(plan, room)
            for batch in batches:
                queue = self._lanes[batch.lane].queue
                alone_s, beside_s = self._predicted(batch)
                factor = self._setup.errors.factor(batch)
                start_s = 0.0 if queue else self._setup.host_s
                queue.append(_Flight(batch, start_s, alone_s, beside_s, factor * alone_s, factor * beside_s))
            if not batches:
                break
        scheduler.preempted.clear()

    def _finish(self, name: Lane, records: list[Record], watch: Watch | None) -> None:
        lane = self._lanes[name]
        self._learn(lane)
        batch = lane.queue.popleft().batch
        lane.done = lane.ran_s = lane.beside_s = 0.0
        self._steps += 1
        sampled = sum(row.samples for row in batch.rows)
        result = BatchResult(token_ids=[0] * sampled, ended_ns=int(self._now_s * 1e9))
        done = self.scheduler.finish(batch, result)
        watch_gap(self._margin, batch, result, self._setup.slo.itl_s, sized=self.control.foresees)
        for outcome in done.outcomes:
            record = records[outcome.request.rid - 1]
            record.token_s.append(self._now_s)
            if watch is not None and len(record.token_s) == 1:
                watch.first_token(record)
            if outcome.finish:
                record.preemptions = outcome.request.preemptions
                if watch is not None:
                    watch.finished(record)

    def _learn(self, lane: _Lane) -> None:
        """As the engine does, from the lane's first batch, which has ended (`rapidd.engine.timing`)."""
        first, share = lane.queue[0], lane.beside_s / lane.ran_s
        if ALONE < share < BESIDE:
            return
        predicted_s = first.predicted_beside_s if share >= BESIDE else first.predicted_alone_s
        self.correction.observe(first.batch.mode, first.batch.kind, predicted_s, lane.ran_s - first.start_s)

    def _predicted(self, batch: Batch) -> tuple[float, float]:
        """Seconds alone, and beside the other lane."""
        return predict(self._cost, batch, False, Load()), predict(self._cost, batch, True, load_of(self.scheduler))


def place(
    decode: Batch | None, prefill: Batch | None, units_total: int, *, num_decoding: int = 0, prefill_tokens: int = 0
) -> str:
    """In words, what runs on the lanes (`rapidd.engine.realised`), a split with its decode units."""
    what = doing(decode, prefill, units_total, num_decoding=num_decoding, prefill_tokens=prefill_tokens)
    return f"split {decode.units}" if decode is not None and what == "split" else what
