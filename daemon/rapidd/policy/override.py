"""Control state: which policy decides, whether an operator's override stands above it, and the plan in force.

``epoch`` counts changes of control state (policy, override, release, guard, expiry); ``decision`` counts plans.
Every change leaves a `Notice`. Pure: the caller gives the time and publishes the notices.
"""

from typing import Final

from msgspec import Struct

from rapidctl.wire import MAX_CHUNK_TOKENS, MAX_TTL_S, ErrorCode, OverrideBounds, OverrideInfo, PlanRequest
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
    Undo,
)
from rapidd.partition.table import PartitionTable
from rapidd.policy.options import Predictor
from rapidd.policy.plan import Plan, State
from rapidd.policy.policies import NO_PROFILE, PREDICTING, Policy, fixed, make

GUARD_ITL: Final = 1.5
GUARD_TTFT: Final = 2.0
"""Times the SLO: an override that stays beyond either for `GUARD_NS` is released."""
GUARD_NS: Final = 10_000_000_000
CHANGE_SPACING_NS: Final = 2_000_000_000
"""A split changed more often than this says nothing about either setting."""
LEGAL_HINT: Final = "see rapidctl partition show"
"""To whoever asked for a plan that this device does not have."""
BOUNDS: Final = OverrideBounds(
    ttl_max_s=MAX_TTL_S,
    chunk_max=MAX_CHUNK_TOKENS,
    change_every_s=CHANGE_SPACING_NS / 1e9,
    guard_itl=GUARD_ITL,
    guard_ttft=GUARD_TTFT,
    guard_after_s=GUARD_NS / 1e9,
)


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
        self.predictor: Predictor | None = None
        self.policy = policy
        self.epoch = epoch
        self.decision = 0
        self.override: Override | None = None
        self.plan: Plan | None = None
        self.plan_since_ns = 0
        self.notices: list[Notice] = []
        """What happened since the caller last emptied it."""
        self.place_since_ns = self.moved_since_ns = 0
        """When the plan's mode or units last changed, and the load it was chosen for."""
        self.place_rows = 0
        self.place_backlog = False
        self._planned_epoch = -1
        self._untold = False
        """Whoever listens knows no decision."""
        self._replaced: tuple[str, Override | None] | None = None
        """Policy and override before the last operator's change."""
        self._decide = self._make(policy)

    def know(self, predict: Predictor) -> None:
        """The device is calibrated: policies that look at predictions have them from now on."""
        self.predictor = predict
        self._decide = self._make(self.policy)

    @property
    def foresees(self) -> bool:
        """Whether predictions size the steps of the plan in force: its policy's, or a chunk that nobody sized."""
        if self.plan is not None and self.plan.mode == "hybrid" and self.plan.chunk is None:
            return True
        return self.override is None and self.policy in PREDICTING

    # --- operators

    def set_policy(self, command: SetPolicy) -> ControlDone:
        """Change who decides; an override stays above it."""
        if refused := self._conflict(command.token, command.if_epoch):
            return refused
        try:
            self._decide = self._make(command.policy)
        except ValueError as error:
            return self._refuse(command.token, "invalid_request", str(error), "see rapidctl policy --help")
        self._remember()
        before, self.policy = self.policy, command.policy
        text = f"{command.by}: policy {command.policy} (was {before})"
        return self._accept(command.token, "policy", text)

    def set_plan(self, command: SetPlan, now_ns: int) -> ControlDone:
        """Pin a plan, or release the one pinned (``plan`` null; releasing nothing is no error and no change)."""
        if refused := self._conflict(command.token, command.if_epoch):
            return refused
        by = command.by
        if command.plan is None:
            if self.override is None:
                return ControlDone(command.token, self.epoch, "no override to release", None, "")
            self._remember()
            before, self.override = self.override, None
            return self._accept(command.token, "release", f"{by}: released {before.plan.describe()}")
        try:
            plan = fixed(command.plan, self.table.units_total, self.table.splits, command.reason or f"override by {by}")
        except ValueError as error:
            return self._refuse(command.token, "invalid_request", str(error), LEGAL_HINT)
        expires_ns = None if command.ttl_s is None else now_ns + int(command.ttl_s * 1e9)
        instead = f", instead of {_whose(self.override)}" if self.override else ""
        self._remember()
        self.override = Override(command.plan, plan, expires_ns, command.guard, command.reason, command.by)
        ttl = "until released" if command.ttl_s is None else f"for {command.ttl_s:g} s"
        why = f" ({command.reason})" if command.reason else ""
        return self._accept(command.token, "override", f"{by}: {plan.describe()} {ttl}{why}{instead}")

    def undo(self, command: Undo, now_ns: int) -> ControlDone:
        """Bring back the policy and the override that the last operator's change replaced; once more: undo the undoing.

        An override that would have expired meanwhile does not come back, nor one that its guard released since.
        """
        if refused := self._conflict(command.token, command.if_epoch):
            return refused
        if self._replaced is None:
            return self._refuse(
                command.token, "not_found", "no operator's change to undo", "see rapidctl partition log"
            )
        policy, override = self._replaced
        if override is not None and override.expires_ns is not None and override.expires_ns <= now_ns:
            override = None
        if override is not None:
            override.breached_since_ns = None  # what its guard saw was before
        self._remember()
        self._decide = self._make(policy)
        self.policy, self.override = policy, override
        now = f"policy {policy}" + (f" and {_whose(override)}" if override else "")
        return self._accept(command.token, "override" if override else "release", f"{command.by}: back to {now}")

    def predict(self, command: Predict, state: State) -> Predicted:
        """What a plan would do at ``state``; numbers need a profile. TTFT is that of the last prompt that waits."""
        try:
            plan = fixed(command.plan, self.table.units_total, self.table.splits, "")
        except ValueError as error:
            return Predicted(command.token, False, str(error), None, None, None, None, None)
        if self.predictor is None:
            return Predicted(command.token, True, NO_PROFILE, plan.prefill_units, None, None, None, None)
        option = self.predictor.at(state).of_plan(plan)
        ttft_s = (state.prefill_tokens + option.chunk) / option.tokens_per_s
        breach = option.itl_s > state.itl_slo_s or option.tokens_per_s < state.needed_tokens_per_s
        rows = f"{state.num_decoding} rows of {state.decode_tokens} tokens"
        note = f"with {rows} and {state.prefill_tokens} prompt tokens waiting"
        itl_s = option.itl_s or None
        return Predicted(command.token, True, note, plan.prefill_units, itl_s, ttft_s, option.tokens_per_s, breach)

    def restore(self, known: FrontHello) -> None:
        """Go on where an earlier engine ended: its epoch, the policy in force, the override with what is left of it.

        An engine that the front does not know more of than it does itself has nothing to restore.
        """
        if known.last_epoch <= self.epoch:
            return
        self.epoch = known.last_epoch
        # Plans of before it was told the epoch: an "applied" of theirs must not be taken for an operator's change.
        self.notices = [notice for notice in self.notices if notice.kind not in ("decision", "applied")]
        try:
            self._take_over(known)
        except ValueError as error:  # the cores this process may use are others than the last engine's
            self.epoch += 1
            self._notice("warning", "warn", f"not restored after the engine's restart: {error}", "engine")

    def tell_again(self) -> None:
        """For a front that knows nothing yet: the decision in force, unless a newer one is told anyway."""
        self._untold = not any(notice.kind == "decision" for notice in self.notices)

    def _take_over(self, known: FrontHello) -> None:
        if known.policy is not None:
            self._decide = self._make(known.policy)
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
            if self._replaced is not None and self._replaced[1] is override:  # a change of policy left it in force
                self._replaced = (self._replaced[0], None)
            self.epoch += 1
            text = f"guard released {override.plan.describe()}: ITL p95 {itl:.1f}x, TTFT p95 {ttft:.1f}x the SLO"
            self._notice("guard", "warn", text, "guard")

    def decide(self, state: State, now_ns: int) -> Plan:
        """The plan to follow now. A change of mode or units is a new decision, and so is any change by an operator.

        A policy's chunk follows the load from tick to tick: too often for the log.
        """
        plan = self.override.plan if self.override else self._decide(state)
        before, self.plan = self.plan, plan
        moved = before is None or not plan.same_place(before)
        if moved:
            self.place_since_ns, self.place_rows = now_ns, state.num_decoding
            self.place_backlog = state.prefill_tokens > 0
        if before is None or not plan.same_units(before):
            self.moved_since_ns = now_ns
        if moved or (self._planned_epoch != self.epoch and before is not None and not plan.same_work(before)):
            self.decision += 1
            self.plan_since_ns = now_ns
            was = f" (was {before.describe()})" if before else ""
            self._decided(f"{plan.describe()}{was}: {plan.reason}")
        elif self._untold:
            self._decided(f"{plan.describe()} goes on: {plan.reason}")
        self._planned_epoch = self.epoch
        return plan

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

    def _make(self, policy: str) -> Policy:
        return make(policy, self.table.units_total, self.table.splits, self.predictor)

    def _remember(self) -> None:
        self._replaced = (self.policy, self.override)

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

    def _decided(self, text: str) -> None:
        self._untold = False
        source: NoticeSource = "operator" if self.override else "policy"
        self._notice("decision", "info", text, source)

    def _notice(self, kind: NoticeKind, level: NoticeLevel, text: str, source: NoticeSource) -> None:
        self.notices.append(Notice(kind, level, text, source, self.epoch, self.decision, None, None))


def _whose(override: Override) -> str:
    return f"{override.by}'s {override.plan.describe()}"
