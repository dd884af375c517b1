"""Triton's own HIP launcher on the product's masked streams: ``triton_launch.py``, under the fake GPU. Prints JSON.

torch is its CPU build, so Triton's three questions to torch are answered here, and tensors are bare device memory.
"""

import ctypes
import faulthandler
import json
import os
import sys
from typing import Any

import msgspec
import torch
import triton
from triton.backends.amd.driver import HIPDriver

from amd_host.kernel import mark_kernel, tile_kernel
from amd_host.shim import Log
from rapidd.partition.hip import HipStreams, describe, hip_table
from rapidd.partition.hip_probe import place_kernel
from rapidd.partition.hip_runtime import LIBRARY_NAMES, HipRuntime

LIMIT_S = 40


class Buffer:
    """What Triton needs of a device tensor."""

    dtype = torch.int32

    def __init__(self, library: ctypes.CDLL) -> None:
        self._pointer = ctypes.c_void_p()
        assert library.hipMalloc(ctypes.byref(self._pointer), ctypes.c_size_t(1 << 20)) == 0

    def data_ptr(self) -> int:
        assert self._pointer.value
        return self._pointer.value


def main() -> dict[str, Any]:
    """Where launches on two streams landed, and what happens to a kernel that needs too much shared memory."""
    log = Log()
    faulthandler.dump_traceback_later(LIMIT_S, exit=True, file=sys.stderr)
    runtime = HipRuntime.load()
    device = describe(runtime, 0)
    table = hip_table(runtime, device)
    log.take()
    streams = HipStreams(runtime, device, table)
    made = log.take()
    driver: Any = HIPDriver()
    current = {"stream": 0}
    driver.get_current_device = lambda: 0
    driver.set_current_device = lambda device: None
    driver.get_current_stream = lambda device: current["stream"]
    triton.runtime.driver.set_active(driver)
    library = ctypes.CDLL(LIBRARY_NAMES[0])
    library.hipStreamSynchronize.argtypes = (ctypes.c_void_p,)
    buffer = Buffer(library)
    seen, probed = {}, {}
    split = table.splits[0]
    for name, stream in (("decode", streams.decode[split]), ("prefill", streams.prefill[table.units_total - split])):
        current["stream"] = stream.handle
        mark_kernel[(5,)](buffer, 7, num_warps=1)
        assert library.hipStreamSynchronize(stream.handle) == 0
        seen[name] = log.take()
        place_kernel[(7,)](buffer, HAS_XCC_ID=True, num_warps=1)
        assert library.hipStreamSynchronize(stream.handle) == 0
        probed[name] = log.take()
    try:
        tile_kernel[(1,)](buffer, SIDE=256, DEPTH=128, num_warps=8)
        refused = ""
    except triton.runtime.errors.OutOfResources as error:
        refused = str(error)
    target = driver.get_current_target()
    return {
        "target": [target.backend, target.arch, target.warp_size],
        "made": made,
        "seen": seen,
        "probed": probed,
        "units": {"decode": split, "prefill": table.units_total - split},
        "refused": refused,
    }


if __name__ == "__main__":
    print(json.dumps(msgspec.to_builtins(main())), flush=True)
    os._exit(0)  # HIP's exit handlers wait for hardware
