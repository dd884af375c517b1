"""One test prompt from sending to its end: text, stamps and gaps. Pure; gaps are by the daemon's clock."""

from __future__ import annotations

from typing import Literal

from rapidctl.errors import RapidctlError
from rapidctl.out import printable
from rapidctl.ranks import rank
from rapidctl.source import Streamed
from rapidctl.tape import Exchange
from rapidctl.wire import (
    Accepted,
    Delta,
    Failed,
    Finished,
    Generate,
    PartitionInfo,
    PlanInfo,
    Quantiles,
    Slo,
    unpack_ids,
)

State = Literal["sent", "queued", "streaming", "finished", "failed"]


class Run:
    """A generation as it arrives. ``gaps_s`` are the inter-token latencies, one for each token but the first."""

    def __init__(self, request: Generate, partition: PartitionInfo | None, now: float) -> None:
        self.request = request
        self.partition = partition
        """The plan at the start."""
        self.sent_s = now
        self.accepted: Accepted | None = None
        self.finished: Finished | None = None
        self.problem = ""
        self.text = ""
        self.first_s: float | None = None
        """When the first token arrived here."""
        self.last_s: float | None = None
        self.gaps_s: list[float] = []
        self.changes: list[int] = []
        """Before which gap another plan came into force."""
        self.token_ids: list[int] = []
        self.stopping = False
        self.heard: list[Streamed] = []
        """All that came, as it came: what a recording of it needs."""
        self._plan = None if partition is None else _signature(partition.plan)
        self._last_ns: int | None = None

    @property
    def state(self) -> State:
        """How far it got."""
        if self.problem:
            return "failed"
        if self.finished is not None:
            return "finished"
        if self.first_s is not None:
            return "streaming"
        return "sent" if self.accepted is None else "queued"

    @property
    def over(self) -> bool:
        """Nothing more will come."""
        return self.state in ("finished", "failed")

    def take(self, streamed: Streamed, plan: PlanInfo | None = None) -> None:
        """The next thing that came, and the plan in force then as far as known."""
        self.heard.append(streamed)
        if plan is not None and _signature(plan) != self._plan:
            if self._plan is not None and self.tokens:
                self.changes.append(len(self.gaps_s))
            self._plan = _signature(plan)
        match streamed.event:
            case Accepted() as accepted:
                self.accepted = accepted
            case Delta() as delta:
                self._extend(delta, streamed.at_s)
            case Finished() as finished:
                self.finished = finished
                self.text = printable(finished.choices[0].text, lines=True)
                self.token_ids = unpack_ids(finished.choices[0].token_ids)
            case Failed() as failed:
                self.problem = printable(" — ".join(filter(None, (failed.message, failed.hint))))
            case RapidctlError() as error:
                self.problem = printable(" — ".join(filter(None, (error.message, error.hint))))

    def gaps(self) -> Quantiles:
        """Quantiles of the gaps so far, of this request alone."""
        ordered = sorted(self.gaps_s)
        if not ordered:
            return Quantiles(n=0)
        p50, p95, p99 = (ordered[rank(percent, len(ordered))] for percent in (50, 95, 99))
        return Quantiles(n=len(ordered), p50=p50, p95=p95, p99=p99, max=ordered[-1])

    def ttft_slo_s(self, slo: Slo) -> float | None:
        """This prompt's TTFT SLO; null until its length is known."""
        return None if self.accepted is None else slo.ttft_limit_s(self.accepted.prompt_tokens)

    @property
    def tokens(self) -> int:
        """Output tokens so far."""
        return len(self.token_ids)

    @property
    def tokens_per_s(self) -> float | None:
        """Decode rate so far: tokens after the first over their gaps."""
        spent = sum(self.gaps_s)
        return len(self.gaps_s) / spent if spent > 0 else None

    def _extend(self, delta: Delta, at_s: float) -> None:
        if delta.choice != 0:
            return
        self.text += printable(delta.text, lines=True)
        self.token_ids += unpack_ids(delta.token_ids)
        if self.first_s is None:
            self.first_s = at_s
        self.last_s = at_s
        for stamp in delta.at_mono_ns:
            if self._last_ns is not None:
                self.gaps_s.append(max(0, stamp - self._last_ns) / 1e9)
            self._last_ns = stamp


def exchange(run: Run) -> Exchange:
    """A run that is over, for a recording."""
    found = Exchange(
        sent_s=run.sent_s, request=run.request, partition=run.partition, accepted=None, deltas=[], finished=None,
        problem=run.problem, end_s=run.heard[-1].at_s, changes=run.changes,
    )  # fmt: skip
    for _, event, at_s in run.heard:
        match event:
            case Accepted():
                found.accepted = at_s, event
            case Delta():
                found.deltas.append((at_s, event))
            case Finished():
                found.finished = at_s, event
    return found


def replayed(found: Exchange, at_s: float) -> Run:
    """The run as it stood at that moment."""
    run = Run(found.request, found.partition, found.sent_s)
    came: list[tuple[float, Accepted | Delta | Finished] | None] = [found.accepted, *found.deltas, found.finished]
    for came_s, event in filter(None, came):
        if came_s <= at_s:
            run.take(Streamed(found.request.id, event, came_s))
    if found.end_s <= at_s:
        run.problem = printable(found.problem)
    run.changes = [before for before in found.changes if before <= len(run.gaps_s)]
    return run


def asked(request: Generate) -> str:
    """The prompt's text, without a system prompt."""
    return request.messages[-1].content if request.messages else request.prompt or ""


def _signature(plan: PlanInfo) -> tuple[str, int, int]:
    """What makes a plan another one for whoever waits for tokens."""
    return plan.mode, plan.decode_units, plan.prefill_units


def first_difference(one: Run, other: Run) -> int | None:
    """The output position at which two answers part; null: they agree as far as both go, to the same end."""
    for index, (a, b) in enumerate(zip(one.token_ids, other.token_ids, strict=False)):
        if a != b:
            return index
    return None if one.tokens == other.tokens else min(one.tokens, other.tokens)
