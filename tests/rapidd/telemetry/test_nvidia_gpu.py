"""The real NVML on the GPU that torch uses: the same device, plausible values, and work that shows in them."""

import os

import pytest
import torch

from rapidd.telemetry.nvidia import NvidiaSensors, open_nvidia

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available() or torch.version.hip is not None, reason="no CUDA device"),
]
MIB = 1 << 20


def pci_bus_id() -> str:
    """Of torch's current device, by the CUDA driver."""
    driver = pytest.importorskip("cuda.bindings.driver")
    torch.zeros(1, device="cuda")
    status, device = driver.cuDeviceGet(torch.cuda.current_device())
    assert int(status) == 0
    status, address = driver.cuDeviceGetPCIBusId(32, device)
    assert int(status) == 0
    return str(address.split(b"\0")[0].decode())


def test_the_device_is_torchs_and_tells_plausible_values() -> None:
    nvml = pytest.importorskip("pynvml")
    sensors = open_nvidia(0, pci_bus_id())
    assert isinstance(sensors, NvidiaSensors), sensors.why_not
    handle = nvml.nvmlDeviceGetHandleByPciBusId(pci_bus_id())
    assert str(torch.cuda.get_device_properties().uuid) in nvml.nvmlDeviceGetUUID(handle)
    first = sensors.read()
    assert first.memory_total_bytes is not None
    assert first.memory_total_bytes >= torch.cuda.get_device_properties().total_memory
    assert first.memory_used_bytes is not None
    assert 0 < first.memory_used_bytes <= first.memory_total_bytes
    assert first.utilization is None or 0 <= first.utilization <= 1
    assert first.clock_hz is not None
    assert 1e8 < first.clock_hz < 5e9
    assert first.temperature_c is None or 10 < first.temperature_c < 110
    assert first.power_w is None or 5 < first.power_w < 2000
    assert first.faults == ()
    block = torch.empty(512 * MIB, dtype=torch.uint8, device="cuda")
    torch.cuda.synchronize()
    second = sensors.read()
    assert second.memory_used_bytes is not None
    assert second.memory_used_bytes - first.memory_used_bytes >= block.numel()
    sensors.close()


def test_without_an_address_the_only_gpu_is_found() -> None:
    nvml = pytest.importorskip("pynvml")
    nvml.nvmlInit()
    count = nvml.nvmlDeviceGetCount()
    nvml.nvmlShutdown()
    if count != 1 or "CUDA_VISIBLE_DEVICES" in os.environ:
        pytest.skip("several GPUs, or a choice of them")
    sensors = open_nvidia(0, None)
    assert sensors.why_not is None
    assert sensors.read().memory_used_bytes
    sensors.close()
