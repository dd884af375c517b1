"""AMD sensors: what amdsmi and sysfs tell, in which units, and every way in which amdsmi is known to fail.

Each amdsmi is a stand-in module in a folder where the daemon looks for ROCm's own, read in a fresh process: a module
is imported once. tests/amd_host reads the real library.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rapidctl.wire import DeviceProcess
from rapidd.telemetry.amd import AmdSensors
from rapidd.telemetry.sensors import DeviceSensors
from support.amd import BUS_ID, GPU_ID, PCI, PROC, write, write_gpu
from support.process import WAIT_S, environment

SYSFS: dict[str, Any] = {
    "utilization": 0.37,
    "memory_utilization": 0.12,
    "clock_hz": 2.1e9,
    "memory_clock_hz": 1.3e9,
    "power_w": 312.0,
    "power_limit_w": 750.0,
    "temperature_c": 61.0,
    "memory_total_bytes": 206141652992,
    "memory_used_bytes": 53687091200,
    "slowdowns": None,
    "processes": [],
    "faults": [],
    "remedy": "none",
}
READ = """
import json, msgspec, pathlib, sys
from rapidd.telemetry.amd import AmdSensors
root, kfd_device = map(pathlib.Path, sys.argv[1:])
sensors = AmdSensors("0000:c1:00.0", root=root, kfd_device=kfd_device)
sample = sensors.read()
why = sensors.why_no_amdsmi
sensors.close()
sample, closed = map(msgspec.to_builtins, (sample, sensors.read()))
print(json.dumps({"sample": sample, "why": why, "closed": closed, "path": sys.path}))
"""
AMDSMI = """
import enum

class AmdSmiException(Exception): ...
class AmdSmiLibraryException(AmdSmiException):
    def __str__(self): return f"Error code:\\n\\t{self.args[0]}"
class AmdSmiInitFlags(enum.IntEnum): INIT_AMD_GPUS = 2
class AmdSmiMemoryType(enum.IntEnum): VRAM = 0
class AmdSmiClkType(enum.IntEnum): GFX = 0
class AmdSmiTemperatureType(enum.IntEnum): HOTSPOT = 1
class AmdSmiTemperatureMetric(enum.IntEnum): CURRENT = 0

def amdsmi_init(flags): ...
def amdsmi_shut_down(): ...
def amdsmi_get_processor_handle_from_bdf(bdf):
    if bdf != "0000:c1:00.0":
        raise AmdSmiLibraryException(7)
    return "handle"
def amdsmi_get_gpu_activity(handle): return {"gfx_activity": 50, "umc_activity": 25, "mm_activity": "N/A"}
def amdsmi_get_power_info(handle):
    return {"current_socket_power": 400, "average_socket_power": "N/A", "power_limit": 750000000}
def amdsmi_get_clock_info(handle, clock): return {"clk": 1500, "min_clk": 132, "max_clk": 2100}
def amdsmi_get_temp_metric(handle, sensor, metric): return 70
def amdsmi_get_gpu_memory_total(handle, kind): return 1000
def amdsmi_get_gpu_memory_usage(handle, kind): return 500
"""


def read(tmp_path: Path, amdsmi: str, *, kfd: bool = True) -> dict[str, Any]:
    """A reading in a process of its own, with this source as ROCm's amdsmi. Nothing else may be on its stdout."""
    write_gpu(tmp_path)
    if kfd:
        write(tmp_path, {"kfd": ""})
    write(tmp_path, {"rocm/share/amd_smi/amdsmi/__init__.py": amdsmi})
    answer = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path), str(tmp_path / "kfd")],
        env=environment(ROCM_PATH=str(tmp_path / "rocm")),
        capture_output=True,
        timeout=WAIT_S,
        check=True,
    )
    result: dict[str, Any] = json.loads(answer.stdout)
    assert result["closed"] == SYSFS
    assert not any("amd_smi" in entry for entry in result["path"])
    return result


def test_sensors_come_from_amdsmi_in_si_units(tmp_path: Path) -> None:
    answer = read(tmp_path, AMDSMI)
    assert answer["why"] is None
    assert answer["sample"] == SYSFS | {
        "utilization": 0.5,
        "memory_utilization": 0.25,
        "clock_hz": 1.5e9,
        "power_w": 400.0,
        "temperature_c": 70.0,
        "memory_total_bytes": 1000,
        "memory_used_bytes": 500,
    }


@pytest.mark.parametrize(
    ("amdsmi", "why"),
    [
        ("raise ModuleNotFoundError('No module named amdsmi')", "ModuleNotFoundError: No module named"),
        ("print('Unable to find libamd_smi.so')\nprint('Quitting')\nraise KeyError('libamd_smi')", "KeyError: 'lib"),
        ("raise AttributeError('undefined symbol: amdsmi_get_tray_info')", "AttributeError: undefined symbol"),
        ("raise OSError('libamd_smi.so: cannot open shared object file')", "OSError: libamd_smi.so"),
        (AMDSMI + "def amdsmi_init(flags): raise AmdSmiLibraryException(34)", "AmdSmiLibraryException: Error code: 34"),
        (AMDSMI + "class AmdSmiTemperatureType(enum.IntEnum): EDGE = 0", "AttributeError: "),
        (AMDSMI.replace("c1:00.0", "c2:00.0"), "AmdSmiLibraryException: Error code: 7"),
    ],
    ids=["absent", "no library", "other version", "library broken", "no driver", "other enums", "other GPU"],
)
def test_without_a_working_amdsmi_sysfs_tells_and_the_reason_is_kept(tmp_path: Path, amdsmi: str, why: str) -> None:
    answer = read(tmp_path, amdsmi)
    assert answer["why"].startswith(why)
    assert answer["sample"] == SYSFS


def test_without_the_driver_amdsmi_is_not_even_imported(tmp_path: Path) -> None:
    answer = read(tmp_path, "raise SystemExit('imported')", kfd=False)
    assert answer["why"].startswith(f"no {tmp_path}/kfd: no driver")


def test_an_amdsmi_that_trips_over_one_value_tells_the_others(tmp_path: Path) -> None:
    broken = """
def amdsmi_get_gpu_activity(handle): raise KeyError("gfx_activity")
def amdsmi_get_clock_info(handle, clock): raise ValueError("bad enum")
def amdsmi_shut_down(): raise OSError("gone")
"""
    sample = read(tmp_path, AMDSMI + broken)["sample"]
    assert (sample["power_w"], sample["temperature_c"]) == (400.0, 70.0)
    assert (sample["utilization"], sample["clock_hz"]) == (SYSFS["utilization"], SYSFS["clock_hz"])


def test_what_amdsmi_does_not_tell_sysfs_does(tmp_path: Path) -> None:
    """'N/A' and all bits set are absent values; a function may be missing, or answer NOT_SUPPORTED or a DRM error."""
    answer = read(
        tmp_path,
        AMDSMI
        + """
def amdsmi_get_gpu_activity(handle): return {"gfx_activity": "N/A", "umc_activity": 0xFFFF}
def amdsmi_get_power_info(handle): return {"current_socket_power": "N/A", "average_socket_power": 0xFFFFFFFF}
def amdsmi_get_temp_metric(handle, sensor, metric): raise AmdSmiLibraryException(2)
def amdsmi_get_gpu_memory_usage(handle, kind): raise AmdSmiLibraryException(6)
def amdsmi_get_clock_info(handle, clock): return {"clk": "N/A"}
del amdsmi_get_gpu_memory_total
""",
    )
    assert answer["why"] is None
    assert answer["sample"] == SYSFS


def test_an_mi200_tells_average_power(tmp_path: Path) -> None:
    source = AMDSMI.replace('"current_socket_power": 400', '"current_socket_power": "N/A"')
    answer = read(tmp_path, source.replace('"average_socket_power": "N/A"', '"average_socket_power": 280'))
    assert answer["sample"]["power_w"] == 280.0


def test_a_gpu_that_nobody_knows_has_no_values(tmp_path: Path) -> None:
    sensors = AmdSensors(BUS_ID, root=tmp_path, kfd_device=tmp_path / "kfd")
    assert sensors.read() == DeviceSensors()


@pytest.mark.parametrize("broken", ["", "N/A", "4000"])
def test_a_sensor_that_tells_nonsense_is_null(tmp_path: Path, broken: str) -> None:
    write_gpu(tmp_path)
    write(tmp_path, {f"{PCI}/gpu_busy_percent": broken})
    assert AmdSensors(BUS_ID, root=tmp_path, kfd_device=tmp_path / "kfd").read().utilization is None


def test_the_average_is_read_where_sysfs_has_no_current_power(tmp_path: Path) -> None:
    write_gpu(tmp_path)
    (tmp_path / PCI / "hwmon/hwmon3/power1_input").unlink()
    write(tmp_path, {f"{PCI}/hwmon/hwmon3/power1_average": "90000000"})
    assert AmdSensors(BUS_ID, root=tmp_path, kfd_device=tmp_path / "kfd").read().power_w == 90.0


def test_processes_are_those_of_this_gpu(tmp_path: Path) -> None:
    write_gpu(tmp_path)
    write(tmp_path, {f"{PROC}/7/vram_{GPU_ID}": "4096", f"{PROC}/8/vram_1": "4096"})
    sample = AmdSensors(BUS_ID, root=tmp_path, kfd_device=tmp_path / "kfd").read()
    assert sample.processes == [DeviceProcess(pid=7, memory_bytes=4096)]
