"""One call of decode attention, as its launches see it: what it reads and writes, and how its work is cut."""

from dataclasses import dataclass

from torch import Tensor

from rapid_kernels.gpu.decode_plan import DecodePlan
from rapid_kernels.gpu.heads import padded_sizes
from rapid_kernels.gpu.workspace import Workspace

HOPPER_TOKENS = 64
HOPPER_DIMS = (64, 128)


def fits_hopper(tile_tokens: int, padded: int) -> bool:
    """Tensor cores take keys by 64 tokens and values by 64 dimensions; of wider heads too few tiles fit a unit."""
    return tile_tokens == HOPPER_TOKENS and padded in HOPPER_DIMS


@dataclass(frozen=True, slots=True)
class DecodeTile:
    """How one launch of `decode_attention` cuts its work."""

    stages: int = 5
    """Of the pipeline: keys and values of (stages + 1) / 2 tiles are held, the places of the others are read ahead.
    With ``hopper``: tiles whose keys and values are held."""
    warps: int = 4
    per_unit: int = 2
    """Programs a unit: one computes while the other waits."""
    most: int = 1 << 20
    """Programs at most: more than saturate the memory only cut more rows."""
    bulk: bool = True
    """Load through the bulk tensor copy engine (Hopper on) instead of by pointers."""
    hopper: bool = False
    """By the kernel for Hopper alone (`rapid_kernels.gpu.attention_hopper`), which takes what `fits_hopper`."""


@dataclass(frozen=True, slots=True)
class DecodeCall:
    """Decode attention of q [R, H, D], heads contiguous, over the planned tokens of kv [slots, 2, K, D].

    Into out [R, H * D]. Scale 1/sqrt(D). With ``tile.bulk`` q and kv start at multiples of 16 bytes, and D is a
    multiple of 8. Raises ValueError for heads that the kernels do not take (`padded_sizes`).
    """

    q: Tensor
    kv: Tensor
    out: Tensor
    plan: DecodePlan
    units: int
    workspace: Workspace
    tile: DecodeTile
    chained: bool = False

    def __post_init__(self) -> None:
        _, padded = padded_sizes(self.group, int(self.q.shape[2]))
        if self.tile.hopper and not fits_hopper(self.plan.tile_tokens, padded):
            raise ValueError(f"tiles of {self.plan.tile_tokens} tokens of {padded} are not for Hopper's kernel")

    @property
    def group(self) -> int:
        """Query heads a KV head."""
        return int(self.q.shape[1] // self.kv.shape[2])

    @property
    def programs(self) -> int:
        """At most; in whole groups."""
        return min(self.units * self.tile.per_unit, self.tile.most)

    @property
    def groups(self) -> int:
        """Of programs, one for each KV head."""
        return max(1, self.programs // int(self.kv.shape[2]))

    @property
    def early(self) -> bool:
        """Whether the first launch starts early: programs that do not fill the units would crowd on the first ones."""
        return self.chained and self.programs == self.units * self.tile.per_unit

    @property
    def leads(self) -> bool:
        """Whether the next launch may start once all programs of the first one have, though that itself did not."""
        return self.chained and not self.early

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """KV_HEADS, GROUP, DIM, QUERIES and PADDED of the kernels."""
        dim = int(self.q.shape[2])
        heads, padded = padded_sizes(self.group, dim)
        return int(self.kv.shape[2]), self.group, dim, max(8 if self.tile.hopper else 16, heads), padded
