"""What sensors of a device tell, whoever makes it: the values, and what can be asked for them.

`watch.sensors_for` chooses who tells. Knows no vendor, no thread and no clock.
"""

from typing import Final, Literal, Protocol

from msgspec import Struct, structs

from rapidctl.wire import DeviceInfo, DeviceProcess

Remedy = Literal["none", "restart", "stop"]
"""What a fault needs: nothing of us, another engine process, or a reset or another device, which no restart brings."""
REMEDIES: Final[tuple[Remedy, ...]] = ("none", "restart", "stop")
"""Weakest first."""


class Reading(Struct, frozen=True, kw_only=True):
    """Values in SI units and shares from 0 to 1; null is what nobody told. Fields are those of `DeviceInfo`."""

    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    utilization: float | None = None
    memory_utilization: float | None = None
    clock_hz: float | None = None
    memory_clock_hz: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    temperature_c: float | None = None


class DeviceSensors(Reading, frozen=True, kw_only=True):
    """One reading with what goes on beside the values. Fields are those of `DeviceInfo`, but for the last two."""

    slowdowns: list[str] | None = None
    processes: list[DeviceProcess] | None = None
    faults: tuple[str, ...] = ()
    """What went wrong with the device since the reading before: Xid, RAS. Each is told once, in one line."""
    remedy: Remedy = "none"
    """The strongest that one of ``faults`` needs."""


class Sensors(Protocol):
    """The sensors of one device. Nothing here raises; a device that does not answer gives nulls."""

    why_not: str | None
    """Why there will never be values; null where there may be."""

    def read(self) -> DeviceSensors:
        """All of them, now. May block as long as the driver does: not for a loop that serves."""

    def close(self) -> None:
        """Let the driver go. Nothing is read after it."""


class NoSensors:
    """Of a device that nobody can ask, for the reason in ``why_not``."""

    def __init__(self, why_not: str) -> None:
        self.why_not: str | None = why_not

    def read(self) -> DeviceSensors:
        """Nothing but nulls."""
        return DeviceSensors()

    def close(self) -> None:
        """There is nothing to let go."""


def with_sensors(device: DeviceInfo, sensors: DeviceSensors) -> DeviceInfo:
    """The device with what its sensors told; where they told nothing, it is as it was.

    The whole of the memory stays the engine's word: of a slice of a GPU the driver may tell the GPU's.
    """
    told = {name: value for name, value in structs.asdict(sensors).items() if value is not None}
    del told["faults"], told["remedy"]
    if device.memory_total_bytes is not None:
        told.pop("memory_total_bytes", None)
    return structs.replace(device, **told)
