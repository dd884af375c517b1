"""The make-believe daemon as a source: it catches up with the clock whenever it is polled."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Final

from rapidctl.client import Call
from rapidctl.demo.daemon import ENDPOINT, TICK_S, DemoDaemon
from rapidctl.demo.load import quantiles, step_s
from rapidctl.source import Answer, Connection, Received, Streamed, Update
from rapidctl.wire import (
    Accepted,
    ChoiceResult,
    Delta,
    Finished,
    Generate,
    Mode,
    Quantiles,
    Sampling,
    Timing,
    pack_ids,
)

WARM_UP_S: Final = 120.0
SHOWN_S: Final = 60.0
"""It has run for so long when the console opens, and tells the last minute of it, so that charts have a past."""
TEXT: Final = (
    "Prefill reads the whole prompt at once and is bound by arithmetic; decode makes one token at a time and is bound "
    "by memory. On one device they can share the weights and the cache, and only the compute units are divided. "
)
WORDS: Final = TEXT.split()


class _Answer:
    """One streamed make-believe answer."""

    def __init__(self, request: Generate, now: float) -> None:
        self.request = request
        self.sent_s = now
        self.due_s = now + 0.19
        self.stamps: list[float] = []
        self.accepted = self.stopped = False

    @property
    def wanted(self) -> int:
        """Tokens."""
        return min(self.request.sampling.max_tokens or 64, 256)


class DemoSource:
    """As `rapidctl.source.Source`. ``clock`` is the console's monotonic clock, ``wall`` the unix one."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time, *, seed: int = 1
    ) -> None:
        self._clock = clock
        self._start_s = clock() - WARM_UP_S
        self.daemon = DemoDaemon(wall() - WARM_UP_S, seed=seed)
        self._updates: list[Update] = []
        self._streams: list[_Answer] = []
        self._ticket = 0
        self._seen_events = 0

    def start(self) -> None:  # noqa: D102
        self._updates.append(Connection(ENDPOINT, connected=True))

    def poll(self) -> list[Update]:  # noqa: D102
        now = self._clock()
        while self._start_s + self.daemon.now_s + TICK_S <= now:
            self.daemon.tick()
            if self.daemon.now_s > WARM_UP_S - SHOWN_S:
                self._tell()
        for stream in list(self._streams):
            self._stream(stream, now)
        taken, self._updates = self._updates, []
        return taken

    def ask(self, request: Call, *, control: bool = False) -> int:  # noqa: D102
        self._ticket += 1
        self._updates.append(Answer(self._ticket, self.daemon.answer(request)))
        return self._ticket

    def generate(self, request: Generate) -> None:  # noqa: D102
        self._streams.append(_Answer(request, self._clock()))

    def abandon(self, request_id: str) -> None:  # noqa: D102
        for stream in self._streams:
            if stream.request.id == request_id:
                stream.stopped = True

    def lock(self) -> None:  # noqa: D102
        pass

    def close(self) -> None:  # noqa: D102
        pass

    def _tell(self) -> None:
        self._updates.extend(event for event in self.daemon.events if event.seq >= self._seen_events)
        self._seen_events = self.daemon.events[-1].seq + 1
        self._updates.append(Received(self.daemon.snapshot(), self._start_s + self.daemon.now_s))

    def _stream(self, stream: _Answer, now: float) -> None:
        request = stream.request
        if not stream.accepted:
            stream.accepted = True
            tokens = len(_prompt_words(request)) + 10
            self._put(request.id, Accepted(id=request.id, prompt_tokens=tokens, seed=request.sampling.seed or 1), now)
        while not stream.stopped and stream.due_s <= now and len(stream.stamps) < stream.wanted:
            index = len(stream.stamps)
            stream.stamps.append(stream.due_s)
            delta = Delta(
                id=request.id, index=index, token_ids=pack_ids([_token(request.sampling, index)]),
                text=_text(request.sampling, index), at_mono_ns=[int(stream.due_s * 1e9)],
            )  # fmt: skip
            self._put(request.id, delta, stream.due_s)
            plan = self.daemon.plan
            stream.due_s += step_s(self.daemon.load.batch, plan.decode_units, plan.mode, True) * (1 + index % 5 / 20)
        if stream.stopped or len(stream.stamps) >= stream.wanted:
            self._streams.remove(stream)
            self._put(request.id, _finished(stream, self.daemon.plan.mode), now)

    def _put(self, request_id: str, event: Accepted | Delta | Finished, at_s: float) -> None:
        self._updates.append(Streamed(request_id, event, at_s))


def _prompt_words(request: Generate) -> list[str]:
    said = [request.prompt or "", *(message.content for message in request.messages or [])]
    return " ".join(said).split()


def _token(sampling: Sampling, index: int) -> int:
    """Greedy answers are all the same, sampled ones depend on the seed."""
    shift = 0 if sampling.temperature == 0 else (sampling.seed or 1) % len(WORDS)
    return (index + shift) % len(WORDS)


def _text(sampling: Sampling, index: int) -> str:
    return WORDS[_token(sampling, index)] + " "


def _finished(stream: _Answer, mode: Mode) -> Finished:
    request, stamps = stream.request, stream.stamps
    gaps = [(after - before, 1) for before, after in pairwise(stamps)]
    ttft = stamps[0] - stream.sent_s if stamps else None
    choice = ChoiceResult(
        index=0, finish_reason="cancelled" if stream.stopped else "length",
        text="".join(_text(request.sampling, index) for index in range(len(stamps))),
        token_ids=pack_ids(_token(request.sampling, index) for index in range(len(stamps))),
    )  # fmt: skip
    timing = Timing(
        queued_s=0.004, prefill_s=None if ttft is None else ttft - 0.004, ttft_s=ttft,
        e2e_s=stream.due_s - stream.sent_s, itl_s=quantiles(gaps) if gaps else Quantiles(n=0),
    )  # fmt: skip
    return Finished(
        id=request.id, choices=[choice], prompt_tokens=len(_prompt_words(request)) + 10, cached_tokens=0,
        output_tokens=len(stamps), timing=timing, mode=mode,
    )  # fmt: skip
