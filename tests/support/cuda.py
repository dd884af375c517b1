"""A stand-in for `cuda.bindings.driver`: one device whose SMs can be split, unless its driver is too old or refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class FakeDriver:
    """Calls answer as the binding's do: a status, then values. ``too_old``: it lacks the calls for partitions;
    ``may_partition`` False: it has them and refuses (CUDA_ERROR_NOT_PERMITTED). ``taken``: another process has the
    device for itself (CUDA_ERROR_DEVICE_UNAVAILABLE).
    """

    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT="units", CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR="major"
    )
    CUdevResourceType = SimpleNamespace(CU_DEV_RESOURCE_TYPE_SM=1)
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUgreenCtxCreate_flags = SimpleNamespace(CU_GREEN_CTX_DEFAULT_STREAM=1)

    def __init__(
        self,
        units: int = 132,
        *,
        too_old: bool = False,
        may_partition: bool = True,
        init: int = 0,
        taken: bool = False,
    ) -> None:
        self._units, self._too_old, self._may_partition, self._init = units, too_old, may_partition, init
        self._taken = taken
        self._streams = 0

    def cuInit(self, flags: int) -> tuple[Any, ...]:  # noqa: N802
        return (self._init,)

    def cuDeviceGet(self, ordinal: int) -> tuple[Any, ...]:  # noqa: N802
        return 0, ordinal

    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple[Any, ...]:  # noqa: N802
        return (46, None) if self._taken else (0, "primary")

    def cuCtxSetCurrent(self, context: object) -> tuple[Any, ...]:  # noqa: N802
        return (0,)

    def cuDeviceGetPCIBusId(self, length: int, device: int) -> tuple[Any, ...]:  # noqa: N802
        return 0, b"0000:C1:00.0\0"

    def cuDeviceGetAttribute(self, attribute: str, device: int) -> tuple[Any, ...]:  # noqa: N802
        return 0, {"units": self._units, "major": 9}[attribute]

    def cuDeviceGetDevResource(self, device: int, kind: int) -> tuple[Any, ...]:  # noqa: N802
        if self._too_old:
            raise RuntimeError('Function "cuDeviceGetDevResource" not found')
        return 0, _resource(self._units)

    def cuDevSmResourceSplitByCount(  # noqa: N802
        self, count: int, resource: Any, flags: int, units: int
    ) -> tuple[Any, ...]:
        granted = -(-units // 8) * 8
        return 0, [_resource(granted)], 1, _resource(resource.sm.smCount - granted)

    def cuDevResourceGenerateDesc(self, resources: list[Any], count: int) -> tuple[Any, ...]:  # noqa: N802
        return 0, resources

    def cuGreenCtxCreate(self, description: Any, device: int, flags: int) -> tuple[Any, ...]:  # noqa: N802
        return (0, description[0]) if self._may_partition else (800, None)

    def cuGreenCtxGetDevResource(self, context: Any, kind: int) -> tuple[Any, ...]:  # noqa: N802
        return 0, context

    def cuGreenCtxStreamCreate(self, context: Any, flags: int, priority: int) -> tuple[Any, ...]:  # noqa: N802
        self._streams += 1
        return 0, self._streams

    def cuStreamCreateWithPriority(self, flags: int, priority: int) -> tuple[Any, ...]:  # noqa: N802
        self._streams += 1
        return 0, self._streams


def _resource(units: int) -> Any:
    return SimpleNamespace(sm=SimpleNamespace(smCount=units, minSmPartitionSize=8, smCoscheduledAlignment=8))
