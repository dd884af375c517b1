"""Named places where a configured daemon fails on purpose, to show what it survives. Inert unless [faults] names them.

A fault is ``POINT:ACTION``: every time the place is passed; or ``POINT:ACTION@N``: at the N-th time, once in the
daemon's life, whichever of its processes that is in. What happens then is what happens in an accident: the same
exception, the same silence, the same end of the process. Knows no part of the daemon.
"""

import os
import re
import tempfile
import threading
from pathlib import Path
from typing import Final, Literal, get_args

from rapidd import log

Action = Literal["raise", "hang", "oom", "exit", "stall", "truncate"]
POINTS: Final[dict[str, tuple[Action, ...]]] = {
    "loader": ("raise", "hang", "oom", "exit", "truncate"),
    "engine.submit": ("raise", "hang", "exit"),
    "engine.loop": ("raise", "hang", "exit"),
    "engine.step": ("raise", "hang", "oom", "exit"),
    "front.receive": ("raise", "hang", "exit"),
    "front.send": ("stall", "hang", "exit"),
}
"""Where: while weights are opened; a request that comes to the engine; a turn of its loop; a batch on a lane's stream;
a client's message; a message to a client."""
EXIT_STATUS: Final = 86
_SPEC: Final = re.compile(r"(?P<point>[a-z.]+):(?P<action>[a-z]+)(?:@(?P<at>[1-9][0-9]{0,8}))?")


class InjectedFault(Exception):
    """What ``raise`` raises: no error of the daemon's own, so that nothing expects it."""


class Fault:
    """One of the configuration. ``once``: the file whose making says that it has happened."""

    def __init__(self, spec: str, once: Path | None = None) -> None:
        self.point, self.action, self.at = parse(spec)
        self._once = once
        self._passed = 0

    def due(self) -> bool:
        """The place is passed: whether the fault happens now."""
        if self.at is None:
            return True
        self._passed += 1
        return self._passed == self.at and self._is_first()

    def _is_first(self) -> bool:
        if self._once is None:
            return True
        try:
            os.close(os.open(self._once, os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return False
        return True


armed: list[Fault] = []


def parse(spec: str) -> tuple[str, Action, int | None]:
    """Point, action and number. Raises ValueError, for people."""
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise ValueError(f"{spec!r} is no fault: write POINT:ACTION or POINT:ACTION@N")
    point, action = match["point"], match["action"]
    if point not in POINTS:
        raise ValueError(f"there is no fault point {point}; there are {', '.join(POINTS)}")
    for known in get_args(Action):
        if known == action and known in POINTS[point]:
            return point, known, int(match["at"]) if match["at"] else None
    raise ValueError(f"{point} cannot {action}; it can {', '.join(POINTS[point])}")


def split(points: str) -> list[str]:
    """The faults of a setting, which separates them by commas."""
    return [spec for part in points.split(",") if (spec := part.strip())]


def arm(points: str, private: Path, prefix: str) -> None:
    """From now on, fail where ``points`` say, as far as the names begin with ``prefix``; those armed before go."""
    specs = [spec for spec in split(points) if spec.startswith(prefix)]
    # The supervisor's pid: what happened in an earlier life of the daemon does not count.
    armed[:] = [Fault(spec, private / f"fault-{os.getppid()}-{spec.replace(':', '-')}") for spec in specs]
    if specs:
        log.warning(f"this process fails on purpose: {', '.join(specs)}", event="faults")


def hit(point: str) -> None:
    """The place is passed. Raises `InjectedFault` or MemoryError, never returns, or, nearly always, does nothing."""
    for fault in armed:
        if fault.point == point and fault.action not in ("stall", "truncate") and fault.due():
            _happen(fault.action)


def stalls(point: str) -> bool:
    """Whether a send at this place finds its receiver not reading."""
    return any(fault.point == point and fault.action == "stall" and fault.due() for fault in armed)


def truncated(point: str, path: Path) -> Path:
    """The file itself, or a copy of its first half."""
    if not any(fault.point == point and fault.action == "truncate" and fault.due() for fault in armed):
        return path
    copy = Path(tempfile.mkdtemp(prefix="rapidd-fault-")) / path.name
    copy.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return copy


def _happen(action: Action) -> None:
    log.warning(f"failing on purpose: {action}", event="faults")
    if action == "raise":
        raise InjectedFault("on purpose")
    if action == "oom":
        raise MemoryError("on purpose")
    if action == "exit":
        os._exit(EXIT_STATUS)
    if action == "hang":
        threading.Event().wait()
