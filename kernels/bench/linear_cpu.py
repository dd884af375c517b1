"""Which form of a linear layer is fastest on this CPU, by number of tokens: a table, then one JSON line.

Run: ``python kernels/bench/linear_cpu.py [--threads N]``. Weights are those of 30 layers of SmolLM2-135M, read one
after another, so that they come from memory as in a decode step. Times are the best of a few, in milliseconds of wall
clock. `rapid_kernels.reference` takes its choice of form from here.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor

LAYERS = 30
SHAPES = ((960, 576), (576, 576), (3072, 576), (576, 1536))
"""[out, in] of query-key-value, attention output, gate-up and down."""
FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": torch.nn.functional.linear,
    "transposed": lambda x, weight: torch.mm(weight, x.t()),
    "vector": lambda x, weight: torch.mv(weight, x[0]),
}


def best_ms(form: Callable[[Tensor, Tensor], Tensor], weights: list[Tensor], tokens: int) -> float:
    """Best time of one pass over all weights."""
    inputs = {size: torch.randn(tokens, size).to(weights[0].dtype) for size in (576, 1536)}
    best = float("inf")
    for _ in range(8 if tokens <= 64 else 3):
        start = time.perf_counter()
        for weight in weights:
            form(inputs[weight.shape[1]], weight)
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
        weights = [torch.randn(shape).to(dtype) for _ in range(LAYERS) for shape in SHAPES]
        for tokens in (1, 2, 3, 4, 8, 16, 32, 64, 128, 256):
            with torch.inference_mode():
                forms = FORMS if tokens == 1 else {name: FORMS[name] for name in ("linear", "transposed")}
                times = {name: best_ms(form, weights, tokens) for name, form in forms.items()}
            name = str(dtype).removeprefix("torch.")
            print(f"{name:>10} {tokens:>6}" + "".join(f"{value:>12.1f}" for value in times.values()), flush=True)
            results.append({"dtype": name, "tokens": tokens, "ms": times})
    print(json.dumps({"schema_version": 1, "threads": threads, "results": results}))


if __name__ == "__main__":
    main()
