"""What each plan would do now, by the cost model: seconds a decode step, prompt tokens a second. Pure.

An `Option` is a plan with its predictions; `Predictor` makes them. Policies choose among options, operators are told
about one (`rapidctl partition predict`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from rapidctl.wire import Mode
from rapidd.policy.cost import CostModel
from rapidd.policy.plan import TURNS, Plan, PromptTime, State, WorkKind
from rapidd.policy.tiles import beside_rows

ITL_SHARE: Final = 0.92
"""Of the ITL objective that a mixed batch takes by prediction, where nobody sized its chunk."""
LATE_PER_ERROR: Final = 2.0
"""How far beyond predictions the slowest twentieth of batches is, in mean errors: 1.65 / 0.8 for a normal error."""
SHORT_LATE_PER_ERROR: Final = 3.3
"""The same of the slowest batch of a dozen: a request with fewer than twenty gaps is judged by its longest."""
SHORT_SHARE: Final = 0.05
"""Share of short outputs from which theirs counts, and the gap before the second token."""
MIN_CHUNK: Final = 64
"""Prompt tokens: a hybrid batch with fewer costs more than it brings, where it may have more."""
Factor = Callable[[Mode, WorkKind], float]
"""Of a mode and kind of batch, what the engine learnt online: measured over predicted seconds, or a mean error."""


class Option(Struct, frozen=True):
    """A plan's place and chunk, with what it is predicted to give. ``chunk`` 0: no prompt is computed."""

    mode: Mode
    decode_units: int
    chunk: int
    itl_s: float
    """Longest but for a twentieth, between two tokens of a row while prompts are computed; 0 without rows."""
    tokens_per_s: float
    """Prompt tokens a second."""

    def plan(self, units_total: int, reason: str) -> Plan:
        """As the lanes get it."""
        prefill_units = units_total - self.decode_units if self.mode == "split" else units_total
        return Plan(self.mode, self.decode_units, prefill_units, self.chunk, reason, by_deadline=True)

    def runs(self, plan: Plan | None) -> bool:
        """Whether this is the place (mode and units) of ``plan``, and both are paused or neither."""
        if plan is None or (self.mode, self.decode_units) != (plan.mode, plan.decode_units):
            return False
        return plan.paused == (self.mode == "hybrid" and self.chunk == 0)


def _no_correction(mode: Mode, kind: WorkKind) -> float:
    return 1.0


def _no_error(mode: Mode, kind: WorkKind) -> float:
    return 0.0


def _no_margin() -> float:
    return 1.0


def allowance(error: float, short_share: float = 0.0) -> float:
    """By which gaps count longer than predicted, where `ITL_SHARE` leaves too little for a mean error of ``error``."""
    late = SHORT_LATE_PER_ERROR if short_share > SHORT_SHARE else LATE_PER_ERROR
    return max(1.0, ITL_SHARE * (1.0 + late * error))


class Predictor:
    """The predictions of one device: a cost model, and what the engine learnt online about how far it is off.

    ``margin``: by which gaps count longer still, from how many were late (`rapidd.policy.margin`).
    """

    def __init__(
        self,
        cost: CostModel,
        factor: Factor = _no_correction,
        error: Factor = _no_error,
        margin: Callable[[], float] = _no_margin,
    ) -> None:
        self.cost = cost
        self.factor = factor
        self.error = error
        self.margin = margin

    def at(self, state: State) -> Outlook:
        """Predictions at this state."""
        return Outlook(self, state)

    def gap_factor(self, mode: Mode, kind: WorkKind, short_share: float) -> float:
        """For gaps, of which the slowest counts where outputs are short, else the slowest twentieth."""
        return self.factor(mode, kind) * self.allowance(mode, kind, short_share)

    def allowance(self, mode: Mode, kind: WorkKind, short_share: float) -> float:
        """By which gaps count longer than corrected predictions."""
        return allowance(self.error(mode, kind), short_share) * self.margin()


class Outlook:
    """Corrected predictions at one state."""

    def __init__(self, predict: Predictor, state: State) -> None:
        cost, factor = predict.cost, predict.factor
        self._cost = cost
        self._factor = factor
        self._predict = predict
        self._state = state
        self._rows = state.num_decoding
        self._kv_tokens = state.decode_tokens
        self.step_s = self.step_on(state.units_total) if self._rows else 0.0
        """A decode step alone on all units."""
        chunk = self._longest(state.units_total, beside=False)
        seconds = cost.prefill_s(chunk, state.context, state.units_total) * factor("hybrid", "prefill")
        self._lone_chunk = chunk
        self.lone_tokens_per_s = chunk / seconds
        """Prefill alone on all units, in the longest chunks."""

    def with_rows(self, rows: int) -> Outlook:
        """The same with another number of decode rows, as long as those there are on average."""
        decode_tokens = self._kv_tokens * rows // max(self._rows, 1)
        return Outlook(self._predict, replace(self._state, num_decoding=rows, decode_tokens=decode_tokens))

    def step_on(self, units: int) -> float:
        """Seconds of a decode step alone on so many units."""
        return self._cost.decode_s(self._rows, self._kv_tokens, units) * self._factor("hybrid", "decode")

    def paused(self) -> Option:
        """Decode alone, prompts wait."""
        return Option("hybrid", self._state.units_total, 0, self.step_s, 0.0)

    def mixed(self, step_s: float) -> Option | None:
        """The chunk that gets on fastest in a batch with the decode rows that takes at most ``step_s``."""
        state, total = self._state, self._state.units_total
        limit = step_s / self._gap_factor("hybrid", "mixed")
        fits = self._cost.chunk_for(limit, state.context, total, False, self._rows, self._kv_tokens)
        most = beside_rows(state.max_chunk_tokens, self._rows)
        chunk = beside_rows(min(fits, state.max_chunk_tokens), self._rows)
        return self.of("hybrid", total, chunk) if chunk >= min(MIN_CHUNK, most) else None

    def shortest(self) -> Option:
        """A mixed batch with the shortest chunk worth computing, whatever it does to the step."""
        return self.of("hybrid", self._state.units_total, min(MIN_CHUNK, self._state.max_chunk_tokens))

    def beside(self, mode: Literal["shared", "split"], units: int) -> Option:
        """Both lanes at once, chunks as long as their time bound allows."""
        return self.of(mode, units, self._longest(_prefill_units(mode, units, self._state.units_total), beside=True))

    def of(self, mode: Mode, units: int, chunk: int) -> Option:
        """What a plan with chunks of ``chunk`` tokens gives."""
        rows, kv_tokens, cost, factor = self._rows, self._kv_tokens, self._cost, self._factor
        context = self._state.context
        step_s = 0.0
        if mode not in TURNS:
            prefill_units = _prefill_units(mode, units, self._state.units_total)
            if rows:
                step_s = cost.decode_s(rows, kv_tokens, units, True) * self._gap_factor(mode, "decode")
            seconds = cost.prefill_s(chunk, context, prefill_units, rows > 0, rows, kv_tokens) * factor(mode, "prefill")
        elif mode == "hybrid" and rows:
            step_s = cost.hybrid_s(rows, kv_tokens, chunk, context) * self._gap_factor(mode, "mixed")
            seconds = cost.hybrid_s(rows, kv_tokens, chunk, context) * factor(mode, "mixed")
        else:
            seconds = self.step_s + cost.prefill_s(chunk, context, units) * factor(mode, "prefill")
            step_s = seconds * self._allowance(mode, "prefill") if rows else 0.0
        return Option(mode, units, chunk, step_s, chunk / seconds)

    def prompt_time(self, tokens_per_s: float) -> PromptTime:
        """What prompts take where the next chunk's tokens are computed at this rate."""
        alone = self._cost.prompt_time(self._lone_chunk)
        slower = self.lone_tokens_per_s / tokens_per_s * self._factor("hybrid", "prefill")
        return PromptTime(slower * alone.token_s, slower * alone.context_s)

    def of_plan(self, plan: Plan) -> Option:
        """What any plan gives; a chunk bounded by time is as long as the time allows."""
        if plan.chunk == 0:
            return self.paused()
        if plan.mode == "hybrid" and plan.chunk is None and self._rows:
            return self.mixed(ITL_SHARE * self._state.itl_slo_s) or self.shortest()
        chunk = self._longest(plan.prefill_units, beside=plan.mode not in TURNS)
        if isinstance(plan.chunk, int):
            chunk = max(1, min(plan.chunk, chunk))
        if plan.mode == "hybrid" and self._rows:
            chunk = beside_rows(chunk, self._rows)
        return self.of(plan.mode, plan.decode_units, chunk)

    def _gap_factor(self, mode: Mode, kind: WorkKind) -> float:
        return self._predict.gap_factor(mode, kind, self._state.short_share)

    def _allowance(self, mode: Mode, kind: WorkKind) -> float:
        return self._predict.allowance(mode, kind, self._state.short_share)

    def _longest(self, units: int, *, beside: bool) -> int:
        """Tokens that take at most the time a chunk may take: the most there may be, or half, or a quarter, ..."""
        state = self._state
        rows, kv_tokens = (self._rows, self._kv_tokens) if beside else (0, 0)
        chunk = state.max_chunk_tokens
        while chunk >= 2 * MIN_CHUNK:
            if self._cost.prefill_s(chunk, state.context, units, rows > 0, rows, kv_tokens) <= state.max_chunk_s:
                return chunk
            chunk //= 2
        return chunk


def _prefill_units(mode: Mode, decode_units: int, units_total: int) -> int:
    return units_total - decode_units if mode == "split" else units_total
