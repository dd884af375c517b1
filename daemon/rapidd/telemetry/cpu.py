"""Sensors of a processor: load, clock and temperature, as far as the system shows them to an ordinary user.

Power would need the right to read RAPL, so it is null. The memory in use is the engine's to tell.
"""

import contextlib
import os
import threading
from pathlib import Path
from typing import Final

import psutil

from rapidd.telemetry.sensors import DeviceSensors

_CHIPS: Final = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal")
"""hwmon names of processors' own sensors: Intel, AMD (both drivers), Arm boards. Others are of disks and boards."""
_MEGA: Final = 1e6
_TASKS: Final = Path("/proc/self/task")
"""A folder a thread; `schedstat` there: ns it ran, ns it waited for a core, turns."""


def others_cpu_s() -> float:
    """CPU seconds of everything on this machine but this process and its ended children; other machines' too."""
    machine, own = psutil.cpu_times(), os.times()
    stolen: float = getattr(machine, "steal", 0.0)
    return machine.user + machine.nice + machine.system + stolen - sum(own[:4])


def waited_s() -> float:
    """Seconds that all threads of this process but the caller have wanted a core and had none.

    0 where the kernel does not tell. Of threads that have ended it tells no more.
    """
    own, total_ns = str(threading.get_native_id()), 0
    for task in _TASKS.iterdir() if _TASKS.is_dir() else ():
        if task.name != own:
            with contextlib.suppress(OSError, IndexError, ValueError):
                total_ns += int((task / "schedstat").read_text(encoding="ascii").split()[1])
    return total_ns / 1e9


class CpuSensors:
    """The processor that this runs on, all its cores. Load counts from reading to reading: one thread reads."""

    def __init__(self) -> None:
        self.why_not: str | None = None
        self._has_start = False
        self._has_thermometer = True
        """Until there was none at the first reading: looking for one costs as much as all the rest."""

    def read(self) -> DeviceSensors:
        """Load since the reading before (null at first), mean clock, and the hottest of the processor's sensors."""
        load = psutil.cpu_percent(interval=None)
        temperature_c = _temperature_c() if self._has_thermometer else None
        sensors = DeviceSensors(
            utilization=load / 100 if self._has_start else None, clock_hz=_clock_hz(), temperature_c=temperature_c
        )
        if not self._has_start:
            self._has_start, self._has_thermometer = True, temperature_c is not None
        return sensors

    def close(self) -> None:
        """There is nothing to let go."""


def _clock_hz() -> float | None:
    try:
        clock = psutil.cpu_freq()
    except (OSError, NotImplementedError):  # virtual machines hide it in several ways
        return None
    return clock.current * _MEGA if clock is not None and clock.current else None


def _temperature_c() -> float | None:
    try:
        chips = psutil.sensors_temperatures()
    except OSError:
        return None
    return max((sensor.current for name in _CHIPS for sensor in chips.get(name, ())), default=None)
