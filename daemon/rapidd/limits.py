"""Bounds that a process sets itself, so that what strangers make of it costs itself, and not the machine."""

import resource
from typing import Final

MAX_DESCRIPTORS: Final = 65_536


def raise_descriptors() -> None:
    """A connection is a descriptor, and the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def bound_memory(num_bytes: int) -> None:
    """An allocation fails that would give the process more of its own; a smaller limit that it has stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or num_bytes < hard:
        wanted = num_bytes if soft == resource.RLIM_INFINITY else min(soft, num_bytes)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, num_bytes))
