"""Ten times as many requests as can be served: what is refused is refused at once, and as much is served as ever.

Closed loop (as many live requests as rows) and open loop at ten times the rate that it reached take turns, so that a
machine that others use too slows both.
"""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import psutil

from bench.storm.site import MAX_ROWS, VOCAB, Site, pump, request, whole
from rapidctl.client import Client, Stream
from rapidctl.wire import Failed, GetStatus, Status

FACTOR: Final = 10
PROMPT_TOKENS, OUTPUT_TOKENS = 8, 232
"""Of each request: the cache holds a full batch of them, and so few come a second that sending them costs little."""
REFUSAL_S: Final = 0.010
GOODPUT_SHARE: Final = 0.95
CPU_TICK_S: Final = 0.01
"""In which the system counts processor time."""


@dataclass(slots=True)
class Turn:
    """A few seconds of one load."""

    seconds: float = 0.0
    engine_cpu_s: float = 0.0
    whole: int = 0
    """Finished with all their tokens."""
    last_s: float = 0.0
    """When the last of them did."""
    refused_s: list[float] = field(default_factory=list)
    """From the send to the refusal."""
    failures: list[str] = field(default_factory=list)

    @property
    def goodput(self) -> float:
        """Whole requests a second, up to the last one's end: all rows end together, and the turn between two ends."""
        return self.whole / self.last_s if self.whole else 0.0

    @property
    def capacity(self) -> float:
        """Whole requests a second of processor time: what others on the machine took of the turn does not lower it."""
        return self.whole / max(self.engine_cpu_s, CPU_TICK_S)

    @property
    def engine_cpu_ms(self) -> float:
        """For a whole request: what others on the machine hardly change."""
        return 1e3 * self.engine_cpu_s / self.whole


class Load:
    """Sends and counts on one connection."""

    def __init__(self, client: Client, output_tokens: int, seed: int) -> None:
        self._client, self._output_tokens = client, output_tokens
        self._engine = psutil.Process(client.call(GetStatus(call=0)).engine.pid)
        self._draw = random.Random(seed)
        self._open: dict[str, tuple[Stream, float]] = {}

    def closed(self, requests: int) -> Turn:
        """As many live requests as rows, until so many have finished."""
        return self._run(lambda turn: turn.whole >= requests, lambda _: MAX_ROWS - len(self._open))

    def open(self, seconds: float, rate: float) -> Turn:
        """So many a second, whatever becomes of them."""
        sent = 0

        def due(elapsed_s: float) -> int:
            nonlocal sent
            now = int(rate * elapsed_s) - sent
            sent += now
            return now

        return self._run(lambda turn: turn.seconds >= seconds, due)

    def _run(self, over: Callable[[Turn], bool], due: Callable[[float], int]) -> Turn:
        turn, begin_s, begin_cpu_s = Turn(), time.monotonic(), self._cpu_s()
        while not over(turn):
            for _ in range(due(turn.seconds)):
                prompt = [self._draw.randrange(3, VOCAB) for _ in range(PROMPT_TOKENS)]
                stream = self._client.submit(request(prompt, self._output_tokens))
                self._open[stream.id] = stream, time.monotonic()
            self._client.poll(0.001)
            self._collect(turn, begin_s)
            turn.seconds = time.monotonic() - begin_s
        turn.engine_cpu_s = self._cpu_s() - begin_cpu_s
        return turn

    def _cpu_s(self) -> float:
        return sum(self._engine.cpu_times()[:2])

    def end(self) -> None:
        """Give up what is left of a turn, and wait until the daemon has."""
        for stream_id in self._open:
            self._client.abandon(stream_id)
        self._open.clear()
        pump(self._client, lambda: not _live(self._client.call(GetStatus(call=0))))

    def _collect(self, turn: Turn, begin_s: float) -> None:
        now_s = time.monotonic()
        for stream, sent_s in [entry for entry in self._open.values() if entry[0].ended is not None]:
            del self._open[stream.id]
            if not isinstance(stream.ended, Failed):
                turn.whole += whole(stream)
                turn.last_s = now_s - begin_s
                turn.failures += [] if whole(stream) else ["a request ended without all its tokens"]
            elif stream.ended.code == "queue_full" and stream.ended.retry_after_s:
                turn.refused_s.append(now_s - sent_s)
            else:
                turn.failures.append(f"failed with {stream.ended.code}, retry after {stream.ended.retry_after_s}")


def _live(status: Status) -> int:
    return status.requests.waiting + status.requests.prefilling + status.requests.decoding


def run(
    site: Site, rounds: int, requests: int, output_tokens: int = OUTPUT_TOKENS, *, judged: bool = True
) -> dict[str, Any]:
    """So many pairs of turns, each as long as ``requests`` take without overload.

    ``judged``: the times count too; else only what must hold on any machine, however busy with other things.
    """
    pairs: list[tuple[Turn, Turn]] = []
    with site.client() as client:
        load = Load(client, output_tokens, seed=0)
        load.closed(MAX_ROWS)  # warm
        load.end()
        for _ in range(rounds):
            calm = load.closed(requests)
            load.end()
            pairs.append((calm, load.open(calm.seconds, FACTOR * (calm.goodput if judged else calm.capacity))))
            load.end()
    return {**_figures(pairs), "failures": _failures(pairs, judged=judged) + site.problems()}


def _figures(pairs: list[tuple[Turn, Turn]]) -> dict[str, Any]:
    refused_ms = sorted(1e3 * value for _, storm in pairs for value in storm.refused_s)
    figures: dict[str, Any] = {
        "peak_per_s": round(statistics.median(calm.goodput for calm, _ in pairs), 1),
        "overloaded_per_s": round(statistics.median(storm.goodput for _, storm in pairs), 1),
        "goodput_share": round(statistics.median(storm.goodput / calm.goodput for calm, storm in pairs), 3),
        "peak_engine_cpu_ms": round(statistics.median(calm.engine_cpu_ms for calm, _ in pairs), 1),
        "overloaded_engine_cpu_ms": round(statistics.median(storm.engine_cpu_ms for _, storm in pairs), 1),
        "refused": len(refused_ms),
    }
    if refused_ms:
        at = [refused_ms[min(len(refused_ms) - 1, int(len(refused_ms) * share))] for share in (0.5, 0.99)]
        figures |= {"refusal_ms_p50": round(at[0], 2), "refusal_ms_p99": round(at[1], 2)}
    return figures


def _failures(pairs: list[tuple[Turn, Turn]], *, judged: bool) -> list[str]:
    found = [failure for calm, storm in pairs for failure in (*calm.failures, *storm.failures)][:20]
    if any(calm.refused_s for calm, _ in pairs):
        found.append("a daemon that was not overloaded refused requests")
    if not all(storm.refused_s for _, storm in pairs):
        found.append("nothing was refused: the load was no overload")
    figures = _figures(pairs)
    if judged and figures["goodput_share"] < GOODPUT_SHARE:
        found.append(f"under overload only {figures['goodput_share']:.0%} of what is served without")
    if judged and figures.get("refusal_ms_p99", 0) > 1e3 * REFUSAL_S:
        found.append(f"refusals take {figures['refusal_ms_p99']} ms at p99")
    return found
