"""A processor's sensors: what psutil tells, in which units, and every way in which a system hides it."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from rapidd.telemetry import cpu
from rapidd.telemetry.cpu import CpuSensors
from rapidd.telemetry.sensors import DeviceSensors


def temperatures(**chips: list[float]) -> dict[str, list[Any]]:
    return {name: [SimpleNamespace(current=value) for value in values] for name, values in chips.items()}


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What psutil answers; an exception is raised."""
    answers: dict[str, Any] = {
        "cpu_percent": 37.5,
        "cpu_freq": SimpleNamespace(current=2400.0, min=0.0, max=0.0),
        "sensors_temperatures": temperatures(nvme=[80.0], coretemp=[51.0, 63.0, 58.0], acpitz=[90.0]),
    }

    def answer(name: str) -> Any:
        if isinstance(answers[name], Exception):
            raise answers[name]
        return answers[name]

    for name in answers:
        monkeypatch.setattr(psutil, name, lambda name=name, **_: answer(name))
    return answers


def test_load_clock_and_the_hottest_core_are_told(system: dict[str, Any]) -> None:
    sensors = CpuSensors()
    assert sensors.why_not is None
    sensors.read()
    assert sensors.read() == DeviceSensors(utilization=0.375, clock_hz=2.4e9, temperature_c=63.0)
    sensors.close()


def test_load_is_unknown_before_there_was_time_to_measure_it(system: dict[str, Any]) -> None:
    assert CpuSensors().read().utilization is None


@pytest.mark.parametrize("answer", [None, SimpleNamespace(current=0.0), OSError(), NotImplementedError()])
def test_a_clock_that_the_system_hides_is_null(system: dict[str, Any], answer: object) -> None:
    system["cpu_freq"] = answer
    assert CpuSensors().read().clock_hz is None


@pytest.mark.parametrize("answer", [{}, temperatures(nvme=[40.0]), temperatures(k10temp=[]), OSError()])
def test_a_temperature_that_is_not_the_processors_is_not_told(system: dict[str, Any], answer: object) -> None:
    system["sensors_temperatures"] = answer
    assert CpuSensors().read().temperature_c is None


def test_this_machine_can_be_read() -> None:
    sensors = CpuSensors()
    sensors.read()
    load = sensors.read().utilization
    assert load is not None
    assert 0 <= load <= 1


def test_waiting_for_a_core_is_summed_over_other_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = {"7": "100 2000000000 5", "8": "1 500000000 1", "9": "", str(threading.get_native_id()): "1 9000000000 1"}
    for thread, line in told.items():
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(line)
    (tmp_path / "10").mkdir()
    monkeypatch.setattr(cpu, "_TASKS", tmp_path)
    assert cpu.waited_s() == 2.5
    monkeypatch.setattr(cpu, "_TASKS", tmp_path / "nowhere")
    assert cpu.waited_s() == 0.0
