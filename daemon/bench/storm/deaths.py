"""Each process of a daemon is killed, the front and the engine under streams; then the engine is stopped.

How soon another one serves, whether the other process stayed, whether every stream ends with the tokens that it has
undisturbed; how soon a hang is found; how long anything outlives the supervisor.
"""

import signal
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final

import psutil

from bench.processes import Daemon
from bench.storm.site import MAX_ROWS, Site, pump, request, site
from rapidctl.client import Client
from rapidctl.errors import RapidctlError
from rapidctl.wire import Generate, GetSnapshot, GetStatus, Status

OUTPUT_TOKENS: Final = 150
FRONT_S: Final = 1.0
ENGINE_S: Final = 3.0
"""Beyond the time that the daemon's start took."""
FOUND_S: Final = 30.0
ORPHANS_S: Final = 5.0
LOOK_S: Final = 0.01
PATIENCE_S: Final = 120.0


def run(rounds: int) -> dict[str, Any]:
    """So many daemons: in each the front dies, the engine dies, the engine stops, the supervisor dies."""
    seconds: dict[str, list[float]] = defaultdict(list)
    failures: list[str] = []
    for _ in range(rounds):
        with site() as one:
            seconds["start"].append(one.server.ready_s)
            failures += ride_out(one, seconds)
            seconds["hang found"].append(find_hang(one.server))
            seconds["orphans"].append(outlive(one.server))
    start_s = statistics.median(seconds["start"])
    bounds = {"front": FRONT_S, "engine": start_s + ENGINE_S, "hang found": FOUND_S, "orphans": ORPHANS_S}
    failures += [f"{name}: {most:.2f} s" for name, bound in bounds.items() if (most := max(seconds[name])) > bound]
    figures = {name: [round(statistics.median(took), 2), round(max(took), 2)] for name, took in seconds.items()}
    return {"rounds": rounds, "seconds_median_and_most": figures, "failures": failures}


def ride_out(site: Site, seconds: dict[str, list[float]]) -> list[str]:
    """Kill the front, then the engine, while streams run; what was lost. Adds how long each took to ``seconds``."""
    failures = []
    requests = [request([5 + index], OUTPUT_TOKENS) for index in range(MAX_ROWS)]
    undisturbed = _outputs(site, requests, lambda: None)
    before = site.status()
    for name in ("front", "engine"):

        def kill(name: str = name) -> None:
            seconds[name].append(replace(site.server, name))

        again = [request([5 + index], OUTPUT_TOKENS) for index in range(MAX_ROWS)]
        if _outputs(site, again, kill) != undisturbed:
            failures.append(f"streams have other tokens after the death of the {name}")
        after = site.status()
        changed = {one for one in ("front", "engine") if _pid(after, one) != _pid(before, one)}
        if changed != {name}:
            failures.append(f"after the death of the {name} the processes that changed are {sorted(changed)}")
        if name == "front":
            seconds["front's processor time"].append(front_cpu_s(site))
        before = after
    return failures


def front_cpu_s(site: Site) -> float:
    """Processor time of the front since it began: its start, mostly. Other work on the machine changes it little."""
    with site.client() as client:
        return client.call(GetSnapshot(call=0)).snapshot.front_cpu_s


def find_hang(server: Daemon) -> float:
    """Stop the engine; seconds until it was ended."""
    engine = psutil.Process(child_pid(server, "engine"))
    began_s = time.monotonic()
    engine.send_signal(signal.SIGSTOP)
    engine.wait(PATIENCE_S)
    found_s = time.monotonic() - began_s
    _until_serving(server, lambda status: _pid(status, "engine") not in (0, engine.pid))
    return found_s


def outlive(server: Daemon) -> float:
    """Kill the supervisor; seconds until all its processes have ended."""
    supervisor = psutil.Process(server.pid)
    family = supervisor.children(recursive=True)
    began_s = time.monotonic()
    supervisor.kill()
    psutil.wait_procs(family, PATIENCE_S)
    return time.monotonic() - began_s


def replace(server: Daemon, name: str, killed: Callable[[], None] = lambda: None) -> float:
    """Kill this child; seconds until the daemon serves with another one. ``killed`` is called in between."""
    old = child_pid(server, name)
    began_s = time.monotonic()
    psutil.Process(old).kill()
    killed()
    _until_serving(server, lambda status: _pid(status, name) not in (0, old))
    return time.monotonic() - began_s


def child_pid(server: Daemon, name: str) -> int:
    """Of the front or the engine, as the daemon tells it."""
    with server.client() as client:
        return _pid(client.call(GetStatus(call=0)), name)


def _outputs(site: Site, requests: Sequence[Generate], disturb: Callable[[], None]) -> list[list[list[int]]]:
    """Output ids of requests that run side by side while something happens. Raises TimeoutError."""
    with site.client() as client:
        streams = [client.submit(one, resume=True) for one in requests]
        pump(client, lambda: all(stream.output_ids[0] for stream in streams))
        disturb()
        pump(client, lambda: all(stream.ended for stream in streams))
    return [stream.output_ids for stream in streams]


def _until_serving(server: Daemon, holds: Callable[[Status], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        try:
            with Client(server.endpoint, name="storm", timeout_s=1.0) as client:
                status = client.call(GetStatus(call=0))
        except RapidctlError:  # nobody answers at the moment
            status = None
        if status is not None and status.state == "serving" and holds(status):
            return
        time.sleep(LOOK_S)
    raise TimeoutError(f"nobody serves after {PATIENCE_S:.0f} s")


def _pid(status: Status, name: str) -> int:
    return (status.front.pid if name == "front" else status.engine.pid) or 0
