"""`rapidctl stats`: latency, units, queue, KV cache, device and what was computed, from one snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rapidctl import device
from rapidctl.commands import common
from rapidctl.out import UNKNOWN, Out, duration, number, percent, rate, safe_line, seconds, share, size
from rapidctl.wire import GetSnapshot, LatencyWindow, Snapshot

if TYPE_CHECKING:
    from argparse import Namespace

SECTIONS = ("latency", "units", "queue", "kv", "device", "work")


def add_parser(commands: common.Commands) -> None:
    """Declare the command."""
    parser = common.add_command(
        commands,
        "stats",
        run,
        "latency, units, queue, KV cache, device and work",
        "ITL: gap between two output tokens of one request. TPOT: mean gap of a request. TTFT: arrival to first token. "
        "MFU, MBU: share of the device's measured peaks that a phase's batches reached while they ran.",
    )
    parser.add_argument("section", nargs="?", choices=SECTIONS, help="only this one")
    common.add_watch_options(parser)


def run(args: Namespace, out: Out) -> int:
    """Show it."""
    sections = (args.section,) if args.section else SECTIONS
    with common.connect(args) as client:

        def show() -> int:
            snapshot = client.call(GetSnapshot(call=0)).snapshot
            if out.json:
                out.document(_document(snapshot, sections))
                return 0
            for index, section in enumerate(sections):
                if index:
                    out.text("")
                _SHOW[section](snapshot, out)
            return 0

        return common.watch(args, out, client, show)


def _document(snapshot: Snapshot, sections: tuple[str, ...]) -> dict[str, object]:
    plan = snapshot.partition.plan if snapshot.partition else None
    bodies: dict[str, object] = {
        "latency": {"slo": snapshot.slo, "windows": snapshot.latency},
        "units": {
            "units_total": snapshot.partition.units_total if snapshot.partition else None,
            "unit_name": snapshot.partition.unit_name if snapshot.partition else None,
            "plan": plan,
            "lanes": snapshot.lanes,
            "mode_s_total": snapshot.mode_seconds,
        },
        "queue": snapshot.requests,
        "kv": snapshot.kv,
        "device": snapshot.device,
        "work": {
            "lanes": {lane.lane: lane.work for lane in snapshot.lanes},
            "peak_flops_per_s": snapshot.device.peak_flops_per_s if snapshot.device else None,
            "peak_bytes_per_s": snapshot.device.peak_bytes_per_s if snapshot.device else None,
            "last_step_age_s": snapshot.last_step_age_s,
            "front_loop_lag_s": snapshot.loop_lag_s,
            "scheduling_s": snapshot.scheduling_s,
            "enqueue_s": {lane.lane: lane.enqueue_s for lane in snapshot.lanes},
            "switch_s": {lane.lane: lane.switch_s for lane in snapshot.lanes},
        },
    }
    head = {"at_unix_s": snapshot.at_unix_s, "boot_id": snapshot.boot_id or None, "state": snapshot.state}
    return head | {section: bodies[section] for section in sections}


def _latency(snapshot: Snapshot, out: Out) -> None:
    rows = []
    for window in snapshot.latency:
        rows += _latency_rows(window)
    out.table(["window", "", ">p50", ">p95", ">p99", ">max", ">n", ">SLO met"], rows)


def _latency_rows(window: LatencyWindow) -> list[list[str]]:
    met = {"TTFT": window.ttft_met, "ITL": window.itl_met, "e2e": window.both_met}
    rows = []
    for name, quantiles in (
        ("TTFT", window.ttft_s),
        ("ITL", window.itl_s),
        ("TPOT", window.tpot_s),
        ("e2e", window.e2e_s),
    ):
        values = [seconds(value) for value in (quantiles.p50, quantiles.p95, quantiles.p99, quantiles.max)]
        label = duration(window.window_s) if name == "TTFT" else ""
        rows.append([label, name, *values, str(quantiles.n), percent(met[name]) if name in met else ""])
    return rows


def _units(snapshot: Snapshot, out: Out) -> None:
    rows = [
        [
            lane.lane,
            str(lane.units),
            percent(lane.busy),
            percent(lane.occupancy),
            str(lane.batches_total),
            str(lane.tokens_total),
        ]
        for lane in snapshot.lanes
    ]
    unit = f"{snapshot.partition.unit_name}s" if snapshot.partition else "units"
    out.table(["lane", f">{unit}", ">busy", ">occupancy", ">batches", ">tokens"], rows)
    total = sum(snapshot.mode_seconds.values())
    shares = {mode: share(spent, total) for mode, spent in snapshot.mode_seconds.items() if spent}
    modes = ", ".join(f"{mode} {percent(part)}" for mode, part in shares.items())
    if modes:
        out.text(safe_line(f"time by mode since the engine's start: {modes}"))


def _queue(snapshot: Snapshot, out: Out) -> None:
    counts = snapshot.requests
    window = snapshot.latency[1] if len(snapshot.latency) > 1 else None
    rates = UNKNOWN
    if window is not None:
        rates = (
            f"{number(window.arrived_per_s)} arrived, {number(window.finished_per_s)} finished a second; "
            f"{number(window.prompt_tokens_per_s)} prompt, {number(window.output_tokens_per_s)} output tokens/s "
            f"({duration(window.window_s)})"
        )
    out.pairs(
        [
            ("live", f"{counts.waiting} waiting, {counts.prefilling} prefilling, {counts.decoding} decoding"),
            ("waiting tokens", str(counts.waiting_tokens)),
            ("rates", rates),
            ("totals", f"{counts.accepted_total} accepted, {counts.finished_total} finished"),
            ("", f"{counts.failed_total} failed, {counts.cancelled_total} cancelled, {counts.refused_total} refused"),
            ("preempted", str(counts.preempted_total)),
            ("hopeless", f"{counts.hopeless_total}, whose TTFT was predicted far beyond the objective"),
        ]
    )


def _kv(snapshot: Snapshot, out: Out) -> None:
    kv = snapshot.kv
    if kv is None:
        out.pairs([("kv", UNKNOWN)])
        return
    hits = share(kv.prefix_hit_tokens_total, kv.prefix_query_tokens_total)
    used = percent(share(kv.blocks_used, kv.blocks_total))
    out.pairs(
        [
            ("kv used", f"{used}: {kv.blocks_used} of {kv.blocks_total} blocks"),
            ("cached", f"{kv.blocks_cached} blocks, {kv.evicted_blocks_total} evicted since the engine's start"),
            ("prefix hits", f"{percent(hits)} of {kv.prefix_query_tokens_total} prompt tokens"),
            ("memory", f"{size(kv.bytes_total)} in blocks of {kv.block_tokens} tokens"),
            ("full in", "not filling" if kv.headroom_s is None else duration(kv.headroom_s)),
        ]
    )


def _device(snapshot: Snapshot, out: Out) -> None:
    out.pairs(device.pairs(snapshot.device) if snapshot.device else [("device", UNKNOWN)])


def _work(snapshot: Snapshot, out: Out) -> None:
    rows = [
        [lane.lane, work.phase, rate(work.flops_per_s, "FLOP"), rate(work.bytes_per_s, "B"), percent(work.mfu),
         percent(work.mbu), str(work.n)]
        for lane in snapshot.lanes
        for work in lane.work
    ]  # fmt: skip
    out.table(["lane", "batches", ">computed", ">moved", ">MFU", ">MBU", ">n"], rows)
    if snapshot.device is not None:
        flops, moved = snapshot.device.peak_flops_per_s, snapshot.device.peak_bytes_per_s
        out.text(f"measured peaks of the device: {rate(flops, 'FLOP')}, {rate(moved, 'B')}")
    out.text("")
    times = [("scheduling, a pass", snapshot.scheduling_s)]
    for lane in snapshot.lanes:
        times += [(f"{lane.lane}: a batch", lane.enqueue_s), (f"{lane.lane}: a switch", lane.switch_s)]
    shown = [(name, quantiles) for name, quantiles in times if quantiles is not None]
    out.table(
        ["host time, µs", ">p50", ">p95", ">max", ">n"],
        [[name, *(_micros(value) for value in (q.p50, q.p95, q.max)), str(q.n)] for name, q in shown],
    )


def _micros(value_s: float | None) -> str:
    return UNKNOWN if value_s is None else f"{value_s * 1e6:.0f}"


_SHOW = {"latency": _latency, "units": _units, "queue": _queue, "kv": _kv, "device": _device, "work": _work}
