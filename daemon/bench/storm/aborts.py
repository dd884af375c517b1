"""Requests that are given up in every phase, on a full daemon: afterwards nobody holds a block.

Each is given up by a cancel, by a client that forgets it, or by a connection that is closed, at a moment of its own:
before it was accepted, while it waits or its prompt is computed, at its first token, while it decodes with one or
several choices, after it was preempted, or when its last token is about to come.
"""

import contextlib
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final, Literal

from bench.storm.site import CHECK_S, MAX_ROWS, VOCAB, Site, pump, request
from rapidctl.client import Client, Stream
from rapidctl.errors import Refused
from rapidctl.wire import Failed

LIVE: Final = MAX_ROWS + 24
"""So that many wait, and rows preempt each other in a cache too small for all."""
A_CONNECTION: Final = 200
"""Requests of one connection before it is closed with all that live."""
Moment = Literal["at once", "accepted", "first token", "decoding", "last token"]
MOMENTS: Final[tuple[Moment, ...]] = ("at once", "accepted", "first token", "decoding", "last token")


@dataclass(slots=True)
class Victim:
    """A stream, and when it is given up."""

    stream: Stream
    moment: Moment
    tokens: int
    """Of which it must have so many."""

    def due(self) -> bool:
        """Whether its moment has come, or gone."""
        if self.stream.ended is not None or self.moment == "at once":
            return True
        return self.stream.accepted is not None and self.stream.output_tokens >= self.tokens


def run(site: Site, aborts: int, seed: int = 0, idle_s: float = CHECK_S) -> dict[str, Any]:
    """Give up so many requests."""
    draw = random.Random(seed)
    given_up: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    before = site.status().requests
    while given_up.total() < aborts:
        with site.client() as client:
            _one_connection(client, draw, given_up, failures, min(A_CONNECTION, aborts - given_up.total()))
    problems = site.problems(idle_s=idle_s)
    after = site.status().requests
    preempted = after.preempted_total - before.preempted_total
    if not preempted and aborts >= 1000:
        problems.append("nothing was preempted: the load was too light")
    return {
        "aborts": given_up.total(),
        "by_moment": dict(sorted(given_up.items())),
        "preemptions": preempted,
        "refused_queue_full": failures.pop("queue_full", 0),
        "failures": [f"{count} requests failed: {code}" for code, count in failures.items()] + problems,
    }


def _one_connection(
    client: Client, draw: random.Random, given_up: "Counter[str]", failures: "Counter[str]", aborts: int
) -> None:
    """So many requests given up on one connection; those that live at its end are given up by closing it."""
    live: dict[str, Victim] = {}
    calls = 0
    while calls + len(live) < aborts:
        while len(live) < LIVE and calls + len(live) < aborts:
            victim = _submit(client, draw)
            live[victim.stream.id] = victim
        pump(client, lambda: any(victim.due() for victim in live.values()))
        for victim in [victim for victim in live.values() if victim.due()]:
            del live[victim.stream.id]
            if (ended := victim.stream.ended) is not None:  # sooner than it could be given up
                if isinstance(ended, Failed):
                    failures[ended.code] += 1
                continue
            calls += 1
            given_up[victim.moment] += 1
            if draw.random() < 0.5:
                client.abandon(victim.stream.id)
            else:
                _cancel(client, victim.stream)
    given_up["connection closed"] += sum(victim.stream.ended is None for victim in live.values())


def _submit(client: Client, draw: random.Random) -> Victim:
    moment = draw.choice(MOMENTS)
    max_tokens = draw.randint(4, 60)
    prompt = [draw.randrange(3, VOCAB) for _ in range(draw.choice((1, 8, 40, 300, 400)))]
    asked = request(prompt, max_tokens, n=draw.choice((1, 1, 1, 3)))
    asked.priority = draw.choice((0, 0, 0, 1))  # the higher one preempts
    stream = client.submit(asked)
    most = max_tokens * stream.request.n
    wanted = {"first token": 1, "decoding": draw.randint(1, most), "last token": most - 1}
    return Victim(stream, moment, wanted.get(moment, 0))


def _cancel(client: Client, stream: Stream) -> None:
    """As an operator would; the stream still ends by itself, and must."""
    with contextlib.suppress(Refused):  # it ended meanwhile, or was not accepted yet
        client.cancel(stream.id)
        pump(client, lambda: stream.ended is not None)
