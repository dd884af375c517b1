"""What Linux amdkfd tells about a GPU in sysfs: its shape, and the processes that hold queues on it.

Read as files, so it needs no library of ROCm and no right but to read. Knows no sensors (`amd` has them).
"""

from pathlib import Path
from typing import Final

from msgspec import Struct

from rapidctl.wire import DeviceProcess

SYS: Final = Path("/sys")
_KFD = "class/kfd/kfd"


class KfdNode(Struct, frozen=True, kw_only=True):
    """One GPU of the topology: in a partition mode other than SPX, one partition of it."""

    gpu_id: int
    num_xccs: int
    engines_per_xcc: int | None
    """Shader engines; None where the driver's counts contradict each other."""


def find_node(pci_bus_id: str, root: Path = SYS) -> KfdNode | None:
    """The node at a PCI address such as ``0000:c1:00.0``; None where there is no driver, or no such GPU.

    Partitions of one GPU share bus and device and differ, if at all, in the function.
    """
    domain, location = _location(pci_bus_id)
    same_slot = []
    for folder in _numbered(root / _KFD / "topology" / "nodes"):
        gpu_id = read_int(folder / "gpu_id")
        properties = _properties(folder)
        if not gpu_id or properties.get("domain") != domain:
            continue
        at = properties.get("location_id", -1)
        if at >> 3 == location >> 3:
            same_slot.append((at != location, gpu_id, properties))
    if not same_slot:
        return None
    _, gpu_id, properties = min(same_slot, key=lambda candidate: candidate[:2])
    return _node(gpu_id, properties)


def processes(gpu_id: int, root: Path = SYS) -> list[DeviceProcess]:
    """Every process with queues or memory on the GPU, this one included, by pid."""
    return [
        DeviceProcess(pid=int(folder.name), memory_bytes=memory)
        for folder in _numbered(root / _KFD / "proc")
        if (memory := read_int(folder / f"vram_{gpu_id}")) is not None
    ]


def read_text(path: Path) -> str | None:
    """A file of sysfs, stripped; None where it is missing, unreadable, empty or not text."""
    try:
        return path.read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def read_int(path: Path) -> int | None:
    """A file of sysfs that holds one number; else None."""
    text = read_text(path)
    return int(text) if text is not None and text.lstrip("-").isdecimal() else None


def _node(gpu_id: int, properties: dict[str, int]) -> KfdNode:
    xccs = max(properties.get("num_xcc", 1), 1)
    engines, odd = divmod(properties.get("array_count", 0), max(properties.get("simd_arrays_per_engine", 1), 1) * xccs)
    return KfdNode(
        gpu_id=gpu_id,
        num_xccs=xccs,
        engines_per_xcc=engines if engines and not odd else None,
    )


def _location(pci_bus_id: str) -> tuple[int, int]:
    """(domain, bus << 8 | device << 3 | function), as the topology's location_id has it."""
    domain, bus, rest = pci_bus_id.split(":")
    device, _, function = rest.partition(".")
    return int(domain, 16), int(bus, 16) << 8 | int(device, 16) << 3 | int(function or "0", 16)


def _properties(node: Path) -> dict[str, int]:
    lines = (read_text(node / "properties") or "").splitlines()
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _numbered(folder: Path) -> list[Path]:
    try:
        return sorted((entry for entry in folder.iterdir() if entry.name.isdecimal()), key=lambda e: int(e.name))
    except OSError:
        return []
