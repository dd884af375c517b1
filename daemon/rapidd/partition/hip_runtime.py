"""The few calls of libamdhip64 that partitions need, through ctypes: typed, checked, nothing more.

One process must use one copy of the library: streams of another copy mean nothing to torch, whose ROCm wheels bring
their own. So a copy that is already loaded is taken first: import torch before. Knows no partitions and no torch.
"""

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from rapidd.errors import DeviceError

LIBRARY_NAMES: Final = ("libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so")
NO_DEVICE: Final = 100
"""hipErrorNoDevice: what every call answers where there is no GPU."""
MULTIPROCESSOR_COUNT, MAX_SHARED_MEMORY_PER_BLOCK, WARP_SIZE, NUMBER_OF_XCCS = 63, 74, 87, 10018
"""Of hipDeviceAttribute_t; the same in all of HIP 6 and 7."""
STREAM_NON_BLOCKING: Final = 1
_PROPERTIES_BYTES = 4096
_ARCHITECTURE_AT = 1160
"""gcnArchName in hipDeviceProp_tR0600, which has 1472 bytes."""
_BUS_ID_BYTES = 32

_Int = ctypes.POINTER(ctypes.c_int)
_Handle = ctypes.POINTER(ctypes.c_void_p)
_SIGNATURES: Final[dict[str, tuple[Any, ...]]] = {
    "hipGetDeviceCount": (_Int,),
    "hipSetDevice": (ctypes.c_int,),
    "hipDeviceGetAttribute": (_Int, ctypes.c_int, ctypes.c_int),
    "hipDeviceGetPCIBusId": (ctypes.c_char_p, ctypes.c_int, ctypes.c_int),
    "hipGetDevicePropertiesR0600": (ctypes.c_void_p, ctypes.c_int),
    "hipDeviceGetStreamPriorityRange": (_Int, _Int),
    "hipStreamCreateWithPriority": (_Handle, ctypes.c_uint, ctypes.c_int),
    "hipExtStreamCreateWithCUMask": (_Handle, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32)),
    "hipStreamDestroy": (ctypes.c_void_p,),
}
_CONTEXT_SIGNATURES: Final[dict[str, tuple[Any, ...]]] = {
    "hipDeviceGetDevResource": (ctypes.c_int, ctypes.c_void_p, ctypes.c_int),
    "hipDevSmResourceSplitByCount": (
        *(ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint), ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_uint, ctypes.c_uint),
    ),
    "hipDevResourceGenerateDesc": (_Handle, ctypes.c_void_p, ctypes.c_uint),
    "hipGreenCtxCreate": (_Handle, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint),
    "hipExecutionCtxStreamCreate": (_Handle, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int),
    "hipStreamGetDevResource": (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int),
}
"""What HIP 7.14 and newer have beside: see `hip_contexts`."""


class HipLibraryMissing(DeviceError):
    """No libamdhip64 on this system."""


class HipTooOld(DeviceError):
    """libamdhip64 is from before ROCm 6."""


class NoHipDevice(DeviceError):
    """The library finds no GPU that this process may use, or not the one that was asked for."""


class HipError(DeviceError):
    """A call failed. ``code``: its hipError_t."""

    def __init__(self, call: str, code: int, name: str) -> None:
        super().__init__(f"{call}: {code} {name}", "run `rapidd doctor`; the driver's own words are in `dmesg`")
        self.code = code


class HipRuntime:
    """The library, with every signature declared: without, ctypes cuts a stream handle to 32 bits.

    ``library`` is a `ctypes.CDLL`, or in tests an object with the same functions.
    """

    def __init__(self, library: Any) -> None:
        missing = _declare(library, _SIGNATURES)
        if missing is not None:
            raise HipTooOld(f"libamdhip64 has no {missing}", "install ROCm 6 or newer")
        self.has_contexts = _declare(library, _CONTEXT_SIGNATURES) is None
        """Whether it has all that `hip_contexts` needs."""
        library.hipGetErrorName.argtypes = (ctypes.c_int,)
        library.hipGetErrorName.restype = ctypes.c_char_p
        self._library = library

    @classmethod
    def load(cls, names: Iterable[str] = LIBRARY_NAMES) -> "HipRuntime":
        """The copy in this process, else the first of ``names`` that the loader or $ROCM_PATH/lib has.

        Raises HipLibraryMissing, HipTooOld.
        """
        rocm = Path(os.environ.get("ROCM_PATH") or "/opt/rocm") / "lib"
        names = list(names)
        tried = []
        for path in [*_loaded(names), *names, *(str(rocm / name) for name in names)]:
            try:
                return cls(ctypes.CDLL(path))
            except OSError as error:
                tried.append(str(error))
        raise HipLibraryMissing(
            f"no HIP runtime: {tried[0] if tried else 'no name to look for'}",
            "install ROCm (or a ROCm build of torch), or use --device cpu",
        )

    def device_count(self) -> int:
        """GPUs that this process may use, after ROCR_VISIBLE_DEVICES and HIP_VISIBLE_DEVICES."""
        count = ctypes.c_int()
        try:
            self.call("hipGetDeviceCount", ctypes.byref(count))
        except HipError as error:
            if error.code == NO_DEVICE:
                return 0
            raise
        return count.value

    def set_device(self, ordinal: int) -> None:
        """Make it the device on which the calling thread creates streams."""
        self.call("hipSetDevice", ordinal)

    def attribute(self, attribute: int, ordinal: int) -> int:
        """One of hipDeviceAttribute_t."""
        value = ctypes.c_int()
        self.call("hipDeviceGetAttribute", ctypes.byref(value), attribute, ordinal)
        return value.value

    def architecture(self, ordinal: int) -> str:
        """``gfx942``: the instruction set without its feature flags. The marketing name depends on the host's files."""
        properties = ctypes.create_string_buffer(_PROPERTIES_BYTES)
        self.call("hipGetDevicePropertiesR0600", properties, ordinal)
        return properties.raw[_ARCHITECTURE_AT:].partition(b"\0")[0].decode("ascii", "replace").partition(":")[0]

    def pci_bus_id(self, ordinal: int) -> str:
        """``0000:c1:00.0``, by which sysfs and amdsmi know the device."""
        text = ctypes.create_string_buffer(_BUS_ID_BYTES)
        self.call("hipDeviceGetPCIBusId", text, _BUS_ID_BYTES, ordinal)
        return text.value.decode("ascii", "replace").lower()

    def priorities(self) -> tuple[int, int]:
        """(least, greatest) priority of streams on the current device; greater is the smaller number."""
        least, greatest = ctypes.c_int(), ctypes.c_int()
        self.call("hipDeviceGetStreamPriorityRange", ctypes.byref(least), ctypes.byref(greatest))
        return least.value, greatest.value

    def create_stream(self, priority: int) -> int:
        """A stream on all units that does not wait for the NULL stream; its handle."""
        stream = ctypes.c_void_p()
        self.call("hipStreamCreateWithPriority", ctypes.byref(stream), STREAM_NON_BLOCKING, priority)
        return stream.value or 0

    def create_masked_stream(self, words: tuple[int, ...]) -> int:
        """A stream with a hardware queue of its own on the units of a mask; its handle.

        HIP makes it with default flags (so it orders against the NULL stream) and default priority, always.
        """
        stream = ctypes.c_void_p()
        mask = (ctypes.c_uint32 * len(words))(*words)
        self.call("hipExtStreamCreateWithCUMask", ctypes.byref(stream), len(words), mask)
        return stream.value or 0

    def destroy_stream(self, handle: int) -> None:
        """End a stream and its queue."""
        self.call("hipStreamDestroy", handle)

    def call(self, name: str, *arguments: object) -> None:
        """One of the functions that are declared. Raises HipError."""
        code = getattr(self._library, name)(*arguments)
        if code:
            error = self._library.hipGetErrorName(code) or b"unknown"
            raise HipError(name, code, error.decode("ascii", "replace"))


def _declare(library: Any, signatures: dict[str, tuple[Any, ...]]) -> str | None:
    """Argument types of every function; the name of the first one that the library lacks, if so."""
    for name, arguments in signatures.items():
        function = getattr(library, name, None)
        if function is None:
            return name
        function.argtypes = arguments
        function.restype = ctypes.c_int
    return None


def _loaded(names: list[str]) -> list[str]:
    """Paths of copies of the library that this process has mapped."""
    try:
        mapped = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[5] for line in mapped if line.count(" ") >= 5 and "/" in line}
    stems = {name.partition(".so")[0] + ".so" for name in names}
    return sorted(path for path in paths if any(Path(path).name.startswith(stem) for stem in stems))
