"""For scripts that run on the fake GPU: HIP calls beyond those of the product, and what the shim saw of them.

The shim writes to stderr what the kernel driver would have been asked: queues, CU masks, packets. A packet's line is
there once its stream was synchronised. Nothing executes: this shows where work would go, never what it computes.
"""

import ctypes
import os
import re
import sys
import tempfile
from pathlib import Path

from msgspec import Struct

from rapidd.partition.hip_runtime import LIBRARY_NAMES

_LINE = re.compile(
    r"\[fakekfd\] (?:KERNEL on queue (?P<kernel>\d+) \(cus=\w+\) grid (?P<grid>\d+)"
    r"|SET_CU_MASK queue=(?P<masked>\d+) bits=(?P<bits>\d+) mask=(?P<mask>[0-9a-f,]+)"
    r"|CREATE_QUEUE id=(?P<created>\d+) type=2 "
    r"|DESTROY_QUEUE id=(?P<destroyed>\d+)"
    r"|packet type 3 on queue (?P<barrier>\d+))"
)
WAVE = 64


class Seen(Struct, kw_only=True):
    """Lines of the log, by kind and in order. Queues by the driver's id."""

    created: list[int]
    destroyed: list[int]
    masks: list[tuple[int, int, tuple[int, ...]]]
    """(queue, bits, words)"""
    packets: list[tuple[int, int]]
    """(queue, programs) of a kernel; (queue, 0) of a barrier-AND, with which one queue waits for another"""


class Log:
    """The shim's log, from the moment this is made: C's stderr goes to a file, Python's stays."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
        os.dup2(self._file.fileno(), 2)
        self._read = 0

    def take(self) -> Seen:
        """What was written since the last call."""
        data = os.pread(self._file.fileno(), 1 << 24, self._read)
        self._read += len(data)
        seen = Seen(created=[], destroyed=[], masks=[], packets=[])
        for line in data.decode(errors="replace").splitlines():
            if match := _LINE.match(line):
                _note(seen, match)
        return seen


def _note(seen: Seen, match: re.Match[str]) -> None:
    if match["kernel"]:
        seen.packets.append((int(match["kernel"]), int(match["grid"]) // WAVE))
    elif match["masked"]:
        words = tuple(int(word, 16) for word in match["mask"].split(","))
        seen.masks.append((int(match["masked"]), int(match["bits"]), words))
    elif match["created"]:
        seen.created.append(int(match["created"]))
    elif match["destroyed"]:
        seen.destroyed.append(int(match["destroyed"]))
    else:
        seen.packets.append((int(match["barrier"]), 0))


class Hip:
    """Launches and graphs of one kernel. Streams are handles; None is the NULL stream."""

    def __init__(self, code: Path) -> None:
        self._library = ctypes.CDLL(LIBRARY_NAMES[0])
        module, self._kernel, buffer = (ctypes.c_void_p() for _ in range(3))
        self("hipModuleLoadData", ctypes.byref(module), code.read_bytes())
        self("hipModuleGetFunction", ctypes.byref(self._kernel), module, b"mark_kernel")
        self("hipMalloc", ctypes.byref(buffer), ctypes.c_size_t(1 << 20))
        scratch = ctypes.c_void_p(0)
        self._values = (buffer, ctypes.c_int(7), scratch, scratch)  # Triton appends two scratch pointers
        self._arguments = (ctypes.c_void_p * 4)(*(ctypes.addressof(value) for value in self._values))

    def __call__(self, name: str, *arguments: object) -> None:
        """Any HIP function; its error is an exception."""
        code = getattr(self._library, name)(*arguments)
        if code:
            raise RuntimeError(f"{name}: {code}")

    def launch(self, stream: int | None, programs: int) -> None:
        """The kernel, recognised in the log by its number of programs."""
        one, none = ctypes.c_uint(1), ctypes.c_uint(0)
        grid, block = (ctypes.c_uint(programs), one, one), (ctypes.c_uint(WAVE), one, one)
        handle = ctypes.c_void_p(stream)
        self("hipModuleLaunchKernel", self._kernel, *grid, *block, none, handle, self._arguments, None)

    def synchronize(self, stream: int | None) -> None:
        """Wait for a stream."""
        self("hipStreamSynchronize", ctypes.c_void_p(stream))

    def nature(self, stream: int) -> dict[str, int]:
        """Flags (1: non-blocking, does not order against the NULL stream) and priority, as HIP reports them."""
        flags, priority = ctypes.c_uint(), ctypes.c_int()
        self("hipStreamGetFlags", ctypes.c_void_p(stream), ctypes.byref(flags))
        self("hipStreamGetPriority", ctypes.c_void_p(stream), ctypes.byref(priority))
        return {"flags": flags.value, "priority": priority.value}

    def begin_capture(self, stream: int) -> None:
        """Thread-local, as the engine captures."""
        self("hipStreamBeginCapture", ctypes.c_void_p(stream), ctypes.c_int(1))

    def end_capture(self, stream: int) -> ctypes.c_void_p:
        """The graph, ready to replay."""
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self("hipStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        self("hipGraphInstantiate", ctypes.byref(ready), graph, None, None, ctypes.c_size_t(0))
        return ready

    def replay(self, graph: ctypes.c_void_p, stream: int) -> None:
        """Launch a graph on a stream."""
        self("hipGraphLaunch", graph, ctypes.c_void_p(stream))

    def event(self) -> ctypes.c_void_p:
        """A new event."""
        event = ctypes.c_void_p()
        self("hipEventCreate", ctypes.byref(event))
        return event

    def join(self, event: ctypes.c_void_p, first: int, then: int) -> None:
        """What follows on ``then`` waits for what is on ``first``."""
        self("hipEventRecord", event, ctypes.c_void_p(first))
        self("hipStreamWaitEvent", ctypes.c_void_p(then), event, ctypes.c_uint(0))
