"""From a trace to the engine's requests, with prefix hashes but without tokens that mean anything.

Prompts share blocks exactly as the trace says: a block's hash covers what the trace calls its text, and all before.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from rapidctl.bench.trace import Part, Trace
from rapidd.engine.observe import Limits
from rapidd.engine.request import Request, SamplingParams

GREEDY: Final = SamplingParams()


@dataclass(frozen=True, slots=True)
class Item:
    """One request of a load; ``hashes`` of its prompt's full blocks."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    hashes: list[bytes]

    def request(self, rid: int, limits: Limits) -> Request:
        """As the scheduler takes it. Its tokens are its own number: no block is shared but by ``hashes``."""
        arrival_ns = int(self.arrival_s * 1e9)
        request = Request(
            rid,
            array("I", (rid,)) * self.prompt_tokens,
            array("I"),
            max_output=self.output_tokens,
            sampling=GREEDY,
            arrival_ns=arrival_ns,
            due_ns=limits.due_ns(arrival_ns, self.prompt_tokens),
        )
        request.hashes = list(self.hashes)
        return request


def load_of(trace: Trace, block_tokens: int) -> list[Item]:
    """The trace's requests as items, in order of arrival."""
    return [
        Item(r.arrival_s, r.prompt_tokens, r.output_tokens, block_hashes(r.parts, block_tokens)) for r in trace.requests
    ]


def block_hashes(parts: Iterable[Part], block_tokens: int) -> list[bytes]:
    """Of each full block: equal for prompts whose tokens up to the block's end are the same text."""
    hashes: list[bytes] = []
    parent, content, room = b"", b"", block_tokens
    for key, tokens in parts:
        offset = 0
        while tokens - offset >= room:
            content += b"%d+%d:%d" % (key, offset, room)
            offset += room
            parent = blake2b(parent + content, digest_size=16).digest()
            hashes.append(parent)
            content, room = b"", block_tokens
        if tokens > offset:
            content += b"%d+%d:%d" % (key, offset, tokens - offset)
            room -= tokens - offset
    return hashes


def slice_of(items: Sequence[Item], scale: float, seconds: float) -> list[Item]:
    """What arrives in the first ``seconds`` when requests come ``scale`` times as fast."""
    found = []
    for item in items:
        arrival_s = item.arrival_s / scale
        if arrival_s >= seconds:
            break
        found.append(Item(arrival_s, item.prompt_tokens, item.output_tokens, item.hashes))
    return found
