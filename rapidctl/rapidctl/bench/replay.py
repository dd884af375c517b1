"""Open-loop replay: requests are sent when the trace says, whatever has become of the earlier ones.

`replay` is one loop over a `Target`, which is where requests go: `rapidctl.bench.daemon`, `rapidctl.bench.http`, or
a test's. The loop measures itself: how late it sent, and how much of a core it used. A run whose generator was late
says nothing about the server (`Replay.problems`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeVar

from msgspec import Struct

from rapidctl.bench.metrics import Percentiles, percentiles
from rapidctl.bench.records import Record
from rapidctl.bench.trace import Trace, TraceRequest

M = TypeVar("M")

MAX_LATENESS_S: Final = 0.02
"""Above this p99 of its lateness a generator no longer offers the load that it should."""
MAX_CPU_SHARE: Final = 0.9
"""Of one core: a generator that uses more is itself what is measured."""
NOT_SENT: Final = frozenset({"EMFILE", "ENFILE", "EADDRNOTAVAIL"})
"""Errors of requests that never left: this process has no descriptor, or this machine no port left."""
LOOK_S: Final = 0.25
"""Longest sleep: how often a stop and the observer are looked at."""

Clock = Callable[[], float]


class Target(Protocol[M]):
    """Where requests go. One thread; only `poll` waits."""

    def prepare(self, request: TraceRequest) -> M:
        """The message for a request, made ahead of time."""

    def send(self, record: Record, message: M) -> None:
        """Send it; what comes back goes to ``record``. A request that cannot be sent is ended, nothing is raised."""

    def poll(self, timeout_s: float) -> None:
        """Wait up to ``timeout_s`` and take in what has arrived."""

    @property
    def open(self) -> int:
        """Requests that have not ended."""

    def abandon(self) -> None:
        """Give up those that have not; their records say ``unfinished``."""


class Generator(Struct, frozen=True, kw_only=True):
    """How well the load was offered. ``cpu_share``: of one core, all threads of this process.

    ``lateness_s``: from when a request was due to when it was sent. ``delivery_s``: from the engine's stamp of a token
    to here, where the server tells.
    """

    lateness_s: Percentiles
    delivery_s: Percentiles
    cpu_share: float


@dataclass(frozen=True, slots=True)
class Replay:
    """A run that has ended. ``begin_s``: when its clock stood at the trace's zero."""

    records: list[Record]
    begin_s: float
    end_s: float
    generator: Generator
    ending: Literal["whole", "stopped", "hopeless"]
    """``stopped``: told to; ``hopeless``: too many had missed for the rest to matter."""

    def problems(self, max_lateness_s: float = MAX_LATENESS_S) -> list[str]:
        """Why its figures count for nothing; empty when they do."""
        found = []
        late = self.generator.lateness_s.p99
        if late is not None and late > max_lateness_s:
            found.append(
                f"the generator was late: p99 {late * 1000:.0f} ms, {max_lateness_s * 1000:.0f} ms are allowed; "
                "run it on a core of its own, or offer less"
            )
        if self.records and self.generator.cpu_share > MAX_CPU_SHARE:
            found.append(f"the generator used {self.generator.cpu_share:.0%} of a core: offer less")
        if unsent := sum(record.error in NOT_SENT for record in self.records):
            found.append(f"{unsent} requests were not sent, for want of descriptors or ports: raise `ulimit -n`")
        if self.ending == "stopped":
            found.append("it was stopped before its end")
        if not any(record.measured for record in self.records):
            found.append("no request was measured: the warm-up took all of them, or the trace's window is empty")
        return found


class Warmup(Struct, frozen=True):
    """What is sent and not measured: requests that arrive in the first ``seconds``, and the first ``requests``."""

    seconds: float = 0.0
    requests: int = 0

    def covers(self, number: int, arrival_s: float) -> bool:
        """Whether the request that is number ``number`` of the run belongs to it."""
        return number < self.requests or arrival_s < self.seconds


NO_WARMUP: Final = Warmup()


def replay(
    trace: Trace,
    target: Target[M],
    *,
    warmup: Warmup = NO_WARMUP,
    drain_s: float = 60.0,
    observe: Callable[[], None] = lambda: None,
    measuring: Callable[[], None] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
    hopeless: Callable[[Sequence[Record], float], bool] = lambda records, now_s: False,
    clock: Clock = time.monotonic,
    cpu_clock: Clock = time.process_time,
) -> Replay:
    """Send the trace, wait up to ``drain_s`` after its last arrival for what is still open, then give that up.

    ``observe`` is called at least every `LOOK_S`, ``measuring`` once, when the warm-up is over. ``stop`` and
    ``hopeless``, given the records so far and the time, end the run as soon as they are true.
    """
    records: list[Record] = []
    requests = enumerate(trace.requests)
    number, request = next(requests, (0, None))
    message = None if request is None else target.prepare(request)
    last_s = trace.requests[-1].arrival_s if trace.requests else 0.0
    cpu_s, begin_s = cpu_clock(), clock()
    ending: Literal["whole", "stopped", "hopeless"] = "whole"
    look_s = 0.0
    while True:
        now_s = clock() - begin_s
        if now_s >= look_s:
            look_s = now_s + LOOK_S
            observe()
            if stop():
                ending = "stopped"
            elif hopeless(records, begin_s + now_s):
                ending = "hopeless"
            if ending != "whole":
                break
        if request is not None and message is not None and request.arrival_s <= now_s:
            due_s = begin_s + request.arrival_s
            record = Record(request, due_s, begin_s + now_s, not warmup.covers(number, request.arrival_s))
            if record.measured and not (records and records[-1].measured):
                measuring()
            records.append(record)
            target.send(record, message)
            number, request = next(requests, (0, None))
            message = None if request is None else target.prepare(request)
            now_s = clock() - begin_s
        if request is None and (not target.open or now_s >= last_s + drain_s):
            break
        due_in_s = (last_s + drain_s if request is None else request.arrival_s) - now_s
        target.poll(max(0.0, min(due_in_s, LOOK_S)))
    target.abandon()
    end_s = clock()
    generator = Generator(
        lateness_s=percentiles(record.sent_s - record.due_s for record in records),
        delivery_s=percentiles(delay for record in records for delay in record.delays),
        cpu_share=(cpu_clock() - cpu_s) / max(end_s - begin_s, 1e-9),
    )
    return Replay(records, begin_s, end_s, generator, ending)
