"""Of how many tokens a chunk's attention takes the time, behind a long context. Pure.

A GPU attends by tiles of a few tokens, so many at a time: a wave. What does not fill the last wave takes as long as one
that does, or, cut along its keys, as pieces that fill one or two (`rapid_kernels.gpu.prompt_plan`):

    tokens of time     |          ____ a wave          so a chunk of 23 tiles is as dear as one of 33,
                       |      ___/                     where 33 make a wave
                       |  __/-'
                       |_/________ tokens
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from rapidd.policy.profile import PromptWave

MOST_WAVES: Final = 2
"""That the pieces of what does not fill one take; this and the next as in `rapid_kernels.gpu.prompt_plan`."""
WHOLE_WAVES: Final = 3
"""From so many on tiles are taken up as others end, and what does not fill the last wave weighs little."""
LEAST_TOKENS: Final = (0, 16, 24, 32, 48, 64, 128, 192, 256, 384, 512)
"""Tried for the chunk that fills a device's attention; what fits best stays."""
MORE_TOKENS: Final = (4, 8, 12, 16, 24, 32, 48, 64)
"""Tried likewise where there are no waves: a processor gathers a context's keys for any chunk, as for so many more."""


class Level(Struct, frozen=True):
    """Chunks of more than ``above`` and at most ``most`` tokens take the time of ``tokens``."""

    above: int
    most: int
    tokens: float


class Filling:
    """How a device fills with a chunk's attention: fewer than ``least`` tokens take the time of so many.

    ``more``: whatever their number, of so many more.
    """

    __slots__ = ("_levels", "_tops", "least", "more")

    def __init__(self, least: int = 0, wave: PromptWave | None = None, more: int = 0) -> None:
        self.least = least
        self.more = more
        self._levels = _merged(_waves(wave) if wave is not None else [], least)
        self._tops = [level.most for level in self._levels]

    def tokens(self, tokens: float) -> float:
        """Whose time a chunk of so many takes; no fewer."""
        at = bisect_left(self._tops, tokens)
        return self.more + (self._levels[at].tokens if at < len(self._levels) else tokens)

    def below(self, tokens: int) -> Iterator[Level]:
        """The levels from the one that a chunk is on down to the lowest; none where it is above all."""
        at = bisect_left(self._tops, tokens)
        if at < len(self._levels):
            yield from reversed(self._levels[: at + 1])

    def shorter(self, tokens: int, context: float) -> list[int]:
        """The ends of the levels below a chunk's, down to half of it; behind nothing there are no levels."""
        return [level.above for level in self.below(tokens) if 2 * level.above > tokens] if context > 0 else []


def fillings(wave: PromptWave | None, units: int, units_total: int) -> list[Filling]:
    """With each of `LEAST_TOKENS`, of so many units; ``wave`` is that of all. To within a tile.

    Without a wave also with each of `MORE_TOKENS`.
    """
    if wave is None:
        return [*map(Filling, LEAST_TOKENS), *(Filling(more=more) for more in MORE_TOKENS)]
    wave = PromptWave(max(1, wave.tiles * units // units_total), wave.tile_tokens)
    return [Filling(least, wave) for least in LEAST_TOKENS]


def _waves(wave: PromptWave) -> list[tuple[int, float]]:
    """By the last number of tokens that takes it: the time of how many."""
    found = []
    for tiles in range(1, WHOLE_WAVES * wave.tiles + 1):
        whole, rest = divmod(tiles, wave.tiles)
        part = 1.0 if rest else 0.0
        for waves in range(1, MOST_WAVES + 1):
            pieces = waves * wave.tiles // rest if rest else 0
            if pieces > 1:
                part = min(part, waves / pieces)
        found.append((tiles * wave.tile_tokens, (whole + part) * wave.tiles * wave.tile_tokens))
    return found


def _merged(steps: list[tuple[int, float]], least: int) -> list[Level]:
    levels: list[Level] = []
    if least and (not steps or steps[-1][0] < least):
        steps = [*steps, (least, float(least))]
    for most, tokens in steps:
        taken = max(tokens, float(least))
        if levels and levels[-1].tokens == taken:
            levels[-1] = Level(levels[-1].above, most, taken)
        else:
            levels.append(Level(levels[-1].most if levels else 0, most, taken))
    return levels


FULL: Final = Filling()
"""Each token takes its own time."""
