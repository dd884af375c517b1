"""What this engine knows about times: the profile in use with its cost model, the correction it learns, and why not.

The engine's loop, the policies and the operator's verbs all look here. Pure: callers give the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from rapidctl.wire import CalibrationInfo, CorrectionInfo, FitInfo, GapMarginInfo, KneeRow
from rapidd.ipc import AskProfile, ProfileAnswer
from rapidd.policy.correction import Correction
from rapidd.policy.cost import CostModel
from rapidd.policy.library import Found
from rapidd.policy.margin import LATE_SHARE, GapMargin
from rapidd.policy.options import Predictor


class Calibration:
    """``cost`` is null without a profile; then nothing is predicted and nothing corrected."""

    def __init__(self, found: Found) -> None:
        self.cost = CostModel(found.profile) if found.profile else None
        self.correction = Correction()
        self.margin = GapMargin()
        self.warnings = found.warnings
        """Sentences for an operator: profiles that were refused, and what to know about the one in use."""
        self._source = found.source

    def afresh(self) -> Calibration:
        """The same profile, of which nothing was learnt online."""
        other = copy(self)
        other.correction, other.margin = Correction(), GapMargin()
        return other

    def predictor(self) -> Predictor | None:
        """What policies predict with, as learnt at the time they ask; null without a profile."""
        if self.cost is None:
            return None
        return Predictor(self.cost, self.correction.factor, self.correction.error, lambda: self.margin.factor)

    @property
    def name(self) -> str | None:
        """Of the profile; null without one."""
        return None if self.cost is None else self.cost.profile.name

    def info(self) -> CalibrationInfo | None:
        """For snapshots and `rapidctl profile show`."""
        if self.cost is None or self._source is None:
            return None
        profile, fit = self.cost.profile, self.cost.fit
        key = profile.key
        return CalibrationInfo(
            name=profile.name,
            source=self._source,
            device=key.device,
            units_total=key.units_total,
            driver=key.driver,
            model=key.model,
            dtype=key.dtype,
            build=key.build,
            made_unix_s=profile.made_unix_s,
            note=profile.note,
            fit=FitInfo(part="all", n=fit.n, median=fit.median, p95=fit.p95),
            parts=[FitInfo(part=part, n=one.n, median=one.median, p95=one.p95) for part, one in fit.parts.items()],
            corrections=[
                CorrectionInfo(mode=one.mode, kind=one.kind, factor=one.factor, error=one.error, n=one.n)
                for one in self.correction.all()
            ],
            margin=GapMarginInfo(factor=self.margin.factor, late_share=LATE_SHARE, n=self.margin.n),
            short_contexts=self.cost.short_contexts(),
        )

    def answer(self, ask: AskProfile, itl_slo_s: float) -> ProfileAnswer:
        """To an operator who asks; ``itl_slo_s``: the engine's own objective."""
        itl_s = ask.itl_s or itl_slo_s
        knee = self.knee(itl_s, ask.kv_per_row)
        return ProfileAnswer(ask.token, self.info(), list(self.warnings), itl_s, ask.kv_per_row, knee)

    def knee(self, itl_slo_s: float, kv_per_row: int, rows: Sequence[int] = ()) -> list[KneeRow]:
        """The fewest decode units that keep the objective beside prompts, by rows of a decode step; corrected."""
        cost = self.cost
        if cost is None:
            return []
        alone, beside = (self.correction.factor(mode, "decode") for mode in ("hybrid", "split"))
        table = []
        for count, units in cost.knee(itl_slo_s, kv_per_row, rows, alone, beside).items():
            split = units is not None and units < cost.units_total
            seconds = cost.decode_s(count, count * kv_per_row, units or cost.units_total, split)
            table.append(KneeRow(rows=count, decode_units=units, step_s=seconds * (beside if split else alone)))
        return table
