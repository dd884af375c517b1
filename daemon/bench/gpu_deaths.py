"""Processes of a daemon on a GPU are killed: how soon another one serves, and when the device's memory is free again.

The memory is the whole GPU's, as its driver tells it, so nobody else may use the GPU. `bench.storm.deaths` kills under
streams and compares their tokens; it needs no GPU.
"""

import time
from typing import Final

import psutil

from bench.figures import Figure
from bench.gpu_setup import Setup
from bench.progress import say
from bench.storm.deaths import ENGINE_S, FRONT_S, ORPHANS_S, child_pid, outlive, replace
from rapidd.telemetry.nvidia import open_nvidia
from rapidd.telemetry.sensors import Sensors

MEMORY_S: Final = 5.0
EMPTY: Final = 0.02
"""Share of its memory that a GPU without processes may report as used."""
PATIENCE_S: Final = 30.0
LOOK_S: Final = 0.02


def deaths(setup: Setup) -> list[Figure]:
    """Front, engine, supervisor; after the last the daemon is gone. Raises RuntimeError when a bystander died too."""
    server, device = setup.server, setup.snapshot().device
    sensors = open_nvidia(0, device.pci_bus_id if device else None)
    engine = psutil.Process(child_pid(server, "engine"))
    front_s = replace(server, "front")
    if child_pid(server, "engine") != engine.pid:
        raise RuntimeError("the engine did not survive the death of the front")
    gone_s: list[float] = []
    memory_s: list[float] = []

    def watch() -> None:
        began_s = time.monotonic()
        engine.wait(PATIENCE_S)
        gone_s.append(time.monotonic() - began_s)
        memory_s.extend(_until_empty(sensors, began_s))

    engine_s = replace(server, "engine", watch)
    began_s = time.monotonic()
    gone_s.append(outlive(server))
    memory_s.extend(_until_empty(sensors, began_s))
    figures = [
        Figure("front killed: serving again", [front_s], "s", "at most", FRONT_S),
        Figure("engine killed: serving again", [engine_s], "s", "at most", server.ready_s + ENGINE_S),
    ]
    for name, seconds in zip(("engine killed: it is gone", "supervisor killed: all are gone"), gone_s, strict=True):
        figures.append(Figure(name, [seconds], "s", "at most", ORPHANS_S))
    for name, seconds in zip(("engine", "supervisor"), memory_s, strict=False):
        figures.append(Figure(f"{name} killed: device memory free", [seconds], "s", "at most", MEMORY_S))
    return figures


def _until_empty(sensors: Sensors, began_s: float) -> list[float]:
    """Seconds since then when the device is empty; none where no driver tells. Raises TimeoutError."""
    if sensors.why_not is not None:
        say(f"the device's memory is not watched: {sensors.why_not}")
        return []
    while not _is_empty(sensors):
        if time.monotonic() - began_s > PATIENCE_S:
            raise TimeoutError(f"the device's memory is not free after {PATIENCE_S:.0f} s")
        time.sleep(LOOK_S)
    return [time.monotonic() - began_s]


def _is_empty(sensors: Sensors) -> bool:
    seen = sensors.read()
    used, total = seen.memory_used_bytes, seen.memory_total_bytes
    return used is not None and total is not None and used <= EMPTY * total
