"""A sysfs tree with one AMD GPU, as the amdgpu and amdkfd drivers write it; values in the drivers' own units."""

from pathlib import Path

BUS_ID = "0000:c1:00.0"
GPU_ID = 51140
PCI = f"bus/pci/devices/{BUS_ID}"
NODES = "class/kfd/kfd/topology/nodes"
PROC = "class/kfd/kfd/proc"

MI300X = {
    "simd_count": 1216,
    "simd_per_cu": 4,
    "array_count": 32,
    "simd_arrays_per_engine": 1,
    "num_xcc": 8,
    "location_id": 0xC100,
    "domain": 0,
}
SENSORS = {
    "gpu_busy_percent": "37",
    "mem_busy_percent": "12",
    "mem_info_vram_total": "206141652992",
    "mem_info_vram_used": "53687091200",
    "hwmon/hwmon3/power1_input": "312000000",
    "hwmon/hwmon3/power1_cap": "750000000",
    "hwmon/hwmon3/temp2_input": "61000",
    "hwmon/hwmon3/freq1_input": "2100000000",
    "hwmon/hwmon3/freq2_input": "1300000000",
}


def write(root: Path, files: dict[str, str]) -> None:
    """Each file with a newline, as sysfs has it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def write_node(root: Path, number: int, gpu_id: int, properties: dict[str, int]) -> None:
    """A node of the topology; gpu_id 0 is a CPU."""
    lines = "\n".join(f"{name} {value}" for name, value in properties.items())
    write(root, {f"{NODES}/{number}/gpu_id": str(gpu_id), f"{NODES}/{number}/properties": lines})


def write_gpu(root: Path) -> None:
    """A CPU, and an MI300X in SPX mode with all sensors."""
    write_node(root, 0, 0, {"cpu_cores_count": 64, "simd_count": 0})
    write_node(root, 1, GPU_ID, MI300X)
    write(root, {f"{PCI}/{name}": value for name, value in SENSORS.items()})
