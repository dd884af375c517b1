"""Reads the device's sensors every few seconds in a thread of its own, and keeps the latest reading for whoever asks.

It lives in the front: it sees an engine hang or die, and costs the engine's loop nothing. A driver that blocks stops
only this thread; its last reading soon counts for nothing, and unknown is shown. Imports no torch.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Literal

from rapidctl.wire import DeviceInfo
from rapidd.telemetry.cpu import CpuSensors
from rapidd.telemetry.hip import HipSensors
from rapidd.telemetry.nvidia import open_nvidia
from rapidd.telemetry.sensors import DeviceSensors, NoSensors, Sensors

Kind = Literal["cpu", "cuda", "hip"]
Cure = Literal["restart", "stop"]
"""A `sensors.Remedy` that somebody must see to."""
PERIODS_S: Final[dict[Kind, float]] = {"cpu": 4.0, "cuda": 2.0, "hip": 2.0}
"""A processor has no faults to tell, and its time is what it is there to give."""
FRESH_NS: Final = 10_000_000_000
"""A reading older than this says nothing about now."""
STOP_S: Final = 1.0
"""How long `DeviceWatch.stop` waits for a driver."""
ORDINAL: Final = 0
"""The engine runs on the first device that it sees."""
Emit = Callable[[str, str, str], None]
"""Kind, text and level of a `wire.Event`."""


def sensors_for(kind: Kind, ordinal: int, pci_bus_id: str | None = None) -> Sensors:
    """The sensors of a device. Never raises: where there are none, they say why not."""
    if kind == "cpu":
        return CpuSensors()
    if kind == "cuda":
        return open_nvidia(ordinal, pci_bus_id)
    if pci_bus_id is None:
        return NoSensors("the engine did not tell the GPU's PCI address")
    return HipSensors(pci_bus_id)


class DeviceWatch:
    """`follow`, `latest` and `tell` are for the front's thread and never wait; the reading is `poll`'s.

    Nothing is read before `start`.
    """

    def __init__(
        self,
        clock: Callable[[], int],
        open_sensors: Callable[[Kind, int, str | None], Sensors] = sensors_for,
    ) -> None:
        self._clock = clock
        self._open = open_sensors
        self._wanted: DeviceInfo | None = None
        self._opened: DeviceInfo | None = None
        self._sensors: Sensors | None = None
        self._reading: tuple[int, DeviceInfo, DeviceSensors] | None = None
        self._news: deque[tuple[str, str, str]] = deque()
        self._remedies: deque[tuple[Cure, str]] = deque()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="device sensors", daemon=True)

    def follow(self, device: DeviceInfo) -> None:
        """Read this device from now on, opened anew: a new engine may have it, or the driver may have been reset."""
        self._wanted = device

    def latest(self) -> DeviceSensors:
        """The last reading of the device followed; nulls without one, or while the driver does not answer."""
        if self._reading is not None:
            at_ns, device, sensors = self._reading
            if device is self._wanted and self._clock() - at_ns <= FRESH_NS:
                return sensors
        return DeviceSensors()

    def tell(self, emit: Emit) -> None:
        """Hand over what operators should hear of, each once."""
        while self._news:
            emit(*self._news.popleft())

    def take_remedies(self) -> Iterator[tuple[Cure, str]]:
        """What the device needs since the last call, and why, in order."""
        while self._remedies:
            yield self._remedies.popleft()

    def start(self) -> None:
        """Read every one of `PERIODS_S` from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End the reading; a driver that does not answer is left behind."""
        self._stopping.set()
        self._thread.join(STOP_S)

    def poll(self) -> None:
        """One reading, of the device that is to be followed now."""
        device = self._wanted
        if device is None:
            return
        if device is not self._opened or self._sensors is None:
            self._open_anew(device)
        sensors = self._read()
        self._reading = (self._clock(), device, sensors)
        self._news.extend(("device_error", fault, "error") for fault in sensors.faults)
        if sensors.remedy != "none":
            self._remedies.append((sensors.remedy, "; ".join(sensors.faults)))

    # What a vendor's binding trips over costs the values and not this thread, whatever it raises.

    def _open_anew(self, device: DeviceInfo) -> None:
        self._close()
        self._opened = device
        try:
            self._use(self._open(device.kind, ORDINAL, device.pci_bus_id))
        except Exception as error:
            self._use(NoSensors(f"opening them failed: {type(error).__name__}: {error}"))

    def _read(self) -> DeviceSensors:
        assert self._sensors is not None
        try:
            return self._sensors.read()
        except Exception as error:
            self._close()
            self._use(NoSensors(f"reading them failed: {type(error).__name__}: {error}"))
            return DeviceSensors()

    def _use(self, sensors: Sensors) -> None:
        self._sensors = sensors
        if sensors.why_not is not None:
            self._news.append(("warning", f"no sensors of the device: {sensors.why_not}", "warn"))

    @property
    def _period_s(self) -> float:
        """Of the device that is to be followed; the shortest until there is one."""
        return PERIODS_S[self._wanted.kind] if self._wanted else min(PERIODS_S.values())

    def _run(self) -> None:
        while not self._stopping.wait(self._period_s):
            self.poll()
        self._close()

    def _close(self) -> None:
        if self._sensors is not None:
            with contextlib.suppress(Exception):
                self._sensors.close()
