"""`rapidctl status`: is it serving, what, how, and how full. Exit code 0 when serving, else 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rapidctl import device
from rapidctl.commands import common
from rapidctl.out import UNKNOWN, Out, duration, percent, safe_line, seconds, share, unit_count
from rapidctl.wire import GetStatus, PartitionInfo, Process, Slo, Status

if TYPE_CHECKING:
    from argparse import Namespace


def add_parser(commands: common.Commands) -> None:
    """Declare the command."""
    parser = common.add_command(commands, "status", run, "one screen of state; exit code 0 serving, 1 not, 3 no daemon")
    common.add_watch_options(parser)


def run(args: Namespace, out: Out) -> int:
    """Show it."""
    with common.connect(args) as client:

        def show() -> int:
            status = client.call(GetStatus(call=0))
            if out.json:
                out.document(document(status))
            else:
                _show(status, out)
            return 0 if status.state == "serving" else 1

        return common.watch(args, out, client, show)


def document(status: Status) -> dict[str, object]:
    """The keys of ``--json``."""
    plan = status.partition.plan if status.partition else None
    return {
        "state": status.state,
        "detail": status.detail,
        "boot_id": status.boot_id or None,
        "front_boot_id": status.front_boot_id,
        "version": status.version,
        "endpoint": status.endpoint,
        "uptime_s": status.uptime_s,
        "front_uptime_s": status.front_uptime_s,
        "model": status.model.name if status.model else None,
        "model_info": status.model,
        "device": status.device.kind if status.device else None,
        "device_info": status.device,
        "engine": status.engine,
        "front": status.front,
        "supervisor": status.supervisor,
        "mode": plan.mode if plan else None,
        "policy": status.partition.policy if status.partition else None,
        "epoch": status.partition.epoch if status.partition else None,
        "decode_units": plan.decode_units if plan else None,
        "prefill_units": plan.prefill_units if plan else None,
        "chunk_limit": status.partition.chunk_limit if status.partition else None,
        "unsupported": status.partition.unsupported if status.partition else None,
        "kv": status.kv,
        "requests": status.requests,
        "slo": status.slo,
        "slo_met": status.slo_met,
    }


def _show(status: Status, out: Out) -> None:
    good = status.state == "serving"
    head = out.style(f"{'●' if good else '!'} {status.state.replace('_', ' ')}", "bold", "good" if good else "warn")
    detail = f"  {safe_line(status.detail)}" if status.detail else ""
    out.text(f"{head}{detail}  up {duration(status.uptime_s)}  rapidd {safe_line(status.version)}")
    counts = status.requests
    pairs = [
        ("endpoint", status.endpoint),
        ("model", _model(status)),
        ("device", device.describe(status.device) if status.device else UNKNOWN),
        *_sensors(status),
        ("mode", plan_text(status.partition)),
        *limit_pairs(status.partition),
        *_no_split(status.partition),
        ("kv", _kv(status)),
        ("requests", f"{counts.waiting} waiting, {counts.prefilling} prefilling, {counts.decoding} decoding"),
        ("totals", _totals(status)),
        ("slo", slo_text(status.slo, status.slo_met)),
        ("processes", _processes(status)),
    ]
    out.pairs(pairs)


def _model(status: Status) -> str:
    model = status.model
    if model is None:
        return UNKNOWN
    random = ", random weights" if model.weights == "random" else ""
    raw = ", no chat template" if model.has_chat_template is False else ""
    return f"{model.name}, {model.dtype}, context {model.max_model_len}{random}{raw}"


def _sensors(status: Status) -> list[tuple[str, str]]:
    """One line, where the system has any."""
    if status.device is None or not (parts := device.sensor_parts(status.device)):
        return []
    return [("sensors", ", ".join([*parts, f"memory {device.memory(status.device)}"]))]


def _no_split(partition: PartitionInfo | None) -> list[tuple[str, str]]:
    """One line where the lanes cannot be kept apart."""
    if partition is None or partition.unsupported is None:
        return []
    return [("splits", f"none: {partition.unsupported}")]


def plan_text(partition: PartitionInfo | None) -> str:
    """The plan in force, who wants it, and until when."""
    if partition is None:
        return UNKNOWN
    plan = partition.plan
    units = f", decode {plan.decode_units} + prefill {plan.prefill_units} of " + unit_count(
        partition.units_total, partition.unit_name
    )
    why = f"policy {partition.policy}"
    if (override := partition.override) is not None:
        left = "until released" if override.ttl_s is None else f"{duration(override.ttl_s)} left"
        why = f"override by {override.by or 'unknown'}, {left}; policy {partition.policy}"
    return f"{plan.mode}{units}  ({why}, epoch {partition.epoch})"


def limit_pairs(partition: PartitionInfo | None) -> list[tuple[str, str]]:
    """One line, where a batch ran out of memory since the engine's start."""
    if partition is None or partition.chunk_limit is None:
        return []
    return [("memory", f"ran out: a batch holds at most {partition.chunk_limit} prompt tokens until a restart")]


def _kv(status: Status) -> str:
    kv = status.kv
    if kv is None:
        return UNKNOWN
    used = percent(share(kv.blocks_used, kv.blocks_total))
    blocks = f"{kv.blocks_used} of {kv.blocks_total} blocks of {kv.block_tokens} tokens"
    return f"{used} used: {blocks}, {kv.blocks_cached} cached"


def _totals(status: Status) -> str:
    counts = status.requests
    return (
        f"{counts.finished_total} finished, {counts.failed_total} failed, {counts.cancelled_total} cancelled, "
        f"{counts.refused_total} refused, {counts.preempted_total} preempted{_counting(status)}"
    )


def _counting(status: Status) -> str:
    """Since when requests are counted, where that is not the daemon's start."""
    if not status.front.restarts or status.front_uptime_s is None:
        return ""
    return f" in the {duration(status.front_uptime_s)} since the front was restarted"


def slo_text(slo: Slo, met: bool | None) -> str:
    """The objectives and whether they are met."""
    verdict = {True: "met", False: "missed", None: "no requests yet"}[met]
    ttft = f"max({seconds(slo.ttft_floor_s)}, {seconds(slo.ttft_per_1k_s)} per 1,000 prompt tokens)"
    return f"{verdict}  (ITL {seconds(slo.itl_s)}, TTFT {ttft})"


def _why(process: Process) -> str:
    """Causes of restarts, with how often each where there are several."""
    counted = sorted(process.causes.items())
    if len(counted) < 2:
        return "".join(f": {cause}" for cause, _ in counted)
    return ": " + ", ".join(f"{count} {cause}" for cause, count in counted)


def _processes(status: Status) -> str:
    parts = []
    for name, process in (("supervisor", status.supervisor), ("front", status.front), ("engine", status.engine)):
        restarts = f" (restarted {process.restarts}×{_why(process)})" if process.restarts else ""
        parts.append(f"{name} {process.pid or UNKNOWN}{restarts}")
    return ", ".join(parts)
