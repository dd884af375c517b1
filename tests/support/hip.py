"""A stand-in for libamdhip64 at the seam where `HipRuntime` takes it: the calls' effects on plain Python state.

The answers are those of HIP 7.2 on an MI300X; tests/amd_host asks the real library the same questions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rapidd.partition.hip_contexts import Resource

UNSUPPORTED, NO_DEVICE, OUT_OF_MEMORY = 801, 100, 2
NAMES = {UNSUPPORTED: b"hipErrorNotSupported", NO_DEVICE: b"hipErrorNoDevice", OUT_OF_MEMORY: b"hipErrorOutOfMemory"}


class FakeHip:
    """One device. ``fail`` maps the name of a function to the code that it answers, ``missing`` names absent ones."""

    def __init__(self, *, attributes: dict[int, int] | None = None, architecture: str = "gfx942") -> None:
        self.attributes = {63: 304, 74: 65536, 87: 64, 10018: 8} if attributes is None else attributes
        self.architecture = f"{architecture}:sramecc+:xnack-".encode()
        self.fail: dict[str, int] = {}
        self.missing: set[str] = set()
        self.streams: dict[int, tuple[int, ...] | int] = {}
        """Open streams: the mask's words, or the priority of a stream without."""
        self.masked_until_failure: int | None = None
        self._next = 0x7F00_0000_1000  # more than 32 bits
        self._functions: dict[str, Callable[..., Any]] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name in self.__dict__.get("missing", ()) or not hasattr(type(self), f"do_{name}"):
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            return self.fail.get(name) or getattr(self, f"do_{name}")(*arguments)

        return self._functions.setdefault(name, call)

    def do_hipGetErrorName(self, code: int) -> bytes:  # noqa: N802
        return NAMES.get(code, b"hipErrorUnknown")

    def do_hipGetDeviceCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = 1
        return 0

    def do_hipSetDevice(self, ordinal: int) -> int:  # noqa: N802
        return 0 if ordinal == 0 else 101

    def do_hipDeviceGetAttribute(self, value: Any, attribute: int, ordinal: int) -> int:  # noqa: N802
        value._obj.value = self.attributes.get(attribute, 0)
        return 0 if attribute in self.attributes and ordinal == 0 else 1

    def do_hipDeviceGetPCIBusId(self, text: Any, length: int, ordinal: int) -> int:  # noqa: N802
        text.value = b"0000:C1:00.0"
        return 0

    def do_hipGetDevicePropertiesR0600(self, properties: Any, ordinal: int) -> int:  # noqa: N802
        properties[1160 : 1160 + len(self.architecture) + 1] = self.architecture + b"\0"
        return 0

    def do_hipDeviceGetStreamPriorityRange(self, least: Any, greatest: Any) -> int:  # noqa: N802
        least._obj.value, greatest._obj.value = 1, -1
        return 0

    def do_hipStreamCreateWithPriority(self, stream: Any, flags: int, priority: int) -> int:  # noqa: N802
        assert flags == 1, "a stream that orders against the NULL stream"
        stream._obj.value = self._open(priority)
        return 0

    def do_hipExtStreamCreateWithCUMask(self, stream: Any, size: int, mask: Any) -> int:  # noqa: N802
        if self.masked_until_failure is not None:
            self.masked_until_failure -= 1
            if self.masked_until_failure < 0:
                return OUT_OF_MEMORY
        stream._obj.value = self._open(tuple(mask[:size]))
        return 0

    def do_hipStreamDestroy(self, handle: int) -> int:  # noqa: N802
        del self.streams[handle]
        return 0

    def _open(self, what: tuple[int, ...] | int) -> int:
        self._next += 0x100
        self.streams[self._next] = what
        return self._next


class FakeNewerHip(FakeHip):
    """One that has execution contexts too, as the source of AMD's runtime makes them: contiguous units, in turn.

    ``step``: sizes are rounded up to multiples of it, as where units are paired. ``off_by``: of a stream's units.
    """

    def __init__(self, *, step: int = 1, off_by: int = 0) -> None:
        super().__init__()
        self.step, self.off_by = step, off_by
        self.contexts: list[range] = []

    def do_hipDeviceGetDevResource(self, ordinal: int, resource: Any, kind: int) -> int:  # noqa: N802
        assert (ordinal, kind) == (0, 1)
        _fill(resource._obj, range(self.attributes[63]))
        return 0

    def do_hipDevSmResourceSplitByCount(  # noqa: N802
        self, group: Any, count: Any, whole: Any, rest: Any, flags: int, units: int
    ) -> int:
        assert (count._obj.value, flags) == (1, 0)
        granted = -(-units // self.step) * self.step
        _fill(group._obj, range(granted))
        _fill(rest._obj, range(granted, whole._obj.sm.units))
        return 0

    def do_hipDevResourceGenerateDesc(self, description: Any, resource: Any, count: int) -> int:  # noqa: N802
        assert (resource._obj.type, count) == (1, 1)
        self.contexts.append(range(resource._obj._own[0], resource._obj._own[0] + resource._obj.sm.units))
        description._obj.value = len(self.contexts)
        return 0

    def do_hipGreenCtxCreate(self, context: Any, description: Any, ordinal: int, flags: int) -> int:  # noqa: N802
        assert (ordinal, flags) == (0, 0)
        context._obj.value = description.value
        return 0

    def do_hipExecutionCtxStreamCreate(self, stream: Any, context: Any, flags: int, priority: int) -> int:  # noqa: N802
        assert flags == 1, "a stream that orders against the NULL stream"
        stream._obj.value = self._open((priority, *self.contexts[context.value - 1]))
        return 0

    def do_hipStreamGetDevResource(self, stream: int, resource: Any, kind: int) -> int:  # noqa: N802
        seen = self.streams[stream]
        assert isinstance(seen, tuple)
        resource._obj.sm.units = len(seen) - 1 + self.off_by
        return 0


def _fill(resource: Resource, units: range) -> None:
    """What the runtime keeps to itself: here, the first unit, which is below 256."""
    resource.type, resource.sm.units = 1, len(units)
    resource._own[0] = units.start
