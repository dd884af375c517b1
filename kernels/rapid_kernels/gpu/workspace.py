"""Scratch memory of one lane: partial results, and the counters that tell which program is the last to deliver one."""

import torch
from torch import Tensor


class Workspace:
    """Belongs to one stream: kernels that share it must run one after another. Never resized, so graphs may hold it.

    Kernels leave ``arrived`` zero as they found it; a kernel that was killed half-way leaves the workspace unusable.
    """

    def __init__(self, device: torch.device | str, partials_bytes: int = 96 << 20, counters: int = 1 << 16) -> None:
        self.partials: Tensor = torch.empty(partials_bytes // 4, dtype=torch.float32, device=device)
        """[partials_bytes / 4] float32, meaningless between kernels."""
        self.arrived: Tensor = torch.zeros(counters, dtype=torch.int32, device=device)
        """[counters] int32, zero between kernels."""

    def require(self, partials: int, counters: int) -> None:
        """Raise ValueError unless there is room for so many floats and counters."""
        if partials > self.partials.numel() or counters > self.arrived.numel():
            raise ValueError(
                f"workspace too small: {partials} floats and {counters} counters needed, "
                f"{self.partials.numel()} and {self.arrived.numel()} there"
            )
