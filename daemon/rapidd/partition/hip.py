"""HIP streams on CU masks: the one maker of streams on AMD GPUs, and the table of splits that it can make.

Every split has a masked stream a lane, made once (a masked stream is a hardware queue; its mask never changes). On
all units, the lanes have unmasked streams with priorities instead, which masked ones cannot have. Where the runtime
has execution contexts, the streams of a split are theirs and have both (`hip_contexts`). Nothing here uses the NULL
stream, and nobody may while lanes run: masked streams order against it, so one stray operation there joins the two
lanes. What a mask asked for is no proof of placement, hipExtStreamGetCUMask included; the probe kernel is.

A linear graph runs on the mask of the stream that it is replayed on; with execution contexts, as on CUDA, on that of
the stream that it was captured on; so each stream has graphs of its own. A fork inside a graph runs on an unmasked
queue, and so does a cooperative launch.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from rapidd import log
from rapidd.errors import DeviceError
from rapidd.partition.hip_contexts import HipContexts
from rapidd.partition.hip_runtime import (
    MAX_SHARED_MEMORY_PER_BLOCK,
    MULTIPROCESSOR_COUNT,
    NUMBER_OF_XCCS,
    WARP_SIZE,
    HipError,
    HipRuntime,
    NoHipDevice,
)
from rapidd.partition.masks import CuLayout, lane_masks, legal_splits, mask_words, unit_groups
from rapidd.partition.table import PartitionTable
from rapidd.telemetry.kfd import SYS, KfdNode, find_node

if TYPE_CHECKING:
    import torch

PROCESS_MASKS: Final = ("HSA_CU_MASK", "ROC_GLOBAL_CU_MASK")
"""Variables with which ROCr and HIP take units from every stream; each is ANDed into every mask of ours."""
CDNA_WAVE: Final = 64
"""Threads of a wave; 32 is RDNA, whose mask bits name pairs of units."""


class HipDevice(Struct, frozen=True, kw_only=True):
    """What the driver says about one HIP device, which in DPX, QPX and CPX modes is a part of a GPU."""

    ordinal: int
    architecture: str
    pci_bus_id: str
    layout: CuLayout
    wave_size: int
    shared_memory_bytes: int
    """Most that one workgroup may use (LDS)."""


def describe(
    runtime: HipRuntime, ordinal: int, environment: Mapping[str, str] = os.environ, root: Path = SYS
) -> HipDevice:
    """Read a device. Raises NoHipDevice, HipError, and DeviceError when the process is confined by a variable."""
    for name in PROCESS_MASKS:
        if environment.get(name):
            raise DeviceError(
                f"{name}={environment[name]} takes compute units from every stream behind the daemon's back",
                f"unset {name}; to use fewer units, use --compute-units",
            )
    count = runtime.device_count()
    if ordinal >= count:
        raise NoHipDevice(
            f"HIP device {ordinal} was asked for, and {count} can be used",
            "check that /dev/kfd and /dev/dri/renderD* can be opened (groups render, video) and *_VISIBLE_DEVICES",
        )
    bus_id = runtime.pci_bus_id(ordinal)
    node = find_node(bus_id, root)
    return HipDevice(
        ordinal=ordinal,
        architecture=runtime.architecture(ordinal),
        pci_bus_id=bus_id,
        layout=CuLayout(
            units=runtime.attribute(MULTIPROCESSOR_COUNT, ordinal),
            num_xccs=_num_xccs(runtime, ordinal, node),
            engines_per_xcc=(node and node.engines_per_xcc) or 1,
        ),
        wave_size=runtime.attribute(WARP_SIZE, ordinal),
        shared_memory_bytes=runtime.attribute(MAX_SHARED_MEMORY_PER_BLOCK, ordinal),
    )


def hip_table(runtime: HipRuntime, device: HipDevice, compute_units: int | None = None) -> PartitionTable:
    """The legal splits of the device, or of its first ``compute_units``. Makes and ends one masked stream to see.

    Raises DeviceError for more units than there are, or fewer that cannot be masked or shared evenly by the XCCs.
    """
    layout = _limited(device.layout, compute_units)
    reason = _masks_refused(runtime, device)
    if reason and layout != device.layout:
        raise DeviceError(f"fewer units than the device has need a CU mask, and {reason}", "leave out --compute-units")
    splits = () if reason else legal_splits(layout)
    if not (reason or splits):
        reason = f"{layout.units} units cannot be split over {layout.num_xccs} XCCs"
    return PartitionTable(
        units_total=layout.units, unit_name="CU", splits=splits, unsupported=reason, groups=unit_groups(layout)
    )


class HipStream:
    """A stream on ``units`` (bits of the CU mask), ours to end. ``handle`` is its hipStream_t, 0 once closed."""

    def __init__(self, runtime: HipRuntime, ordinal: int, handle: int, units: range) -> None:
        self.handle = handle
        self.units = units
        self._runtime = runtime
        self._ordinal = ordinal

    def torch_stream(self) -> "torch.cuda.Stream":
        """The same stream for torch, which does not own it. Needs a ROCm build of torch; never run by our tests."""
        import torch

        assert self.handle, "closed"
        return torch.cuda.get_stream_from_external(self.handle, self._ordinal)

    def close(self) -> None:
        """Destroy it, and its hardware queue. The lane is idle by then: HIP may drop what is still on it."""
        handle, self.handle = self.handle, 0
        if handle:
            self._runtime.destroy_stream(handle)


class HipStreams:
    """Every stream that a table needs: ``decode`` and ``prefill`` by unit count, all units included."""

    def __init__(self, runtime: HipRuntime, device: HipDevice, table: PartitionTable) -> None:
        self.decode: dict[int, HipStream] = {}
        self.prefill: dict[int, HipStream] = {}
        self._runtime = runtime
        self._device = device
        self._contexts = HipContexts(runtime, device.ordinal) if runtime.has_contexts else None
        runtime.set_device(device.ordinal)
        try:
            self._make(table)
        except HipError:
            self.close()
            raise

    def close(self) -> None:
        """Destroy all streams. For streams made in vain: those that have worked live until the process ends.

        (On the host path, HIP 7.2 sometimes never returned from destroying one after work; see docs/amd.md.)
        """
        for stream in (*self.decode.values(), *self.prefill.values()):
            stream.close()

    def _make(self, table: PartitionTable) -> None:
        whole = range(table.units_total)
        layout = _limited(self._device.layout, table.units_total)
        least, greatest = self._runtime.priorities()
        if layout == self._device.layout:
            self.decode[len(whole)] = self._wrap(self._runtime.create_stream(greatest), whole)
            self.prefill[len(whole)] = self._wrap(self._runtime.create_stream(least), whole)
        else:
            words = mask_words(whole, self._device.layout.units)
            self.decode[len(whole)] = self._wrap(self._runtime.create_masked_stream(words), whole)
            self.prefill[len(whole)] = self._wrap(self._runtime.create_masked_stream(words), whole)
            self._contexts = None  # they divide all units of the device
        for split in table.splits:
            decode, prefill = self._split(layout, split, greatest, least)
            rest = range(split, len(whole))
            self.decode[split] = self._wrap(decode, range(split))
            self.prefill[len(rest)] = self._wrap(prefill, rest)

    def _split(self, layout: CuLayout, units: int, greatest: int, least: int) -> tuple[int, int]:
        """Handles of decode's and prefill's streams: of contexts while these do as they are asked, else masked."""
        masks = lane_masks(layout, units)  # what may not be split may not be split either way
        if self._contexts is not None:
            try:
                return self._contexts.split(units, greatest, least)
            except DeviceError as error:
                log.warning(f"HIP's execution contexts are not used: {error}")
                self._contexts = None
        decode = self._runtime.create_masked_stream(masks.decode)
        try:
            return decode, self._runtime.create_masked_stream(masks.prefill)
        except HipError:
            self._runtime.destroy_stream(decode)
            raise

    def _wrap(self, handle: int, units: range) -> HipStream:
        return HipStream(self._runtime, self._device.ordinal, handle, units)


def _num_xccs(runtime: HipRuntime, ordinal: int, node: KfdNode | None) -> int:
    """From HIP, or from the kernel driver where HIP is too old to know the attribute, or says 0."""
    try:
        told = runtime.attribute(NUMBER_OF_XCCS, ordinal)
    except HipError:
        if node is None:
            raise
        return node.num_xccs
    if told:
        return told
    if node is None:
        raise DeviceError("HIP does not tell how many XCCs the device has, and amdkfd does not know it", "update ROCm")
    return node.num_xccs


def _limited(layout: CuLayout, compute_units: int | None) -> CuLayout:
    if compute_units is None:
        return layout
    if compute_units > layout.units:
        raise DeviceError(
            f"{compute_units} compute units were asked for and the device has {layout.units}",
            f"lower --compute-units to at most {layout.units}",
        )
    if compute_units < layout.units and compute_units % layout.num_xccs:
        raise DeviceError(
            f"{compute_units} compute units cannot be even over the device's {layout.num_xccs} XCCs",
            f"use a multiple of {layout.num_xccs} for --compute-units",
        )
    return CuLayout(units=compute_units, num_xccs=layout.num_xccs, engines_per_xcc=layout.engines_per_xcc)


def _masks_refused(runtime: HipRuntime, device: HipDevice) -> str | None:
    """Why no stream of this device can be masked, if so."""
    if device.wave_size != CDNA_WAVE:
        return f"{device.architecture} is no CDNA GPU: its CU masks name pairs of units"
    words = mask_words(range(device.layout.num_xccs), device.layout.units)
    try:
        runtime.set_device(device.ordinal)
        runtime.destroy_stream(runtime.create_masked_stream(words))
    except HipError as error:
        return f"the driver refuses CU masks ({error})"
    return None
