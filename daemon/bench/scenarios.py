"""What is measured, one function a subject; each gives figures and knows its requirement.

Where two things are compared their runs alternate, and each pair gives one ratio. Requests go through the daemon
and the product's own client; stamps are the engine's.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.figures import Figure, ratios
from bench.load import Prompts, Run, complete, joint_rate, longest_gap, pump, rate, start
from bench.processes import Daemon, Peer
from rapidctl.client import Client
from rapidctl.wire import GetSnapshot, PlanRequest, SetPartition, Snapshot

DECODE_PROMPT = 16
PREFILL_PROMPT = 1024
LONG_PROMPT = 2000
NUM_STREAMS = 8
MANY_STREAMS = 32
"""The front's cost is mostly of a wake-up, which the tokens of a step share."""
NUM_RUNNING = 4
"""Streams that decode while a long prompt is prefilled."""
STEADY_TOKENS = 8
"""Each has so many tokens before the prompt arrives."""
CONTROL_SPACING_S = 2.1
"""The daemon takes a change of the partition every 2 s."""
REPORT_PERIOD_S = 1.1
"""An idle engine tells its totals every second."""

MODES = {
    "split": PlanRequest(mode="split", decode_units=1),
    "serial:all": PlanRequest(mode="serial", chunk="all"),
    "hybrid": PlanRequest(mode="hybrid"),
    "hybrid:256": PlanRequest(mode="hybrid", chunk=256),
    "serial:256": PlanRequest(mode="serial", chunk=256),
    "shared": PlanRequest(mode="shared"),
}


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    repeats: int = 5
    gap_repeats: int = 3
    decode_tokens: int = 96
    status_calls: int = 20
    starts: int = 3
    idle_s: float = 20.0


QUICK = Size(repeats=2, gap_repeats=1, decode_tokens=32, status_calls=5, starts=1, idle_s=5.0)


def warm_up(client: Client, peer: Peer, prompts: Prompts) -> None:
    """Both sides once, in the shapes that follow."""
    complete(client, [prompts(DECODE_PROMPT) for _ in range(NUM_STREAMS)], 4)
    complete(client, [prompts(PREFILL_PROMPT)], 1)
    peer.generate(prompts(DECODE_PROMPT), 4)
    peer.prefill(prompts(PREFILL_PROMPT))


def decode(client: Client, peer: Peer, prompts: Prompts, size: Size, dtype: str) -> list[Figure]:
    """One stream against `generate`; eight streams against one; and what the front spends on each token."""
    one: list[float] = []
    theirs: list[float] = []
    eight: list[float] = []
    front_us: list[float] = []
    front_many_us: list[float] = []
    same: list[float] = []
    for _ in range(size.repeats):
        prompt = prompts(DECODE_PROMPT)
        (run,) = complete(client, [prompt], size.decode_tokens)
        one.append(rate(run.stamps_ns))
        ids, stamps = peer.generate(prompt, size.decode_tokens)
        theirs.append(rate(stamps))
        same.append(float(ids == run.stream.output_ids[0]))
        runs, cost = _streams(client, prompts, NUM_STREAMS, size.decode_tokens)
        eight.append(joint_rate(runs))
        front_us.append(cost)
        front_many_us.append(_streams(client, prompts, MANY_STREAMS, size.decode_tokens // 2)[1])
    return [
        Figure(f"decode, 1 stream, {dtype}", one, "tokens/s"),
        Figure(f"decode, transformers generate, {dtype}", theirs, "tokens/s"),
        ratios(f"decode, 1 stream / transformers, {dtype}", one, theirs, 1.2),
        Figure(f"same greedy tokens as transformers, {dtype}", [sum(same) / len(same)], "share of runs"),
        Figure(f"decode, {NUM_STREAMS} streams, {dtype}", eight, "tokens/s"),
        ratios(f"decode, {NUM_STREAMS} streams / 1 stream, {dtype}", eight, one, 3.0),
        Figure(f"front CPU per streamed token, {NUM_STREAMS} streams, {dtype}", front_us, "us", "at most", 50.0),
        Figure(f"front CPU per streamed token, {MANY_STREAMS} streams, {dtype}", front_many_us, "us", "at most", 50.0),
    ]


def _streams(client: Client, prompts: Prompts, count: int, max_tokens: int) -> tuple[list[Run], float]:
    """So many at once, and the front's CPU microseconds for each of their tokens."""
    before = _snapshot(client)
    runs = complete(client, [prompts(DECODE_PROMPT) for _ in range(count)], max_tokens)
    after = _snapshot(client)
    tokens = after.streamed_tokens_total - before.streamed_tokens_total
    return runs, (after.front_cpu_s - before.front_cpu_s) * 1e6 / tokens


def prefill(client: Client, peer: Peer, prompts: Prompts, size: Size, dtype: str) -> list[Figure]:
    """A fresh prompt: its time to first token, the lane's time in it, and one forward pass of the baseline."""
    ttft: list[float] = []
    lane: list[float] = []
    theirs: list[float] = []
    for _ in range(size.repeats):
        prompt = prompts(PREFILL_PROMPT)
        before = _settled(client)
        begin = time.monotonic_ns()
        (run,) = complete(client, [prompt], 1)
        ttft.append((run.stamps_ns[0] - begin) / 1e9)
        assert run.finished is not None
        assert run.finished.cached_tokens == 0, "the prompt must be fresh"
        lane.append(_prefill_s(_settled(client)) - _prefill_s(before))
        theirs.append(peer.prefill(prompt))
    return [
        Figure(f"prefill of {PREFILL_PROMPT}, time to first token, {dtype}", ttft, "s"),
        Figure(f"prefill of {PREFILL_PROMPT}, lane time, {dtype}", lane, "s"),
        Figure(f"prefill of {PREFILL_PROMPT}, transformers forward, {dtype}", theirs, "s"),
        ratios(f"prefill speed by time to first token / transformers, {dtype}", theirs, ttft, 1.0),
        ratios(f"prefill speed by lane time / transformers, {dtype}", theirs, lane, 1.0),
    ]


def interference(client: Client, prompts: Prompts, size: Size) -> list[Figure]:
    """Four streams decode, a long prompt arrives: their longest gap, and the prompt's time to first token, by mode."""
    gaps: dict[str, list[float]] = {mode: [] for mode in MODES}
    ttft: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(size.gap_repeats):
        for mode, plan in MODES.items():
            client.call(SetPartition(call=0, plan=plan, ttl_s=None, guard=False, by="bench"))
            changed_s = time.monotonic()
            gap, first = _long_prompt(client, prompts)
            gaps[mode].append(gap)
            ttft[mode].append(first)
            time.sleep(max(0.0, changed_s + CONTROL_SPACING_S - time.monotonic()))
    halves = [split / serial for split, serial in zip(gaps["split"], gaps["serial:all"], strict=True)]
    return [
        *(Figure(f"longest gap of {NUM_RUNNING} streams, {mode}", gaps[mode], "s") for mode in MODES),
        Figure("longest gap, split / serial:all", halves, "x", "at most", 0.5),
        *(Figure(f"prompt of {LONG_PROMPT} meanwhile, {mode}", ttft[mode], "s") for mode in MODES),
    ]


def _long_prompt(client: Client, prompts: Prompts) -> tuple[float, float]:
    """Longest gap of the running streams and the prompt's time to first token, in seconds."""
    limit = 4096  # more than they get to: they are cancelled
    running = [start(client, prompts(DECODE_PROMPT), limit) for _ in range(NUM_RUNNING)]
    pump(client, running, lambda: all(len(run.stamps_ns) >= STEADY_TOKENS for run in running))
    begin = time.monotonic_ns()
    long = start(client, prompts(LONG_PROMPT), 1)
    everyone = [*running, long]
    pump(client, everyone, lambda: bool(long.stamps_ns))
    end = long.stamps_ns[0]
    pump(client, running, lambda: all(run.stamps_ns[-1] > end for run in running))
    for run in running:
        client.cancel(run.stream.id)
    pump(client, everyone, lambda: all(run.finished for run in everyone))
    return max(longest_gap(run.stamps_ns, begin, end) for run in running), (end - begin) / 1e9


def overheads(daemon: Daemon, ready_s: Sequence[float], size: Size) -> list[Figure]:
    """What an operator and an idle machine feel."""
    status = [daemon.rapidctl("status") for _ in range(size.status_calls)]
    begin_s, begin_cpu_s = time.monotonic(), daemon.cpu_s()
    time.sleep(size.idle_s)
    idle = (daemon.cpu_s() - begin_cpu_s) / (time.monotonic() - begin_s) * 100
    return [
        Figure("rapidctl status", status, "s", "at most", 0.25),
        Figure("daemon ready, warm disk", ready_s, "s", "at most", 8.0),
        Figure("idle daemon, all processes", [idle], "% of a core", "at most", 2.0),
    ]


def _snapshot(client: Client) -> Snapshot:
    return client.call(GetSnapshot(call=0)).snapshot


def _settled(client: Client) -> Snapshot:
    """A snapshot that knows of every batch that has ended."""
    time.sleep(REPORT_PERIOD_S)
    return _snapshot(client)


def _prefill_s(snapshot: Snapshot) -> float:
    return sum(lane.busy_prefill_s_total for lane in snapshot.lanes)
