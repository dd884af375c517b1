"""The device's sensors as clients see them. The driver is a declared seam: readings are the test's, taken by hand."""

import pytest

from rapidctl import wire
from rapidd.telemetry.sensors import DeviceSensors
from rapidd.telemetry.watch import DeviceWatch
from support.front import Peer, Rig


class Script:
    """Sensors that tell what the test says."""

    def __init__(self) -> None:
        self.why_not: str | None = None
        self.reading = DeviceSensors()

    def read(self) -> DeviceSensors:
        return self.reading

    def close(self) -> None:
        pass


@pytest.fixture
def script(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script()
    monkeypatch.setattr(rig.front.watch, "_open", lambda *_: script)
    return script


def poll(rig: Rig) -> None:
    watch: DeviceWatch = rig.front.watch
    watch.poll()


def status(peer: Peer) -> wire.DeviceInfo:
    device = peer.ask(wire.GetStatus(call=1), wire.Status).device
    assert device is not None
    return device


def events(peer: Peer, kind: str) -> list[tuple[str, str]]:
    found = peer.ask(wire.GetEvents(call=2, from_seq=0), wire.EventList).events
    return [(event.level, event.text) for event in found if event.kind == kind]


def test_status_and_snapshots_carry_the_latest_reading(rig: Rig, script: Script) -> None:
    peer, engine = rig.ready()
    script.reading = DeviceSensors(utilization=0.97, power_w=312.0, slowdowns=["power cap"])
    poll(rig)
    assert (status(peer).utilization, status(peer).power_w) == (0.97, 312.0)
    engine.state()
    rig.until(lambda: rig.front.link.state is not None)
    device = peer.ask(wire.GetSnapshot(call=3), wire.SnapshotReply).snapshot.device
    assert device is not None
    assert (device.utilization, device.slowdowns) == (0.97, ["power cap"])


@pytest.mark.parametrize(
    ("sensor", "engine_says", "shown"), [(None, 7, 7), (9, 7, 9), (9, None, 9), (None, None, None)]
)
def test_memory_in_use_is_the_sensors_word_else_the_engines(
    rig: Rig, script: Script, sensor: int | None, engine_says: int | None, shown: int | None
) -> None:
    peer, engine = rig.ready()
    engine.state()
    rig.until(lambda: rig.front.link.state is not None)
    rig.front.link.state.memory_used_bytes = engine_says
    script.reading = DeviceSensors(memory_used_bytes=sensor)
    poll(rig)
    assert status(peer).memory_used_bytes == shown


def test_a_driver_that_answers_no_more_leaves_no_old_values(rig: Rig, script: Script) -> None:
    peer, engine = rig.ready()
    script.reading = DeviceSensors(temperature_c=61.0)
    poll(rig)
    assert status(peer).temperature_c == 61.0
    rig.clock.advance(10.1)
    assert status(peer).temperature_c == engine.hello_message.device.temperature_c != 61.0


def test_each_fault_of_the_device_is_one_error(rig: Rig, script: Script) -> None:
    peer, _ = rig.ready()
    script.reading = DeviceSensors(faults=("Xid 79, the GPU has fallen off the bus",))
    poll(rig)
    script.reading = DeviceSensors()
    poll(rig)
    rig.pass_time(1)
    rig.pass_time(1)
    assert events(peer, "device_error") == [("error", "Xid 79, the GPU has fallen off the bus")]


def test_why_there_are_no_sensors_is_a_warning(rig: Rig, script: Script) -> None:
    peer, _ = rig.ready()
    script.why_not = "nvidia-ml-py is not installed"
    poll(rig)
    rig.pass_time(1)
    assert events(peer, "warning") == [("warn", "no sensors of the device: nvidia-ml-py is not installed")]
