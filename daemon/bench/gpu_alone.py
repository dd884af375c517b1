"""One thing at a time on an otherwise idle daemon: prompts, decode steps, hybrid steps, changes of the partition."""

import re
import statistics
import time
from collections.abc import Iterator

from bench.figures import Figure
from bench.gpu_setup import STATE_S, Setup, gaps_ms, lane_of, spent
from bench.gpu_sizes import Decode
from bench.progress import say
from rapidctl.wire import PlanRequest, Quantiles, Snapshot

SWITCHED_S = 0.35
"""Between two changes of the plan, beside what the daemon asks for."""
GRAPHS = re.compile(r"(\d+) graphs in ([\d.]+) s, (\d+) MiB")


def peaks(snapshot: Snapshot) -> list[Figure]:
    """What the daemon measured of the device when it started: the ceilings of all shares."""
    flops, moved = _peaks(snapshot)
    if flops is None or moved is None:
        return []
    return [
        Figure("peak: plain read", [moved / 1e12], "TB/s"),
        Figure("peak: large matrix product", [flops / 1e12], "TFLOP/s"),
    ]


def graphs(said: str) -> list[Figure]:
    """What the daemon reported about its graphs when it started; nothing where there are none."""
    found = GRAPHS.search(said)
    if found is None:
        return []
    number, seconds, mebibytes = (float(value) for value in found.groups())
    return [
        Figure("graphs", [number], ""),
        Figure("graphs, time to capture", [seconds], "s"),
        Figure("graphs, memory", [mebibytes], "MiB"),
    ]


def prefill(setup: Setup) -> Iterator[Figure]:
    """One prompt on an idle device: time to first token, the lane's time, and the share of the peak it computed at."""
    setup.plan(PlanRequest(mode="hybrid"))
    for length, at_most in setup.sizes.prefills:
        ttft, lane, mfu = [], [], []
        after = setup.settled()
        for _ in range(setup.sizes.repeats + 1):
            before, begin = after, time.monotonic_ns()
            (first,) = setup.complete([setup.prompts(length)])
            ttft.append((first - begin) / 1e6)
            after = setup.settled()
            used = spent(before, after, "prefill")
            lane.append(1e3 * used.seconds)
            mfu.append(_share(used.flops, used.seconds, _peaks(after)[0]))
        name = f"prefill of {length}"
        yield Figure(f"{name}, time to first token", ttft[1:], "ms")
        yield Figure(f"{name}, lane time", lane[1:], "ms", "at most", at_most)
        yield from _known(f"{name}, MFU", mfu[1:], None)


def decode(setup: Setup) -> Iterator[Figure]:
    """Only decode: GPU time a step, cadence, and what the host spends on a step."""
    setup.plan(PlanRequest(mode="hybrid"))
    for load in setup.sizes.decodes:
        yield from _decode(setup, load)


def _decode(setup: Setup, load: Decode) -> list[Figure]:
    if not setup.fits(load):
        say(f"{load.name}: not measured, the KV cache is too small")
        return []
    runs = setup.decoding(load)
    steps, shares, cadences, ratios, cpu = [], [], [], [], []
    longest = 0.0
    for _ in range(setup.sizes.repeats):
        before, begin_ns, begin_cpu_s = setup.snapshot(), time.monotonic_ns(), setup.server.cpu_s()
        setup.window(runs)
        after, gaps = setup.snapshot(), gaps_ms(runs, begin_ns, time.monotonic_ns())
        used = spent(before, after, "decode")
        steps.append(used.ms)
        shares.append(_share(used.bytes, used.seconds, _peaks(after)[1]))
        cadences.append(statistics.median(gaps))
        ratios.append(1 / (lane_of(after, "decode").busy or 1e-9))
        cpu.append(1e3 * (setup.server.cpu_s() - begin_cpu_s) * load.rows / len(gaps))
        longest = max(longest, *gaps)
    setup.end(runs)
    name = load.name
    return [
        Figure(f"{name}, GPU time of a step", steps, "ms"),
        *_known(f"{name}, share of the read peak", shares, load.share),
        Figure(f"{name}, cadence", cadences, "ms"),
        Figure(f"{name}, cadence / GPU time", ratios, "x", "at most", 1.03),
        Figure(f"{name}, longest gap", [longest], "ms"),
        Figure(f"{name}, host CPU of a step, all processes", cpu, "ms"),
        *_host(f"{name}, scheduling, host time", after.scheduling_s, 150.0),
        *_host(f"{name}, of it enqueuing, host time", lane_of(after, "decode").enqueue_s, None),
    ]


def hybrid(setup: Setup) -> list[Figure]:
    """Decode rows and one chunk in a batch, nothing cached before the chunk."""
    sizes = setup.sizes
    setup.plan(PlanRequest(mode="hybrid", chunk=sizes.hybrid_chunk))
    runs = setup.decoding(sizes.hybrid)
    steps, tokens = [], []
    for _ in range(sizes.repeats):
        before = setup.snapshot()
        setup.complete([setup.prompts(sizes.hybrid_chunk) for _ in range(sizes.hybrid_arrivals)], runs)
        setup.wait(runs, STATE_S)
        used = spent(before, setup.snapshot(), "mixed")
        steps.append(used.ms)
        tokens.append(sizes.hybrid_chunk * sizes.hybrid_arrivals / used.batches)
    setup.end(runs)
    name = f"hybrid step, {sizes.hybrid.rows} x {sizes.hybrid.prompt} + {sizes.hybrid_chunk}"
    return [
        Figure(f"{name}, GPU time", steps, "ms", "at most", sizes.hybrid_ms),
        Figure(f"{name}, prompt tokens in it", tokens, ""),
    ]


def switch(setup: Setup) -> list[Figure]:
    """Host time of a decode lane's first batch on other units, against that of its other batches."""
    plans = [PlanRequest(mode="split", decode_units=units) for units in setup.sizes.splits[:2]]
    plans = plans if len(plans) > 1 else [*plans, PlanRequest(mode="shared")]
    setup.plan(plans[-1])
    runs = setup.decoding(setup.sizes.switched)
    for change in range(setup.sizes.switches):
        setup.plan(plans[change % len(plans)])
        setup.wait(runs, SWITCHED_S)
    lane = lane_of(setup.snapshot(), "decode")
    setup.end(runs)
    figures = _host("a decode batch on other units, host time", lane.switch_s, None)
    figures += _host("a decode batch on the same units, host time", lane.enqueue_s, None)
    if len(figures) == 2:
        beyond = figures[0].value - figures[1].value
        figures.append(Figure("partition switch, host time of the lane", [beyond], "us", "at most", 50.0))
    return figures


def _host(name: str, times: Quantiles | None, at_most: float | None) -> list[Figure]:
    """The median that the daemon kept; nothing where it has none."""
    if times is None or times.p50 is None:
        return []
    return [Figure(name, [1e6 * times.p50], "us", "at most", at_most)]


def _peaks(snapshot: Snapshot) -> tuple[float | None, float | None]:
    """FLOP and bytes a second, as far as they are known."""
    device = snapshot.device
    return (device.peak_flops_per_s, device.peak_bytes_per_s) if device is not None else (None, None)


def _share(amount: float, seconds: float, peak: float | None) -> float | None:
    return amount / seconds / peak if peak and seconds else None


def _known(name: str, shares: list[float | None], at_least: float | None) -> list[Figure]:
    values = [share for share in shares if share is not None]
    return [Figure(name, values, "x", "at least", at_least)] if values else []
