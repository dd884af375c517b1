"""Deterministic snapshots of real wire structs for tests of the console: a busy GPU with a split, tick by tick."""

from __future__ import annotations

import math
from typing import Literal

from rapidctl.wire import (
    Decision,
    DeviceInfo,
    Event,
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
    Process,
    Quantiles,
    RequestCounts,
    RequestRow,
    Slo,
    Snapshot,
    UnitGroup,
)

EventKind = Literal["decision", "override", "applied", "warning"]
EPOCH_UNIX_S = 1_800_000_000.0
"""Wall clock of tick 0: 2027-01-15 08:00:00 UTC."""
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


def lane(tick: int, name: Literal["decode", "prefill"], units: int, busy: float, units_total: int) -> LaneStats:
    """A lane that has been busy for a second, at the ``tick``-th quarter second."""
    return LaneStats(
        lane=name,
        units=units,
        busy=busy,
        occupancy=busy * units / units_total,
        window_s=1.0,
        batches_total=100 * tick,
        tokens_total=12_800 * tick,
        busy_decode_s_total=0.2 * tick,
        busy_prefill_s_total=0.2 * tick,
        busy_mixed_s_total=0.0,
        running=True,
    )


def snapshot(tick: int = 0, *, info: PartitionInfo | None = None, boot: str = "b1", front: str = "f1") -> Snapshot:
    """What a busy daemon with a split publishes at its ``tick``-th quarter second."""
    info = info or partition()
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
            lane(tick, "decode", plan.decode_units, wave(tick, 48, 0.6, 0.95), info.units_total),
            lane(tick, "prefill", plan.prefill_units, 0.97 if tick % 40 < 32 else 0.1, info.units_total),
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


def override_info(ttl_s: float | None = 252.0) -> OverrideInfo:
    """Ana pinned decode to 200 units."""
    return OverrideInfo(
        plan=PlanRequest(mode="split", decode_units=200), ttl_s=ttl_s, guard=True, reason="decode stalls", by="ana"
    )


def moved(found: Snapshot, info: PartitionInfo) -> Snapshot:
    """The same moment under another partition."""
    return snapshot(found.seq, info=info, boot=found.boot_id, front=found.front_boot_id)
