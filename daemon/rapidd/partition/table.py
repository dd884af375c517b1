"""Legal splits of a device between decode and prefill: an immutable table.

It is read from the device, never from a list of chips.
"""

from typing import Final, Literal, NamedTuple

from msgspec import Struct

from rapidctl.wire import UnitGroup

SPLIT_SHARES: Final = (1 / 8, 3 / 16, 1 / 4, 5 / 16, 3 / 8, 1 / 2)
"""Of a GPU's units, for decode: close together where a decode step's knee lies. Each costs two hardware queues."""
MAX_SPLITS: Final = 6
"""Each split costs streams (and on a GPU, graphs): enough to choose from, few enough to keep."""


class Seen(NamedTuple):
    """Units on which a stream was seen to run, ascending, and when; none: its system does not tell."""

    units: list[int]
    at_unix_s: float


class PartitionTable(Struct, frozen=True, kw_only=True):
    """``splits``: legal decode units, ascending; prefill gets the complement. Empty: see ``unsupported``.

    ``groups``: which units sit together, neighbours side by side; None where the system does not tell.
    """

    units_total: int
    unit_name: Literal["CU", "SM", "core"]
    splits: tuple[int, ...]
    unsupported: str | None = None
    groups: tuple[UnitGroup, ...] | None = None


def spread(units_total: int, step: int) -> tuple[int, ...]:
    """At most `MAX_SPLITS` multiples of ``step`` that leave both sides at least one step, evenly spread."""
    legal = range(step, units_total - step + 1, step)
    if len(legal) <= MAX_SPLITS:
        return tuple(legal)
    return tuple(legal[round(i * (len(legal) - 1) / (MAX_SPLITS - 1))] for i in range(MAX_SPLITS))


def share(units_total: int, step: int, least: int) -> tuple[int, ...]:
    """Multiples of ``step`` nearest to `SPLIT_SHARES` of the units, each side keeping at least ``least`` units."""
    nearest = {round(part * units_total / step) * step for part in SPLIT_SHARES}
    return tuple(sorted(units for units in nearest if least <= units <= units_total - least))
