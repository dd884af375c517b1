"""Control state: which policy decides, whether an operator's override stands above it, and the plan in force.

``epoch`` counts changes of control state (policy, override, release, guard, expiry); ``decision`` counts plans.
Every change leaves a `Notice`. Pure: the caller gives the time and publishes the notices.
"""

from typing import Final

from msgspec import Struct

from rapidctl.wire import ErrorCode, OverrideInfo, PlanRequest
from rapidd.ipc import (
    ControlDone,
    FrontHello,
    Notice,
    NoticeKind,
    NoticeLevel,
    NoticeSource,
    Predict,
    Predicted,
    SetPlan,
    SetPolicy,
    SloReport,
)
from rapidd.partition.table import PartitionTable
from rapidd.policy.plan import Plan, State
from rapidd.policy.policies import NO_PROFILE, fixed, make

GUARD_ITL: Final = 1.5
GUARD_TTFT: Final = 2.0
"""Times the SLO: an override that stays beyond either for `GUARD_NS` is released."""
GUARD_NS: Final = 10_000_000_000


class Override(Struct):
    """What an operator asked for."""

    request: PlanRequest
    plan: Plan
    expires_ns: int | None
    guard: bool
    reason: str
    by: str
    breached_since_ns: int | None = None


class Control:
    """Starts under ``policy``; raises ValueError, for people, when it is not legal on this device."""

    def __init__(self, policy: str, table: PartitionTable, epoch: int = 0) -> None:
        self.table = table
        self.policy = policy
        self.epoch = epoch
        self.decision = 0
        self.override: Override | None = None
        self.plan: Plan | None = None
        self.plan_since_ns = 0
        self.notices: list[Notice] = []
        """What happened since the caller last emptied it."""
        self._decide = make(policy, table.units_total, table.splits)

    # --- operators

    def set_policy(self, command: SetPolicy) -> ControlDone:
        """Change who decides; an override stays above it."""
        if refused := self._conflict(command.token, command.if_epoch):
            return refused
        try:
            self._decide = make(command.policy, self.table.units_total, self.table.splits)
        except ValueError as error:
            return self._refuse(command.token, "invalid_request", str(error), "see rapidctl policy --help")
        before, self.policy = self.policy, command.policy
        text = f"{command.by or 'operator'}: policy {command.policy} (was {before})"
        return self._accept(command.token, "policy", text)

    def set_plan(self, command: SetPlan, now_ns: int) -> ControlDone:
        """Pin a plan, or release the one pinned (``plan`` null; releasing nothing is no error and no change)."""
        if refused := self._conflict(command.token, command.if_epoch):
            return refused
        by = command.by or "operator"
        if command.plan is None:
            if self.override is None:
                return ControlDone(command.token, self.epoch, "no override to release", None, "")
            before, self.override = self.override, None
            return self._accept(command.token, "release", f"{by}: released {before.plan.describe()}")
        try:
            plan = fixed(command.plan, self.table.units_total, self.table.splits, command.reason or f"override by {by}")
        except ValueError as error:
            return self._refuse(command.token, "invalid_request", str(error), "see rapidctl partition show")
        expires_ns = None if command.ttl_s is None else now_ns + int(command.ttl_s * 1e9)
        self.override = Override(command.plan, plan, expires_ns, command.guard, command.reason, command.by)
        ttl = "until released" if command.ttl_s is None else f"for {command.ttl_s:g} s"
        why = f" ({command.reason})" if command.reason else ""
        return self._accept(command.token, "override", f"{by}: {plan.describe()} {ttl}{why}")

    def predict(self, command: Predict) -> Predicted:
        """Whether a plan is legal here; numbers need a profile."""
        try:
            plan = fixed(command.plan, self.table.units_total, self.table.splits, "")
        except ValueError as error:
            return Predicted(command.token, False, str(error), None, None, None, None, None)
        return Predicted(command.token, True, NO_PROFILE, plan.prefill_units, None, None, None, None)

    def restore(self, known: FrontHello) -> None:
        """Go on where an earlier engine ended: its epoch, the policy in force, the override with what is left of it.

        An engine that the front does not know more of than it does itself has nothing to restore.
        """
        if known.last_epoch <= self.epoch:
            return
        self.epoch = known.last_epoch
        try:
            self._take_over(known)
        except ValueError as error:  # the cores this process may use are others than the last engine's
            self.epoch += 1
            self._notice("warning", "warn", f"not restored after the engine's restart: {error}", "engine")

    def _take_over(self, known: FrontHello) -> None:
        if known.policy is not None and known.policy != self.policy:
            self._decide = make(known.policy, self.table.units_total, self.table.splits)
            self.policy = known.policy
        if (old := known.override) is not None:
            plan = fixed(old.plan, self.table.units_total, self.table.splits, old.reason or f"override by {old.by}")
            expires_ns = None if old.ttl_s is None else known.override_mono_ns + int(old.ttl_s * 1e9)
            self.override = Override(old.plan, plan, expires_ns, old.guard, old.reason, old.by)

    # --- time

    def tick(self, now_ns: int) -> None:
        """Release an override that has expired."""
        override = self.override
        if override and override.expires_ns is not None and now_ns >= override.expires_ns:
            self.override = None
            self.epoch += 1
            self._notice("ttl", "info", f"override {override.plan.describe()} expired", "ttl")

    def observe(self, report: SloReport, now_ns: int) -> None:
        """Release a guarded override under which the SLO stayed breached."""
        override = self.override
        if override is None or not override.guard:
            return
        itl, ttft = report.itl_p95_ratio or 0.0, report.ttft_p95_ratio or 0.0
        if itl <= GUARD_ITL and ttft <= GUARD_TTFT:
            override.breached_since_ns = None
            return
        if override.breached_since_ns is None:
            override.breached_since_ns = now_ns
        if now_ns - override.breached_since_ns >= GUARD_NS:
            self.override = None
            self.epoch += 1
            text = f"guard released {override.plan.describe()}: ITL p95 {itl:.1f}x, TTFT p95 {ttft:.1f}x the SLO"
            self._notice("guard", "warn", text, "guard")

    def decide(self, state: State, now_ns: int) -> Plan:
        """The plan to follow now; a change of work is a new decision."""
        plan = self.override.plan if self.override else self._decide(state)
        if self.plan is None or not plan.same_work(self.plan):
            self.decision += 1
            before = f" (was {self.plan.describe()})" if self.plan else ""
            self.plan, self.plan_since_ns = plan, now_ns
            source: NoticeSource = "operator" if self.override else "policy"
            self._notice("decision", "info", f"{plan.describe()}{before}: {plan.reason}", source)
        return self.plan

    def override_info(self, now_ns: int) -> OverrideInfo | None:
        """For people: the override with what is left of its time."""
        override = self.override
        if override is None:
            return None
        left = None if override.expires_ns is None else max(0.0, (override.expires_ns - now_ns) / 1e9)
        return OverrideInfo(
            plan=override.request, ttl_s=left, guard=override.guard, reason=override.reason, by=override.by
        )

    # --- helpers

    def _conflict(self, token: int, if_epoch: int | None) -> ControlDone | None:
        if if_epoch is None or if_epoch == self.epoch:
            return None
        text = f"the control state changed: epoch is {self.epoch}, the command expected {if_epoch}"
        return self._refuse(token, "epoch_conflict", text, "look at rapidctl partition show, then decide again")

    def _refuse(self, token: int, code: ErrorCode, text: str, hint: str) -> ControlDone:
        return ControlDone(token, self.epoch, text, code, hint)

    def _accept(self, token: int, kind: NoticeKind, text: str) -> ControlDone:
        self.epoch += 1
        self._notice(kind, "info", text, "operator")
        return ControlDone(token, self.epoch, text, None, "")

    def _notice(self, kind: NoticeKind, level: NoticeLevel, text: str, source: NoticeSource) -> None:
        self.notices.append(Notice(kind, level, text, source, self.epoch, self.decision, None, None))
