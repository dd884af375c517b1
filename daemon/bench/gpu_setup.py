"""What the parts of `bench.gpu` have in common: a daemon to talk to, its plan, its counters, and streams on it."""

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from bench.gpu_sizes import Decode, Sharing, Sizes
from bench.load import Prompts, Run, pump, start
from bench.processes import Daemon
from rapidctl.client import Client
from rapidctl.errors import Refused
from rapidctl.wire import GetSnapshot, LaneStats, PlanRequest, SetPartition, Snapshot

CONTROL_SPACING_S = 2.1
"""The daemon takes a change of its plan every two seconds."""
STATE_S = 1.4
"""The engine tells its counters once a second while nobody watches."""
LONGEST_OUTPUT = 8192
"""More than a stream gets while it is measured: one that ended would have no gaps."""
GROWTH = 3000
"""Tokens that each of many streams gets while it is measured, at most about."""


class Spent(NamedTuple):
    """What one phase had between two snapshots, on both lanes."""

    batches: int
    seconds: float
    flops: float
    bytes: float

    @property
    def ms(self) -> float:
        """Of a batch. Raises RuntimeError: there was none, so counters are too old or another phase computed."""
        if not self.batches:
            raise RuntimeError("no batch was counted: nothing was measured")
        return 1e3 * self.seconds / self.batches


@dataclass(slots=True)
class Setup:
    """One daemon and one client of it."""

    server: Daemon
    client: Client
    sizes: Sizes
    prompts: Prompts = field(default_factory=Prompts)
    changed_s: float = 0.0

    def snapshot(self) -> Snapshot:
        """Now, with counters as old as `STATE_S` at most."""
        return self.client.call(GetSnapshot(call=0)).snapshot

    def settled(self) -> Snapshot:
        """With counters of everything up to this call; nothing may be running."""
        time.sleep(STATE_S)
        return self.snapshot()

    def plan(self, plan: PlanRequest) -> None:
        """Pin a plan."""
        time.sleep(max(0.0, self.changed_s + CONTROL_SPACING_S - time.monotonic()))
        self.client.call(SetPartition(call=0, plan=plan, ttl_s=None, guard=False, by="bench"))
        self.changed_s = time.monotonic()

    def fits(self, load: Decode | Sharing, beside: int = 0) -> bool:
        """Whether there is KV cache for these streams, as long as they get, and for ``beside`` tokens more."""
        kv = self.snapshot().kv
        needed = load.rows * (load.prompt + min(GROWTH, self.sizes.max_model_len - load.prompt)) + beside
        return kv is not None and kv.blocks_total * kv.block_tokens >= needed

    def decoding(self, load: Decode | Sharing) -> list[Run]:
        """So many streams, each some tokens past its prompt, and nothing else; counters are of that alone from now."""
        longest = min(LONGEST_OUTPUT, self.sizes.max_model_len - load.prompt)
        runs = [start(self.client, self.prompts(load.prompt), longest) for _ in range(load.rows)]
        pump(self.client, runs, lambda: all(len(run.stamps_ns) >= 4 for run in runs))
        self.wait(runs, STATE_S)
        return runs

    def wait(self, runs: Sequence[Run], seconds: float) -> None:
        """Let streams run."""
        end = time.monotonic() + seconds
        pump(self.client, runs, lambda: time.monotonic() >= end)

    def window(self, runs: Sequence[Run]) -> None:
        """Let streams run for a sample: `Sizes.window_s`, and a few tokens at least.

        Raises RuntimeError when one ended, as it had all its tokens: it would have no gaps.
        """
        reach = [len(run.stamps_ns) + 4 for run in runs]
        self.wait(runs, self.sizes.window_s)

        def over() -> bool:
            reached = all(len(run.stamps_ns) >= end for run, end in zip(runs, reach, strict=True))
            return reached or any(run.finished for run in runs)

        pump(self.client, runs, over)
        _check_alive(runs)

    def reach(self, runs: Sequence[Run], end_ns: int) -> None:
        """Let streams run until each has a token of later than this. Raises RuntimeError as `window` does."""
        pump(self.client, runs, lambda: all(run.stamps_ns[-1] > end_ns or run.finished for run in runs))
        _check_alive(runs)

    def end(self, runs: Sequence[Run]) -> None:
        """Cancel streams, and wait until the engine let go of them."""
        for run in runs:
            with contextlib.suppress(Refused):  # it has all its tokens
                self.client.cancel(run.stream.id)
        pump(self.client, runs, lambda: all(run.finished for run in runs))

    def complete(self, prompts: Sequence[list[int]], beside: Sequence[Run] = ()) -> list[int]:
        """First tokens' stamps, in order, of prompts that all arrive now, beside running streams."""
        arriving = [start(self.client, prompt, 1) for prompt in prompts]
        pump(self.client, [*beside, *arriving], lambda: all(run.finished for run in arriving))
        return sorted(run.stamps_ns[0] for run in arriving)


def _check_alive(runs: Sequence[Run]) -> None:
    if any(run.finished for run in runs):
        raise RuntimeError("a stream ended while it was measured")


def spent(before: Snapshot, after: Snapshot, phase: str) -> Spent:
    """The difference of the counters."""
    old, new = _total(before, phase), _total(after, phase)
    return Spent(new[0] - old[0], new[1] - old[1], new[2] - old[2], new[3] - old[3])


def _total(snapshot: Snapshot, phase: str) -> Spent:
    works = [work for lane in snapshot.lanes for work in lane.work if work.phase == phase]
    return Spent(
        sum(work.batches_total for work in works),
        sum(_BUSY[phase](lane) for lane in snapshot.lanes),
        sum(work.flops_total for work in works),
        sum(work.bytes_total for work in works),
    )


_BUSY: dict[str, Callable[[LaneStats], float]] = {
    "decode": lambda lane: lane.busy_decode_s_total,
    "prefill": lambda lane: lane.busy_prefill_s_total,
    "mixed": lambda lane: lane.busy_mixed_s_total,
}


def lane_of(snapshot: Snapshot, name: str) -> LaneStats:
    """One lane's counters."""
    return next(lane for lane in snapshot.lanes if lane.lane == name)


def gaps_ms(runs: Sequence[Run], begin_ns: int, end_ns: int) -> list[float]:
    """Between two tokens of a stream, both of them within the time."""
    return [
        (after - before) / 1e6
        for run in runs
        for before, after in pairwise(run.stamps_ns)
        if begin_ns <= before and after <= end_ns
    ]


def gaps_beside_ms(runs: Sequence[Run], begin_ns: int, end_ns: int) -> list[float]:
    """Between two tokens of a stream, of the gaps that overlap the time: the longest may have begun before it."""
    return [
        (after - before) / 1e6
        for run in runs
        for before, after in pairwise(run.stamps_ns)
        if after > begin_ns and before < end_ns
    ]


def steady_rate(stamps_ns: Sequence[int], tokens: int) -> tuple[float, int, int]:
    """Prompt tokens a millisecond between the second and the last of equal prompts that are computed one after another,
    and these two stamps: what begins and ends inside is neither the first one's way here nor the last one's way out."""
    begin, end = stamps_ns[1], stamps_ns[-1]
    return tokens * (len(stamps_ns) - 2) * 1e6 / (end - begin), begin, end


def efficiency(rate: float, rate_alone: float, gap_ms: float, gap_alone_ms: float) -> float:
    """Share of the prompts' speed alone plus share of the steps' speed alone: 1 is what taking turns gives."""
    return rate / rate_alone + gap_alone_ms / gap_ms


def between(first: tuple[int, float], last: tuple[int, float], at: int) -> float:
    """Linear between two measured points."""
    if last[0] == first[0]:
        return statistics.mean((first[1], last[1]))
    return first[1] + (last[1] - first[1]) * (at - first[0]) / (last[0] - first[0])
