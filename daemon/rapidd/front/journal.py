"""The front's memory of every live request: what was asked, and every id received so far.

It is what lets a request survive the engine: `Journal.submit` makes the `ipc.Submit` of a choice with the outputs it
already has, under a new number each time, so that whatever an old engine still says falls on deaf ears. Knows no
sockets and no clocks; ids come in through `Choice.take`.
"""

import secrets
from array import array
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from rapidctl import wire
from rapidd import ipc
from rapidd.front.streams import OutputText
from rapidd.telemetry.histogram import Histogram

MAX_RESUBMISSIONS: Final = 2
"""A request that was running when the engine died for the third time may be what kills it."""
RID_BITS: Final = 20
"""Every front counts from its own random start: an engine may still speak of what an earlier front asked for."""


class Choice:
    """One of the ``n`` outputs of a stream; the engine knows it as ``rid``."""

    __slots__ = (
        "_gaps", "finish_reason", "first_ns", "gaps_ns", "index", "last_ns", "logprobs", "output_ids", "phase", "rid",
        "state", "stop", "stream", "submitted", "text",
    )  # fmt: skip

    def __init__(self, stream: "Stream", index: int, text: OutputText) -> None:
        self.stream = stream
        self.index = index
        self.text = text
        self.rid = 0
        self.submitted = False
        """The engine that runs now, or the last one, was given it."""
        self.phase: wire.Phase = "waiting"
        self.state: ipc.RequestState | None = None
        self.output_ids = array("I")
        self.logprobs: list[wire.TokenLogprob] | None = None if stream.template.logprobs is None else []
        self.finish_reason: wire.FinishReason | None = None
        self.stop: str | int | None = None
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self.gaps_ns = array("q")
        """Gaps between its tokens that are not in ``gaps`` yet."""
        self._gaps = Histogram()

    @property
    def gaps(self) -> Histogram:
        """All gaps, in seconds. They are sorted in when somebody looks: a step has more to do, with colder caches."""
        self._gaps.record_all([gap_ns / 1e9 for gap_ns in self.gaps_ns])
        del self.gaps_ns[:]
        return self._gaps

    def replay(self, known: int) -> wire.Delta:
        """All its output after the ``known`` ids that its client has."""
        known = min(known, len(self.output_ids))
        restored = 0 if self.logprobs is None else len(self.output_ids) - len(self.logprobs)  # these have none
        return wire.Delta(
            id=self.stream.id,
            choice=self.index,
            index=known,
            token_ids=wire.pack_ids(self.output_ids[known:]),
            text=self.text.after(known),
            logprobs=None if self.logprobs is None else self.logprobs[max(known - restored, 0) :],
            finish_reason=self.finish_reason,
        )

    def take(self, token_id: int, finish: Literal["stop", "length"] | None) -> str:
        """Append one id; ends the choice when ``finish`` is set or a stop string is complete. Returns new text."""
        self.output_ids.append(token_id)
        if finish == "stop":
            self.text.push_silent()
            self.stop = token_id if token_id in self.stream.template.stop_token_ids else None
            self.finish_reason = "stop"
            return self.text.close()
        shown, stop = self.text.push(token_id)
        if stop is not None:
            self.stop = stop
            self.finish_reason = "stop"
        elif finish is not None:
            self.finish_reason = finish
            shown += self.text.close()
        return shown

    def restore(self, ids: list[int]) -> None:
        """Take ids that a client received before, judging the end as the engine would have."""
        template = self.stream.template
        for count, token_id in enumerate(ids, start=1):
            ends = token_id in template.eos_token_ids or token_id in template.stop_token_ids
            if ends and count > template.min_tokens:
                self.take(token_id, "stop")
            else:
                self.take(token_id, "length" if count >= template.max_tokens else None)
            if self.finish_reason is not None:
                return

    def result(self) -> wire.ChoiceResult:
        """How it ended; only once it did."""
        assert self.finish_reason is not None
        return wire.ChoiceResult(
            index=self.index,
            finish_reason=self.finish_reason,
            stop=self.stop,
            text=self.text.whole(),
            token_ids=wire.pack_ids(self.output_ids),
        )


class Stream:
    """One accepted `wire.Generate`. ``template`` is the `ipc.Submit` that its choices have in common.

    ``deadline_ns`` is on the monotonic clock; it is the front's to keep, and the engine is told by an `ipc.Abort`.
    """

    __slots__ = (
        "arrival_ns", "cached_tokens", "choices", "client", "deadline_ns", "digest", "first_ns", "id", "kills",
        "prefill_ns",
        "prompt_tokens", "resubmissions", "resumed", "template",
    )  # fmt: skip

    def __init__(
        self,
        stream_id: str,
        client: bytes,
        digest: bytes,
        template: ipc.Submit,
        prompt_tokens: int,
        deadline_ns: int | None,
    ) -> None:
        self.id = stream_id
        self.client = client
        self.digest = digest
        self.template = template
        self.prompt_tokens = prompt_tokens
        self.arrival_ns = template.arrival_mono_ns
        self.deadline_ns = deadline_ns
        self.choices: list[Choice] = []
        self.resumed = False
        """The client brought ids of an earlier life: its latencies are not this daemon's alone."""
        self.first_ns: int | None = None
        self.prefill_ns: int | None = None
        self.cached_tokens: int | None = None
        self.resubmissions = 0
        self.kills = 0
        """Deaths of the engine at which this was the only request that it ran."""

    @property
    def live(self) -> list[Choice]:
        """Choices that have not ended."""
        return [choice for choice in self.choices if choice.finish_reason is None]

    @property
    def done(self) -> bool:
        """All choices have ended."""
        return all(choice.finish_reason is not None for choice in self.choices)

    @property
    def output_tokens(self) -> int:
        """Ids of all choices together."""
        return sum(len(choice.output_ids) for choice in self.choices)

    @property
    def preemptions(self) -> int:
        """As last reported by the engine."""
        return sum(choice.state.preemptions for choice in self.choices if choice.state)


class Journal:
    """Streams by id and choices by number, oldest first, with the size of the queue."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}
        self.choices: dict[int, Choice] = {}
        self.num_waiting = 0
        self.waiting_tokens = 0
        self._next_rid = secrets.randbits(31) << RID_BITS

    def add(self, stream: Stream) -> None:
        """Remember a stream; its choices that have not ended wait."""
        self.streams[stream.id] = stream
        for choice in stream.live:
            self._number(choice)
            self.num_waiting += 1
            self.waiting_tokens += stream.prompt_tokens

    def live(self) -> Iterator[Choice]:
        """Every live choice, oldest stream first."""
        for stream in self.streams.values():
            yield from stream.live

    def waiting(self, now_ns: int) -> Iterator[tuple[float, int]]:
        """Seconds so far, and prompt tokens, of interactive requests that have no first token."""
        for stream in self.streams.values():
            if stream.first_ns is None and not stream.resumed and stream.template.slo_class == "interactive":
                yield (now_ns - stream.arrival_ns) / 1e9, stream.prompt_tokens

    def pausing(self, now_ns: int) -> Iterator[float]:
        """Seconds since its last token, of each choice that has one and goes on."""
        return ((now_ns - choice.last_ns) / 1e9 for choice in self.live() if choice.last_ns is not None)

    def submit(self, choice: Choice) -> ipc.Submit:
        """The message that gives ``choice`` to an engine, under a number that no engine has seen."""
        if choice.submitted:
            del self.choices[choice.rid]
            self._number(choice)
        choice.submitted = True
        choice.state = None
        self.set_phase(choice, "waiting")
        return msgspec.structs.replace(
            choice.stream.template,
            rid=choice.rid,
            choice=choice.index,
            output_ids=wire.pack_ids(choice.output_ids),
        )

    def set_phase(self, choice: Choice, phase: wire.Phase) -> None:
        """Move a choice between phases."""
        change = (phase == "waiting") - (choice.phase == "waiting")
        choice.phase = phase
        self.num_waiting += change
        self.waiting_tokens += change * choice.stream.prompt_tokens

    def end(self, choice: Choice) -> None:
        """Forget the number of a choice that ended or is given up."""
        if self.choices.pop(choice.rid, None) is not None:
            self.set_phase(choice, "decoding")  # no longer waiting

    def remove(self, stream: Stream) -> list[int]:
        """Forget a stream; the numbers of its choices that the engine may still run."""
        del self.streams[stream.id]
        running = [choice.rid for choice in stream.choices if choice.submitted and choice.rid in self.choices]
        for choice in stream.choices:
            self.end(choice)
        return running

    def _number(self, choice: Choice) -> None:
        choice.rid = self._next_rid
        self._next_rid += 1
        self.choices[choice.rid] = choice
