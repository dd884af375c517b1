"""One run after another against one server: the load of each, what came of it, and what the server did meanwhile.

A `Session` knows where requests go and what is kept; it does not know why a run is made: see `rapidctl.bench.goodput`
and `rapidctl.bench.compare`. Each run has prompts of its own, so that none finds another's in the prefix cache.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from rapidctl.bench.daemon import DaemonTarget, Observer, Realised, Sample, wait_until_idle
from rapidctl.bench.http import HttpTarget, Server
from rapidctl.bench.metrics import Summary, has_missed, summarize
from rapidctl.bench.records import Record, RecordFile
from rapidctl.bench.replay import MAX_LATENESS_S, Generator, Replay, Warmup, replay
from rapidctl.bench.trace import Prompts, Trace
from rapidctl.client import Client
from rapidctl.wire import GOODPUT_SHARE, Slo

SAMPLE_SPACING_S: Final = 1.0
"""Of the samples in a JSON line; a picture has all of them."""


class Load(Struct, frozen=True, kw_only=True):
    """What of a trace is replayed. ``start_s`` counts the trace's seconds, ``seconds`` the run's."""

    start_s: float = 0.0
    seconds: float | None = None
    requests: int | None = None
    resize: float = 1.0
    max_model_len: int | None = None
    over_long: Literal["cut", "drop"] = "cut"

    def of(self, trace: Trace, scale: float) -> Trace:
        """The requests of one run at a rate scale."""
        load = trace.window(self.start_s).scaled(scale).window(0.0, self.seconds)
        if self.requests is not None:
            load = load.head(self.requests)
        if self.resize != 1:
            load = load.resized(self.resize)
        return load if self.max_model_len is None else load.limited(self.max_model_len, self.over_long)


class Rules(Struct, frozen=True, kw_only=True):
    """How runs are made and judged."""

    slo: Slo
    warmup: Warmup = Warmup()
    drain_s: float = 60.0
    max_lateness_s: float = MAX_LATENESS_S


class Run(Struct, frozen=True, kw_only=True):
    """One run: what was offered, what came of it, whether it counts."""

    trace: str
    scale: float
    policy: str | None
    repeat: int
    requests: int
    offered_per_s: float | None
    """Of the arrivals sent, warm-up included."""
    cut: int
    dropped: int
    slo: Slo
    summary: Summary
    generator: Generator
    realised: Realised | None
    ending: Literal["whole", "stopped", "hopeless"]
    problems: list[str]
    salt: str

    @property
    def valid(self) -> bool:
        """The generator kept up and the run was whole."""
        return not self.problems

    def document(self) -> dict[str, Any]:
        """For a JSON line, with at most a sample a second."""
        body = {name: getattr(self, name) for name in self.__struct_fields__} | {"valid": self.valid}
        if self.realised is not None:
            body["realised"] = replace(self.realised, samples=_spaced(self.realised.samples))
        return body


def _spaced(samples: Sequence[Sample]) -> list[Sample]:
    """The first of each `SAMPLE_SPACING_S`."""
    kept: list[Sample] = []
    for sample in samples:
        if not kept or sample.at_s >= kept[-1].at_s + SAMPLE_SPACING_S:
            kept.append(sample)
    return kept


class Session:
    """Where runs go: a daemon, or with ``http`` a server and its model; then ``client``, if any, only watches.

    ``salt`` names the prompts of all runs of this session. ``keep`` gets every record.
    """

    def __init__(
        self,
        *,
        client: Client | None,
        http: tuple[Server, str] | None = None,
        vocab_size: int,
        rules: Rules,
        salt: str,
        stop: Callable[[], bool] = lambda: False,
        keep: RecordFile | None = None,
    ) -> None:
        self.client = client
        self.rules = rules
        self.stop = stop
        self.last: Replay | None = None
        """The latest run's records, for a picture."""
        self._http = http
        self._vocab_size = vocab_size
        self._salt = salt
        self._keep = keep
        self._count = 0

    def run(
        self,
        trace: Trace,
        load: Load,
        scale: float = 1.0,
        *,
        policy: str | None = None,
        repeat: int = 0,
        decide: bool = False,
    ) -> Run:
        """Replay once, from an idle daemon. ``decide``: stop when the goodput share is out of reach.

        Raises `TimedOut` when the daemon does not become idle, and what `Client.call` raises.
        """
        offered = load.of(trace, scale)
        salt = f"{self._salt}/{self._count}"
        self._count += 1
        if self.client is not None:
            wait_until_idle(self.client)
        with self._target(Prompts(self._vocab_size, salt)) as target, self._observer() as observer:
            self.last = result = replay(
                offered,
                target,
                warmup=self.rules.warmup,
                drain_s=self.rules.drain_s,
                observe=observer.observe if observer else _nothing,
                measuring=observer.begin if observer else _nothing,
                stop=self.stop,
                hopeless=self._hopeless(offered) if decide else _hoping,
            )
            realised = observer.end(result.begin_s) if observer else None
        if self._keep is not None:
            self._keep.write(
                result.records, result.begin_s, run=self._count, trace=trace.name, scale=scale, policy=policy
            )
        records = result.records
        span_s = records[-1].due_s - records[0].due_s if records else 0.0
        return Run(
            trace=trace.name,
            scale=scale,
            policy=policy or (realised.policy if realised else None),
            repeat=repeat,
            requests=len(records),
            offered_per_s=(len(records) - 1) / span_s if span_s else None,
            cut=offered.cut,
            dropped=offered.dropped,
            slo=self.rules.slo,
            summary=summarize(records, self.rules.slo),
            generator=result.generator,
            realised=realised,
            ending=result.ending,
            problems=result.problems(self.rules.max_lateness_s),
            salt=salt,
        )

    @contextmanager
    def _target(self, prompts: Prompts) -> Iterator[Any]:
        if self._http is None:
            assert self.client is not None
            yield DaemonTarget(self.client, prompts)
            return
        target = HttpTarget(*self._http, prompts)
        try:
            yield target
        finally:
            target.close()

    def _observer(self) -> AbstractContextManager[Observer | None]:
        return Observer(self.client) if self.client is not None else nullcontext()

    def _hopeless(self, offered: Trace) -> Callable[[Sequence[Record], float], bool]:
        """Whether more requests have missed than may, if all of the load were sent.

        Asked while the load is sent, so it looks again only at those that may still miss.
        """
        warmup, slo = self.rules.warmup, self.rules.slo
        count = sum(not warmup.covers(number, request.arrival_s) for number, request in enumerate(offered.requests))
        allowed = int((1 - GOODPUT_SHARE) * count + 1e-9)

        undecided: list[Record] = []
        seen = missed = 0

        def hopeless(records: Sequence[Record], now_s: float) -> bool:
            nonlocal undecided, seen, missed
            asked = undecided + [record for record in records[seen:] if record.measured]
            kept = [record for record in asked if not has_missed(record, slo, now_s)]
            undecided = [record for record in kept if record.outcome == "open"]
            seen, missed = len(records), missed + len(asked) - len(kept)
            return missed > allowed

        return hopeless


def _nothing() -> None:
    """Nobody watches."""


def _hoping(records: Sequence[Record], now_s: float) -> bool:
    """A run that is to be whole."""
    return False


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM came; a second one raises KeyboardInterrupt as usual. For the main thread."""
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
