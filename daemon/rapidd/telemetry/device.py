"""What the system tells about the device. On a CPU: name, memory, and nothing that it does not measure."""

import platform
from pathlib import Path

import psutil

from rapidctl.wire import DeviceInfo


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


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")
