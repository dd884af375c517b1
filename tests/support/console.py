"""For tests of the console: deterministic snapshots of real wire structs, and a source that plays a script.

`ScriptedSource` stands at the declared seam (`rapidctl.source.Source`, the transport); nothing of the console is faked.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from textual.pilot import Pilot

from rapidctl.book import Book
from rapidctl.client import Call
from rapidctl.console.app import Console
from rapidctl.console.host import Host
from rapidctl.console.operator import Operator
from rapidctl.console.prompts import Prompts
from rapidctl.console.view import View
from rapidctl.errors import Refused
from rapidctl.settings import Settings
from rapidctl.source import Answer, Connection, Received, Streamed, Update
from rapidctl.wire import (
    ControlReply,
    Decision,
    DeviceInfo,
    Event,
    Generate,
    KvStats,
    LanePlacement,
    LaneStats,
    LatencyWindow,
    Mode,
    ModelInfo,
    OverrideBounds,
    OverrideInfo,
    PartitionInfo,
    Placement,
    PlanInfo,
    PlanRequest,
    Prediction,
    PredictPartition,
    Process,
    Quantiles,
    RequestCounts,
    RequestRow,
    SetPartition,
    Slo,
    Snapshot,
    UnitGroup,
)

EventKind = Literal["decision", "override", "applied", "warning"]
EPOCH_UNIX_S = 1_800_000_000.0
"""Wall clock of tick 0: 2027-01-15 08:00:00 UTC."""
LIVE_TICKS = 231
"""A minute of history that ends while prefill is busy."""
BOUNDS = OverrideBounds(
    ttl_max_s=604_800.0, chunk_max=8192, change_every_s=2.0, guard_itl=1.5, guard_ttft=2.0, guard_after_s=10.0
)
ENDPOINT = "ipc:///run/rapidd/request.sock"


def wave(tick: int, period: float, low: float, high: float) -> float:
    """A slow sine between two values: enough life for a picture, the same every time."""
    return low + (high - low) * (0.5 + 0.5 * math.sin(2 * math.pi * tick / period))


def placement(units_total: int, decode: int, *, at_unix_s: float = EPOCH_UNIX_S, overlap: int = 0) -> Placement:
    """Decode on the low units, prefill on the rest and on ``overlap`` of decode's."""
    return Placement(
        lanes=[
            LanePlacement(lane="decode", units=list(range(decode)), measured=True),
            LanePlacement(lane="prefill", units=list(range(decode - overlap, units_total)), measured=True),
        ],
        overlap=overlap,
        transition=False,
        probed_unix_s=at_unix_s,
    )


def engines(units: int, xccs: int = 8, per_xcc: int = 4) -> list[UnitGroup]:
    """Shader engines of a GPU whose unit numbers go round the XCCs, and in an XCC round its engines."""
    return [
        UnitGroup(name=f"SE {engine}", within=f"XCC {xcc}", units=tuple(range(units)[xcc::xccs][engine::per_xcc]))
        for xcc in range(xccs)
        for engine in range(per_xcc)
    ]


def partition(
    *,
    units: int = 304,
    decode: int = 160,
    mode: Mode = "split",
    epoch: int = 1841,
    override: OverrideInfo | None = None,
    unsupported: str | None = None,
    profile: str | None = "2027-01-02",
    policy: str = "auto",
) -> PartitionInfo:
    """A partition with every split in steps of 16."""
    return PartitionInfo(
        policy=policy,
        units_total=units,
        unit_name="core" if units <= 64 else "CU",
        splits=[] if unsupported else list(range(1, units) if units <= 16 else range(32, units - 31, 16)),
        unsupported=unsupported,
        epoch=epoch,
        source="policy" if override is None else "override",
        plan=PlanInfo(
            mode=mode,
            decode_units=decode,
            prefill_units=units - decode,
            chunk=512,
            decision=90412,
            reason="batch 128 needs at least 160 units for ITL 100 ms",
            age_s=12.0,
        ),
        override=override,
        measured=None if unsupported else placement(units, decode),
        profile=profile,
        groups=None if units <= 64 else engines(units),
        bounds=BOUNDS,
    )


def rows(tick: int) -> list[RequestRow]:
    """Five requests in every phase."""

    def row(number: int, phase: str, prompt: int, out: int, client: str) -> RequestRow:
        streams = phase == "decoding"
        return RequestRow(
            id=f"r-8f{number:03x}",
            choice=0,
            client=client,
            phase=phase,  # type: ignore[arg-type]
            age_s=20.0 - number + tick / 4,
            prompt_tokens=prompt,
            cached_tokens=prompt // 4 if streams else 0,
            computed_tokens=prompt if streams else prompt // 3 if phase == "prefilling" else 0,
            output_tokens=out,
            max_tokens=512,
            ttft_s=0.2 if streams else None,
            itl_p95_s=0.052 if streams else None,
            tokens_per_s=30.1 if streams else None,
            kv_blocks=(prompt + out) // 16 + 1,
            priority=0,
            slo_class="interactive",
            preemptions=0,
        )

    return [
        row(1, "decoding", 512, 411, "api/ana"),
        row(2, "decoding", 4096, 340, "api/batch"),
        row(3, "decoding", 1024, 201, "rapidctl/prompt"),
        row(4, "prefilling", 9120, 0, "api/ana"),
        row(5, "waiting", 2048, 0, "api/batch"),
    ]


def quantiles(n: int, scale: float) -> Quantiles:
    """A plausible spread around ``scale`` seconds."""
    return Quantiles(n=n, p50=scale, p95=scale * 2, p99=scale * 3, max=scale * 4)


def latency(window_s: float, tick: int) -> LatencyWindow:
    """One window; its ITL breathes around the SLO."""
    return LatencyWindow(
        window_s=window_s,
        ttft_s=quantiles(726, 0.212),
        itl_s=quantiles(21840, wave(tick, 60, 0.02, 0.055)),
        tpot_s=quantiles(700, 0.033),
        e2e_s=quantiles(700, 6.1),
        ttft_met=0.981,
        itl_met=0.872,
        both_met=0.861,
        arrived_per_s=12.2,
        finished_per_s=11.9,
        output_tokens_per_s=3812.0,
        prompt_tokens_per_s=14210.0,
    )


def snapshot(tick: int = 0, *, info: PartitionInfo | None = None, boot: str = "b1", front: str = "f1") -> Snapshot:
    """What a busy daemon with a split publishes at its ``tick``-th quarter second."""
    info = info or partition()

    def lane(name: str, units: int, busy: float) -> LaneStats:
        return LaneStats(
            lane=name,  # type: ignore[arg-type]
            units=units,
            busy=busy,
            occupancy=busy * units / info.units_total,
            window_s=1.0,
            batches_total=100 * tick,
            tokens_total=12_800 * tick,
            busy_decode_s_total=0.2 * tick,
            busy_prefill_s_total=0.2 * tick,
            busy_mixed_s_total=0.0,
            running=True,
        )

    plan = info.plan
    return Snapshot(
        seq=tick,
        boot_id=boot,
        front_boot_id=front,
        at_unix_s=EPOCH_UNIX_S + tick / 4,
        at_mono_ns=tick * 250_000_000,
        state="serving",
        detail="",
        version="0.1.0",
        uptime_s=273_600 + tick / 4,
        endpoint=ENDPOINT,
        model=ModelInfo(
            name="Llama-3.1-8B-Instruct", path="/models/llama", architecture="llama", dtype="bfloat16",
            parameters=8_030_261_248, vocab_size=128_256, max_model_len=131_072, weights="file",
        ),
        device=DeviceInfo(
            kind="hip", name="MI300X", units=info.units_total, unit_name=info.unit_name,
            memory_total_bytes=192 * 2**30, memory_used_bytes=166 * 2**30,
            utilization=0.97, clock_hz=2.1e9, power_w=612.0, power_limit_w=750.0,
            temperature_c=61.0,
        ),
        supervisor=Process(pid=100),
        front=Process(pid=101),
        engine=Process(pid=102),
        clients=3,
        slo=Slo(itl_s=0.1, ttft_floor_s=0.5, ttft_per_1k_s=1.0),
        partition=info,
        lanes=[
            lane("decode", plan.decode_units, wave(tick, 48, 0.6, 0.95)),
            lane("prefill", plan.prefill_units, 0.97 if tick % 40 < 32 else 0.1),
        ],
        kv=KvStats(
            block_tokens=16, blocks_total=115_200, blocks_used=81_920, blocks_cached=22_400, bytes_total=2**36,
            prefix_hit_tokens_total=340 * tick, prefix_query_tokens_total=1000 * tick,
            evicted_blocks_total=tick // 20, headroom_s=22.0,
        ),
        requests=RequestCounts(
            waiting=round(wave(tick, 30, 0, 6)), prefilling=3, decoding=round(wave(tick, 120, 96, 128)),
            waiting_tokens=12_100, accepted_total=5000 + tick, finished_total=4800 + tick, cancelled_total=1,
        ),
        latency=[latency(window, tick) for window in (10.0, 60.0, 300.0)],
        mode_seconds={"split": 100.0, "hybrid": 20.0},
        decisions=[
            Decision(at_unix_s=EPOCH_UNIX_S - 90, decision=90410, epoch=1840, source="policy",
                     text="split 160/144: batch 112 > 64"),
            Decision(at_unix_s=EPOCH_UNIX_S - 40, decision=90411, epoch=1841, source="operator",
                     text="ana: split decode 200, ttl 5m, was 160"),
            Decision(at_unix_s=EPOCH_UNIX_S - 12, decision=90412, epoch=1841, source="guard",
                     text="released: ITL p95 162 ms for 10 s"),
        ],
        rows=rows(tick),
        rows_total=137,
        front_cpu_s=1.0,
        streamed_tokens_total=1_000_000,
    )  # fmt: skip


def event(seq: int, kind: EventKind = "decision", text: str = "split 160/144", *, epoch: int | None = None) -> Event:
    """One event of the front's first boot."""
    at = EPOCH_UNIX_S + seq
    return Event(seq=seq, front_boot_id="f1", at_unix_s=at, kind=kind, level="info", text=text, epoch=epoch)


class Clock:
    """A monotonic clock that moves when told."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class ScriptedSource:
    """A source whose other side is the test. ``asked`` and ``generated`` hold what the console sent."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked: list[tuple[int, Call, bool]] = []
        self.generated: list[Generate] = []
        self.abandoned: list[str] = []
        self.locked = 0
        self.closed = False
        self.predict: Callable[[PredictPartition], Prediction] = lambda _: Prediction(
            call=0, legal=True, note="no profile: rapidd calibrate"
        )
        self._updates: list[Update] = []

    def start(self) -> None:
        """Connected at once."""
        self.put(Connection(ENDPOINT, connected=True))

    def poll(self) -> list[Update]:
        """What the test put."""
        taken, self._updates = self._updates, []
        return taken

    def ask(self, request: Call, *, control: bool = False) -> int:
        """Dry runs are answered by ``predict``, everything else by the test."""
        ticket = len(self.asked) + 1
        self.asked.append((ticket, request, control))
        if isinstance(request, PredictPartition):
            self.put(Answer(ticket, self.predict(request)))
        return ticket

    def generate(self, request: Generate) -> None:
        """Kept for the test to answer."""
        self.generated.append(request)

    def abandon(self, request_id: str) -> None:
        """Kept for the test to see."""
        self.abandoned.append(request_id)

    def lock(self) -> None:
        """Counted."""
        self.locked += 1

    def close(self) -> None:
        """Noted."""
        self.closed = True

    # --- the test's side ---------------------------------------------------------------------------------------

    def put(self, *updates: Update) -> None:
        """Deliver these at the next poll."""
        self._updates += updates

    def feed(self, *snapshots: Snapshot) -> None:
        """Deliver snapshots a quarter second apart, the last one now."""
        start = self.clock.now - (len(snapshots) - 1) / 4
        self.put(*(Received(found, start + index / 4) for index, found in enumerate(snapshots)))

    def commands(self) -> list[tuple[int, Call]]:
        """What was sent with operator rights."""
        return [(ticket, request) for ticket, request, control in self.asked if control]

    def accept(self, ticket: int, epoch: int) -> None:
        """The daemon takes a command."""
        self.put(Answer(ticket, ControlReply(call=ticket, epoch=epoch, text="accepted")))

    def refuse(self, ticket: int, refused: Refused) -> None:
        """The daemon refuses a command."""
        self.put(Answer(ticket, refused))

    def stream(self, request_id: str, *events: object) -> None:
        """The daemon streams."""
        self.put(*(Streamed(request_id, found, self.clock.now) for found in events))  # type: ignore[arg-type]


def override_info(ttl_s: float | None = 252.0) -> OverrideInfo:
    """Ana pinned decode to 200 units."""
    return OverrideInfo(
        plan=PlanRequest(mode="split", decode_units=200), ttl_s=ttl_s, guard=True, reason="decode stalls", by="ana"
    )


def moved(found: Snapshot, info: PartitionInfo) -> Snapshot:
    """The same moment under another partition."""
    return snapshot(found.seq, info=info, boot=found.boot_id, front=found.front_boot_id)


def sent_split(source: ScriptedSource) -> tuple[int, SetPartition]:
    """The one override that was sent."""
    [(ticket, request)] = source.commands()
    assert isinstance(request, SetPartition)
    return ticket, request


def wall() -> float:
    """The wall clock of tick 0."""
    return EPOCH_UNIX_S


def host_of(source: ScriptedSource, *, name: str = "", control: bool = False) -> Host:
    """The console's side of a scripted daemon."""
    return Host(source, ENDPOINT, clock=source.clock, wall=wall, name=name, control=control)


def prompts() -> Prompts:
    """A prompt screen that was never used."""
    clock = Clock()
    source = ScriptedSource(clock)
    return Prompts(source, Operator(source, clock, unlocked=True))


def view(*snapshots: Snapshot, age_s: float = 0.2, **changes: Any) -> View:
    """A frame of these snapshots, a quarter second apart, the last one ``age_s`` old."""
    book = Book()
    for index, found in enumerate(snapshots):
        book.add(found, 1000.0 + index / 4)
    now = 1000.0 + (len(snapshots) - 1) / 4 + age_s
    latest = View(
        book=book,
        snapshot=book.snapshot,
        connection=Connection(ENDPOINT, connected=True),
        now_s=now,
        age_s=book.age_s(now),
        stale=book.stale(now),
        window_s=60.0,
        unlocked_s=None,
        change=None,
        prompts=prompts(),
    )
    return dataclasses.replace(latest, **changes)


@dataclass
class Desk:
    """A running console and everything a test needs to play its world."""

    app: Console
    source: ScriptedSource
    clock: Clock
    pilot: Pilot[int]

    async def settle(self) -> None:
        """Take in what was put, and draw."""
        self.app.tick()
        await self.pilot.pause()

    async def show(self, *snapshots: Snapshot) -> None:
        """The daemon published these."""
        self.source.feed(*snapshots)
        await self.settle()

    async def press(self, *keys: str) -> None:
        """The operator's fingers."""
        await self.pilot.press(*keys)
        await self.settle()

    async def later(self, seconds: float) -> None:
        """Nothing happens for a while."""
        self.clock.now += seconds
        await self.settle()

    @property
    def text(self) -> str:
        """The screen as text, one line a row."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in strips)


@asynccontextmanager
async def desk(
    width: int = 120,
    height: int = 36,
    *,
    control: bool = False,
    live: bool = True,
    settings: Settings = Settings(),  # noqa: B008 - frozen
) -> AsyncIterator[Desk]:
    """A console of that size, with a minute of history unless told otherwise."""
    clock = Clock()
    source = ScriptedSource(clock)
    host = host_of(source, control=control)
    app = Console([host], settings, clock=clock, wall=wall)
    async with app.run_test(size=(width, height)) as pilot:
        found = Desk(app, source, clock, pilot)
        if live:
            source.feed(*(snapshot(tick) for tick in range(LIVE_TICKS)))
        await found.settle()
        yield found
