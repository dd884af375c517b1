"""Memory that was freed goes back to the system while nothing runs.

A batch of another size than any before makes the C library's heap longer, and what is freed in the middle of it stays:
of an engine that served prompts of all lengths a sixth of the memory was free and kept (docs/reliability.md).
"""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Some milliseconds with glibc; elsewhere nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
