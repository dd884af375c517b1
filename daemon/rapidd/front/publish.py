"""Snapshots: put together from the front's parts, and published while somebody subscribes to them."""

import itertools
import os
import time
from collections.abc import Callable
from typing import Final

import msgspec

from rapidctl import __version__, wire
from rapidd import ipc
from rapidd.front.clients import Clients, Clock, Transport
from rapidd.front.engine_link import EngineLink
from rapidd.front.events import EventLog
from rapidd.front.journal import Choice
from rapidd.front.serving import Serving
from rapidd.telemetry import snapshot as telemetry
from rapidd.telemetry.histogram import BucketCounter
from rapidd.telemetry.latency import LatencyRecorder
from rapidd.telemetry.sensors import with_sensors
from rapidd.telemetry.watch import DeviceWatch

IDLE_NS: Final = 1_000_000_000
"""Period of snapshots while nothing is running and nothing changed."""
MAX_ROWS: Final = 64


class Publisher:
    """Knows all parts and changes none. ``life``: the daemon's state, and one line about it for people."""

    def __init__(
        self,
        *,
        endpoint: str,
        front_boot_id: str,
        snapshot_hz: float,
        transport: Transport,
        clock: Clock,
        wall: Callable[[], float],
        clients: Clients,
        link: EngineLink,
        serving: Serving,
        events: EventLog,
        latency: LatencyRecorder,
        watch: DeviceWatch,
        life: Callable[[], tuple[wire.DaemonState, str]],
    ) -> None:
        self._endpoint = endpoint
        self._front_boot_id = front_boot_id
        self.configure(snapshot_hz)
        self._transport = transport
        self._clock = clock
        self._wall = wall
        self._clients = clients
        self._link = link
        self._serving = serving
        self._events = events
        self._latency = latency
        self._watch = watch
        self._life = life
        self.loop_lag = BucketCounter()
        self._kv_trend = telemetry.KvTrend()
        self._num_batches = 0
        self._last_batch_ns: int | None = None
        """When the engine first said that so many batches had ended."""
        self._started_ns = clock()
        self._published_ns = 0
        self._published_event = -1
        self._seq = 0
        self._topics: set[tuple[bytes, object]] = set()
        """That somebody subscribes to, with where."""

    def configure(self, snapshot_hz: float) -> None:
        """Snapshots a second while something runs."""
        self._period_ns = int(1e9 / snapshot_hz)

    # --- publishing ------------------------------------------------------------------------------------------

    @property
    def watched(self) -> bool:
        """Somebody subscribes to snapshots."""
        return any(wire.SNAPSHOT_TOPIC.startswith(topic) for topic, _ in self._topics)

    @property
    def next_ns(self) -> int:
        """When the next snapshot is due."""
        if not self.watched:
            return self._clock() + IDLE_NS
        busy = bool(self._serving.journal.streams) or self._events.next_seq != self._published_event
        return self._published_ns + (self._period_ns if busy else max(self._period_ns, IDLE_NS))

    def subscription(self, begins: bool, topic: bytes, where: object) -> None:
        """Somebody subscribes ``where``, or nobody does any more there. Who comes first is served at once."""
        if begins:
            self._topics.add((topic, where))
            self._published_ns = 0
        else:
            self._topics.discard((topic, where))

    def tick(self) -> None:
        """Publish when it is time."""
        if self._clock() >= self.next_ns:
            self.publish()

    def publish(self) -> None:
        """Publish a snapshot now."""
        self._published_ns = self._clock()
        self._published_event = self._events.next_seq
        self._transport.publish(wire.SNAPSHOT_TOPIC + wire.encode(self.snapshot()))
        self._seq += 1

    def engine_state(self, state: ipc.EngineState) -> None:
        """The engine just said how it is."""
        self._kv_trend.add(state.at_mono_ns, state.kv.blocks_used)
        if (batches := sum(lane.batches_total for lane in state.lanes)) != self._num_batches:
            self._num_batches, self._last_batch_ns = batches, state.at_mono_ns

    def engine_lost(self) -> None:
        """Its cache is gone."""
        self._kv_trend.clear()
        self._num_batches = 0

    # --- views -------------------------------------------------------------------------------------------------

    def snapshot(self) -> wire.Snapshot:
        """Everything as of now."""
        now_ns = self._clock()
        link, totals, latency = self._link, self._serving.totals, self._latency
        note, hello, engine = link.note, link.hello, link.state
        state, detail = self._life()
        return wire.Snapshot(
            seq=self._seq,
            boot_id=link.boot_id,
            front_boot_id=self._front_boot_id,
            at_unix_s=self._wall(),
            at_mono_ns=now_ns,
            state=state,
            detail=detail,
            version=__version__,
            uptime_s=(now_ns - (note.started_mono_ns if note else self._started_ns)) / 1e9,
            front_uptime_s=(now_ns - self._started_ns) / 1e9,
            endpoint=self._endpoint,
            model=hello.model if hello else None,
            device=self._device(),
            supervisor=wire.Process(pid=note.supervisor_pid if note else None),
            front=_process(os.getpid(), note.front_causes if note else {}),
            engine=_process(link.pid, note.engine_causes if note else {}),
            clients=len(self._clients),
            slo=latency.slo,
            partition=engine.partition if engine else None,
            lanes=engine.lanes if engine else [],
            kv=telemetry.with_headroom(engine.kv, self._kv_trend) if engine else None,
            requests=self._counts(),
            latency=latency.windows(now_ns),
            latency_totals=latency.totals(),
            mode_seconds=engine.mode_seconds if engine else {},
            scheduling_s=engine.scheduling_s if engine else None,
            decisions=list(self._events.decisions),
            rows=self.rows(limit=MAX_ROWS),
            rows_total=len(self._serving.journal.choices),
            front_cpu_s=time.process_time(),
            streamed_tokens_total=totals.streamed_tokens,
            loop_lag_s=self.loop_lag.counts() if note else None,
            last_step_age_s=None if self._last_batch_ns is None else (now_ns - self._last_batch_ns) / 1e9,
            unreadable=telemetry.by_socket(totals.unreadable),
        )

    def status(self, call: int) -> wire.Status:
        """The head of `snapshot`."""
        return telemetry.status(call, self.snapshot(), self._latency.slo_met(self._clock()))

    def rows(self, stream_id: str | None = None, limit: int | None = None) -> list[wire.RequestRow]:
        """Live choices, oldest first: all, or those of one request."""
        now_ns = self._clock()
        live = self._serving.journal.live()
        chosen = (choice for choice in live if stream_id is None or choice.stream.id == stream_id)
        return [self._row(choice, now_ns) for choice in itertools.islice(chosen, limit)]

    def _device(self) -> wire.DeviceInfo | None:
        """As the last engine knew it, with what this one and the sensors say now."""
        if self._link.hello is None:
            return None
        device, engine = self._link.hello.device, self._link.state
        if engine is not None:
            device = msgspec.structs.replace(device, memory_used_bytes=engine.memory_used_bytes)
        return with_sensors(device, self._watch.latest())

    def _counts(self) -> wire.RequestCounts:
        journal, totals = self._serving.journal, self._serving.totals
        phases = telemetry.count_phases(choice.phase for choice in journal.choices.values())
        return wire.RequestCounts(
            waiting=phases["waiting"],
            prefilling=phases["prefilling"],
            decoding=phases["decoding"],
            waiting_tokens=journal.waiting_tokens,
            accepted_total=totals.accepted,
            finished_total=totals.finished,
            failed_total=totals.failed.total(),
            cancelled_total=totals.cancelled,
            refused_total=totals.refused.total(),
            hopeless_total=totals.hopeless,
            preempted_total=self._link.state.preempted_total if self._link.state else 0,
            failed_by=dict(totals.failed),
            refused_by=dict(totals.refused),
            outputs_by=dict(totals.outputs),
        )

    def _row(self, choice: Choice, now_ns: int) -> wire.RequestRow:
        stream, state = choice.stream, choice.state
        output_tokens = len(choice.output_ids)
        client = self._clients.get(stream.client)
        rate = None
        if choice.first_ns is not None and now_ns > choice.first_ns and choice.gaps.n:
            rate = choice.gaps.n * 1e9 / (now_ns - choice.first_ns)
        return wire.RequestRow(
            id=stream.id,
            choice=choice.index,
            client=client.label if client else "gone",
            phase=choice.phase,
            age_s=(now_ns - stream.arrival_ns) / 1e9,
            prompt_tokens=stream.prompt_tokens,
            cached_tokens=state.cached if state else stream.cached_tokens or 0,
            computed_tokens=state.computed if state else 0,
            output_tokens=output_tokens,
            max_tokens=stream.template.max_tokens,
            ttft_s=None if stream.first_ns is None else (stream.first_ns - stream.arrival_ns) / 1e9,
            itl_p95_s=choice.gaps.quantile(0.95),
            tokens_per_s=rate,
            kv_blocks=state.kv_blocks if state else 0,
            priority=stream.template.priority,
            slo_class=stream.template.slo_class,
            preemptions=state.preemptions if state else 0,
        )


def _process(pid: int | None, causes: dict[str, int]) -> wire.Process:
    return wire.Process(pid=pid, restarts=sum(causes.values()), causes=causes)
