"""The watch over a device's sensors: what it follows, for how long a reading counts, and what operators hear of."""

import sys
import threading
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from rapidctl.wire import DeviceInfo
from rapidd.telemetry.cpu import CpuSensors
from rapidd.telemetry.hip import HipSensors
from rapidd.telemetry.sensors import DeviceSensors, NoSensors, Sensors, with_sensors
from rapidd.telemetry.watch import FRESH_NS, PERIODS_S, DeviceWatch, Kind, sensors_for
from support.nvml import BUS_ID, Nvml

GPU = DeviceInfo(
    kind="cuda", name="H100", units=132, unit_name="SM", memory_total_bytes=80_000_000_000, pci_bus_id=BUS_ID
)
WAIT_S = 10.0
"""Longest wait for a thread; only a failing test ever waits so long."""


class Scripted:
    """Sensors that tell what the test says."""

    def __init__(self, *readings: DeviceSensors, why_not: str | None = None) -> None:
        self.why_not = why_not
        self.readings: Iterator[DeviceSensors] = iter(readings)
        self.closed = False

    def read(self) -> DeviceSensors:
        assert not self.closed
        return next(self.readings, DeviceSensors())

    def close(self) -> None:
        self.closed = True


class Desk:
    """A watch, its clock, and what it opened, in order."""

    def __init__(self, *sensors: Scripted) -> None:
        self.now_ns = 0
        self.opened: list[tuple[Kind, int, str | None]] = []
        self.sensors = list(sensors)
        self.watch = DeviceWatch(lambda: self.now_ns, self.open)

    def open(self, kind: Kind, ordinal: int, pci_bus_id: str | None) -> Sensors:
        self.opened.append((kind, ordinal, pci_bus_id))
        return self.sensors[len(self.opened) - 1]

    def news(self) -> list[tuple[str, str, str]]:
        told: list[tuple[str, str, str]] = []
        self.watch.tell(lambda kind, text, level: told.append((kind, text, level)))
        return told


class Tripping(Scripted):
    """A binding that raises what nobody expects."""

    def read(self) -> DeviceSensors:
        raise TypeError("an integer is required")

    def close(self) -> None:
        super().close()
        raise OSError("gone")


def test_a_binding_that_trips_costs_the_values_and_is_told_once() -> None:
    """It used to end the thread, and nobody heard."""
    tripping, next_engines = Tripping(), Scripted(DeviceSensors(utilization=0.5))
    desk = Desk(tripping, next_engines)
    desk.watch.follow(GPU)
    desk.watch.poll()
    desk.watch.poll()
    why = "no sensors of the device: reading them failed: TypeError: an integer is required"
    assert desk.news() == [("warning", why, "warn")]
    assert (tripping.closed, desk.watch.latest()) == (True, DeviceSensors())
    desk.watch.follow(replace(GPU))
    desk.watch.poll()
    assert desk.watch.latest().utilization == 0.5


def test_sensors_that_cannot_be_opened_are_told_once() -> None:
    def trip(kind: Kind, ordinal: int, pci_bus_id: str | None) -> Sensors:
        raise AttributeError("module 'pynvml' has no attribute 'nvmlInit'")

    watch, told = DeviceWatch(lambda: 0, trip), list[str]()
    watch.follow(GPU)
    watch.poll()
    watch.poll()
    watch.tell(lambda kind, text, level: told.append(text))
    assert [text.partition("AttributeError")[0] for text in told] == ["no sensors of the device: opening them failed: "]


def test_nothing_is_opened_before_there_is_a_device() -> None:
    desk = Desk()
    desk.watch.poll()
    assert desk.opened == []
    assert desk.watch.latest() == DeviceSensors()


def test_a_device_is_opened_once_and_its_latest_reading_is_there() -> None:
    desk = Desk(Scripted(DeviceSensors(power_w=1.0), DeviceSensors(power_w=2.0)))
    desk.watch.follow(GPU)
    assert desk.watch.latest() == DeviceSensors()
    desk.watch.poll()
    assert desk.watch.latest().power_w == 1.0
    desk.watch.poll()
    assert desk.watch.latest().power_w == 2.0
    assert desk.opened == [("cuda", 0, BUS_ID)]


def test_a_reading_counts_for_ten_seconds_only() -> None:
    """A driver that blocks stops the reading; what it said last must not pass for now."""
    desk = Desk(Scripted(DeviceSensors(power_w=1.0)))
    desk.watch.follow(GPU)
    desk.watch.poll()
    desk.now_ns += FRESH_NS
    assert desk.watch.latest().power_w == 1.0
    desk.now_ns += 1
    assert desk.watch.latest() == DeviceSensors()


def test_a_new_engine_gets_its_device_opened_anew() -> None:
    first, second = Scripted(DeviceSensors(power_w=1.0)), Scripted(DeviceSensors(power_w=2.0))
    desk = Desk(first, second)
    desk.watch.follow(GPU)
    desk.watch.poll()
    desk.watch.follow(replace(GPU))
    assert desk.watch.latest() == DeviceSensors(), "the reading is of the device before"
    desk.watch.poll()
    assert first.closed
    assert not second.closed
    assert desk.watch.latest().power_w == 2.0


def test_faults_are_errors_told_once() -> None:
    desk = Desk(Scripted(DeviceSensors(faults=("Xid 48", "Xid 79")), DeviceSensors(faults=("Xid 48",))))
    desk.watch.follow(GPU)
    desk.watch.poll()
    assert desk.news() == [("device_error", "Xid 48", "error"), ("device_error", "Xid 79", "error")]
    assert desk.news() == []
    desk.watch.poll()
    assert desk.news() == [("device_error", "Xid 48", "error")]


def test_a_device_without_sensors_is_a_warning_once() -> None:
    desk = Desk(Scripted(why_not="nvidia-ml-py is not installed"))
    desk.watch.follow(GPU)
    desk.watch.poll()
    desk.watch.poll()
    assert desk.news() == [("warning", "no sensors of the device: nvidia-ml-py is not installed", "warn")]


def test_a_driver_that_hangs_holds_up_nobody() -> None:
    reading, answer = threading.Event(), threading.Event()

    class Hangs(Scripted):
        def read(self) -> DeviceSensors:
            reading.set()
            answer.wait(WAIT_S)
            return DeviceSensors()

    desk = Desk(Hangs())
    desk.watch.follow(GPU)
    thread = threading.Thread(target=desk.watch.poll)
    thread.start()
    assert reading.wait(WAIT_S)
    assert desk.watch.latest() == DeviceSensors()
    assert desk.news() == []
    answer.set()
    thread.join(WAIT_S)


def test_stopping_lets_the_driver_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PERIODS_S, "cuda", 0.001)
    reading = threading.Event()

    class Tells(Scripted):
        def read(self) -> DeviceSensors:
            reading.set()
            return super().read()

    sensors = Tells()
    desk = Desk(sensors)
    desk.watch.follow(GPU)
    desk.watch.start()
    assert reading.wait(WAIT_S)
    desk.watch.stop()
    assert sensors.closed


# --- who tells --------------------------------------------------------------------------------------------------


def test_each_kind_of_device_has_its_sensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    assert isinstance(sensors_for("cpu", 0), CpuSensors)
    assert isinstance(sensors_for("hip", 0, "0000:c1:00.0"), HipSensors)
    assert sensors_for("cuda", 0, BUS_ID).read().utilization == 0.97
    assert isinstance(sensors_for("cuda", 0, "0000:00:00.0"), NoSensors)
    assert sensors_for("hip", 0).why_not == "the engine did not tell the GPU's PCI address"


# --- the wire ---------------------------------------------------------------------------------------------------


def test_what_sensors_do_not_tell_stays_as_it_was() -> None:
    device = replace(GPU, memory_used_bytes=5, power_w=7.0)
    told = with_sensors(device, DeviceSensors(utilization=0.5, memory_used_bytes=6, slowdowns=[]))
    assert told == replace(device, utilization=0.5, memory_used_bytes=6, slowdowns=[])
    assert with_sensors(device, DeviceSensors(faults=("Xid 79",))) == device


def test_the_whole_of_the_memory_is_the_engines_word() -> None:
    told = DeviceSensors(memory_total_bytes=99)
    assert with_sensors(GPU, told).memory_total_bytes == 80_000_000_000
    assert with_sensors(replace(GPU, memory_total_bytes=None), told).memory_total_bytes == 99


def test_what_a_fault_needs_is_told_once_with_the_reason() -> None:
    desk = Desk(Scripted(DeviceSensors(faults=("Xid 94", "Xid 31"), remedy="restart"), DeviceSensors()))
    desk.watch.follow(GPU)
    desk.watch.poll()
    assert list(desk.watch.take_remedies()) == [("restart", "Xid 94; Xid 31")]
    assert list(desk.watch.take_remedies()) == []
    desk.watch.poll()
    assert list(desk.watch.take_remedies()) == []


def test_a_later_fault_does_not_hide_what_an_earlier_one_needs() -> None:
    """A front that was held up for two readings forgot the first: an Xid 94 behind an Xid 79 got the engine replaced
    on a GPU that has fallen off the bus, and the daemon went on.
    """
    desk = Desk(
        Scripted(DeviceSensors(faults=("Xid 79",), remedy="stop"), DeviceSensors(faults=("Xid 94",), remedy="restart"))
    )
    desk.watch.follow(GPU)
    desk.watch.poll()
    desk.watch.poll()
    assert list(desk.watch.take_remedies()) == [("stop", "Xid 79"), ("restart", "Xid 94")]
