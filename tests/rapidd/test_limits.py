"""Bounds that a process sets itself, looked at in a process of its own."""

import sys

from support.process import run

PROGRAM = """
import resource
from rapidd import limits

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 500))
limits.raise_descriptors()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (500, 500)
limits.bound_memory(256 << 20)
try:
    bytearray(300 << 20)
except MemoryError:
    limits.bound_memory(512 << 20)
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == 256 << 20
    print("bounded")
"""


def test_descriptors_are_raised_to_what_is_allowed_and_memory_is_bounded_for_good() -> None:
    done = run([sys.executable, "-P", "-c", PROGRAM])
    assert done.stdout == "bounded\n", done.stderr
