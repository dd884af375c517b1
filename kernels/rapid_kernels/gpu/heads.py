"""Sizes of attention heads, as the kernels take them."""

import triton

MAX_GROUP = 16
MAX_HEAD_DIM = 256


def padded_dim(dim: int) -> int:
    """A power of two, at least 16."""
    return max(16, int(triton.next_power_of_2(dim)))


def padded_sizes(group: int, dim: int) -> tuple[int, int]:
    """Heads of a group and head size, padded to powers of two. Raises ValueError for more than the kernels take."""
    if group > MAX_GROUP or dim > MAX_HEAD_DIM:
        raise ValueError(
            f"at most {MAX_GROUP} query heads a KV head and head size {MAX_HEAD_DIM}, not {group} and {dim}"
        )
    return int(triton.next_power_of_2(group)), padded_dim(dim)
