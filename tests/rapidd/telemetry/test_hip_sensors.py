"""An AMD GPU as the daemon's sensors: sysfs alone, and faults by the driver's RAS counts. Not run on AMD hardware."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from rapidctl.wire import DeviceProcess
from rapidd import log
from rapidd.config import LogConfig
from rapidd.telemetry.hip import HipSensors
from rapidd.telemetry.sensors import DeviceSensors
from support.amd import BUS_ID, GPU_ID, PCI, PROC, write, write_gpu


def sensors(root: Path) -> HipSensors:
    return HipSensors(BUS_ID, root=root, kfd_device=root / "kfd")


def ras(root: Path, **uncorrected: int) -> None:
    write(root, {f"{PCI}/ras/{block}_err_count": f"ue: {count}\nce: 7" for block, count in uncorrected.items()})


def test_everything_that_sysfs_tells_arrives(tmp_path: Path) -> None:
    write_gpu(tmp_path)
    write(tmp_path, {f"{PROC}/7/vram_{GPU_ID}": "4096"})
    gpu = sensors(tmp_path)
    assert gpu.why_not is None
    assert gpu.read() == DeviceSensors(
        memory_total_bytes=206141652992,
        memory_used_bytes=53687091200,
        utilization=0.37,
        memory_utilization=0.12,
        clock_hz=2.1e9,
        memory_clock_hz=1.3e9,
        power_w=312.0,
        power_limit_w=750.0,
        temperature_c=61.0,
        processes=[DeviceProcess(pid=7, memory_bytes=4096)],
    )
    gpu.close()


@pytest.fixture
def logged() -> Iterator[None]:
    log.start(LogConfig(), "front")
    yield
    logging.getLogger("rapidd").handlers.clear()


@pytest.mark.usefixtures("logged")
def test_the_log_says_why_sysfs_alone_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The reason was kept, and nobody was ever told it."""
    sensors(tmp_path).close()
    assert capsys.readouterr().err == "", "there is no GPU at all: that is an event"
    write_gpu(tmp_path)
    sensors(tmp_path).close()
    assert f"sensors are read from sysfs alone: no {tmp_path}/kfd" in capsys.readouterr().err


def test_a_gpu_that_is_not_there_says_so(tmp_path: Path) -> None:
    gpu = sensors(tmp_path)
    assert gpu.why_not == f"no GPU at {BUS_ID}: is its driver loaded?"
    assert gpu.read() == DeviceSensors()


def test_uncorrected_errors_are_told_once_and_history_is_not(tmp_path: Path) -> None:
    write_gpu(tmp_path)
    ras(tmp_path, umc=2, gfx=0)
    gpu = sensors(tmp_path)
    assert gpu.read().faults == ()
    ras(tmp_path, umc=5, gfx=1)
    assert gpu.read().faults == ("RAS: 1 uncorrected errors in gfx", "RAS: 3 uncorrected errors in umc")
    assert gpu.read().faults == ()


@pytest.mark.parametrize("text", ["", "ue: many", "ce: 9", "query failed"])
def test_counts_that_cannot_be_read_are_no_fault(tmp_path: Path, text: str) -> None:
    write_gpu(tmp_path)
    write(tmp_path, {f"{PCI}/ras/umc_err_count": text})
    gpu = sensors(tmp_path)
    assert gpu.read().faults == ()


def test_a_count_that_could_not_be_read_for_a_while_is_told_for_what_it_grew_meanwhile(tmp_path: Path) -> None:
    """amdgpu takes its files away while it resets a GPU. When they came back the whole count was a fault, for which the
    engine was restarted."""
    write_gpu(tmp_path)
    ras(tmp_path, umc=5)
    gpu = sensors(tmp_path)
    path = tmp_path / PCI / "ras/umc_err_count"
    for count, faults in ((5, ()), (7, ("RAS: 2 uncorrected errors in umc",))):
        path.unlink()
        assert gpu.read().faults == ()
        ras(tmp_path, umc=count)
        assert gpu.read().faults == faults


def test_a_count_that_could_be_read_only_later_is_history_too(tmp_path: Path) -> None:
    """A new engine's sensors are opened while the GPU may still be resetting."""
    write_gpu(tmp_path)
    gpu = sensors(tmp_path)
    ras(tmp_path, umc=5)
    assert gpu.read().faults == ()
    ras(tmp_path, umc=6)
    assert gpu.read().faults == ("RAS: 1 uncorrected errors in umc",)
