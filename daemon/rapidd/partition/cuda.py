"""SM partitions of an NVIDIA GPU by green contexts: the one maker of CUDA streams.

A split is one `cuDevSmResourceSplitByCount`: the group is decode's, the remainder prefill's, so the two are disjoint
by construction (two separate splits of the device are not). Each side gets one non-blocking stream, made once;
decode's has the higher priority. Without a split both lanes run on all SMs, on streams of different priority.
A captured graph keeps the SMs of the stream it was captured on: capture one set of graphs a stream.

Needs cuda-bindings 13 and torch with CUDA; both are imported when a device is opened, not before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from rapidd.errors import DeviceError
from rapidd.partition.table import PartitionTable, share

HIGH: Final = -5
NORMAL: Final = 0
"""Stream priorities: lower is sooner; the driver clamps to what the device has (0 to -5 on Hopper)."""

_BUS_ID_BYTES: Final = 32


@dataclass(frozen=True)
class SmGroup:
    """SMs that a lane may get: a raw stream handle and how many SMs it runs on."""

    units: int
    stream: int
    context: Any
    """Green context, kept alive with the stream; None for all SMs."""


class CudaPartitions:
    """Splits of one device, or of its first ``compute_units`` SMs.

    Raises `DeviceError` when there is no usable device, or not these units. When the driver refuses to partition (too
    old, or not permitted), the table has no splits and says why. ``driver``: `cuda.bindings.driver`, or a stand-in.
    """

    def __init__(self, ordinal: int = 0, compute_units: int | None = None, driver: Any = None) -> None:
        self._driver = _initialised(driver if driver is not None else _import_driver())
        self._ordinal = ordinal
        self._device = self._call(self._driver.cuDeviceGet, ordinal)
        self._context = self._primary_context()
        self._call(self._driver.cuCtxSetCurrent, self._context)
        self._units = self._attribute("CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT")
        check_units(compute_units, self._units)
        self._resource: Any = None
        self._limited = compute_units is not None and compute_units < self._units
        why: str | None = None
        splits: tuple[int, ...] = ()
        try:
            kind = self._driver.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM
            self._resource = self._call(self._driver.cuDeviceGetDevResource, self._device, kind)
            if self._limited:
                self._resource = self._limit(compute_units or self._units, kind)
            self._units = int(self._resource.sm.smCount)
            step = int(getattr(self._resource.sm, "smCoscheduledAlignment", 0)) or self._default_step()
            least = int(getattr(self._resource.sm, "minSmPartitionSize", 0)) or step
            splits = share(self._units, step, least)
            why = None if splits else f"{self._units} SMs cannot be split: each side needs at least {least}"
        except DeviceError as error:
            if self._limited:
                raise DeviceError(
                    f"{compute_units} of the device's {self._units} SMs cannot be had: {error}",
                    "leave out --compute-units, or use a multiple of 8",
                ) from error
            why = f"the driver does not partition this device: {error}"
        self.table = PartitionTable(units_total=self._units, unit_name="SM", splits=splits, unsupported=why)

    @property
    def pci_bus_id(self) -> str:
        """``0000:c1:00.0``, by which other tools know the device."""
        text = self._call(self._driver.cuDeviceGetPCIBusId, _BUS_ID_BYTES, self._device)
        return bytes(text).partition(b"\0")[0].decode("ascii").lower()

    def whole(self, *, high_priority: bool) -> SmGroup:
        """A stream on all SMs that are used."""
        if self._limited:
            return self._green(self._resource, HIGH if high_priority else NORMAL)
        flags = self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING
        stream = self._call(self._driver.cuStreamCreateWithPriority, flags, HIGH if high_priority else NORMAL)
        return SmGroup(self._units, int(stream), None)

    def open(self) -> dict[int, tuple[SmGroup, SmGroup]]:
        """Decode's and prefill's streams by decode's units: on all SMs, and of every split.

        A driver that lists splits and refuses to make them (a container without the right) leaves the table without.
        """
        whole = {self.table.units_total: (self.whole(high_priority=True), self.whole(high_priority=False))}
        try:
            return whole | {units: self.split(units) for units in self.table.splits}
        except DeviceError as error:
            why = f"the driver does not partition this device: {error}"
            self.table = replace(self.table, splits=(), unsupported=why)
            return whole

    def split(self, decode_units: int) -> tuple[SmGroup, SmGroup]:
        """Decode's SMs and the rest. Raises `DeviceError` for a size that is not in the table."""
        if decode_units not in self.table.splits:
            legal = ", ".join(map(str, self.table.splits)) or "none"
            raise DeviceError(f"{decode_units} SMs are not a legal split of this device; legal: {legal}")
        group, rest = self._divide(decode_units)
        return self._green(group, HIGH), self._green(rest, NORMAL)

    def _primary_context(self) -> Any:
        """Torch's own: the first call that takes something of the device."""
        try:
            return self._call(self._driver.cuDevicePrimaryCtxRetain, self._device)
        except DeviceError as error:
            raise DeviceError(
                f"the device cannot be opened: {error}",
                "see with nvidia-smi whether another process has it for itself (compute mode), or all of its memory",
            ) from error

    def _divide(self, units: int) -> tuple[Any, Any]:
        """A group of exactly so many SMs, and the rest."""
        groups, count, rest = self._call(self._driver.cuDevSmResourceSplitByCount, 1, self._resource, 0, units)
        if int(count) != 1 or int(groups[0].sm.smCount) != units:
            raise DeviceError(f"the driver gave {groups[0].sm.smCount} SMs where {units} were asked for")
        return groups[0], rest

    def _limit(self, units: int, kind: Any) -> Any:
        """So many SMs as a resource that can be split: the driver splits no group, but it splits a green context's."""
        group, _ = self._divide(units)
        self._limits = self._green_context(group)
        return self._call(self._driver.cuGreenCtxGetDevResource, self._limits, kind)

    def _green(self, resource: Any, priority: int) -> SmGroup:
        context = self._green_context(resource)
        stream_flags = self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING
        stream = self._call(self._driver.cuGreenCtxStreamCreate, context, stream_flags, priority)
        return SmGroup(int(resource.sm.smCount), int(stream), context)

    def _green_context(self, resource: Any) -> Any:
        driver = self._driver
        description = self._call(driver.cuDevResourceGenerateDesc, [resource], 1)
        flags = driver.CUgreenCtxCreate_flags.CU_GREEN_CTX_DEFAULT_STREAM
        return self._call(driver.cuGreenCtxCreate, description, self._device, flags)

    def _default_step(self) -> int:
        """Where the binding hides the alignment. CUDA's documentation: 8 from compute capability 9.0 on, else 2."""
        return 8 if self._attribute("CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR") >= 9 else 2

    def _attribute(self, name: str) -> int:
        attribute = getattr(self._driver.CUdevice_attribute, name)
        return int(self._call(self._driver.cuDeviceGetAttribute, attribute, self._device))

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A driver call; its values without the status. Raises `DeviceError` naming call and code."""
        try:
            status, *values = function(*arguments)
        except RuntimeError as error:  # the binding did not find the function in an old driver
            raise DeviceError(f"{function.__name__}: {error}", "update the NVIDIA driver") from error
        if int(status) != 0:
            raise DeviceError(f"{function.__name__} failed: {getattr(status, 'name', status)}")
        return values[0] if len(values) == 1 else tuple(values) or None


def check_units(wanted: int | None, there: int) -> None:
    """Raises `DeviceError` when more units are asked for than there are."""
    if wanted is not None and wanted > there:
        raise DeviceError(
            f"{wanted} compute units were asked for and the device has {there} SMs",
            f"lower --compute-units to at most {there}",
        )


def _import_driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise DeviceError(
            "cuda-bindings is not installed", "pip install 'rapid-serve[nvidia]', or use --device cpu"
        ) from error
    return driver


def _initialised(driver: Any) -> Any:
    status, *_ = driver.cuInit(0)
    if int(status) != 0:
        raise DeviceError(
            f"no CUDA device can be used: cuInit says {getattr(status, 'name', status)}",
            "check nvidia-smi, or use --device cpu",
        )
    return driver
