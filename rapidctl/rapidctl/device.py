"""How a device reads for people: what it is, and the sensors that its system has. Knows no command and no widget."""

from rapidctl.out import UNKNOWN, number, percent, size, unit_count
from rapidctl.wire import DeviceInfo


def describe(device: DeviceInfo) -> str:
    """What it is: "cuda, 132 SM, NVIDIA H100"."""
    return f"{device.kind}, {unit_count(device.units, device.unit_name)}, {device.name}"


def sensor_parts(device: DeviceInfo) -> list[str]:
    """Load, clock, power and temperature in a few cells each; those that are unknown are left out."""
    parts = (
        (device.utilization, f"{percent(device.utilization)} busy"),
        (device.clock_hz, frequency(device.clock_hz)),
        (device.power_w, power(device.power_w, device.power_limit_w)),
        (device.temperature_c, temperature(device.temperature_c)),
    )
    return [text for value, text in parts if value is not None]


def frequency(hertz: float | None) -> str:
    """A clock: "1.98 GHz", "345 MHz"."""
    if hertz is None:
        return UNKNOWN
    return f"{hertz / 1e9:.2f} GHz" if hertz >= 1e9 else f"{hertz / 1e6:.0f} MHz"


def power(watts: float | None, limit_w: float | None = None) -> str:
    """ "312 of 700 W"."""
    if watts is None:
        return UNKNOWN
    return f"{watts:.0f} W" if limit_w is None else f"{watts:.0f} of {limit_w:.0f} W"


def temperature(celsius: float | None) -> str:
    """ "61 °C"."""
    return UNKNOWN if celsius is None else f"{celsius:.0f} °C"


def memory(device: DeviceInfo) -> str:
    """ "61.2 GiB of 79.6 GiB"."""
    return f"{size(device.memory_used_bytes)} of {size(device.memory_total_bytes)}"


def pairs(device: DeviceInfo) -> list[tuple[str, str]]:
    """Everything, one value a line."""
    slowed = UNKNOWN if device.slowdowns is None else ", ".join(device.slowdowns) or "nothing"
    return [
        ("device", describe(device)),
        ("PCI address", device.pci_bus_id or UNKNOWN),
        ("busy", f"{percent(device.utilization)}, memory {percent(device.memory_utilization)}"),
        ("clock", f"{frequency(device.clock_hz)}, memory {frequency(device.memory_clock_hz)}"),
        ("slowed by", slowed),
        ("power", power(device.power_w, device.power_limit_w)),
        ("temperature", temperature(device.temperature_c)),
        ("memory", memory(device)),
        ("processes", _processes(device)),
    ]


def _processes(device: DeviceInfo) -> str:
    if device.processes is None:
        return UNKNOWN
    each = (f"{process.pid} ({size(process.memory_bytes)})" for process in device.processes)
    return f"{number(len(device.processes))}: {', '.join(each)}" if device.processes else "none"
