"""Two phases at once: how much of each one's own speed is left, and what streams see when prompts arrive."""

import statistics
import time
from collections.abc import Iterator, Sequence

from bench.figures import Figure
from bench.gpu_setup import Setup, between, efficiency, gaps_beside_ms, gaps_ms, steady_rate
from bench.gpu_sizes import Sharing
from bench.load import Run, pump, start
from bench.progress import say
from rapidctl.wire import PlanRequest

Point = tuple[int, float]
"""Tokens that a stream has, and milliseconds of a step that ends there."""


def sharing(setup: Setup) -> Iterator[Figure]:
    """Sharing efficiency, of this device's own speeds alone in the same run.

    What arrives are prompts of one chunk behind a cached prefix, all at once, so that the prefill lane never waits. The
    speed of steps alone is measured before and after each load, because it falls with the context.
    """
    alone = {prefix: _prompts_alone(setup, prefix) for prefix in setup.sizes.prefixes}
    for prefix, speeds in alone.items():
        yield Figure(f"chunks of {setup.sizes.chunk} behind {prefix}, alone", speeds, "tokens/ms")
    rates = {prefix: max(found) for prefix, found in alone.items()}
    for load in setup.sizes.sharings:
        beside = (max(setup.sizes.prefixes) + setup.sizes.chunk) * setup.sizes.arrivals // 2
        if setup.fits(load, beside):
            yield from _shared(setup, load, rates)
        else:
            say(f"{load.name}: not measured, the KV cache is too small")


def _prompts_alone(setup: Setup, prefix: int) -> list[float]:
    """On all units, by the stream that also serves decode and by the prefill lane's own; the faster one counts."""
    rates = []
    for mode in ("serial", "shared"):
        setup.plan(PlanRequest(mode=mode, chunk=setup.sizes.chunk))
        prompts = _Arrivals(setup, prefix)
        rates += [steady_rate(prompts.complete([]), setup.sizes.chunk)[0] for _ in range(2)]
    return rates


class _Arrivals:
    """Prompts of a chunk behind one prefix, which is cached from here on."""

    def __init__(self, setup: Setup, prefix: int) -> None:
        self._setup = setup
        self._prefix = setup.prompts(prefix)
        setup.complete([self._prefix])

    def complete(self, beside: Sequence[Run]) -> list[int]:
        sizes = self._setup.sizes
        prompts = [self._prefix + self._setup.prompts(sizes.chunk) for _ in range(sizes.arrivals)]
        return self._setup.complete(prompts, beside)


def _shared(setup: Setup, load: Sharing, alone: dict[int, float]) -> list[Figure]:
    sizes = setup.sizes
    setup.plan(PlanRequest(mode="shared", chunk=sizes.chunk))
    runs = setup.decoding(load)
    first = _steps_alone(setup, runs)
    modes = {"shared": PlanRequest(mode="shared", chunk=sizes.chunk)}
    modes |= {
        f"split {units}": PlanRequest(mode="split", decode_units=units, chunk=sizes.chunk) for units in sizes.splits
    }
    found: dict[tuple[str, int], list[tuple[float, float, int]]] = {}
    for mode, plan in modes.items():
        if mode != "shared":
            setup.plan(plan)
        for prefix in sizes.prefixes:
            arrivals = _Arrivals(setup, prefix)
            found[mode, prefix] = [_beside(setup, arrivals, runs) for _ in range(2)]
    setup.plan(modes["shared"])
    last = _steps_alone(setup, runs)
    setup.end(runs)
    figures = [Figure(f"{load.name}: step alone", [first[1], last[1]], "ms")]
    efficiencies: dict[int, list[float]] = {prefix: [] for prefix in sizes.prefixes}
    fast_enough = []
    for (mode, prefix), samples in found.items():
        values = [efficiency(rate, alone[prefix], gap, between(first, last, at)) for rate, gap, at in samples]
        name = f"{load.name} + {sizes.chunk} behind {prefix}, {mode}"
        figures += [
            Figure(f"{name}: gap", [gap for _, gap, _ in samples], "ms"),
            Figure(f"{name}: prompt tokens", [rate for rate, _, _ in samples], "tokens/ms"),
            Figure(f"{name}: sharing efficiency", values, "x"),
        ]
        if mode != "shared":
            efficiencies[prefix].append(statistics.median(values))
            if load.gap_ms is not None and statistics.median(gap for _, gap, _ in samples) <= load.gap_ms:
                fast_enough.append(statistics.median(rate for rate, _, _ in samples))
    for prefix, split in efficiencies.items():
        name = f"{load.name} behind {prefix}: sharing efficiency, best split"
        figures.append(Figure(name, [max(split)], "x", "at least", 1.2))
    if load.gap_ms is not None:
        best = max(fast_enough, default=0.0)
        name = f"{load.name}: prompt tokens, best split with gaps of at most {load.gap_ms:g} ms"
        figures.append(Figure(name, [best], "tokens/ms", "at least", load.rate))
    return figures


def _steps_alone(setup: Setup, runs: Sequence[Run]) -> Point:
    begin = time.monotonic_ns()
    setup.window(runs)
    return len(runs[0].stamps_ns), statistics.mean(gaps_ms(runs, begin, time.monotonic_ns()))


def _beside(setup: Setup, arrivals: _Arrivals, runs: Sequence[Run]) -> tuple[float, float, int]:
    """Prompt tokens a millisecond, mean gap of the streams in the same time, tokens they had.

    Prompts that all come within one step leave no whole gap in that time: then it is that step's.
    """
    rate, begin, end = steady_rate(arrivals.complete(runs), setup.sizes.chunk)
    setup.reach(runs, end)
    gaps = gaps_ms(runs, begin, end) or gaps_beside_ms(runs, begin, end)
    return rate, statistics.mean(gaps), len(runs[0].stamps_ns)


def loaded(setup: Setup) -> Iterator[Figure]:
    """Streams decode and long prompts arrive at once, by mode: gaps of the streams, and the prompts' speed."""
    sizes = setup.sizes
    count, length = sizes.loaded_arrivals
    for mode, plan in sizes.modes().items():
        setup.plan(plan)
        runs = setup.decoding(sizes.loaded)
        begin = time.monotonic_ns()
        stamps = setup.complete([setup.prompts(length) for _ in range(count)], runs)
        setup.reach(runs, stamps[-1])
        gaps = sorted(gaps_beside_ms(runs, begin, stamps[-1]))
        setup.end(runs)
        name = f"{sizes.loaded.rows} x {sizes.loaded.prompt} + {count} x {length}, {mode}"
        yield from (
            Figure(f"{name}: gap, median", [statistics.median(gaps)], "ms"),
            Figure(f"{name}: gap, p95", [gaps[int(0.95 * len(gaps))]], "ms"),
            Figure(f"{name}: gap, longest", [gaps[-1]], "ms"),
            Figure(f"{name}: prompt tokens", [count * length * 1e6 / (stamps[-1] - begin)], "tokens/ms"),
        )


def throughput(setup: Setup) -> list[Figure]:
    """All requests at once, as `bench.peer_gpu` has them: output tokens a second until the last one is done."""
    count, prompt, output = setup.sizes.bulk
    setup.plan(PlanRequest(mode="hybrid"))
    rates = []
    for _ in range(2):
        begin = time.monotonic_ns()
        runs = [start(setup.client, setup.prompts(prompt), output) for _ in range(count)]
        pump(setup.client, runs, lambda runs=runs: all(run.finished for run in runs))  # type: ignore[misc]
        rates.append(count * output * 1e9 / (max(run.stamps_ns[-1] for run in runs) - begin))
    return [Figure(f"{count} x {prompt} in, {output} out, all at once", rates, "tokens/s")]
