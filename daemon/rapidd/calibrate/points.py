"""Which batches are worth measuring, most valuable first. Pure: knows sizes, no device and no time.

Corners of a grid come before what lies between them, so that a calibration that runs out of time has measured the whole
range, only more coarsely.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product, zip_longest
from random import Random
from typing import Final, TypeVar

from msgspec import Struct

from rapidd.policy.tiles import beside_rows

SHARED_ROWS: Final = (16, 64, 96)
"""Around the sizes from which on a GPU's steps consist of other kernels."""
MAX_CONTEXT: Final = 16384
"""Tokens a row: what lies beyond goes on straight."""
SHORT_CONTEXT: Final = 64
FEW_CONTEXT: Final = 256
LEAD_CHUNKS: Final = 3
"""Chunks without context that are measured before any other."""
CHUNK_SHARE: Final = 0.25
"""Of the cache for one chunk and what lies before it; decode rows have the rest."""

T = TypeVar("T")


class Grid(Struct, frozen=True, kw_only=True):
    """Sizes that are worth measuring; the defaults are those of a GPU."""

    rows: tuple[int, ...] = (1, 4, 16, 32, 64, 96, 128, 192, 256)
    """Where products of few rows change their tiles, and the range between."""
    tokens: tuple[int, ...] = (16, 64, 256, 512, 1024, 2048)
    mixed_tokens: tuple[int, ...] = (64, 256, 512, 1024)
    few_tokens: int = 0
    """Chunks of up to so many are measured behind `FEW_CONTEXT`, too."""
    beside_share: float = 0.5
    """Of the longest that a chunk may take while serving: a chunk for both lanes at once, which makes it longer."""


PROCESSOR: Final = Grid(rows=(1, 4, 8, 16, 32, 64), mixed_tokens=(64, 256), few_tokens=64, beside_share=0.25)
"""More of what is soon measured and less of what takes long, so that everything can be measured several times."""


class Limits(Struct, frozen=True, kw_only=True):
    """Of what can be served, and what of it to measure."""

    max_rows: int
    max_model_len: int
    max_chunk_tokens: int
    kv_blocks: int
    block_tokens: int
    grid: Grid = Grid()


class Step(Struct, frozen=True):
    """A decode step of ``rows`` rows with ``context`` cached tokens each."""

    rows: int
    context: int

    @property
    def kv_tokens(self) -> int:
        """Of all rows."""
        return self.rows * self.context


class Chunk(Struct, frozen=True):
    """``tokens`` of a prompt behind ``context`` cached ones."""

    tokens: int
    context: int


class Neighbour(Struct, frozen=True):
    """A decode step to run beside a chunk, and where."""

    step: Step
    behind_context: bool
    """The chunk has a context."""
    shared: bool
    split: bool
    """On every one."""


def steps(limits: Limits) -> list[Step]:
    """Rows by context, as long as cache and model allow. Two short ones come first, so that others can be foretold."""
    rows = [*(count for count in limits.grid.rows if count < limits.max_rows), limits.max_rows]
    grid = [line for count in rows if (line := _steps(limits, count))]
    return _in_turn(_corners_first([line[:1] for line in grid]), _corners_first([line[1:] for line in grid]), 2)


def _steps(limits: Limits, rows: int) -> list[Step]:
    blocks = int((1 - CHUNK_SHARE) * limits.kv_blocks) // rows
    longest = min(blocks * limits.block_tokens, limits.max_model_len - 1, MAX_CONTEXT) - 1
    contexts = sorted({min(SHORT_CONTEXT, longest), longest // 4, longest})
    return [Step(rows, context) for context in contexts if context > 0]


def chunks(limits: Limits) -> list[Chunk]:
    """Tokens by context. Those without context grow, and `LEAD_CHUNKS` come first, so that others can be foretold.

    Of those with one the smallest behind the longest comes first, which foretells what contexts cost; then the largest
    of the lead behind it, for few tokens do not tell what a context costs many.
    """
    grid = [_chunks(limits, tokens) for tokens in limits.grid.tokens if tokens <= _chunk_room(limits)]
    lead = grid[:LEAD_CHUNKS]
    told = list(dict.fromkeys(line[-1] for line in (*lead[:1], *lead[-1:]) if len(line) > 1))
    behind = _corners_first([line[1:] for line in grid])
    return _in_turn([line[0] for line in grid], [*told, *(chunk for chunk in behind if chunk not in told)], LEAD_CHUNKS)


def _chunk_room(limits: Limits) -> int:
    room = max(int(CHUNK_SHARE * limits.kv_blocks), 1) * limits.block_tokens
    return min(room, limits.max_model_len - 1, limits.max_chunk_tokens)


def _chunks(limits: Limits, tokens: int) -> list[Chunk]:
    room = max(int(CHUNK_SHARE * limits.kv_blocks), 1) * limits.block_tokens
    left = min(room, limits.max_model_len - 1, MAX_CONTEXT) - tokens
    few = {min(FEW_CONTEXT, max(left, 0))} if tokens <= limits.grid.few_tokens else set()
    return [Chunk(tokens, context) for context in sorted({0, max(left // 4, 0), max(left, 0)} | few)]


def mixed(limits: Limits) -> list[tuple[Step, Chunk]]:
    """Hybrid batches: some and many rows by chunks of several lengths, corners before what lies between; both shuffled.

    At most corners one attention takes far longer than the other. Between them many have two of about the same length,
    which tell how far the device runs them side by side.
    """
    counts = sorted({max(1, limits.max_rows // 4), max(1, limits.max_rows - 1)}) if limits.max_rows > 1 else []
    fitting = [tokens for tokens in limits.grid.mixed_tokens if tokens <= _chunk_room(limits)]
    corners: list[tuple[Step, Chunk]] = []
    between: list[tuple[Step, Chunk]] = []
    for rows, tokens in product(counts, fitting):
        decoding, prompts = _steps(limits, rows), _chunks(limits, beside_rows(tokens, rows))
        corners += product(_ends(decoding), _ends(prompts))
        between += product(decoding[1:-1], prompts[1:])
    for pairs in (corners, between):
        Random(0).shuffle(pairs)
    return corners + between


def neighbours(limits: Limits) -> list[Neighbour]:
    """Light steps of the fewest and the most rows first, heavy ones last. In between more on all units alone, whose law
    (`rapidd.policy.turns`) is told by both and by rows between."""
    lines = [_ends(_steps(limits, rows)) for rows in dict.fromkeys((1, limits.max_rows))]
    light = [(line[0], index == 1) for index, line in enumerate(lines) if line]
    heavy = [(line[1], index == 1) for index, line in enumerate(lines) if len(line) > 1]
    between = [line[0] for rows in SHARED_ROWS if rows < limits.max_rows and (line := _steps(limits, rows))]
    return [
        *(Neighbour(*one, shared=True, split=True) for one in light),
        *(Neighbour(*one, shared=True, split=False) for one in heavy),
        *(Neighbour(step, False, shared=True, split=False) for step in between),
        *(Neighbour(*one, shared=False, split=True) for one in heavy),
    ]


def _in_turn(first: Sequence[T], second: Sequence[T], lead: int) -> list[T]:
    """``lead`` of the first ones, then of both by turns: what either is to tell is known early."""
    turns = zip_longest(second, first[lead:])
    return [*first[:lead], *(one for pair in turns for one in pair if one is not None)]


def _ends(line: Sequence[T]) -> list[T]:
    return [*line[:1], *line[1:][-1:]]


def _corners_first(grid: Sequence[Sequence[T]]) -> list[T]:
    ranked = [
        (outer + inner, outer, point)
        for outer, line in zip(_ranks(len(grid)), grid, strict=True)
        for inner, point in zip(_ranks(len(line)), line, strict=True)
    ]
    return [point for _, _, point in sorted(ranked, key=lambda one: one[:2])]


def _ranks(count: int) -> Iterator[int]:
    """Of each position: 0 for both ends, 1 for the middle, 2 for the quarters, ..."""
    for index in range(count):
        rank, step = 0, max(count - 1, 1)
        while index % step:
            rank, step = rank + 1, max(step // 2, 1)
        yield rank
