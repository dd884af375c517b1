"""Every kernel that a GPU is asked for while serving was compiled at start.

Without a GPU: launches are taken down by what Triton compiles a kernel for, and do nothing; matrix products of the
library neither. What is real: graphs' sizes, warm-up, batches, and all that chooses kernels, tiles and options.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed: no kernel can be asked for")

from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from rapid_kernels.gpu import kernels as gpu_kernels
from rapidd.engine.batch import Batch
from rapidd.engine.build import warm_up
from rapidd.engine.defaults import GPU_DEFAULTS
from rapidd.engine.gpu_start import warm_up_plans
from rapidd.engine.request import Lane
from rapidd.model.config import ModelSpec
from rapidd.model.llama import Llama, random_weights
from rapidd.partition.table import PartitionTable
from rapidd.policy.tiles import CHUNK_ROWS
from support.rows import decode_row, prompt_row
from support.tiny_gpu import Device, StandInQueue, TinyGpuEngine, stand_in_capture

TOTAL, SPLITS, SLOTS, LENGTH, BLOCK = 132, (16, 48), 140, 4500, 64
SPEC = ModelSpec(
    architecture="llama", name="small", vocab_size=33_000, hidden_size=1024, intermediate_size=4352, num_layers=2,
    num_heads=32, num_kv_heads=8, head_dim=128, rms_norm_eps=1e-5, rope_theta=10_000.0, max_position=LENGTH,
    tied_head=True, qk_norm=False,
)  # fmt: skip
"""With weights of more rows than, by `rapid_kernels.gpu.tuning`, other tiles take, and fewer."""

ROWS = (0, 1, 3, 8, 9, 15, 16, 17, 31, 32, 33, 48, 49, 64, 65, 96, 97, 128, 129, 140)
CHUNKS = ((1, 1), (16, 1), (63, 2), (64, 1), (100, 5), (500, CHUNK_ROWS), (1000, 3), (1100, CHUNK_ROWS), (2048, 1))
"""Prompt tokens of a batch, of how many prompts."""

make_binder: Any = create_function_from_signature

Kernel = tuple[str, str, str]
"""Name, what its arguments are, options."""


class Taken(set[Kernel]):
    """Kernels that were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._backend = make_backend(GPUTarget("cuda", 90, 32))
        self._binders: dict[int, Any] = {}

    def launch(self, kernel: Any, *arguments: Any, **options: Any) -> None:
        """As `JITFunction.run`, as far as its key in Triton's cache."""
        del options["grid"], options["warmup"]
        if id(kernel) not in self._binders:
            self._binders[id(kernel)] = make_binder(kernel.signature, kernel.params, self._backend)
        binder = self._binders[id(kernel)]
        _, specialization, chosen = binder(*arguments, debug=False, instrumentation_mode="", **options)
        self.add((kernel.__name__, str(specialization), str(chosen)))


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Taken:
    found = Taken()
    monkeypatch.setattr(JITFunction, "run", lambda kernel, *args, **options: found.launch(kernel, *args, **options))
    monkeypatch.setattr(gpu_kernels, "linear", lambda x, weight, bias=None: x.new_empty(len(x), len(weight)))
    return found


def engine_of(kernels: gpu_kernels.GpuKernels) -> TinyGpuEngine:
    """Started: graphs captured, every lane warm."""
    device = Device()
    queues: dict[Lane, dict[int, tuple[int, Any]]] = {
        "decode": {units: (1000 + units, StandInQueue(device, 1000 + units)) for units in (TOTAL, *SPLITS)},
        "prefill": {
            units: (2000 + units, StandInQueue(device, 2000 + units))
            for units in (TOTAL, *(TOTAL - units for units in SPLITS))
        },
    }
    engine = TinyGpuEngine(
        Llama(SPEC, random_weights(SPEC, torch.bfloat16, 1), torch.bfloat16, device="cpu", kernels=kernels),
        PartitionTable(units_total=TOTAL, unit_name="SM", splits=SPLITS),
        queues,
        lambda: stand_in_capture,
        lambda: device.current,
        BLOCK,
        kv_blocks=600,
        max_running=SLOTS,
        max_model_len=LENGTH,
    )
    for length in (GPU_DEFAULTS.warmup_tokens, *GPU_DEFAULTS.warmup_tails):
        warm_up(engine.lanes, warm_up_plans(engine.table), None, BLOCK, length)
    return engine


def batch(lane: Lane, units: int, decode: int, tokens: int, prompts: int, context: int) -> Batch:
    counts = [len(part) for part in torch.arange(tokens).chunk(prompts)] if tokens else []
    rows = [decode_row(1 + slot, 1 + slot, 200 + slot, BLOCK) for slot in range(decode)]
    rows += [
        prompt_row(1 + decode + index, [1] * count, 200 + index, context, BLOCK) for index, count in enumerate(counts)
    ]
    mode: Any = "split" if units != TOTAL else "hybrid" if lane == "decode" else "shared"
    return Batch(1, lane, units, mode, rows, decode, tokens, context)


def served() -> Iterator[Batch]:
    """What a scheduler may ask for, at the edges of buckets and tiles."""
    for units, decode in product((TOTAL, *SPLITS), ROWS[1:]):
        yield batch("decode", units, decode, 0, 0, 0)
    for context, (tokens, prompts) in product((0, 640), CHUNKS):
        for decode in (rows for rows in ROWS if rows + prompts <= SLOTS):
            yield batch("decode", TOTAL, decode, tokens, prompts, context)
        for units in (TOTAL, *(TOTAL - units for units in SPLITS)):
            yield batch("prefill", units, 0, tokens, prompts, context)


@pytest.mark.parametrize("hopper", [True, False])
def test_nothing_is_compiled_while_serving(hopper: bool, taken: Taken) -> None:
    """Logits behind a graph with prompts took kernels of their own, and so did the attention of long chunks beside
    decode rows: two batches on a GPU waited 0.7 s each for Triton."""
    engine = engine_of(gpu_kernels.GpuKernels(bulk=True, hopper=hopper))
    at_start = set(taken)
    assert len(at_start) > 20
    for one in served():
        lane = engine.lanes[one.lane]
        lane.enqueue(one)
        lane.wait()
        ((_, result),) = lane.collect()
        assert result.error is None
        new = taken - at_start
        assert not new, (len(one.rows), one.num_decode, one.num_prefill_tokens, one.units, sorted(new))
