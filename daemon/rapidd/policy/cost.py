"""How long any batch takes, by a small model of physical shape fitted to a calibrated profile.

    decode(rows, kv)         = curve_u(rows) + line_u(kv)                               products; attention
    prefill(tokens, context) = curve_u(tokens) + b_u * attended(tokens, context)        products; attention
    hybrid                   = x * curve(rows + tokens) + s * (P + D) + m * max(P, D) + z
                               where P = b * attended(tokens, context) and D = line(kv)
    decode beside prefill    = p_u * decode + q_u                                       on a split
    prefill beside decode    = prefill * (p_u + q_u * decode step alone)                likewise

for every number of units ``u`` that was measured, curves and lines of fewer than all in the shape of all units'; rows
as padded in graphs, where there are graphs; attended = filling_u(tokens) * context + tokens^2 / 2, because a few tokens
do not fill a device, nor do those behind its last whole wave (`rapidd.policy.waves`). A hybrid batch runs its two
attentions one after the other (m = 0) or side by side (`rapidd.policy.mixed`); lanes that share all units take turns
(`rapidd.policy.turns`). Every coefficient is non-negative, so times rise with each argument, but that beside more rows
a chunk on all units may take less: their steps leave it more. Beyond all that was measured they go on straight.
Evaluating takes a microsecond or two: everything is precomputed.

`rapidd.policy.correction` keeps the predictions honest while serving. Pure: no clock, no device.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from msgspec import Struct

from rapidd.policy.curve import Point, attended
from rapidd.policy.lane_times import LaneTimes, chunk_points, fit_lanes, nearest, set_slowdowns, with_fewer
from rapidd.policy.mixed import MixedSample, fit_mixed
from rapidd.policy.plan import PromptTime
from rapidd.policy.profile import DecodeSample, HybridSample, PrefillSample, Profile
from rapidd.policy.tiles import beside_rows, padded_rows, padded_total, whole_tiles
from rapidd.policy.turns import ChunkBeside, StepBeside, Turns, fit_turns
from rapidd.policy.waves import FULL, Filling, fillings

FOLDS: Final = 5
"""Each sample is held back once: the model fitted to the other folds predicts it."""

Sample = DecodeSample | PrefillSample | HybridSample
Part = Literal["decode", "prefill", "hybrid", "decode beside", "prefill beside"]


class PartFit(Struct, frozen=True):
    """Relative errors |predicted / measured - 1| on held-back samples; null without any."""

    n: int
    median: float | None
    p95: float | None


class FitReport(Struct, frozen=True):
    """Over all held-back samples, and by part of the model."""

    n: int
    median: float | None
    p95: float | None
    parts: dict[str, PartFit]


class CostModel:
    """Predicts seconds from a profile. Raises nothing: a `Profile` that was loaded is complete."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.units_total = profile.key.units_total
        samples: list[Sample] = [*profile.decode, *profile.prefill, *profile.hybrid]
        self.fit: FitReport = _held_back(profile, samples)
        self._fit(samples)

    @classmethod
    def _of(cls, profile: Profile, samples: Iterable[Sample]) -> CostModel:
        """Fitted to some of the profile's samples, without a report."""
        model = cls.__new__(cls)
        model.profile = profile
        model.units_total = profile.key.units_total
        model._fit(list(samples))
        return model

    # --- predictions

    def decode_s(self, rows: int, kv_tokens: int, units: int, beside: bool = False) -> float:
        """A decode step of ``rows`` rows that read ``kv_tokens`` cached tokens in all; beside a chunk, if so."""
        lane = self._decode.get(units) or nearest(self._decode, units)
        padded = self._padded(rows)
        alone = lane.curve.at(padded) + lane.line.at(kv_tokens)
        if beside and units == self.units_total:
            return self._turns.step_s(padded, alone)
        return max(alone, alone * lane.factor + lane.offset) if beside else alone

    def prefill_s(
        self, tokens: int, context: float, units: int, beside: bool = False, rows: int = 0, kv_tokens: int = 0
    ) -> float:
        """A chunk of ``tokens`` behind ``context`` cached ones; beside decode steps of ``rows`` rows and ``kv_tokens``.

        Beside unknown rows (0) it takes as long as beside the calibration's middle ones.
        """
        lane = self._prefill.get(units) or nearest(self._prefill, units)
        alone = lane.curve.at(tokens) + attended(tokens, context, lane.filling) * lane.slope
        return alone * self._slowdown(lane, units, rows, kv_tokens) if beside else alone

    def hybrid_s(self, rows: int, kv_tokens: int, tokens: int, context: float) -> float:
        """Decode rows and a chunk in one batch, on all units. With graphs, a part of a tile costs as a whole one."""
        return self._hybrid.at(*self._parts(rows, kv_tokens, tokens, context))

    def longest_chunk(
        self, seconds: float, context: float, units: int, beside: bool, rows: int = 0, kv_tokens: int = 0
    ) -> int:
        """The longest chunk that is predicted to take at most ``seconds``; 0 when not even one token is.

        ``rows`` and ``kv_tokens`` decode on the other lane meanwhile if ``beside``, else in the same batch (hybrid).
        """
        if rows and not beside:
            lane, held = self._prefill[self.units_total], self._mixed(rows)
            decode = self._decode[self.units_total].line.at(kv_tokens)
            return self._hybrid.longest(lane.curve, held, context, lane.slope, lane.filling, decode, seconds)
        lane = self._prefill.get(units) or nearest(self._prefill, units)
        budget = seconds / self._slowdown(lane, units, rows, kv_tokens) if beside else seconds
        return lane.curve.longest(0, context, lane.slope, budget, lane.filling)

    def chunk_for(
        self, seconds: float, context: float, units: int, beside: bool, rows: int = 0, kv_tokens: int = 0
    ) -> int:
        """As `longest_chunk`, or a shorter one that fills waves of attention so well that it gets on faster.

        However little faster: gaps are shorter, too.
        """
        longest = self.longest_chunk(seconds, context, units, beside, rows, kv_tokens)
        mixed = rows > 0 and not beside
        lane = self._prefill.get(self.units_total if mixed else units) or nearest(self._prefill, units)

        def tokens_per_s(size: int) -> float:
            if mixed:
                whole = beside_rows(size, rows)
                return whole / self.hybrid_s(rows, kv_tokens, whole, context)
            whole = whole_tiles(size)
            return whole / self.prefill_s(whole, context, units)

        shorter = lane.filling.shorter(longest, context)
        return max([longest, *shorter], key=tokens_per_s) if shorter else longest

    def prompt_time(self, chunk: int) -> PromptTime:
        """Of prompts alone on all units, in chunks of ``chunk`` tokens."""
        lane = self._prefill[self.units_total]
        return PromptTime(lane.curve.at(chunk) / chunk, lane.slope)

    def knee(
        self, itl_slo_s: float, kv_per_row: int, rows: Sequence[int] = (), alone: float = 1.0, beside: float = 1.0
    ) -> dict[int, int | None]:
        """For each number of rows the fewest decode units whose steps, beside prompts, keep the ITL objective.

        All units: only alone, so prompts must wait. None: not even then. ``alone``, ``beside``: corrections of steps.
        """
        found: dict[int, int | None] = {}
        for count in rows or _powers(max(sample.rows for sample in self.profile.decode)):
            kv_tokens = count * kv_per_row
            steps = [(units, beside * self.decode_s(count, kv_tokens, units, True)) for units in self.profile.splits]
            steps.append((self.units_total, alone * self.decode_s(count, kv_tokens, self.units_total)))
            found[count] = next((units for units, seconds in steps if seconds <= itl_slo_s), None)
        return found

    def short_contexts(self) -> dict[Literal["decode", "prefill"], list[int]]:
        """By lane the numbers of units on which no long context was measured, ascending; only lanes that have some."""
        found: dict[Literal["decode", "prefill"], list[int]] = {
            "decode": [units for units, lane in sorted(self._decode.items()) if lane.short],
            "prefill": [units for units, lane in sorted(self._prefill.items()) if lane.short],
        }
        return {lane: units for lane, units in found.items() if units}

    def _padded(self, rows: int) -> int:
        buckets = self.profile.row_buckets
        return buckets[bisect_left(buckets, rows)] if buckets and rows <= buckets[-1] else rows

    def _mixed(self, rows: int) -> int:
        """Decode rows of a mixed batch; padded where steps are graphs."""
        return padded_rows(rows) if self.profile.row_buckets else rows

    def _parts(self, rows: int, kv_tokens: int, tokens: int, context: float) -> tuple[float, float, float]:
        """Of a mixed batch, in seconds: its products, the chunk's attention and the decode rows'."""
        lane = self._prefill[self.units_total]
        total = self._mixed(rows) + tokens
        if self.profile.row_buckets:
            total = padded_total(total)
        attention = attended(tokens, context, lane.filling) * lane.slope
        return lane.curve.at(total), attention, self._decode[self.units_total].line.at(kv_tokens)

    def _slowdown(self, lane: LaneTimes, units: int, rows: int, kv_tokens: int) -> float:
        if not rows:
            rows, kv_tokens = self._usual_step
        if units == self.units_total:
            return self._turns.slowdown(self._padded(rows), self.decode_s(rows, kv_tokens, units))
        if not lane.offset:
            return max(1.0, lane.factor)
        return max(1.0, lane.factor + lane.offset * self.decode_s(rows, kv_tokens, self.units_total - units))

    # --- the fit

    def _fit(self, samples: list[Sample]) -> None:
        decode = [s for s in samples if isinstance(s, DecodeSample)]
        prefill = [s for s in samples if isinstance(s, PrefillSample)]
        # Where keys no longer fit in a cache, reading them may get dearer: decode bends.
        splits = self.profile.splits
        self._decode = with_fewer(fit_lanes(decode, self._step_points, lambda _: (FULL,), bends=True), splits)
        wave = self.profile.prompt_wave
        chunks = fit_lanes(prefill, chunk_points, lambda units: fillings(wave, units, self.units_total), bends=False)
        self._prefill = with_fewer(chunks, [self.units_total - units for units in splits])
        self._hybrid = fit_mixed(
            [
                MixedSample(*self._parts(s.rows, s.kv_tokens, s.tokens, s.context), s.seconds)
                for s in samples
                if isinstance(s, HybridSample)
            ]
        )
        self._fit_beside([s for s in decode if s.beside], [s for s in prefill if s.beside])

    def _step_points(self, samples: Sequence[DecodeSample], _: Filling) -> list[Point]:
        return [(self._padded(s.rows), float(s.kv_tokens), s.seconds) for s in samples]

    def _fit_beside(self, decode: list[DecodeSample], prefill: list[PrefillSample]) -> None:
        """On splits decode / alone = p + q / alone and prefill / alone = p + q * (the other lane's step alone)."""
        steps: list[StepBeside] = []
        chunks: list[ChunkBeside] = []
        ratios: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for s in decode:
            alone = self.decode_s(s.rows, s.kv_tokens, s.units)
            if s.units == self.units_total:
                steps.append(StepBeside(self._padded(s.rows), alone, s.seconds))
            else:
                ratios[s.units].append((1 / alone, s.seconds / alone))
        set_slowdowns(self._decode, ratios)
        ratios.clear()
        met: list[tuple[float, int, int]] = []
        for c in prefill:
            ratio = c.seconds / self.prefill_s(c.tokens, c.context, c.units)
            shared = c.units == self.units_total
            other = c.units if shared else self.units_total - c.units
            known = c.beside_rows > 0
            step = self.decode_s(c.beside_rows, c.beside_kv_tokens, other) if known else 0.0
            if known:
                met.append((step, c.beside_rows, c.beside_kv_tokens))
            if shared:
                chunks.append(ChunkBeside(self._padded(c.beside_rows) if known else 0, step, ratio))
            else:
                ratios[c.units].append((step, ratio))
        self._usual_step = sorted(met)[len(met) // 2][1:] if met else (1, 0)
        set_slowdowns(self._prefill, ratios)
        self._turns: Turns = fit_turns(steps, chunks)


def _powers(most: int) -> list[int]:
    counts = [1]
    while counts[-1] * 2 <= most:
        counts.append(counts[-1] * 2)
    return counts if counts[-1] == most else [*counts, most]


# --- how good it is


def _part(sample: Sample) -> Part:
    match sample:
        case DecodeSample():
            return "decode beside" if sample.beside else "decode"
        case PrefillSample():
            return "prefill beside" if sample.beside else "prefill"
        case HybridSample():
            return "hybrid"


def _size(sample: Sample) -> tuple[int, int, int, int]:
    match sample:
        case DecodeSample():
            return sample.rows, sample.kv_tokens, 0, 0
        case PrefillSample():
            return sample.tokens, sample.context, sample.beside_rows, sample.beside_kv_tokens
        case HybridSample():
            return sample.tokens, sample.context, sample.rows, sample.kv_tokens


def predict(model: CostModel, sample: Sample) -> float:
    """What the model says to a sample's batch, in seconds."""
    match sample:
        case DecodeSample(rows, kv_tokens, units, _, beside):
            return model.decode_s(rows, kv_tokens, units, beside)
        case PrefillSample(tokens, context, units, _, beside):
            return model.prefill_s(tokens, context, units, beside, sample.beside_rows, sample.beside_kv_tokens)
        case HybridSample(rows, kv_tokens, tokens, context):
            return model.hybrid_s(rows, kv_tokens, tokens, context)


def _held_back(profile: Profile, samples: Sequence[Sample]) -> FitReport:
    """Errors of models fitted without the sample in question, in `FOLDS` rounds.

    Folds are dealt round within each (part, units), by size, so that neighbours are in different ones, and the same
    profile gives the same report. A sample without which no model can be fitted is not held back.
    """
    dealt: dict[tuple[Part, int], int] = defaultdict(int)
    folds: list[list[Sample]] = [[] for _ in range(FOLDS)]
    for sample in sorted(samples, key=_size):
        group = _part(sample), 0 if isinstance(sample, HybridSample) else sample.units
        folds[dealt[group] % FOLDS].append(sample)
        dealt[group] += 1
    errors: dict[Part, list[float]] = defaultdict(list)
    for held in folds:
        kept = [sample for fold in folds if fold is not held for sample in fold]
        have = {(_part(s), s.units) for s in kept if not isinstance(s, HybridSample)}
        if not {("decode", profile.key.units_total), ("prefill", profile.key.units_total)} <= have:
            continue
        model = CostModel._of(profile, kept)
        for sample in held:
            if isinstance(sample, HybridSample) or (_part(sample), sample.units) in have:
                errors[_part(sample)].append(abs(predict(model, sample) / sample.seconds - 1))
    every = [error for part in errors.values() for error in part]
    parts: dict[str, PartFit] = {
        part: PartFit(len(those), *_quantiles(those)) for part, those in sorted(errors.items())
    }
    return FitReport(len(every), *_quantiles(every), parts)


def _quantiles(errors: list[float]) -> tuple[float | None, float | None]:
    """Median and 95th percentile, both of values that occurred (nearest rank, rounded up)."""
    if not errors:
        return None, None
    ordered = sorted(errors)
    return statistics.median_low(ordered), ordered[-(-95 * len(ordered) // 100) - 1]
