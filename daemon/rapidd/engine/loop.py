"""The engine's main loop: messages in, batches out to the lanes, results back, tokens to the front.

One thread, one `Scheduler` that sees both lanes. It sleeps in one poll on the front's socket and on a descriptor
that the lanes' workers write to, so a finished batch is followed by the next at once, and an idle engine costs
nothing. Knows neither torch nor the device: `rapidd.engine.build` makes the lanes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import zmq
from msgspec.structs import replace

from rapidctl.wire import Placement
from rapidd import faults, ipc, log
from rapidd.config import Config
from rapidd.engine.heap import give_back
from rapidd.engine.lanes import LaneExecutor
from rapidd.engine.link import FrontLink
from rapidd.engine.messages import to_dropped, to_request, to_token
from rapidd.engine.observe import Limits, policy_state
from rapidd.engine.probing import Probing
from rapidd.engine.realised import doing
from rapidd.engine.report import kv_stats, limited, partition_info, placement, prefill_tokens_per_s, request_states
from rapidd.engine.request import LANES, Lane, Request
from rapidd.engine.scheduler import Scheduler
from rapidd.engine.timing import learn, watch_gap
from rapidd.engine.wake import Wake
from rapidd.errors import RequestError
from rapidd.policy.calibration import Calibration
from rapidd.policy.override import Control
from rapidd.policy.pace import Pace
from rapidd.policy.plan import State
from rapidd.telemetry.latency import resolve_slo
from rapidd.telemetry.recent import Recent

STATE_BUSY_NS: Final = 250_000_000
"""While somebody watches. A state costs the front half of what a step does."""
STATE_IDLE_NS: Final = 1_000_000_000
STATE_SETTLED_NS: Final = 50_000_000
"""From the state before to the one that says that nothing runs any more."""
CHECK_NS: Final = 10_000_000_000
"""An idle engine checks the block pool's invariants, and gives back what memory it has freed, this often."""

SCHEDULINGS_KEPT: Final = 256
NOTICES_KEPT: Final = 256


class Engine:
    """Everything that is decided; ``hello`` describes what was built."""

    def __init__(
        self,
        *,
        hello: ipc.EngineHello,
        link: FrontLink,
        channel: ipc.Channel,
        scheduler: Scheduler,
        lanes: Mapping[Lane, LaneExecutor],
        control: Control,
        pace: Pace,
        limits: Limits,
        calibration: Calibration,
        wake: Wake,
        kv_bytes: int,
        memory_used: Callable[[], int | None],
        config: Config,
        patience_s: float = 0.0,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._config = config
        self._patience_s = patience_s
        """A batch that takes longer than this on this device hangs."""
        self._num_finished = 0
        self._hello = hello
        self._link = link
        self._channel = channel
        self._scheduler = scheduler
        self._lanes = lanes
        self._control = control
        self._pace = pace
        self._limits = limits
        self._calibration = calibration
        self._wake = wake
        self._kv_bytes = kv_bytes
        self._memory_used = memory_used
        self._clock = clock
        self._front: str | None = None
        self._is_ready = False
        self._heard_ns = clock()
        self._state_ns = 0
        self._state_is_busy = False
        self._watched = True
        self._state_epoch = -1
        self._check_ns = 0
        self._accounted_ns = clock()
        self._mode_ns: Counter[str] = Counter()
        self._fence = scheduler.clock.fence()
        """Batches in flight when the plan last changed: until they end, lanes may overlap ("transition")."""
        self._applying = False
        self._placement: Placement | None = None
        self._probing = Probing(lanes.values())
        self._scheduling = Recent(SCHEDULINGS_KEPT)
        self._stopping = False
        for text in calibration.warnings:
            self._notice("warning", "warn", text, None)

    @property
    def summary(self) -> str:
        """What is served on what, in a few words."""
        model, device = self._hello.model, self._hello.device
        return f"{model.name}, {device.units} {device.unit_name}s of {device.kind}, {model.dtype}"

    # --- main loop

    def stop(self) -> None:
        """Leave `run` at the next turn; callable from a signal handler."""
        self._stopping = True
        self._wake.set()

    def run(self) -> None:
        """Serve until `stop`, or until the supervisor is gone."""
        poller = zmq.Poller()
        poller.register(self._link.socket, zmq.POLLIN)
        poller.register(self._wake.fileno(), zmq.POLLIN)
        poller.register(self._channel.fileno(), zmq.POLLIN)
        self._link.send(self._hello)
        while not self._stopping and not self._channel.closed:
            poller.poll(self._timeout_ms())
            self._wake.clear()
            for line in self._channel.lines():
                self._supervised(ipc.decode_supervisor(line))
            self.turn()

    def turn(self) -> None:
        """One pass: receive, collect, decide, launch, report."""
        faults.hit("engine.loop")
        for message in self._link.receive():
            self._receive(message)
        self._watch_front()
        self._collect()
        self._launch()
        probed = self._probing.turn()
        if probed:
            self._placement = placement(self._lanes, transition=self._applying)
            seen = self._make_notice("placement", "info", "seen anew where the lanes run", None, self._placement)
            self._control.notices.append(seen)
        self._publish_notices()
        self._publish_state()
        for token in probed:
            self._link.send(ipc.ControlDone(token, self._control.epoch, "", None, ""))

    def _supervised(self, line: ipc.SupervisorLine) -> None:
        match line:
            case ipc.Probe():
                live = len(list(self._scheduler.requests))
                self._channel.send(ipc.Pulse(live, self._num_finished, self._patience_s))
            case ipc.Reload(config):
                self._channel.send(ipc.Reloaded(self._reload(config)))
            case ipc.SupervisorNote():
                pass  # the front's

    def _reload(self, config: Config) -> str:
        """Take over hot settings; why not, when they cannot be had."""
        if config.engine.policy != self._config.engine.policy:
            done = self._control.set_policy(ipc.SetPolicy(0, config.engine.policy, "reload", None))
            if done.code is not None:
                return f"engine.policy: {done.text}"
        slo = resolve_slo(config.slo, self._hello.device.kind)
        self._limits = replace(self._limits, slo=slo, give_way_s=config.policy.give_way_s)
        self._pace.itl_slo_s = slo.itl_s
        self._config = config
        log.start(config.log, "engine")
        return ""

    @property
    def busy(self) -> bool:
        """Whether a batch is in flight."""
        return not all(lane.idle for lane in self._lanes.values())

    def _timeout_ms(self) -> int:
        return max(1, (self._state_ns + self._lone_period_ns - self._clock()) // 1_000_000)

    @property
    def _busy_period_ns(self) -> int:
        return STATE_BUSY_NS if self._watched else STATE_IDLE_NS

    @property
    def _lone_period_ns(self) -> int:
        """With a step the front is awake, its caches warm: a state alone wakes it after twice the period only."""
        if self.busy:
            return 2 * self._busy_period_ns
        return STATE_SETTLED_NS if self._state_is_busy else STATE_IDLE_NS

    # --- the front

    def _receive(self, message: ipc.FrontMessage) -> None:
        self._heard_ns = self._clock()
        match message:
            case ipc.Ping(number, watched):
                self._watched = watched
                if number == 0 or self._front is None:
                    self._link.send(self._hello)
            case ipc.FrontHello(front_boot_id):
                if front_boot_id != self._front:
                    self._forget_requests()
                self._control.restore(message)
                if front_boot_id != self._front:
                    self._control.tell_again()
                self._front = front_boot_id
                self._state_ns = 0
            case ipc.Submit():
                self._submit(message)
            case ipc.Abort(rids):
                for rid in rids:
                    self._scheduler.abort(rid)
            case ipc.SetPlan():
                self._link.send(self._control.set_plan(message, self._clock()))
            case ipc.SetPolicy():
                self._link.send(self._control.set_policy(message))
            case ipc.Predict():
                self._link.send(self._control.predict(message, self._policy_state(self._clock())))
            case ipc.Undo():
                self._link.send(self._control.undo(message, self._clock()))
            case ipc.ProbePlacement(token):
                self._probing.ask(token)
            case ipc.AskProfile():
                self._link.send(self._calibration.answer(message, self._pace.itl_slo_s))
            case ipc.SloReport():
                self._control.observe(message, self._clock())

    def _submit(self, message: ipc.Submit) -> None:
        faults.hit("engine.submit")
        request = to_request(message, self._limits)
        try:
            if self._scheduler.get(message.rid) is None:
                self._scheduler.add(request)
        except RequestError as error:
            self._link.send(ipc.Dropped(message.rid, error.code, f"{error} ({error.hint})"))

    def _watch_front(self) -> None:
        """A front that is silent for long is dead or frozen: nobody waits for what its requests would yield."""
        if self._front is not None and self._clock() - self._heard_ns > ipc.FRONT_LOST_S * 1e9:
            self._forget_requests()
            self._front = None

    def _forget_requests(self) -> None:
        for request in list(self._scheduler.requests):
            self._scheduler.abort(request.rid)

    # --- batches

    def _collect(self) -> None:
        now = self._clock()
        self._account(now)
        for lane in self._lanes.values():
            for batch, result in lane.collect():
                self._num_finished += 1
                if result.error is None:
                    self._pace.observe(
                        units=batch.units,
                        num_decode=batch.num_decode,
                        prefill_tokens=batch.num_prefill_tokens,
                        seconds=(result.ended_ns - result.started_ns) / 1e9,
                    )
                    learn(self._calibration, batch, result, self._lanes, self._scheduler)
                else:
                    log.bug(f"a {batch.kind} batch failed", result.error, event="batch_failed")
                limit = self._scheduler.chunk_limit
                done = self._scheduler.finish(batch, result)
                watch_gap(self._calibration.margin, batch, result, self._pace.itl_slo_s, sized=self._control.foresees)
                if self._scheduler.chunk_limit != limit:
                    self._notice("out_of_memory", "warn", limited(batch, self._scheduler.chunk_limit), None)
                if done.outcomes:
                    tokens = [to_token(outcome) for outcome in done.outcomes]
                    state = self._new_state(now) if now - self._state_ns >= self._busy_period_ns else None
                    self._link.send(ipc.Step(result.ended_ns, batch.mode, tokens, state))
                for drop in done.drops:
                    self._link.send(to_dropped(drop))
                    if drop.code == "out_of_memory":
                        self._notice("out_of_memory", "error", f"a {batch.kind} batch ran out of memory", drop.request)

    def _launch(self) -> None:
        now = self._clock()
        self._control.tick(now)
        before = self._control.decision, self._control.epoch
        plan = self._control.decide(self._policy_state(now), now)
        if (self._control.decision, self._control.epoch) != before or self._state_epoch != self._control.epoch:
            self._fence = self._scheduler.clock.fence()
            self._applying = True
            self._state_epoch = self._control.epoch
        if plan.by_deadline:
            self._scheduler.give_way(now, self._limits.give_way_ns, plan.prompt_time)
        launched = False
        for _ in range(2):  # serial mode gives one batch at a time; a lane may take a second one behind it
            room = {name: lane.room for name, lane in self._lanes.items()}
            batches = self._scheduler.schedule(plan, room)
            for batch in batches:
                self._lanes[batch.lane].enqueue(batch)
            if not batches:
                break
            launched = True
        if launched:
            self._scheduling.record(self._clock() - now)
        for request in self._scheduler.preempted:
            self._notice("preempted", "warn", "there was no memory for it: recomputed later", request)
        self._scheduler.preempted.clear()
        if self._applying and self._scheduler.clock.passed(self._fence):
            self._applying = False
            self._lanes["decode"].adopt(plan.mode, plan.decode_units)
            self._lanes["prefill"].adopt(plan.mode, plan.prefill_units)
            self._placement = placement(self._lanes, transition=self._applying)
            self._control.notices.append(
                self._make_notice("applied", "info", f"{plan.describe()} runs", None, self._placement)
            )
        for request in self._scheduler.running:
            if request.prefill_start_ns is None:
                request.prefill_start_ns = now

    def _policy_state(self, now: int) -> State:
        return policy_state(self._scheduler, self._control, self._limits, now)

    def _account(self, now: int) -> None:
        """Attribute the time since the last turn to what ran in it."""
        mode = doing(
            self._lanes["decode"].running,
            self._lanes["prefill"].running,
            self._control.table.units_total,
            num_decoding=self._scheduler.num_decoding,
            prefill_tokens=self._scheduler.prefill_tokens,
        )
        self._mode_ns[mode] += now - self._accounted_ns
        self._accounted_ns = now

    # --- reports

    def _make_notice(
        self,
        kind: ipc.NoticeKind,
        level: ipc.NoticeLevel,
        text: str,
        request: Request | None,
        placement: Placement | None = None,
    ) -> ipc.Notice:
        control = self._control
        rid = request.rid if request else None
        return ipc.Notice(kind, level, text, "engine", control.epoch, control.decision, rid, placement)

    def _notice(self, kind: ipc.NoticeKind, level: ipc.NoticeLevel, text: str, request: Request | None) -> None:
        self._control.notices.append(self._make_notice(kind, level, text, request))

    def _publish_notices(self) -> None:
        if self._front is None:  # a front hears nobody whom it has not greeted: what it should know waits for it
            del self._control.notices[:-NOTICES_KEPT]
            return
        for notice in self._control.notices:
            self._link.send(notice)
            self._state_ns = 0  # whoever reads the event should find the state that belongs to it
        self._control.notices.clear()

    def _publish_state(self) -> None:
        now = self._clock()
        if now - self._state_ns < self._lone_period_ns:
            return
        busy = self.busy
        self._link.send(self._new_state(now))
        self._state_is_busy = busy
        if self._front is not None and not self._is_ready:
            # Before it knew of this engine the front would have refused every request, and shown no partition.
            self._is_ready = True
            self._channel.send(ipc.ChildReport("ready", self.summary, device=self._hello.device.kind))
        if not busy and now - self._check_ns > CHECK_NS:
            self._check_ns = now
            self._scheduler.check()
            give_back()

    def _new_state(self, now: int) -> ipc.EngineState:
        scheduler = self._scheduler
        self._state_ns, self._state_is_busy = now, True
        self._placement = placement(self._lanes, transition=self._applying)
        return ipc.EngineState(
            at_mono_ns=now,
            partition=partition_info(self._control, self._calibration, self._placement, scheduler.chunk_limit, now),
            lanes=[self._lanes[name].stats(self._control.table.units_total) for name in LANES],
            kv=kv_stats(scheduler, self._kv_bytes),
            preempted_total=scheduler.num_preempted,
            mode_seconds={mode: ns / 1e9 for mode, ns in self._mode_ns.items()},
            requests=request_states(scheduler),
            memory_used_bytes=self._memory_used(),
            prefill_tokens_per_s=prefill_tokens_per_s(self._control, self._policy_state(now)),
            by_deadline=self._control.plan is not None and self._control.plan.by_deadline,
            scheduling_s=self._scheduling.quantiles(),
        )
