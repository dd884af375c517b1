"""Placement probes that operators asked for: one behind what the lanes have queued, and who waits for it. No torch."""

from collections.abc import Callable, Iterable

from rapidd.engine.lanes import LaneExecutor


class Probing:
    """At most one round at a time: who asks meanwhile waits for the next one."""

    def __init__(self, lanes: Iterable[LaneExecutor]) -> None:
        self._lanes = list(lanes)
        self._asked: list[int] = []
        self._running: list[int] = []
        self._ended: list[Callable[[], bool]] = []

    def ask(self, token: int) -> None:
        """Somebody wants to know where the lanes run now."""
        self._asked.append(token)

    def turn(self) -> list[int]:
        """Begin a round if there is none; who asked for the one that has ended since the last turn."""
        self._begin()
        if not self._running or not all(ended() for ended in self._ended):
            return []
        answered, self._running = self._running, []
        self._begin()
        return answered

    def _begin(self) -> None:
        if self._asked and not self._running:
            self._running, self._asked = self._asked, []
            self._ended = [lane.probe() for lane in self._lanes]
