"""Which form of a linear layer is fastest on this CPU, by number of tokens: a table, then one JSON line.

Run: ``python kernels/bench/linear_cpu.py [--threads N]``. Weights are those of 30 layers of SmolLM2-135M, read one
after another, so that they come from memory as in a decode step. Times are the best of a few, in milliseconds of wall
clock. `rapid_kernels.packed` takes its choices from here.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor

from rapid_kernels import Matrix
from rapid_kernels.packed import multiply, pack

LAYERS = 30
SHAPES = ((960, 576), (576, 576), (3072, 576), (576, 1536))
"""[out, in] of query-key-value, attention output, gate-up and down."""
TOKENS = (1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
FORMS: dict[str, Callable[[Tensor, Matrix], Tensor]] = {
    "linear": lambda x, weight: torch.nn.functional.linear(x, weight.data),
    "transposed": lambda x, weight: torch.mm(weight.data, x.t()),
    "packed": lambda x, weight: multiply(x, weight, None),
}


def best_ms(form: Callable[[Tensor, Matrix], Tensor], weights: list[Matrix], tokens: int) -> float:
    """Best time of one pass over all weights."""
    dtype = weights[0].like.dtype
    inputs = {size: torch.randn(tokens, size).to(dtype) for size in (576, 1536)}
    best = float("inf")
    for _ in range(8 if tokens <= 64 else 3):
        start = time.perf_counter()
        for weight in weights:
            form(inputs[weight.like.shape[1]], weight)
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    threads: int = parser.parse_args().threads
    torch.set_num_threads(threads)
    results = []
    print(f"{'dtype':>10} {'tokens':>6}" + "".join(f"{name:>12}" for name in FORMS))
    for dtype in (torch.float32, torch.bfloat16):
        plain = [torch.randn(shape).to(dtype) for _ in range(LAYERS) for shape in SHAPES]
        weights = {"packed": [pack(weight) for weight in plain]}
        weights["linear"] = weights["transposed"] = [Matrix("plain", weight, weight) for weight in plain]
        for tokens in TOKENS:
            with torch.inference_mode():
                times = {name: best_ms(form, weights[name], tokens) for name, form in FORMS.items()}
            name = str(dtype).removeprefix("torch.")
            print(f"{name:>10} {tokens:>6}" + "".join(f"{value:>12.1f}" for value in times.values()), flush=True)
            results.append({"dtype": name, "tokens": tokens, "ms": times})
    print(json.dumps({"schema_version": 1, "threads": threads, "results": results}))


if __name__ == "__main__":
    main()
