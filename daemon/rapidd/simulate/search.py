"""Goodput of one policy on one load: the highest rate scale at which enough of the offered requests meet their SLO.

Scales lie on a geometric grid, so that two policies' goodputs differ by whole steps and one run serves several
objectives. The search expands from a guess and then halves; it takes the load to be met below and missed above.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from rapidctl.wire import GOODPUT_SHARE, Slo
from rapidd.policy.calibration import Calibration
from rapidd.simulate.load import Item
from rapidd.simulate.machine import Machine, Record, Setup
from rapidd.simulate.metrics import gaps_of, judged_gap

STEP: Final = 1.04
"""Between two scales of the grid."""
LOWEST: Final = -100
HIGHEST: Final = 100
"""Steps from the recorded rate: 1/50 to 50 times. What keeps its objectives at the highest may keep them beyond."""


class Tally:
    """Counts the requests that miss their SLO while a run goes on, for several ITL objectives at once (`Watch`)."""

    def __init__(self, slo: Slo, itl_s: Sequence[float], offered: int) -> None:
        self._slo = slo
        self._itl_s = array("d", itl_s)
        self._most = (1.0 - GOODPUT_SHARE) * offered + 1e-9  # exactly the share is enough
        self._late: set[int] = set()
        self.missed = [0] * len(itl_s)
        self.enough = False

    def first_token(self, record: Record) -> None:
        """See `Watch`."""
        if record.token_s[0] - record.arrival_s > self._slo.ttft_limit_s(record.prompt_tokens):
            self._late.add(id(record))
            self._miss(range(len(self.missed)))

    def finished(self, record: Record) -> None:
        """See `Watch`."""
        if id(record) not in self._late:
            gap_s = judged_gap(gaps_of(record))
            self._miss(index for index, limit_s in enumerate(self._itl_s) if gap_s > limit_s)

    def kept(self, index: int) -> bool:
        """Whether enough requests met the objective, once the run has ended."""
        return self.missed[index] <= self._most

    def refuse(self, count: int) -> None:
        """So many were never served."""
        for _ in range(count):
            self._miss(range(len(self.missed)))

    def _miss(self, indices: Iterable[int]) -> None:
        for index in indices:
            self.missed[index] += 1
        self.enough = all(count > self._most for count in self.missed)


class Prober:
    """Runs one policy at any scale; a run is made once. ``itl_s``: the objectives, of which ``setup.slo`` has one.

    A policy that looks at the objective needs a prober for each.
    """

    def __init__(
        self, calibration: Calibration, policy: str, setup: Setup, items: Window, itl_s: Sequence[float]
    ) -> None:
        self._calibration = calibration
        self._policy = policy
        self._setup = setup
        self._items = items
        self._itl_s = itl_s
        self._kept: dict[int, list[bool]] = {}
        self.runs = 0

    def kept(self, step: int, index: int) -> bool:
        """Whether enough requests met objective ``index`` at this scale."""
        if step not in self._kept:
            items = self._items(STEP**step)
            tally = Tally(self._setup.slo, self._itl_s, len(items))
            run = Machine(self._calibration, self._policy, self._setup).run(items, tally)
            if not run.ended_early:
                tally.refuse(sum(not record.token_s for record in run.records))
            self.runs += 1
            self._kept[step] = [not run.ended_early and tally.kept(i) for i in range(len(self._itl_s))]
        return self._kept[step][index]

    def goodput(self, index: int, guess: int) -> int | None:
        """The highest step that keeps objective ``index``, `HIGHEST` at most; null when not even the lowest does."""
        return highest(lambda step: self.kept(step, index), guess)


Window = Callable[[float], list[Item]]
"""The items of a run at a rate scale."""


def highest(keeps: Callable[[int], bool], guess: int) -> int | None:
    """The highest of `LOWEST` to `HIGHEST` with ``keeps``, which holds below and not above; null: none."""
    low = high = max(LOWEST, min(guess, HIGHEST))
    stride = 4
    if keeps(low):
        while high < HIGHEST and keeps(high):
            low, high, stride = high, min(high + stride, HIGHEST), 2 * stride
        if high == HIGHEST and keeps(high):
            return high
    else:
        while not keeps(low):
            if low == LOWEST:
                return None
            high, low, stride = low, max(low - stride, LOWEST), 2 * stride
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low


def guess_step(calibration: Calibration, setup: Setup, items: Sequence[Item]) -> int:
    """Where the search begins: the scale at which lone prefill and lone decode of 32 rows would fill the time."""
    cost, total = calibration.cost, setup.table.units_total
    assert cost is not None
    prompts = sum(item.prompt_tokens for item in items)
    outputs = sum(item.output_tokens for item in items)
    chunk = min(setup.max_chunk_tokens, 2048)
    context = prompts / len(items) / 2
    kv_tokens = int(32 * (prompts / len(items)))
    busy_s = prompts / chunk * cost.prefill_s(chunk, context, total) + outputs / 32 * cost.decode_s(
        32, kv_tokens, total
    )
    seconds = items[-1].arrival_s - items[0].arrival_s
    return round(math.log(max(seconds, 1e-3) / busy_s) / math.log(STEP))
