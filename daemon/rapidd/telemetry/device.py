"""What the system tells about the device. On a CPU: name, memory, and nothing that it does not measure."""

import platform
from pathlib import Path
from typing import Final

import psutil

from rapidctl.wire import DeviceInfo
from rapidd.telemetry.kfd import read_int, read_text

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUP: Final = Path("/proc/self/cgroup")


def cpu_info(units: int) -> DeviceInfo:
    """The processor, with ``units`` cores of it in use."""
    return DeviceInfo(
        kind="cpu",
        name=_cpu_name(),
        units=units,
        unit_name="core",
        memory_total_bytes=psutil.virtual_memory().total,
    )


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 matrices itself; emulated, it is slower than float32."""
    flags = _cpuinfo("flags").split() or _cpuinfo("Features").split()
    return any(flag in flags for flag in ("amx_bf16", "avx512_bf16", "bf16"))


def process_memory_bytes() -> int:
    """Resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


def available_memory_bytes(root: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> int:
    """What this process may still take: of the system's memory, and of its control groups' (v2), which may be less.

    Files that a group has read are given back when it needs the room.
    """
    free = [psutil.virtual_memory().available]
    path = next((line[3:] for line in (read_text(own) or "").splitlines() if line.startswith("0::")), "/")
    folder = root / path.lstrip("/")
    for group in (folder, *folder.parents):  # a container may see none but the outermost, which is its own
        limit, used = read_int(group / "memory.max"), read_int(group / "memory.current")
        if limit is not None and used is not None:
            stat = dict(line.split() for line in (read_text(group / "memory.stat") or "").splitlines())
            free.append(limit - used + int(stat.get("active_file", 0)) + int(stat.get("inactive_file", 0)))
    return max(min(free), 0)


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")
