"""What the GPU kernels reach, alone and beside prefill. From the repository's root:

    PYTHONPATH=kernels python kernels/bench/bench_gpu.py [--out DIR] [SECTION ...]

Needs torch, triton and cuda-bindings, an 80 GB Hopper GPU, and nothing else running on it. Sections: check ceilings
tune parts matmul attention prompt small step corun. Prints tables; all numbers go to DIR/bench_gpu.json. Times are
medians of CUDA-graph replays; bandwidths count every weight, key and value once.
"""

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from check import check
from common import LAYERS, PARTITIONS, Partition, make_pool
from single import attention, ceilings, matmuls, prompts, small_chunks, tune, tune_parts
from step import Model, corun, steps


def check_all(out: Path, of: int = 14) -> dict[str, Any]:
    """All comparisons, in processes side by side, because most of the time is compilation."""
    command = [sys.executable, __file__, "--out", str(out), "--check"]
    workers = [subprocess.Popen([*command, str(i), str(of)], stdout=subprocess.PIPE) for i in range(of)]
    texts = [worker.communicate()[0].decode() for worker in workers]
    reports = [json.loads(text.splitlines()[-1]) for text in texts if text.strip()]
    worst: dict[str, float] = {}
    for report in reports:
        for what, value in report["worst"].items():
            worst[what] = max(worst.get(what, 0.0), value)
    failed = [line for report in reports for line in report["failed"]]
    if len(reports) != of:
        failed.append(f"{of - len(reports)} of {of} processes died")
    count = sum(report["count"] for report in reports)
    print(f"{count} comparisons, {len(failed)} failed; worst relative error:")
    print("  ", {k: f"{v:.1e}" for k, v in worst.items()})
    for line in failed[:12]:
        print("  FAILED", line)
    return {"comparisons": count, "failed": failed, "worst": worst}


def main() -> None:
    """Run the sections asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "sections", nargs="*", default=["check", "ceilings", "matmul", "attention", "prompt", "small", "step", "corun"]
    )
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--check", type=int, nargs=2, help="one share of the comparisons, for `check` itself")
    arguments = parser.parse_args()
    if arguments.check:
        print(json.dumps(check(*arguments.check)))
        return
    torch.manual_seed(0)
    torch.cuda.init()
    partitions = {units: Partition(units) for units in PARTITIONS}
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
    }
    large: list[Any] = []

    def model_and_pool() -> list[Any]:
        if not large:
            large.extend((Model(), make_pool(LAYERS)))
        return large

    sections: dict[str, Callable[[], Any]] = {
        "check": lambda: check_all(arguments.out),
        "ceilings": lambda: ceilings(partitions),
        "tune": lambda: tune(partitions),
        "parts": lambda: tune_parts(partitions),
        "attention": lambda: attention(partitions),
        "prompt": lambda: prompts(partitions),
        "small": lambda: small_chunks(partitions),
        "matmul": lambda: matmuls(partitions, results.get("ceilings", {}).get("read_tb_s", {})),
        "step": lambda: steps(partitions, *model_and_pool()),
        "corun": lambda: corun(partitions, *model_and_pool()),
    }
    for name in arguments.sections:
        begin = time.monotonic()
        print(f"== {name}", flush=True)
        try:
            results[name] = sections[name]()
        except Exception:
            results[name] = {"failed": traceback.format_exc()}
            print(results[name]["failed"])
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        print(f"== {name}: {time.monotonic() - begin:.0f} s", flush=True)
        (arguments.out / "bench_gpu.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
