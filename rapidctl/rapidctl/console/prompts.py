"""Test prompts: one, or the same one twice under two plans to compare. No widgets, no clock of its own.

A comparison pins the first plan, waits until the lanes run it, streams the answer, does the same under the second, and
puts the control state back as it was. Each pin ends by itself, should the console die in between.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

from rapidctl.console.change import Change, Command
from rapidctl.console.form import PromptSettings, describe, release
from rapidctl.console.operator import Operator
from rapidctl.console.run import Run, first_difference
from rapidctl.console.text import milliseconds
from rapidctl.source import Source, Streamed
from rapidctl.wire import PartitionInfo, PlanRequest, SetPartition, Snapshot

PIN_TTL_S: Final = 180.0
RETRIES: Final = 5
"""Of a change that the daemon refuses only because the last one was a moment ago."""
Stage = Literal["pin", "run", "restore", "done"]


class Comparison:
    """How far the comparison of two plans is."""

    def __init__(self, text: str, settings: PromptSettings, plans: tuple[PlanRequest, PlanRequest]) -> None:
        self.text = text
        self.settings = settings
        self.plans = plans
        self.index = 0
        self.stage: Stage = "pin"
        self.problem = ""
        self.change: Change | None = None
        self.before: PartitionInfo | None = None
        """Control state to come back to."""
        self.started_s: float | None = None
        self.epoch = 0
        self.not_before_s = 0.0
        self.tries = 0

    @property
    def over(self) -> bool:
        """Nothing more will be sent."""
        return self.stage == "done"


class Prompts:
    """``runs`` are the answers shown: none, one, or two of a comparison."""

    def __init__(self, source: Source, operator: Operator) -> None:
        self.runs: list[Run] = []
        self.comparison: Comparison | None = None
        self.side_by_side = False
        """Whether the answers are those of a comparison."""
        self._source = source
        self._operator = operator

    @property
    def busy(self) -> bool:
        """Whether something streams or is about to."""
        comparing = self.comparison is not None and not self.comparison.over
        return comparing or any(not run.over for run in self.runs)

    @property
    def run(self) -> Run | None:
        """The newest."""
        return self.runs[-1] if self.runs else None

    def send(self, text: str, settings: PromptSettings, snapshot: Snapshot | None, now: float) -> None:
        """Send one prompt in place of whatever ran."""
        self.stop()
        self.runs, self.side_by_side = [], False
        if self.comparison is not None and self.comparison.over:
            self.comparison = None
        self._start(text, settings, snapshot, now)

    def compare(self, text: str, settings: PromptSettings, plans: tuple[PlanRequest, PlanRequest]) -> None:
        """Begin a comparison in place of whatever ran; sampled answers get the same seed."""
        if self.comparison is not None and not self.comparison.over:
            return
        self.stop()
        self.runs, self.side_by_side = [], True
        if settings.temperature > 0 and settings.seed is None:
            settings = replace(settings, seed=1)
        self.comparison = Comparison(text, settings, plans)

    def stop(self) -> bool:
        """End the running stream; a comparison goes on to put things back. False when nothing ran."""
        if self.comparison is not None and self.comparison.stage in ("pin", "run"):
            self._fail(self.comparison, "stopped")
        stopped = False
        for run in self.runs:
            if not run.over and not run.stopping:
                run.stopping = stopped = True
                self._source.abandon(run.request.id)
        return stopped

    def take(self, streamed: Streamed, snapshot: Snapshot | None) -> None:
        """Something of a stream came."""
        plan = None if snapshot is None or snapshot.partition is None else snapshot.partition.plan
        for run in self.runs:
            if run.request.id == streamed.id:
                run.take(streamed, plan)

    def tick(self, now: float, snapshot: Snapshot | None) -> None:
        """Let a comparison take its next step."""
        comparison = self.comparison
        partition = None if snapshot is None else snapshot.partition
        if comparison is None or comparison.over or partition is None:
            return
        if comparison.before is None:
            comparison.before, comparison.started_s = partition, now
        comparison.epoch = max(comparison.epoch, partition.epoch)
        if comparison.stage == "pin":
            self._pin(comparison, now, snapshot)
        elif comparison.stage == "run" and self.runs[-1].over:
            comparison.change, comparison.index = None, comparison.index + 1
            comparison.stage = "pin" if comparison.index < len(comparison.plans) else "restore"
        elif comparison.stage == "restore":
            self._restore(comparison, comparison.before, now)

    def verdict(self) -> str:
        """Whether the answers agree, once both are there; else how far the comparison is."""
        comparison = self.comparison
        if comparison is None:
            return ""
        if comparison.problem:
            return f"! {comparison.problem}"
        if not comparison.over:
            doing = {"pin": "waiting for the lanes to run", "run": "answering under", "restore": "restoring after"}
            plan = comparison.plans[min(comparison.index, 1)]
            return f"{doing[comparison.stage]} {describe(plan)}"
        if any(run.problem for run in self.runs):
            return "! an answer failed: there is nothing to compare"
        at = first_difference(*self.runs)
        agree = f"✓ the answers agree: {self.runs[0].tokens} tokens" if at is None else f"! they differ at token {at}"
        gaps = [run.gaps() for run in self.runs]
        if None in (gaps[0].p95, gaps[1].p95):
            return agree
        p50, p95 = (" against ".join(milliseconds(getattr(gap, name)) for gap in gaps) for name in ("p50", "p95"))
        return f"{agree}   ITL p50 {p50} ms, p95 {p95} ms"

    # --- steps ------------------------------------------------------------------------------------------------

    def _start(self, text: str, settings: PromptSettings, snapshot: Snapshot | None, now: float) -> None:
        request = settings.request(text, None if snapshot is None else snapshot.model)
        self.runs.append(Run(request, None if snapshot is None else snapshot.partition, now))
        self._source.generate(request)

    def _pin(self, comparison: Comparison, now: float, snapshot: Snapshot | None) -> None:
        plan = comparison.plans[comparison.index]
        command = SetPartition(
            call=0, plan=plan, ttl_s=PIN_TTL_S, guard=False, reason="comparison of two modes",
            by=self._operator.by, if_epoch=comparison.epoch,
        )  # fmt: skip
        change = self._carry(comparison, command, describe(plan), now)
        if change is not None and change.state == "applied" and self._adopted(plan, snapshot):
            comparison.stage = "run"
            self._start(comparison.text, comparison.settings, snapshot, now)

    @staticmethod
    def _adopted(plan: PlanRequest, snapshot: Snapshot | None) -> bool:
        """Whether the snapshot is of after the change too: a run begins under the plan that its timeline names."""
        return snapshot is not None and snapshot.partition is not None and snapshot.partition.plan.mode == plan.mode

    def _restore(self, comparison: Comparison, before: PartitionInfo, now: float) -> None:
        was = before.override
        left = None if was is None or was.ttl_s is None else was.ttl_s - (now - (comparison.started_s or now))
        if was is None or (left is not None and left <= 0):
            command: Command = release(before, self._operator.by)
            command.if_epoch = comparison.epoch
        else:
            command = SetPartition(
                call=0, plan=was.plan, ttl_s=left, guard=was.guard, reason=was.reason, by=self._operator.by,
                if_epoch=comparison.epoch,
            )  # fmt: skip
        change = self._carry(comparison, command, "back to what was before", now)
        if change is not None and change.state == "applied":
            comparison.stage = "done"

    def _carry(self, comparison: Comparison, command: Command, title: str, now: float) -> Change | None:
        """Send the command once, again when it came too soon, and follow it; null while there is nothing to follow."""
        change = comparison.change
        if change is None:
            if now < comparison.not_before_s:
                return None
            comparison.change = change = self._operator.send(command, title)
            if change is None:
                self._give_up(comparison, "control is locked: ^o unlocks it")
                return None
        if change.epoch is not None:
            comparison.epoch = max(comparison.epoch, change.epoch)
        if change.state == "refused" and change.retry_after_s is not None and comparison.tries < RETRIES:
            comparison.change, comparison.tries = None, comparison.tries + 1
            comparison.not_before_s = now + change.retry_after_s
        elif change.state in ("refused", "unknown"):
            self._give_up(comparison, f"{title}: {change.state}, {change.text}")
        return change

    def _give_up(self, comparison: Comparison, why: str) -> None:
        """A step failed: put back what was changed, if that is not what failed."""
        if comparison.stage == "restore" or comparison.index == 0:
            comparison.problem, comparison.stage = why, "done"
        else:
            self._fail(comparison, why)

    @staticmethod
    def _fail(comparison: Comparison, why: str) -> None:
        sent = comparison.change is not None or comparison.index > 0
        comparison.problem, comparison.change = why, None
        comparison.stage = "restore" if sent else "done"
