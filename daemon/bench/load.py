"""Requests of known shape, sent through the product's own client, and what their stamps say. Knows no requirement."""

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rapidctl.client import Client, Stream, new_id
from rapidctl.wire import Delta, Failed, Finished, Generate, Sampling, pack_ids

FIRST_ID, LAST_ID = 1_000, 40_000
"""Ordinary words of the default model's vocabulary: no control tokens."""


class Prompts:
    """Random ids, never the same twice: no prompt finds another one's blocks in the prefix cache."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def __call__(self, length: int) -> list[int]:
        """The next prompt."""
        return [self._random.randint(FIRST_ID, LAST_ID) for _ in range(length)]


@dataclass(slots=True)
class Run:
    """One greedy stream that does not end before its limit."""

    stream: Stream
    stamps_ns: list[int] = field(default_factory=list)
    """When the engine had each token."""

    @property
    def finished(self) -> Finished | None:
        """How it ended, once it has. Raises RuntimeError if it failed."""
        if isinstance(self.stream.ended, Failed):
            raise RuntimeError(f"a stream failed: {self.stream.ended.message}")
        return self.stream.ended

    def take(self) -> None:
        """Read the events that have arrived."""
        while self.stream.events:
            event = self.stream.events.popleft()
            if isinstance(event, Delta):
                self.stamps_ns += event.at_mono_ns


def start(client: Client, prompt: Sequence[int], max_tokens: int) -> Run:
    """Open a stream."""
    sampling = Sampling(max_tokens=max_tokens, ignore_eos=True)
    return Run(client.submit(Generate(id=new_id(), prompt_ids=pack_ids(prompt), sampling=sampling)))


def pump(client: Client, runs: Sequence[Run], until: Callable[[], bool]) -> None:
    """Let messages in until the condition holds. Raises RuntimeError when a stream fails first."""
    while not until():
        client.poll(1.0)
        for run in runs:
            run.take()
            _ = run.finished


def complete(client: Client, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[Run]:
    """Streams from all prompts at once, to their end."""
    runs = [start(client, prompt, max_tokens) for prompt in prompts]
    pump(client, runs, lambda: all(run.finished for run in runs))
    return runs


def rate(stamps_ns: Sequence[int]) -> float:
    """Tokens a second from the first token on: decode alone."""
    return (len(stamps_ns) - 1) * 1e9 / (stamps_ns[-1] - stamps_ns[0])


def joint_rate(runs: Sequence[Run]) -> float:
    """Tokens a second of all streams together, while all of them decode."""
    begin = max(run.stamps_ns[0] for run in runs)
    end = min(run.stamps_ns[-1] for run in runs)
    tokens = sum(sum(begin < at <= end for at in run.stamps_ns) for run in runs)
    return tokens * 1e9 / (end - begin)


def longest_gap(stamps_ns: Sequence[int], begin_ns: int, end_ns: int) -> float:
    """Longest time without a token, in seconds, of the gaps that overlap ``[begin, end]``."""
    gaps = itertools.pairwise(stamps_ns)
    return max((after - before) / 1e9 for before, after in gaps if after > begin_ns and before < end_ns)
