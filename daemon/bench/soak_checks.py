"""What a soak run checks, on plain data: each request's messages, the tokens' shortfalls, the daemon's own counts.

Pure: no socket, no clock, no torch. Every check returns sentences for people, one a problem; none: it passed.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rapidctl.wire import Delta, Event, Failed, Finished, Generate, Snapshot, TokenLogprob, unpack_ids

TOLERANCE_FACTOR = 2.0
"""The worst shortfall of a serial run is the largest of a small sample; that of a load has a longer tail."""
NOISE_FACTOR = 2.0
"""A token chosen by logits that are off by at most d falls short by at most 2 d."""
TOLERANCE_FLOOR = 1e-3
"""In float32 a serial run's shortfall may be 0, while two logits as close as that may still change places."""
BAD_EVENTS = frozenset(
    {"device_error", "engine_lost", "out_of_memory", "resubmitted", "client_lost", "slow_consumer", "guard", "ttl"}
)


@dataclass(slots=True)
class Record:
    """A request and every message about it, as they arrived. ``plan``: what ran when it was sent."""

    request: Generate
    plan: str
    cancelled: bool = False
    """The client asked for its end; it may have come too late."""
    outputs: list["array[int]"] = field(default_factory=list)
    """Ids by choice."""
    endings: list[Finished | Failed] = field(default_factory=list)
    logprobs: list[list[TokenLogprob]] = field(default_factory=list)
    """Of the ids, where they were asked for."""
    faults: list[str] = field(default_factory=list)
    """What was wrong with single messages."""

    def __post_init__(self) -> None:
        self.outputs = [array("I") for _ in range(self.request.n)]
        self.logprobs = [[] for _ in range(self.request.n)]

    @property
    def greedy(self) -> bool:
        """Whether every token must be the most likely one."""
        return self.request.sampling.temperature == 0

    @property
    def prompt(self) -> list[int]:
        """Prompt ids."""
        assert self.request.prompt_ids is not None
        return unpack_ids(self.request.prompt_ids)

    @property
    def output_tokens(self) -> int:
        """Of all choices, so far."""
        return sum(map(len, self.outputs))

    def take(self, delta: Delta) -> None:
        """New output."""
        if self.endings:
            self.faults.append("output came after the end")
        if delta.choice >= len(self.outputs):
            self.faults.append(f"output of choice {delta.choice}, of {len(self.outputs)} choices")
            return
        have = self.outputs[delta.choice]
        ids = unpack_ids(delta.token_ids)
        if ids and delta.index != len(have):
            what = "repeated" if delta.index < len(have) else "lost"
            self.faults.append(f"choice {delta.choice}: tokens {what}: index {delta.index} after {len(have)} tokens")
        have.extend(ids)
        self.logprobs[delta.choice].extend(delta.logprobs or [])

    def problems(self) -> list[str]:
        """Once the load is over: it ended exactly once, with all its tokens and as it was meant to."""
        found = list(self.faults)
        if len(self.endings) != 1:
            found.append(f"ended {len(self.endings)} times")
        for last in self.endings:
            found += [f"failed: {last.code}: {last.message}"] if isinstance(last, Failed) else self._of_end(last)
        return [f"{self.request.id} (sent under {self.plan}): {problem}" for problem in found]

    def _of_end(self, last: Finished) -> list[str]:
        found = []
        wanted = self.request.sampling.max_tokens
        said = [unpack_ids(choice.token_ids) for choice in last.choices]
        if said != [ids.tolist() for ids in self.outputs]:
            found.append("the last message holds other tokens than were streamed")
        if last.output_tokens != self.output_tokens:
            found.append(f"the last message counts {last.output_tokens} tokens, {self.output_tokens} were streamed")
        if last.prompt_tokens != len(self.prompt):
            found.append(f"the last message counts {last.prompt_tokens} prompt tokens, {len(self.prompt)} were sent")
        for choice, ids in zip(last.choices, self.outputs, strict=False):
            if choice.finish_reason == "stop" or (choice.finish_reason == "cancelled" and not self.cancelled):
                found.append(f"choice {choice.index} ended by {choice.finish_reason!r}, which nobody asked for")
            elif choice.finish_reason == "length" and len(ids) != wanted:
                found.append(f"choice {choice.index} has {len(ids)} tokens of {wanted}")
            elif wanted is not None and len(ids) > wanted:
                found.append(f"choice {choice.index} has {len(ids)} tokens, more than the {wanted} asked for")
        return found


@dataclass(frozen=True, slots=True)
class Checked:
    """One greedy choice against the float32 reference.

    ``shortfalls[i]``: how far the logit of output token ``i`` lies below the highest one there; inf: no finite logits.
    ``noise[i]``: how far plain arithmetic in the daemon's own type may be off there; known for suspects only.
    """

    record: Record
    choice: int
    shortfalls: Sequence[float]
    noise: Sequence[float] | None = None

    def allowed(self, index: int, most: float) -> float:
        """The shortfall that token ``index`` may have: ``most``, or more where the type itself is worse than that."""
        return most if self.noise is None else max(most, NOISE_FACTOR * self.noise[index])


def tolerance(serial: Iterable[Checked]) -> tuple[float, float]:
    """The worst shortfall of a serial run, and the tolerance that follows from it."""
    worst = max(value for checked in serial for value in checked.shortfalls)
    return worst, max(TOLERANCE_FACTOR * worst, TOLERANCE_FLOOR)


@dataclass(frozen=True, slots=True)
class Suspect:
    """A token that the tolerance alone does not allow, with all that is needed to look at it again."""

    id: str
    plan: str
    choice: int
    prompt: list[int]
    output: list[int]
    """Up to and with that token."""
    length: int
    """Of the whole output."""
    shortfall: float
    allowed: float

    @property
    def wrong(self) -> bool:
        """Its logit is further below the highest one than the type explains."""
        return not self.shortfall <= self.allowed < math.inf

    def facts(self) -> dict[str, Any]:
        """For JSON, which has no infinity."""
        facts = asdict(self)
        return facts | {name: None for name in ("shortfall", "allowed") if not math.isfinite(facts[name])}

    def __str__(self) -> str:
        return (
            f"{self.id} (sent under {self.plan}, prompt of {len(self.prompt)}): choice {self.choice}, token "
            f"{len(self.output)} of {self.length} is {self.output[-1]}, whose logit is {self.shortfall:.4g} below the "
            f"highest; {self.allowed:.4g} is allowed"
        )


def find_suspects(checked: Iterable[Checked], most: float) -> list[Suspect]:
    """Tokens further than ``most`` below the highest: first the wrong ones, then those that the noise explains."""
    found = [
        Suspect(
            one.record.request.id,
            one.record.plan,
            one.choice,
            one.record.prompt,
            one.record.outputs[one.choice][: index + 1].tolist(),
            len(one.record.outputs[one.choice]),
            shortfall,
            one.allowed(index, most),
        )
        for one in checked
        for index, shortfall in enumerate(one.shortfalls)
        if not shortfall <= most < math.inf
    ]
    return sorted(found, key=lambda suspect: not suspect.wrong)


@dataclass(slots=True)
class Events:
    """The daemon's events since the load began."""

    next_seq: int
    unseen: int = 0
    """Events that the daemon dropped before they were read."""
    kinds: Counter[str] = field(default_factory=Counter)
    applied: set[str] = field(default_factory=set)
    """Plans that ran, as the daemon describes them."""
    bad: list[str] = field(default_factory=list)

    def take(self, events: Sequence[Event], oldest_seq: int) -> None:
        """An answer to `GetEvents` from ``next_seq`` on."""
        self.unseen += max(0, oldest_seq - self.next_seq)
        for event in events:
            self.kinds[event.kind] += 1
            if event.kind == "applied":
                self.applied.add(event.text.removesuffix(" runs"))
            if event.kind in BAD_EVENTS or event.level == "error":
                self.bad.append(f"event {event.kind}: {event.text}")
        if events:
            self.next_seq = events[-1].seq + 1

    def problems(self) -> list[str]:
        """Events that a healthy daemon has not, and events that could not be looked at."""
        return self.bad + ([f"{self.unseen} events were dropped before they were read"] if self.unseen else [])


def daemon_problems(before: Snapshot, after: Snapshot, records: Sequence[Record]) -> list[str]:
    """From the start of the load to the idle end: one engine, nothing left over, everything accounted for."""
    found = []
    if (after.boot_id, after.front_boot_id) != (before.boot_id, before.front_boot_id):
        found.append("the engine or the front was restarted")
    if after.engine.restarts or after.front.restarts:
        found.append(f"the engine was restarted {after.engine.restarts} times, the front {after.front.restarts} times")
    if after.state != "serving" or after.kv is None or before.kv is None:
        return [*found, f"at the end the daemon is {after.state}: {after.detail}"]
    if after.kv.blocks_used:
        found.append(f"{after.kv.blocks_used} KV blocks are still held by an idle daemon")
    if left := after.requests.waiting + after.requests.prefilling + after.requests.decoding:
        found.append(f"{left} requests are still running")
    accepted, finished, failed, cancelled, refused = (
        getattr(after.requests, name) - getattr(before.requests, name)
        for name in ("accepted_total", "finished_total", "failed_total", "cancelled_total", "refused_total")
    )
    if (accepted, finished + cancelled, failed, refused) != (len(records), len(records), 0, 0):
        found.append(
            f"of {len(records)} requests the daemon counts {accepted} accepted, {finished} finished, "
            f"{cancelled} cancelled, {failed} failed, {refused} refused"
        )
    if after.requests.preempted_total == before.requests.preempted_total:
        found.append("nothing was preempted: the load was too light")
    if after.kv.prefix_hit_tokens_total == before.kv.prefix_hit_tokens_total:
        found.append("the prefix cache was never hit")
    return found


def coverage_problems(records: Sequence[Record]) -> list[str]:
    """The load had something of everything: cancels before and after the first token, choices, sampling."""
    cut = [record for record in records if _was_cut(record)]
    needed = {
        "cancelled before its first token": any(not record.output_tokens for record in cut),
        "cancelled while it decoded": any(record.output_tokens for record in cut),
        "with several choices": any(record.request.n > 1 for record in records),
        "greedy and whole": any(record.greedy and not record.cancelled for record in records),
        "sampled": any(not record.greedy for record in records),
    }
    return [f"no request was {what}" for what, happened in needed.items() if not happened]


def _was_cut(record: Record) -> bool:
    ends = [choice for last in record.endings if isinstance(last, Finished) for choice in last.choices]
    return any(choice.finish_reason == "cancelled" for choice in ends)


def mode_problems(seconds: dict[str, float], tried: dict[str, str], applied: set[str]) -> list[str]:
    """``seconds`` by mode since the load began; ``tried``: every plan that was pinned, and its mode."""
    found = [f"{plan} was pinned and never ran" for plan in tried if plan not in applied]
    modes = sorted(set(tried.values()))
    return found + [f"no time was spent in mode {mode}" for mode in modes if seconds.get(mode, 0.0) <= 0]
