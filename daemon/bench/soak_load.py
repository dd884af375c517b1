"""Random load for a soak run: requests, cancels and mode switches, drawn from one seed; every message is recorded.

The stream of random numbers is the same for a seed, but which request meets which other one depends on the device's
speed: a run is like another of its seed, not equal to it. Judges nothing: see `bench.soak_checks`.
"""

import random
import time
from collections.abc import Mapping, Sequence

from bench.soak_checks import Events, Record
from rapidctl import wire
from rapidctl.client import Client, new_id
from rapidctl.errors import Refused
from rapidctl.wire import Cancel, Deltas, Failed, Finished, Generate, GetEvents, PlanRequest, Sampling, SetPartition

SWITCH_S = 2.1
"""The daemon takes a change of the partition every 2 s."""
LOOK_S = 0.25
"""Between two looks at the events, of which the daemon keeps a thousand."""
GAP_S = 0.004
"""Mean of the exponential gaps between arrivals, while fewer requests live than is wanted at the moment."""
LIVE = (2, 12, 40, 80)
"""Requests that live at once: another number with each switch, from an almost idle daemon to a queue."""
LEAST_SWITCHES = 2
"""Of a load, however long they take: a machine that does something else for a second must not make one of them all."""
STALL_S = 60.0
"""A load in which nothing at all happens for so long has ended."""


class Mix:
    """What is asked for: random ids, a share of prompts with a common beginning, lengths within ``max_model_len``."""

    def __init__(self, draw: random.Random, vocab_size: int, max_model_len: int) -> None:
        self._draw = draw
        self._vocab_size = vocab_size
        self._max_prompt = 2 * max_model_len // 3
        self._max_output = max_model_len - self._max_prompt
        self._heads = [self._ids(self._max_prompt) for _ in range(4)]

    def plain(self) -> Generate:
        """A greedy request of one choice."""
        sampling = Sampling(max_tokens=self._draw.randint(1, self._max_output), ignore_eos=True)
        return Generate(id=new_id(), prompt_ids=wire.pack_ids(self._prompt()), sampling=sampling)

    def any(self) -> Generate:
        """Mostly greedy; some sampled, some with several choices, all of some priority."""
        draw, request = self._draw, self.plain()
        request.n = draw.randint(2, 4) if draw.random() < 0.1 else 1
        request.priority = draw.choice((-1, 0, 0, 0, 1))
        request.slo_class = draw.choice(("interactive", "batch"))
        if draw.random() < 0.15:
            request.sampling = Sampling(
                max_tokens=request.sampling.max_tokens,
                ignore_eos=True,
                temperature=draw.uniform(0.2, 1.5),
                top_k=draw.choice((0, 5, 40)),
                top_p=draw.choice((1.0, 0.9)),
                min_p=draw.choice((0.0, 0.02)),
                repetition_penalty=draw.choice((1.0, 1.2)),
                presence_penalty=draw.choice((0.0, 0.7)),
                frequency_penalty=draw.choice((0.0, 0.3)),
                logprobs=draw.choice((None, 3)),
                seed=draw.getrandbits(40),
            )
        return request

    def _prompt(self) -> list[int]:
        draw = self._draw
        if draw.random() < 0.4:  # one that others begin with as well, up to somewhere, and a tail of its own
            head = draw.choice(self._heads)[: draw.randint(1, self._max_prompt)]
            return head + self._ids(draw.randint(0, min(16, self._max_prompt - len(head))))
        return self._ids(draw.randint(1, draw.choice((16, self._max_prompt))))

    def _ids(self, length: int) -> list[int]:
        return [self._draw.randrange(self._vocab_size) for _ in range(length)]


class Recorder(Client):
    """The product's client, which also keeps every message of every stream as it arrives.

    A `Stream` drops what is repeated, as it must after a lost connection; here nothing may be repeated.
    """

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint, name="soak", control=True, timeout_s=60)
        self.records: dict[str, Record] = {}
        """By id."""
        self.heard_s = time.monotonic()
        """When the last message of a stream came."""

    def _dispatch(self, message: wire.Reply) -> None:
        super()._dispatch(message)
        if isinstance(message, Deltas):
            self.heard_s = time.monotonic()
            for delta in message.items:
                self.records[delta.id].take(delta)
                if stream := self.streams.get(delta.id):
                    stream.events.clear()
        elif isinstance(message, Finished | Failed) and message.id is not None:
            self.heard_s = time.monotonic()
            self.records[message.id].endings.append(message)


class Load:
    """Drives one daemon. ``plans``: by the name under which the daemon says that they run.

    Whatever happens, ``records`` has everything that was sent, in order.
    """

    def __init__(
        self,
        client: Recorder,
        mix: Mix,
        draw: random.Random,
        plans: Mapping[str, PlanRequest],
        records: list[Record],
    ) -> None:
        self.records = records
        self.tried: dict[str, str] = {}
        """Plans that were pinned, and their modes."""
        self.faults: list[str] = []
        self.switches = 0
        start = client.call(GetEvents(call=0, from_seq=0, limit=1))
        self.events = Events(start.next_seq)
        self._client, self._mix, self._draw, self._plans = client, mix, draw, plans
        self._turn: list[str] = []
        self._plan = "the policy"
        self._live = 0
        self._doomed: list[tuple[Record, int, float]] = []

    def serial(self, seconds: float, tokens: int) -> None:
        """One greedy request at a time under ``serial``, each on an otherwise idle daemon: so long, so many tokens."""
        self._pin("serial")
        end = time.monotonic() + seconds
        got = 0
        while time.monotonic() < end or got < tokens:
            record = self._send(self._mix.plain())
            self._drain()
            got += record.output_tokens
            if not record.endings:
                return

    def random(self, seconds: float) -> None:
        """Arrivals, cancels and a switch every `SWITCH_S`, then wait until everything has ended."""
        now = time.monotonic()
        end, switch, arrival, look = now + seconds, now, now, now
        switches = 0
        while (now := time.monotonic()) < end or switches < LEAST_SWITCHES:
            if now >= switch:
                self._switch()
                switches += 1
                switch = time.monotonic() + SWITCH_S
            if now >= look:
                self._look()
                look = now + LOOK_S
            if now >= arrival and len(self._client.streams) < self._live:
                self._arrive(now)
                arrival = now + self._draw.expovariate(1 / GAP_S)
            self._cancel_due(now)
            due = min(switch, arrival if arrival > now else now + GAP_S, end if end > now else switch)
            self._client.poll(max(0.0, due - now))
        self._drain()
        self._look()

    def rest(self, seconds: float) -> None:
        """Nothing, for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._client.poll(min(left, LOOK_S))
            self._look()

    def _switch(self) -> None:
        """The next plan of a shuffled round of all, and another number of live requests: first the most."""
        if not self._turn:
            self._turn = self._draw.sample(sorted(self._plans), len(self._plans))
        self._pin(self._turn.pop())
        self._live = self._draw.choice(LIVE) if self.switches > 1 else LIVE[-1]

    def _pin(self, plan: str) -> None:
        request = self._plans[plan]
        try:
            self._client.call(SetPartition(call=0, plan=request, ttl_s=None, guard=False, by="soak"))
        except Refused as error:
            self.faults.append(f"plan {plan} was refused: {error.code}: {error.message}")
        else:
            self.switches += 1
            self.tried[plan] = request.mode
            self._plan = plan

    def _arrive(self, now: float) -> None:
        """One more request; a fifth of them will be cancelled: at once, after a while, or after some tokens."""
        record = self._send(self._mix.any())
        tokens = record.request.sampling.max_tokens or 1
        match self._draw.randrange(15):
            case 0:
                self._cancel(record)
            case 1:
                self._doomed.append((record, 10**9, now + self._draw.uniform(0, 0.1)))
            case 2:
                self._doomed.append((record, self._draw.randint(1, tokens), now + 10**9))

    def _send(self, request: Generate) -> Record:
        record = Record(request, self._plan)
        self._client.records[request.id] = record
        self.records.append(record)
        self._client.submit(request)
        return record

    def _cancel_due(self, now: float) -> None:
        """Those whose time has come, or who have enough tokens; the ended are forgotten."""
        waiting = []
        for doomed in self._doomed:
            record, tokens, at = doomed
            if now >= at or record.output_tokens >= tokens:
                self._cancel(record)
            elif not record.endings:
                waiting.append(doomed)
        self._doomed = waiting

    def _cancel(self, record: Record) -> None:
        if record.endings:
            return
        record.cancelled = True
        try:
            self._client.call(Cancel(call=0, id=record.request.id))
        except Refused as error:
            if error.code != "not_found":  # it ended meanwhile
                raise

    def _drain(self) -> None:
        """Until all streams have ended, or nothing has come for `STALL_S`."""
        begin = time.monotonic()
        while self._client.streams and time.monotonic() < max(begin, self._client.heard_s) + STALL_S:
            self._client.poll(GAP_S if self._doomed else 1.0)
            self._cancel_due(time.monotonic())

    def _look(self) -> None:
        reply = self._client.call(GetEvents(call=0, from_seq=self.events.next_seq))
        self.events.take(reply.events, reply.oldest_seq)


def plans_of(splits: Sequence[int]) -> list[PlanRequest]:
    """Every mode and every split: with chunks bounded by time, and with small ones, so that prompts take several."""
    whole = [PlanRequest(mode=mode, chunk=chunk) for mode in ("serial", "hybrid", "shared") for chunk in (None, 48)]
    parts = [PlanRequest(mode="split", decode_units=units, chunk=chunk) for units in splits for chunk in (None, 48)]
    return [*whole, PlanRequest(mode="serial", chunk="all"), *parts]
