"""Freed memory goes back to the system."""

import ctypes
import platform

import psutil
import pytest

from rapidd.engine.heap import give_back


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides by itself")
def test_what_was_freed_below_something_kept_is_given_back() -> None:
    """The engine's memory grew by a step whenever a batch was larger than any before, and never fell."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = libc.calloc.restype = ctypes.c_void_p
    size, count = 64 << 10, 1000  # 64 MiB in pieces of the heap, which is as long as its last one keeps it
    pieces = [libc.calloc(1, size) for _ in range(count)]
    for piece in pieces:
        ctypes.memset(piece, 1, size)
    for piece in pieces[:-1]:
        libc.free(ctypes.c_void_p(piece))
    held = psutil.Process().memory_info().rss
    give_back()
    released = held - psutil.Process().memory_info().rss
    libc.free(ctypes.c_void_p(pieces[-1]))
    assert released > size * count // 2
