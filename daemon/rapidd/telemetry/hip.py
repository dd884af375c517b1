"""An AMD GPU behind `Sensors`: what amdsmi and sysfs tell (`amd`), and uncorrected errors from the driver's RAS counts.

amdgpu has a file ``ras/BLOCK_err_count`` a block (memory, compute, copy engines) with a line ``ue: N`` for errors that
nothing corrected. A count that grows is a fault; what it was at first is history. Not run on AMD hardware.
"""

from pathlib import Path

from msgspec import structs

from rapidd import log
from rapidd.telemetry.amd import KFD_DEVICE, AmdSensors
from rapidd.telemetry.kfd import SYS, read_text
from rapidd.telemetry.sensors import DeviceSensors

_SUFFIX = "_err_count"


class HipSensors:
    """The GPU at a PCI address. amdsmi can block for long, so this belongs in a thread that nobody waits for."""

    def __init__(self, pci_bus_id: str, *, root: Path = SYS, kfd_device: Path = KFD_DEVICE) -> None:
        pci_bus_id = pci_bus_id.lower()  # as sysfs writes it
        folder = root / "bus/pci/devices" / pci_bus_id
        self.why_not: str | None = None if folder.exists() else f"no GPU at {pci_bus_id}: is its driver loaded?"
        self._amd = AmdSensors(pci_bus_id, root=root, kfd_device=kfd_device)
        if self.why_not is None and self._amd.why_no_amdsmi is not None:
            log.info(f"the GPU's sensors are read from sysfs alone: {self._amd.why_no_amdsmi}", event="sensors")
        self._ras = folder / "ras"
        self._uncorrected = self._read_uncorrected()
        """Errors by block, as last told; what a block tells at first is history, whenever that is."""

    def read(self) -> DeviceSensors:
        """All sensors now, and the blocks whose uncorrected errors became more since the reading before."""
        before, now = self._uncorrected, self._read_uncorrected()
        self._uncorrected = before | now
        faults = tuple(
            f"RAS: {count - before[block]} uncorrected errors in {block}"
            for block, count in now.items()
            if count > before.get(block, count)
        )
        return structs.replace(self._amd.read(), faults=faults, remedy="restart" if faults else "none")

    def close(self) -> None:
        """Let amdsmi go."""
        self._amd.close()

    def _read_uncorrected(self) -> dict[str, int]:
        """Errors by block; of a block whose file cannot be read none are known."""
        counts = {}
        for path in sorted(self._ras.glob(f"*{_SUFFIX}")):
            lines = (line.partition(":") for line in (read_text(path) or "").splitlines())
            for name, _, value in lines:
                if name.strip() == "ue" and value.strip().isdecimal():
                    counts[path.name.removesuffix(_SUFFIX)] = int(value)
        return counts
