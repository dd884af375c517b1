"""Lanes over a device that exists only as a law of times, on a virtual clock: for what measures and what predicts.

The law has an H100's numbers with an 8B model: what `docs/results/gpu` tells of steps by partition, rounded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from rapidd.calibrate.points import Limits
from rapidd.engine.batch import Batch, BatchResult
from rapidd.engine.graphs import bucket_for, buckets
from rapidd.engine.lanes import Done, LaneExecutor
from rapidd.engine.request import LANES, Lane
from rapidd.partition.table import PartitionTable, Seen

TABLE = PartitionTable(units_total=132, unit_name="SM", splits=(16, 24, 32, 48, 64, 96))
LIMITS = Limits(max_rows=96, max_model_len=16384, max_chunk_tokens=2048, kv_blocks=5900, block_tokens=64)
BUCKETS = buckets(LIMITS.max_rows)
READ_TB_S = {16: 1.5, 24: 2.1, 32: 2.6, 48: 2.9, 64: 3.0, 96: 3.0, 132: 3.0}
KV_BYTES, WEIGHT_BYTES = 131_072, 15.0e9


def decode_law(rows: int, kv_tokens: int, units: int) -> float:
    """Weights and keys at the partition's bandwidth; above 64 rows a second tile of arithmetic."""
    padded = bucket_for(rows, BUCKETS)
    tiles = 1.0 if padded <= 64 else 1.0 + 40 / units
    return 1.3e-3 + tiles * WEIGHT_BYTES / READ_TB_S[units] / 1e12 + kv_tokens * KV_BYTES / READ_TB_S[units] / 1e12


def prefill_law(tokens: int, context: int, units: int) -> float:
    """Weights once, or arithmetic where that is longer; attention."""
    slower: float = (132 / units) ** 0.9
    return slower * (_products_s(tokens) + _attention_s(tokens, context))


def mixed_law(rows: int, kv_tokens: int, tokens: int, context: int, hidden: float = 0.0) -> float:
    """One product over all tokens, two attentions; ``hidden``: of the shorter one, beside the longer."""
    prompt, decode = _attention_s(tokens, context), kv_tokens * KV_BYTES / READ_TB_S[132] / 1e12
    return _products_s(rows + tokens) + prompt + decode - hidden * min(prompt, decode)


def _products_s(tokens: int) -> float:
    return max(5.6e-3, 2.15e-5 * tokens) + 1e-3


def _attention_s(tokens: int, context: int) -> float:
    return 1.9e-9 * tokens * (context + tokens / 2)


def beside(lane: Lane, seconds: float, units: int) -> float:
    """What the other lane's work costs."""
    if lane == "decode":
        return 1.35 * seconds + 9e-3 if units == 132 else 1.4 * seconds
    return seconds * (2.0 if units == 132 else 1.0 + 40 / units)


def law(batch: Batch, is_beside: bool, hidden: float = 0.0) -> float:
    """Seconds of a batch. ``hidden`` as in `mixed_law`."""
    kv_tokens = sum(row.start for row in batch.rows if not row.known_ids)
    if batch.kind == "decode":
        seconds = decode_law(batch.num_decode, kv_tokens, batch.units)
    elif batch.kind == "prefill":
        seconds = prefill_law(batch.num_prefill_tokens, batch.context, batch.units)
    else:
        seconds = mixed_law(batch.num_decode, kv_tokens, batch.num_prefill_tokens, batch.context, hidden)
    return beside(batch.lane, seconds, batch.units) if is_beside else seconds


class LawDevice(threading.Event):
    """Is its own wake-up call: waiting for it lets time pass until something ends."""

    def __init__(
        self, law: Callable[[Batch, bool], float] = law, error: Callable[[Batch], Exception | None] = lambda _: None
    ) -> None:
        super().__init__()
        self.now_ns = 1
        self.law, self.error = law, error
        self.running: list[LawTask] = []
        self.lanes = {name: self._lane(name) for name in LANES}
        self.batches: list[Batch] = []

    def _lane(self, name: Lane) -> LaneExecutor:
        sizes = TABLE.splits if name == "decode" else [TABLE.units_total - units for units in TABLE.splits]
        streams = {units: LawStream(self) for units in (*sizes, TABLE.units_total)}
        return LaneExecutor(name, streams, LawStream(self), self.take, 2, lambda: self.now_ns)

    def take(self, batch: Batch) -> BatchResult:
        """On the stream: the batch as a result that only lacks its times."""
        self.batches.append(batch)
        other: Lane = "prefill" if batch.lane == "decode" else "decode"
        seconds = self.law(batch, not self.lanes[other].idle)
        return BatchResult(error=self.error(batch), started_ns=0, ended_ns=int(seconds * 1e9))

    def wait(self, timeout: float | None = None) -> bool:
        """Time passes until the next batch ends."""
        assert self.running, "nothing runs: this would wait for ever"
        self.now_ns = max(self.now_ns, min(task.end_ns for task in self.running))
        self.running = [task for task in self.running if task.end_ns > self.now_ns]
        return True

    def seconds(self) -> float:
        """The virtual clock."""
        return self.now_ns / 1e9


@dataclass
class LawTask:
    """A batch on a stream."""

    device: LawDevice
    start_ns: int
    end_ns: int
    result: BatchResult

    @property
    def done(self) -> bool:
        return self.device.now_ns >= self.end_ns

    @property
    def value(self) -> BatchResult:
        self.result.started_ns, self.result.ended_ns = self.start_ns, self.end_ns
        return self.result

    def wait(self) -> None:
        while not self.done:
            self.device.wait()


@dataclass
class LawStream:
    """Runs one batch after another."""

    device: LawDevice
    free_ns: int = field(default=0)

    def submit(self, call: Callable[[], BatchResult], after: Done | None) -> LawTask:
        result = call()
        start = max(self.free_ns, self.device.now_ns, after.end_ns if isinstance(after, LawTask) else 0)
        task = LawTask(self.device, start, start + result.ended_ns, result)
        self.free_ns = task.end_ns
        self.device.running.append(task)
        return task

    def placement(self) -> Seen:
        return Seen([], 0.0)

    def probe(self) -> Callable[[], bool]:
        return lambda: True
