"""Makes an engine out of a configuration: device, weights, KV cache, lanes, warm-up.

The one place that knows all parts; each of them knows none of the others' making.
"""

from __future__ import annotations

import math
import os
import secrets
from array import array
from collections.abc import Callable, Iterable
from typing import Final

import psutil
import torch

from rapidctl import __version__
from rapidctl.wire import ModelInfo
from rapidd import ipc
from rapidd.config import Config
from rapidd.engine.batch import Batch, BatchResult
from rapidd.engine.lanes import LaneExecutor, Stream
from rapidd.engine.link import FrontLink
from rapidd.engine.loop import Engine, Wake
from rapidd.engine.request import LANES, Lane, Request, SamplingParams
from rapidd.engine.runner import Runner
from rapidd.engine.scheduler import Scheduler
from rapidd.errors import ConfigError, DeviceError
from rapidd.model.config import ModelSpec
from rapidd.model.llama import Llama, random_weights
from rapidd.model.resolve import LoadedModel, load_model
from rapidd.model.weights import open_weights
from rapidd.partition.cpu import PREFILL_NICE, Worker, cpu_table
from rapidd.partition.table import PartitionTable
from rapidd.paths import RuntimeDir
from rapidd.policy.override import Control
from rapidd.policy.pace import Pace
from rapidd.policy.plan import Plan
from rapidd.telemetry.device import cpu_has_bfloat16, cpu_info, process_memory_bytes

CPU_MAX_CONTEXT: Final = 8192
"""Default bound of the context on a CPU: longer prompts would take minutes."""
CPU_MAX_CHUNK_S: Final = 0.5
CPU_KV_SHARE: Final = 0.25
CPU_KV_BYTES: Final = 2 << 30
"""The cache takes this share of the memory that is free once the weights are loaded, and at most so many bytes."""
CPU_ITL_SLO_S: Final = 0.3
RANDOM_SEED: Final = 0
WARMUP_TOKENS: Final = 64
DEPTH: Final[dict[Lane, int]] = {"decode": 2, "prefill": 1}
"""Batches in flight a lane. On a CPU a chunk takes far longer than forming the next one."""

Report = Callable[[str, float | None], None]


def build(config: Config, directory: RuntimeDir, channel: ipc.Channel, report: Report) -> Engine:
    """Everything up to a finished warm-up. Raises `RapiddError` for what the configuration cannot have."""
    _choose_device(config)
    table, cores = cpu_table(config.engine.compute_units)
    try:
        control = Control(config.engine.policy, table)
    except ValueError as error:
        raise ConfigError([f"engine.policy: {error}"]) from error
    loaded = load_model(config.model)
    dtype = _choose_dtype(config.model.dtype, loaded.spec.file_dtype)
    max_model_len = _context(config, loaded.spec)
    torch.set_num_threads(len(cores))
    model = _load(loaded, dtype, max_model_len, report)
    report("warming up", None)
    wake = Wake()
    pace = Pace(
        max_chunk_s=config.engine.max_chunk_s or CPU_MAX_CHUNK_S,
        itl_slo_s=config.slo.itl_s or CPU_ITL_SLO_S,
        block_tokens=config.engine.block_tokens,
    )
    kv_blocks = _kv_blocks(config, model, max_model_len)
    layout = model.cache_layout(kv_blocks, config.engine.block_tokens)
    runner = Runner(
        model,
        model.kernels.allocate_cache(layout),
        num_slots=config.engine.max_batch_requests,
        max_model_len=max_model_len,
    )
    lanes = make_lanes(runner.run, table, cores, wake.set)
    scheduler = Scheduler(
        kv_blocks=kv_blocks,
        block_tokens=config.engine.block_tokens,
        max_running=config.engine.max_batch_requests,
        max_model_len=max_model_len,
        bound=pace.bound,
        key=secrets.token_bytes(16),
    )
    _warm_up(lanes, table, pace, config.engine.block_tokens, min(WARMUP_TOKENS, max_model_len // 2))
    hello = ipc.EngineHello(
        build=__version__,
        boot_id=secrets.token_hex(8),
        pid=os.getpid(),
        model=_describe(config, loaded, dtype, max_model_len),
        device=cpu_info(table.units_total),
        max_model_len=max_model_len,
        kv_block_tokens=config.engine.block_tokens,
        kv_blocks=scheduler.pool.total,
        eos_token_ids=list(loaded.spec.eos_token_ids),
    )
    return Engine(
        hello=hello,
        link=FrontLink(directory.engine_endpoint),
        channel=channel,
        scheduler=scheduler,
        lanes=lanes,
        control=control,
        pace=pace,
        wake=wake,
        kv_bytes=kv_blocks * layout.bytes_per_block,
        memory_used=process_memory_bytes,
    )


def _choose_device(config: Config) -> None:
    if config.engine.device in ("auto", "cpu"):
        return
    raise DeviceError(
        f"--device {config.engine.device}: this version runs on the CPU only",
        "use --device cpu (or auto)",
    )


def _choose_dtype(name: str, file_dtype: str | None) -> torch.dtype:
    """ "auto": bfloat16 where the weights are (or are random) and the processor is fast at it, else float32.

    Quantised weights are not bfloat16's to round again: their float32 answers are the model's own.
    """
    if name == "auto":
        fits = file_dtype in (None, "bfloat16", "BF16")
        return torch.bfloat16 if fits and cpu_has_bfloat16() else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def _context(config: Config, spec: ModelSpec) -> int:
    wanted = config.model.max_model_len
    if wanted is None:
        return min(spec.max_position, CPU_MAX_CONTEXT)
    if wanted > spec.max_position:
        raise ConfigError(
            [f"model.max-model-len: {wanted} is more than the {spec.max_position} positions of {spec.name}"]
        )
    return wanted


def _load(loaded: LoadedModel, dtype: torch.dtype, max_positions: int, report: Report) -> Llama:
    if loaded.weights is None:
        report("making random weights", None)
        weights = random_weights(loaded.spec, dtype, RANDOM_SEED)
    else:
        weights = open_weights(loaded.weights, loaded.spec, lambda percent: report("loading weights", percent))
    return Llama(loaded.spec, weights, dtype, max_positions=max_positions)


def _kv_blocks(config: Config, model: Llama, max_model_len: int) -> int:
    """Blocks of the cache, block 0 included. Raises ConfigError when one request of full length would not fit."""
    block_tokens = config.engine.block_tokens
    needed = math.ceil(max_model_len / block_tokens)
    if config.engine.kv_blocks is not None:
        return config.engine.kv_blocks + 1
    bytes_per_block = model.cache_layout(1, block_tokens).bytes_per_block
    budget = min(CPU_KV_SHARE * psutil.virtual_memory().available, CPU_KV_BYTES)
    blocks = int(budget / bytes_per_block)
    if blocks < needed:
        raise ConfigError(
            [
                f"model.max-model-len: one request of {max_model_len} tokens needs {needed} KV blocks and memory "
                f"is there for {blocks}: lower --max-model-len, or set --kv-blocks yourself"
            ]
        )
    return blocks + 1


def make_lanes(
    run: Callable[[Batch], BatchResult], table: PartitionTable, cores: list[int], on_done: Callable[[], None]
) -> dict[Lane, LaneExecutor]:
    """A worker for every unit count that a lane may get, made one after another; decode takes the low cores."""
    pinned = table.unsupported is None or len(cores) == 1
    lanes: dict[Lane, LaneExecutor] = {}
    for name in LANES:
        sizes = table.splits if name == "decode" else [table.units_total - units for units in table.splits]
        nice = PREFILL_NICE if name == "prefill" else 0
        streams: dict[int, Stream] = {}
        for size in sorted({*sizes, table.units_total}):
            own = cores[:size] if name == "decode" else cores[len(cores) - size :]
            streams[size] = Worker[BatchResult](f"{name}-{size}", own if pinned else None, size, nice, on_done)
        lanes[name] = LaneExecutor(name, streams, run, DEPTH[name])
    return lanes


def _warm_up(
    lanes: dict[Lane, LaneExecutor],
    table: PartitionTable,
    pace: Pace,
    block_tokens: int,
    num_tokens: int,
) -> None:
    """Run a chunk and a decode step on every stream: libraries make what they need now, and speeds become known."""
    for plan in _warm_up_plans(table):
        scheduler = Scheduler(
            kv_blocks=num_tokens // block_tokens + 4,
            block_tokens=block_tokens,
            max_running=1,
            max_model_len=num_tokens + 8,
            bound=lambda plan, units, decoding: num_tokens,
        )
        request = Request(1, array("I", [1] * num_tokens), array("I"), max_output=3, sampling=SamplingParams())
        scheduler.add(request)
        while list(scheduler.requests):
            for batch in scheduler.schedule(plan, {name: lane.idle for name, lane in lanes.items()}):
                _run_now(lanes[batch.lane], batch, scheduler, pace)
    for lane in lanes.values():
        lane.forget()


def _warm_up_plans(table: PartitionTable) -> Iterable[Plan]:
    total = table.units_total
    yield Plan("shared", total, total, None)
    yield Plan("hybrid", total, total, None)
    for units in table.splits:
        yield Plan("split", units, total - units, None)


def _run_now(lane: LaneExecutor, batch: Batch, scheduler: Scheduler, pace: Pace) -> None:
    lane.enqueue(batch)
    lane.wait()
    for done, result in lane.collect():
        if result.error is not None:
            raise DeviceError(f"the warm-up failed: {result.error}") from result.error
        seconds = (result.ended_ns - result.started_ns) / 1e9
        pace.observe(
            units=done.units, num_decode=done.num_decode, prefill_tokens=done.num_prefill_tokens, seconds=seconds
        )
        scheduler.finish(done, result)


def _describe(config: Config, loaded: LoadedModel, dtype: torch.dtype, max_model_len: int) -> ModelInfo:
    spec = loaded.spec
    return ModelInfo(
        name=spec.name,
        path=config.model.path,
        architecture=spec.architecture,
        dtype=str(dtype).removeprefix("torch."),
        parameters=spec.num_parameters,
        vocab_size=spec.vocab_size,
        max_model_len=max_model_len,
        weights="file" if loaded.weights else "random",
    )
