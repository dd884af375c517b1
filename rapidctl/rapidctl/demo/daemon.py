"""The make-believe daemon: a policy, an override with its end and guard, events, snapshots, and answers to calls.

It moves only when told the time, a quarter second at a step. Its messages are the real ones of `rapidctl.wire`.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final, Literal, NamedTuple

from rapidctl.client import Call, Command, Reply
from rapidctl.demo.load import BLOCK_TOKENS, BLOCKS, SLO, SPLITS, UNITS, WINDOWS_S, Load, prefill_tokens_per_s, step_s
from rapidctl.errors import RapidctlError, Refused
from rapidctl.wire import (
    MAX_CHUNK_TOKENS,
    MAX_TTL_S,
    Cancel,
    ControlReply,
    Decision,
    DeviceInfo,
    DeviceProcess,
    Drain,
    Event,
    EventList,
    GetEvents,
    GetPartition,
    GetRequests,
    KvStats,
    LanePlacement,
    LaneStats,
    Mode,
    ModelInfo,
    OverrideBounds,
    OverrideInfo,
    PartitionInfo,
    PhaseWork,
    Placement,
    PlanInfo,
    PlanRequest,
    Prediction,
    PredictPartition,
    Process,
    ReleasePartition,
    Reload,
    RequestCounts,
    RequestList,
    SetPartition,
    SetPolicy,
    Snapshot,
    UnitGroup,
)

TICK_S: Final = 0.25
ADOPT_S: Final = 0.5
"""Lanes adopt a plan this long after it was accepted."""
DWELL_S: Final = 3.0
BUSY_BATCH: Final = 64
ENDPOINT: Final = "demo"
BOOT: Final = "demo"
BOUNDS: Final = OverrideBounds(
    ttl_max_s=MAX_TTL_S,
    chunk_max=MAX_CHUNK_TOKENS,
    change_every_s=0.0,
    guard_itl=1.5,
    guard_ttft=2.0,
    guard_after_s=10.0,
)
DecisionSource = Literal["policy", "operator", "guard", "ttl", "engine"]


class _Pin(NamedTuple):
    info: OverrideInfo
    until_s: float | None


class DemoDaemon:
    """Serves imaginary requests. ``at_unix_s``: the wall clock when it starts; ``live``: as `Load`."""

    def __init__(self, at_unix_s: float, *, seed: int = 1, live: int | None = None) -> None:
        self.load = Load(seed=seed, live=live)
        self.events: deque[Event] = deque(maxlen=1000)
        self._start_unix_s = at_unix_s
        self._pin: _Pin | None = None
        self._plan = PlanRequest(mode="shared")
        self._plan_at_s = 0.0
        self._reason = "few requests: both phases on all units"
        self._decision = self._epoch = self._seq = self._event_seq = 0
        self._decisions: deque[Decision] = deque(maxlen=8)
        self._adopting: list[tuple[float, int]] = []
        self._breach_s = 0.0
        self._modes: dict[str, float] = {}
        self._note("front_ready", "the make-believe daemon is ready")

    @property
    def now_s(self) -> float:
        """Seconds since it started."""
        return self.load.now_s

    @property
    def plan(self) -> PlanInfo:
        """What runs."""
        decode, prefill = self._units(self._plan)
        return PlanInfo(
            mode=self._plan.mode, decode_units=decode, prefill_units=prefill, chunk=self._plan.chunk,
            decision=self._decision, reason=self._reason, age_s=self.now_s - self._plan_at_s,
        )  # fmt: skip

    def tick(self) -> None:
        """A quarter second passes."""
        plan = self._plan
        decode, prefill = self._units(plan)
        self.load.tick(TICK_S, plan.mode, decode, prefill)
        doing = self._doing(plan.mode)
        self._modes[doing] = self._modes.get(doing, 0.0) + TICK_S
        for due_s, epoch in [found for found in self._adopting if found[0] <= self.now_s]:
            self._adopting.remove((due_s, epoch))
            self._note("applied", f"the lanes run {_words(self._plan)}", epoch=epoch, placement=self._placement())
        self._expire()
        if self._pin is None:
            self._decide()

    def _doing(self, mode: Mode) -> str:
        """What ran: a mode where both phases had work."""
        phases = {job.phase for job in self.load.jobs}
        if not phases:
            return "idle"
        if phases == {"decoding"}:
            return "decode alone"
        return mode if "decoding" in phases else "prefill alone"

    # --- policy and override -----------------------------------------------------------------------------------

    def _decide(self) -> None:
        if self.now_s - self._plan_at_s < DWELL_S:
            return
        batch, backlog = self.load.batch, self.load.backlog
        if batch < BUSY_BATCH or not backlog:
            wanted, reason = PlanRequest(mode="shared"), f"batch {batch}, {backlog} tokens wait: all units for both"
        else:
            enough = (units for units in SPLITS if 1.25 * step_s(batch, units, "split", True) <= SLO.itl_s)
            units = next(enough, SPLITS[-1])
            wanted = PlanRequest(mode="split", decode_units=units, chunk=1024)
            reason = f"batch {batch} needs at least {units} units for ITL {SLO.itl_s * 1000:.0f} ms"
        if _words(wanted) != _words(self._plan):
            self._adopt(wanted, reason)
            self._decision += 1
            self._decisions.append(self._made("policy", f"{_words(wanted)}: {reason}"))
            self._note("decision", f"{_words(wanted)}: {reason}", decision=self._decision)

    def _adopt(self, plan: PlanRequest, reason: str) -> None:
        self._plan, self._reason, self._plan_at_s = plan, reason, self.now_s

    def _expire(self) -> None:
        if self._pin is None:
            return
        gaps = self.load.window(WINDOWS_S[0]).itl_s.p95
        breached = gaps is not None and gaps > BOUNDS.guard_itl * SLO.itl_s
        self._breach_s = self._breach_s + TICK_S if breached else 0.0
        if self._pin.until_s is not None and self.now_s >= self._pin.until_s:
            self._release("ttl", "its time is over")
        elif self._pin.info.guard and self._breach_s >= BOUNDS.guard_after_s:
            self._release("guard", f"ITL p95 {(gaps or 0) * 1000:.0f} ms for 10 s")

    def _release(self, kind: Literal["ttl", "guard", "release"], why: str) -> None:
        self._pin = None
        self._epoch += 1
        source: DecisionSource = "operator" if kind == "release" else kind
        self._decisions.append(self._made(source, f"override released: {why}"))
        self._note(kind, f"override released: {why}", level="warn" if kind == "guard" else "info", epoch=self._epoch)
        self._plan_at_s = self.now_s - DWELL_S

    def _made(self, source: DecisionSource, text: str) -> Decision:
        at = self._start_unix_s + self.now_s
        return Decision(at_unix_s=at, decision=self._decision, epoch=self._epoch, source=source, text=text)

    # --- calls ---------------------------------------------------------------------------------------------------

    def answer(self, request: Call) -> Reply | RapidctlError:
        """As a daemon would; commands it does not make believe are refused."""
        match request:
            case PredictPartition(plan=plan):
                return self._predict(plan)
            case SetPartition() | ReleasePartition() | SetPolicy() | Cancel() | Drain() | Reload():
                return self._command(request)
            case GetPartition():
                return self._partition()
            case GetRequests():
                rows = [job.row(self.now_s) for job in self.load.jobs if request.id in (None, job.id)]
                return RequestList(call=request.call, rows=rows)
            case GetEvents():
                found = [event for event in self.events if event.seq >= request.from_seq]
                return EventList(call=request.call, oldest_seq=0, next_seq=self._event_seq, events=found)
        return Refused("unsupported", "the make-believe daemon does not know this call")

    def _command(self, request: Command) -> ControlReply | RapidctlError:
        expected = getattr(request, "if_epoch", None)
        if expected is not None and expected != self._epoch:
            return Refused("epoch_conflict", f"the epoch is {self._epoch}, not {expected}", "look again")
        match request:
            case SetPartition():
                if (problem := _illegal(request.plan)) is not None:
                    return Refused("invalid_request", problem)
                self._pin_to(request)
            case ReleasePartition():
                if self._pin is None:
                    return Refused("not_found", "there is no override to release")
                self._release("release", f"by {request.by}")
            case SetPolicy():
                return Refused("unsupported", "the make-believe daemon has one policy, auto")
            case Cancel():
                self.load.jobs = [job for job in self.load.jobs if job.id != request.id]
            case Drain():
                return Refused("unsupported", "the make-believe daemon does not drain")
            case Reload():
                return Refused("unsupported", "the make-believe daemon has no configuration")
        return ControlReply(call=request.call, epoch=self._epoch, text="accepted")

    def _pin_to(self, request: SetPartition) -> None:
        self._epoch += 1
        info = OverrideInfo(
            plan=request.plan, ttl_s=request.ttl_s, guard=request.guard, reason=request.reason, by=request.by
        )
        self._pin = _Pin(info, None if request.ttl_s is None else self.now_s + request.ttl_s)
        self._breach_s = 0.0
        self._adopt(request.plan, f"override by {request.by}")
        self._adopting.append((self.now_s + ADOPT_S, self._epoch))
        text = f"{request.by}: {_words(request.plan)} {request.reason}".rstrip()
        self._decisions.append(self._made("operator", text))
        self._note("override", text, epoch=self._epoch)

    def _predict(self, plan: PlanRequest) -> Prediction:
        if (problem := _illegal(plan)) is not None:
            return Prediction(call=0, legal=False, note=problem)
        decode, prefill = self._units(plan)
        itl = 1.25 * step_s(self.load.batch, decode, plan.mode, self.load.backlog > 0)
        rate = prefill_tokens_per_s(prefill, plan.mode)
        ttft = (self.load.backlog + 2000) / rate
        return Prediction(
            call=0, legal=True, note="from a made-up model", prefill_units=prefill, itl_p95_s=itl, ttft_p95_s=ttft,
            prefill_tokens_per_s=rate, breaches_slo=itl > SLO.itl_s or ttft > 2 * SLO.ttft_per_1k_s,
        )  # fmt: skip

    # --- what it publishes ---------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Of this moment."""
        self._seq += 1
        load = self.load
        phases = Counter(job.phase for job in load.jobs)
        used = sum(job.blocks for job in load.jobs)
        return Snapshot(
            seq=self._seq, boot_id=BOOT, front_boot_id=BOOT, at_unix_s=self._start_unix_s + self.now_s,
            at_mono_ns=int(self.now_s * 1e9), state="serving", detail="", version="demo", uptime_s=self.now_s,
            endpoint=ENDPOINT, model=_MODEL, device=self._device(used), supervisor=Process(pid=None),
            front=Process(pid=None), engine=Process(pid=None), clients=5, slo=SLO, partition=self._partition(),
            lanes=[self._lane("decode"), self._lane("prefill")],
            kv=KvStats(
                block_tokens=BLOCK_TOKENS, blocks_total=BLOCKS, blocks_used=min(BLOCKS, used),
                blocks_cached=min(BLOCKS - min(BLOCKS, used), load.finished * 20), bytes_total=BLOCKS * 2**21,
                prefix_hit_tokens_total=load.hits, prefix_query_tokens_total=load.queried,
                evicted_blocks_total=load.evicted,
            ),
            requests=RequestCounts(
                waiting=phases["waiting"], prefilling=phases["prefilling"], decoding=phases["decoding"],
                waiting_tokens=load.backlog, accepted_total=load.accepted, finished_total=load.finished,
            ),
            latency=[load.window(window_s) for window_s in WINDOWS_S], mode_seconds=dict(self._modes),
            decisions=list(self._decisions), rows=[job.row(self.now_s) for job in load.jobs[:64]],
            rows_total=len(load.jobs), front_cpu_s=0.02 * self.now_s, streamed_tokens_total=load.decoded,
        )  # fmt: skip

    def _partition(self) -> PartitionInfo:
        pin = self._pin
        left = None if pin is None or pin.until_s is None else pin.until_s - self.now_s
        override = None if pin is None else OverrideInfo(
            plan=pin.info.plan, ttl_s=left, guard=pin.info.guard, reason=pin.info.reason, by=pin.info.by
        )  # fmt: skip
        return PartitionInfo(
            policy="auto", units_total=UNITS, unit_name="CU", splits=list(SPLITS), unsupported=None,
            epoch=self._epoch, source="policy" if pin is None else "override", plan=self.plan,
            override=override, measured=self._placement(), profile="demo", groups=_GROUPS, bounds=BOUNDS,
        )  # fmt: skip

    def _placement(self) -> Placement:
        decode, prefill = self._units(self._plan)
        lanes = [
            LanePlacement(lane="decode", units=list(range(decode)), measured=True),
            LanePlacement(lane="prefill", units=list(range(UNITS - prefill, UNITS)), measured=True),
        ]
        overlap = max(0, decode + prefill - UNITS)
        probed = self._start_unix_s + self._plan_at_s
        return Placement(lanes=lanes, overlap=overlap, transition=False, probed_unix_s=probed)

    def _lane(self, name: Literal["decode", "prefill"]) -> LaneStats:
        load, units = self.load, self._units(self._plan)[name == "prefill"]
        busy = load.decode_busy if name == "decode" else load.prefill_busy
        mfu, mbu = (0.002 * load.batch / 4, 0.62) if name == "decode" else (0.44 * units / UNITS, 0.08)
        return LaneStats(
            lane=name, units=units, busy=busy, occupancy=busy * units / UNITS, window_s=1.0,
            batches_total=self._seq * 8, tokens_total=load.decoded if name == "decode" else load.prefilled,
            busy_decode_s_total=0.0, busy_prefill_s_total=0.0, busy_mixed_s_total=0.0, running=busy > 0,
            work=[PhaseWork(phase=name, n=8, mfu=mfu, mbu=mbu, flops_total=0.0, bytes_total=0.0)],
        )  # fmt: skip

    def _device(self, blocks: int) -> DeviceInfo:
        busy = max(self.load.decode_busy, self.load.prefill_busy)
        return DeviceInfo(
            kind="hip", name="make-believe accelerator", units=UNITS, unit_name="CU", memory_total_bytes=192 * 2**30,
            memory_used_bytes=16 * 2**30 + blocks * 2**21, utilization=busy, power_w=140 + 560 * busy,
            power_limit_w=750.0, temperature_c=38 + 24 * busy, clock_hz=2.1e9 - 1e8 * busy, memory_clock_hz=1.3e9,
            memory_utilization=0.7 * busy, slowdowns=[], pci_bus_id="0000:00:00.0",
            processes=[DeviceProcess(pid=1, memory_bytes=16 * 2**30 + blocks * 2**21)],
        )  # fmt: skip

    def _units(self, plan: PlanRequest) -> tuple[int, int]:
        if plan.mode != "split" or plan.decode_units is None:
            return UNITS, UNITS
        return plan.decode_units, UNITS - plan.decode_units

    def _note(
        self,
        kind: Literal["front_ready", "decision", "override", "release", "guard", "ttl", "applied"],
        text: str,
        *,
        level: Literal["info", "warn"] = "info",
        epoch: int | None = None,
        decision: int | None = None,
        placement: Placement | None = None,
    ) -> None:
        at = self._start_unix_s + self.now_s
        self.events.append(
            Event(
                seq=self._event_seq, front_boot_id=BOOT, at_unix_s=at, kind=kind, level=level, text=text, epoch=epoch,
                decision=decision, placement=placement,
            )
        )  # fmt: skip
        self._event_seq += 1


_XCCS: Final = 8
_ENGINES: Final = 2
_GROUPS: Final = [
    UnitGroup(name=f"SE {engine}", within=f"XCC {xcc}", units=tuple(range(UNITS)[xcc::_XCCS][engine::_ENGINES]))
    for xcc in range(_XCCS)
    for engine in range(_ENGINES)
]
"""Numbered as an AMD GPU's mask bits are: XCC by XCC in turn, and within one by engine in turn."""
_MODEL: Final = ModelInfo(
    name="demo-8b", path="", architecture="llama", dtype="bfloat16", parameters=8_030_261_248, vocab_size=128_256,
    max_model_len=131_072, weights="random", has_chat_template=True,
)  # fmt: skip


def _illegal(plan: PlanRequest) -> str | None:
    if plan.mode == "split" and plan.decode_units not in SPLITS:
        return f"decode units must be one of {SPLITS[0]}, {SPLITS[1]}, … {SPLITS[-1]}"
    return None


def _words(plan: PlanRequest) -> str:
    return plan.mode if plan.decode_units is None else f"{plan.mode} {plan.decode_units}/{UNITS - plan.decode_units}"
