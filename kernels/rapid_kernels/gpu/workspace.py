"""Scratch memory of one lane, for results that one launch leaves in parts and the next adds up."""

import torch
from torch import Tensor


class Workspace:
    """Belongs to one stream: kernels that share it must run one after another. Never resized, so graphs may hold it."""

    def __init__(self, device: torch.device | str, nbytes: int = 96 << 20) -> None:
        self.parts: Tensor = torch.empty(nbytes // 4, dtype=torch.float32, device=device)
        """[nbytes / 4] float32, meaningless between calls."""

    def require(self, floats: int) -> None:
        """Raise ValueError unless there is room for so many floats."""
        if floats > self.parts.numel():
            raise ValueError(f"workspace too small: {floats} floats needed, {self.parts.numel()} there")
