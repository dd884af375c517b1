"""What the daemon predicts of every plan it could run: asked as dry runs, kept by plan. Pure but for its source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from rapidctl.source import Answer
from rapidctl.wire import GetProfile, PartitionInfo, PlanRequest, Prediction, PredictPartition, ProfileReply

MAX_SPLITS: Final = 9
KNEE_SHARE: Final = 1.05
"""The knee: the fewest units whose step is within 5 % of the shortest."""


class Guess(NamedTuple):
    """A plan and what the daemon says of it; null: no answer yet, or none."""

    plan: PlanRequest
    prediction: Prediction | None


class WhatIf:
    """The table's content. ``asked_s``: when, on the console's clock; null: never."""

    def __init__(self) -> None:
        self.asked_s: float | None = None
        self.problem = ""
        self.profile: ProfileReply | None = None
        """The calibrated profile's knee; null: no answer, or a daemon that does not know the question."""
        self._profile_ticket: int | None = None
        self._plans: list[PlanRequest] = []
        self._tickets: dict[int, int] = {}
        self._found: dict[int, Prediction] = {}

    def ask(self, info: PartitionInfo, ask: Callable[[PredictPartition | GetProfile], int], now_s: float) -> None:
        """Ask again about every mode, and about splits from the fewest decode units to the most; and for the knee."""
        self._plans = plans(info)
        self._tickets = {ask(PredictPartition(call=0, plan=plan)): index for index, plan in enumerate(self._plans)}
        self._profile_ticket = ask(GetProfile(call=0))
        self._found = {}
        self.problem, self.asked_s = "", now_s

    def answered(self, answer: Answer) -> bool:
        """Take an answer; whether it was one of these."""
        if answer.ticket == self._profile_ticket:
            self.profile = answer.result if isinstance(answer.result, ProfileReply) else None
            return True
        index = self._tickets.pop(answer.ticket, None)
        if index is None:
            return False
        if isinstance(answer.result, Prediction):
            self._found[index] = answer.result
        else:
            self.problem = str(answer.result)
        return True

    def guesses(self) -> list[Guess]:
        """In the order they were asked."""
        return [Guess(plan, self._found.get(index)) for index, plan in enumerate(self._plans)]


def plans(info: PartitionInfo) -> list[PlanRequest]:
    """The plans worth a line: the modes on all units, and at most `MAX_SPLITS` splits spread over the legal ones."""
    splits = info.splits
    if len(splits) > MAX_SPLITS:
        splits = [splits[round(index * (len(splits) - 1) / (MAX_SPLITS - 1))] for index in range(MAX_SPLITS)]
        if info.plan.mode == "split" and info.plan.decode_units not in splits:
            splits = sorted([*splits, info.plan.decode_units])
    modes = [PlanRequest(mode="serial"), PlanRequest(mode="hybrid"), PlanRequest(mode="shared")]
    return [*modes, *(PlanRequest(mode="split", decode_units=units) for units in splits)]


def knee(guesses: list[Guess]) -> int | None:
    """Decode units from which on more of them hardly shorten a step; null while that is not predicted."""
    known = [
        (guess.plan.decode_units, guess.prediction.itl_p95_s)
        for guess in guesses
        if guess.plan.decode_units is not None and guess.prediction is not None and guess.prediction.legal
    ]
    times = [(units, seconds) for units, seconds in known if seconds is not None]
    if len(times) < 2:
        return None
    best = min(seconds for _, seconds in times)
    return min(units for units, seconds in times if seconds <= best * KNEE_SHARE)


def is_running(plan: PlanRequest, info: PartitionInfo) -> bool:
    """Whether the plan in force is this one, chunks aside."""
    same_units = plan.mode != "split" or plan.decode_units == info.plan.decode_units
    return plan.mode == info.plan.mode and same_units
