"""How long a prompt chunk may be: tokens that fit a time, from the speed seen so far.

Chunks are bounded by predicted time, so that a plan can change soon even under a very long prompt. With a calibrated
profile the cost model predicts, as corrected online. Without one the prediction is an exponentially weighted mean of
seconds a token, by unit count; the first one comes from the warm-up, for other counts in proportion. No clock: callers
report durations.
"""

import math
from collections.abc import Callable

from msgspec import Struct

from rapidd.policy.calibration import Calibration
from rapidd.policy.cost import CostModel
from rapidd.policy.options import ITL_SHARE, allowance
from rapidd.policy.plan import TURNS, Plan
from rapidd.policy.tiles import beside_rows, whole_tiles

WEIGHT = 0.3
"""Of a new observation: follows a growing context within a few chunks, smooths one noisy step."""
UNCALIBRATED_ITL_SHARE = 0.8
"""Of the ITL objective that a hybrid step may take by the speed seen so far; a cost model predicts better."""


class Load(Struct, frozen=True):
    """What decodes."""

    rows: int = 0
    kv_tokens: int = 0
    """Cached tokens of these rows, all together."""
    short_share: float = 0.0
    """Of the outputs that ended lately, those with so few gaps that the longest counts."""


class Pace:
    """``max_chunk_s``: longest a chunk may take; ``itl_slo_s`` also bounds hybrid steps that nobody sized.

    ``lone_chunk_s``: longest for the chunk that ends the prompt of a request that is alone; null: as others. ``load``
    is asked only with a profile.
    """

    def __init__(
        self,
        *,
        max_chunk_s: float,
        itl_slo_s: float,
        block_tokens: int,
        lone_chunk_s: float | None = None,
        calibration: Calibration | None = None,
        load: Callable[[], Load] = Load,
    ) -> None:
        self._max_chunk_s = max_chunk_s
        self._lone_chunk_s = lone_chunk_s or max_chunk_s
        self.itl_slo_s = itl_slo_s
        self._block_tokens = block_tokens
        self._calibration = calibration
        self._load = load
        self._prefill_s: dict[int, float] = {}
        self._decode_s: dict[int, float] = {}

    def observe(self, *, units: int, num_decode: int, prefill_tokens: int, seconds: float) -> None:
        """Take the duration of a batch. A mixed one is charged to its prompt tokens, less a decode step."""
        if prefill_tokens:
            rest = seconds - (self._decode_s.get(units, 0.0) if num_decode else 0.0)
            _blend(self._prefill_s, units, max(rest, 0.1 * seconds) / prefill_tokens)
        elif num_decode:
            _blend(self._decode_s, units, seconds)

    def bound(self, plan: Plan, units: int, num_decode: int, context: int = 0) -> int:
        """Most prompt tokens of the next chunk, if all lie behind ``context`` cached ones; at least a block.

        As many as are in time, up to what the plan says; or, where it says nothing, fewer that get on faster.
        The speed seen so far knows of no context. A plan's chunk of 0 is none.
        """
        seconds = self._max_chunk_s
        if plan.mode == "hybrid" and plan.chunk is None and num_decode:
            # A prediction is of the whole batch; the speed seen so far is of its prompt tokens.
            seconds = min(seconds, self._step_s if self._cost else self._step_s - self._decode_s.get(units, 0.0))
        return self._fit(plan, units, seconds, context, num_decode if plan.mode == "hybrid" else 0)

    def lone_bound(self, plan: Plan, units: int, context: int = 0) -> int:
        """As `bound`, for the chunk that ends the prompt of the only request there is."""
        return self._fit(plan, units, self._lone_chunk_s, context, ends=True)

    @property
    def _step_s(self) -> float:
        """What a hybrid step may take that nobody sized, by prediction: less where predictions err."""
        if self._calibration is None or self._calibration.cost is None:
            return UNCALIBRATED_ITL_SHARE * self.itl_slo_s
        error, margin = self._calibration.correction.error("hybrid", "mixed"), self._calibration.margin.factor
        return ITL_SHARE * self.itl_slo_s / (allowance(error, self._load().short_share) * margin)

    @property
    def _cost(self) -> CostModel | None:
        return self._calibration.cost if self._calibration else None

    def _fit(self, plan: Plan, units: int, seconds: float, context: int, rows: int = 0, ends: bool = False) -> int:
        """``rows``: that decode in the same batch. ``ends``: a prompt, so that less than its rest is no gain."""
        if plan.chunk == 0:
            return 0
        cost = self._cost
        longest = ends or isinstance(plan.chunk, int)
        if cost is not None:
            fits = self._predicted(cost.longest_chunk if longest else cost.chunk_for, seconds, plan, units, context)
        else:
            fits = int(seconds / self._token_s(units))
        fits = max(fits, self._block_tokens)
        if rows:
            return beside_rows(min(fits, plan.chunk) if isinstance(plan.chunk, int) else fits, rows)
        return min(whole_tiles(fits), plan.chunk) if isinstance(plan.chunk, int) else whole_tiles(fits)

    def _predicted(self, chunk_for: Callable[..., int], seconds: float, plan: Plan, units: int, context: int) -> int:
        assert self._calibration is not None
        load, factor = self._load(), self._calibration.correction.factor
        if plan.mode == "hybrid" and load.rows:
            limit = seconds / factor("hybrid", "mixed")
            return chunk_for(limit, context, units, False, load.rows, load.kv_tokens)
        beside = plan.mode not in TURNS and load.rows > 0
        rows, kv_tokens = (load.rows, load.kv_tokens) if beside else (0, 0)
        return chunk_for(seconds / factor(plan.mode, "prefill"), context, units, beside, rows, kv_tokens)

    def _token_s(self, units: int) -> float:
        """Seconds a prompt token: seen on so many units, or scaled from the nearest count that was."""
        if units in self._prefill_s:
            return self._prefill_s[units]
        nearest = min(self._prefill_s, key=lambda seen: abs(seen - units), default=None)
        return math.inf if nearest is None else self._prefill_s[nearest] * nearest / units


def _blend(means: dict[int, float], key: int, value: float) -> None:
    old = means.get(key)
    means[key] = value if old is None else old + WEIGHT * (value - old)
