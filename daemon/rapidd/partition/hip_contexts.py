"""HIP's execution contexts ("green contexts"), where the runtime has them: masked streams with priorities.

A stream of a context has a CU mask like one of `hipExtStreamCreateWithCUMask`, over the same bits, but may be
non-blocking, so that it does not order against the NULL stream, and may have a priority. HIP has the calls from 7.14
on; they are looked for by name. Calls and layouts are those of AMD's how-to "Execution contexts" and of the runtime's
source. **Never run**: no runtime that has them was at hand. So what comes out is held against what was asked for, and
`hip` takes plain masks where it differs.
"""

import ctypes
from typing import Final

from rapidd.errors import DeviceError
from rapidd.partition.hip_runtime import STREAM_NON_BLOCKING, HipRuntime

_UNITS: Final = 1
"""hipDevResourceTypeSm."""


class UnitsResource(ctypes.Structure):
    """hipDevSmResource."""

    _fields_ = (
        ("units", ctypes.c_uint),
        ("least", ctypes.c_uint),
        ("alignment", ctypes.c_uint),
        ("flags", ctypes.c_uint),
    )


class Resource(ctypes.Structure):
    """hipDevResource: 144 bytes, of which the runtime keeps 92 to itself."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("_own", ctypes.c_ubyte * 92),
        ("sm", UnitsResource),
        ("_rest_of_union", ctypes.c_ubyte * 24),
        ("next", ctypes.c_void_p),
    )


class HipContexts:
    """Splits of one device. Contexts live as long as the process, as their streams do."""

    def __init__(self, runtime: HipRuntime, ordinal: int) -> None:
        self._runtime = runtime
        self._ordinal = ordinal

    def split(self, decode_units: int, decode_priority: int, prefill_priority: int) -> tuple[int, int]:
        """Streams on the first ``decode_units`` and on the rest; their handles.

        Raises DeviceError when the runtime refuses, or gives other sizes.
        """
        device, group, rest = Resource(), Resource(), Resource()
        count = ctypes.c_uint(1)
        call, by = self._runtime.call, ctypes.byref
        call("hipDeviceGetDevResource", self._ordinal, by(device), _UNITS)
        call("hipDevSmResourceSplitByCount", by(group), by(count), by(device), by(rest), 0, decode_units)
        sizes = decode_units, device.sm.units - decode_units
        if (count.value, group.sm.units, rest.sm.units) != (1, *sizes):
            raise DeviceError(f"HIP gave {group.sm.units} + {rest.sm.units} units where {sizes} were asked for")
        decode = self._stream(group, decode_priority)
        try:
            return decode, self._stream(rest, prefill_priority)
        except DeviceError:
            self._runtime.destroy_stream(decode)
            raise

    def _stream(self, resource: Resource, priority: int) -> int:
        description, context, stream = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        call, by = self._runtime.call, ctypes.byref
        call("hipDevResourceGenerateDesc", by(description), by(resource), 1)
        call("hipGreenCtxCreate", by(context), description, self._ordinal, 0)
        call("hipExecutionCtxStreamCreate", by(stream), context, STREAM_NON_BLOCKING, priority)
        handle, seen = stream.value or 0, Resource()
        try:
            call("hipStreamGetDevResource", handle, by(seen), _UNITS)
            if seen.sm.units != resource.sm.units:
                raise DeviceError(
                    f"HIP made a stream on {seen.sm.units} units where {resource.sm.units} were asked for"
                )
        except DeviceError:
            self._runtime.destroy_stream(handle)
            raise
        return handle
