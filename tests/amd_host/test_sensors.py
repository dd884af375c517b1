"""The product's AMD telemetry on the real libamd_smi, with a fake GPU's constants: units and fallbacks, no silicon."""

import pytest

from amd_host.conftest import Run


@pytest.mark.parametrize(("chip", "memory"), [("mi300x", 206141652992), ("mi250x", 68702699520)])
def test_sensors_are_read_in_si_units(fake_amd: Run, chip: str, memory: int) -> None:
    """The MI250X keeps no metrics table: activity and power are NOT_SUPPORTED there and come from sysfs."""
    answer = fake_amd("sensors.py", chip=chip)
    assert answer["why"] is None
    assert answer["sample"] == {
        "utilization": 0.37,
        "memory_utilization": 0.12,
        "clock_hz": None,
        "memory_clock_hz": None,
        "power_w": 312.0,
        "power_limit_w": 750.0,
        "temperature_c": 61.0,
        "memory_total_bytes": memory,
        "memory_used_bytes": 53687091200,
        "slowdowns": None,
        "processes": [],
        "faults": [],
        "remedy": "none",
    }
