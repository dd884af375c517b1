"""Makes an engine out of a configuration: device, weights, KV cache, lanes, warm-up.

The one place that knows all parts; each of them knows none of the others' making.
"""

from __future__ import annotations

import math
import os
import secrets
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from msgspec.structs import replace

from rapidctl import __version__
from rapidctl.settings import expand
from rapidctl.wire import ModelInfo
from rapidd import ipc
from rapidd.config import Config
from rapidd.engine.backend import Backend, Report, Sizes
from rapidd.engine.batch import Batch
from rapidd.engine.defaults import WARMUP_OUTPUT
from rapidd.engine.devices import open_backend
from rapidd.engine.identity import profile_key
from rapidd.engine.lanes import LaneExecutor
from rapidd.engine.link import FrontLink
from rapidd.engine.loop import Engine
from rapidd.engine.meter import Meter, Peaks
from rapidd.engine.observe import Limits
from rapidd.engine.request import Lane, Request, SamplingParams
from rapidd.engine.scheduler import Scheduler
from rapidd.engine.timing import load_of
from rapidd.engine.wake import Wake
from rapidd.engine.work import Costs
from rapidd.errors import ConfigError, DeviceError, is_out_of_memory
from rapidd.model.config import ModelSpec
from rapidd.model.llama import Llama, random_weights
from rapidd.model.resolve import LoadedModel, load_model
from rapidd.model.weights import open_weights
from rapidd.paths import RuntimeDir, profile_dir
from rapidd.policy.calibration import Calibration
from rapidd.policy.library import find_profile
from rapidd.policy.override import Control
from rapidd.policy.pace import Pace
from rapidd.policy.plan import Plan
from rapidd.policy.profile import ProfileKey
from rapidd.telemetry.latency import resolve_slo

RANDOM_SEED: Final = 0
PATIENCE: Final = 2.0
"""Times what the warm-up's last batches took together: a single batch that takes longer hangs."""
DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Parts:
    """What computes: a loaded model on a device, its cache and both lanes. Nothing is warmed up yet."""

    backend: Backend
    loaded: LoadedModel
    dtype: torch.dtype
    sizes: Sizes
    model: Llama
    kv_blocks: int
    """Of the cache, block 0 not counted."""
    lanes: dict[Lane, LaneExecutor]
    peaks: Peaks

    @property
    def key(self) -> ProfileKey:
        """What a profile of these parts holds for."""
        return profile_key(self.backend.info, self.loaded.spec, self.dtype, self.sizes.block_tokens)


def assemble(config: Config, backend: Backend, report: Report, *, with_peaks: bool = False) -> Parts:
    """Load the model, size its cache, make the lanes. Raises `RapiddError` for what the configuration cannot have.

    ``with_peaks``: measure first what the device reaches at best.
    """
    defaults = backend.defaults
    loaded = load_model(config.model)
    auto = config.model.dtype == "auto"
    dtype = backend.choose_dtype(loaded.spec.file_dtype) if auto else DTYPES[config.model.dtype]
    sizes = Sizes(
        num_slots=config.engine.max_batch_requests or defaults.max_batch_requests,
        max_model_len=_context(config, loaded.spec, defaults.max_context),
        block_tokens=config.engine.block_tokens or defaults.block_tokens,
    )
    peaks = Peaks()
    if with_peaks:
        report("measuring the device", None)
        peaks = backend.peaks(dtype)
    model = backend.load(lambda device: _load(loaded, dtype, sizes.max_model_len, device, report))
    report("warming up", None)
    kv_blocks = _kv_blocks(config, backend, model, sizes)
    lanes = backend.make_lanes(model, sizes, kv_blocks, report)
    return Parts(backend, loaded, dtype, sizes, model, kv_blocks, lanes, peaks)


def build(config: Config, directory: RuntimeDir, channel: ipc.Channel, report: Report) -> Engine:
    """Everything up to a finished warm-up. Raises `RapiddError` for what the configuration cannot have."""
    wake = Wake()
    backend = open_backend(config.engine, wake.set)
    try:
        control = Control(config.engine.policy, backend.table)
    except ValueError as error:
        raise ConfigError([f"engine.policy: {error}"]) from error
    parts = assemble(config, backend, report, with_peaks=True)
    named = config.policy.profile
    found = find_profile(parts.key, expand(named) if named else None, profile_dir())
    calibration = Calibration(found)
    if (predictor := calibration.predictor()) is not None:
        control.know(predictor)
    limits = Limits(
        slo=resolve_slo(config.slo, backend.info.kind),
        max_chunk_s=config.engine.max_chunk_s or backend.defaults.max_chunk_s,
        max_chunk_tokens=backend.defaults.max_chunk_tokens,
        give_way_s=config.policy.give_way_s,
    )
    scheduler, pace = _make_scheduler(config, parts, calibration, limits)
    patience_s = PATIENCE * _warm_up_lanes(parts, pace)
    for lane in parts.lanes.values():
        lane.forget(Meter(Costs.of(parts.loaded.spec, parts.dtype.itemsize), parts.peaks))
    return Engine(
        hello=_hello(config, parts, scheduler),
        link=FrontLink(directory.engine_endpoint),
        channel=channel,
        scheduler=scheduler,
        lanes=parts.lanes,
        control=control,
        pace=pace,
        calibration=calibration,
        limits=limits,
        wake=wake,
        kv_bytes=(parts.kv_blocks + 1) * parts.model.cache_layout(1, parts.sizes.block_tokens).bytes_per_block,
        memory_used=backend.memory_used,
        config=config,
        patience_s=patience_s,
    )


def _make_scheduler(config: Config, parts: Parts, calibration: Calibration, limits: Limits) -> tuple[Scheduler, Pace]:
    """The scheduler, and the pace that bounds its chunks and knows its load."""
    defaults, sizes, most = parts.backend.defaults, parts.sizes, limits.max_chunk_tokens
    pace = Pace(
        max_chunk_s=limits.max_chunk_s,
        lone_chunk_s=config.engine.max_chunk_s or defaults.lone_chunk_s,
        itl_slo_s=config.slo.itl_s or defaults.itl_slo_s,
        block_tokens=sizes.block_tokens,
        calibration=calibration,
        load=lambda: load_of(scheduler),
    )
    scheduler = Scheduler(
        kv_blocks=parts.kv_blocks + 1,
        block_tokens=sizes.block_tokens,
        max_running=sizes.num_slots,
        max_model_len=sizes.max_model_len,
        bound=lambda plan, units, decoding, context: min(pace.bound(plan, units, decoding, context), most),
        lone_bound=lambda plan, units, context: min(pace.lone_bound(plan, units, context), most),
        max_prompts=defaults.max_prompts,
        key=secrets.token_bytes(16),
        prefix_cache=config.engine.prefix_cache,
    )
    return scheduler, pace


def _hello(config: Config, parts: Parts, scheduler: Scheduler) -> ipc.EngineHello:
    sizes, peaks = parts.sizes, parts.peaks
    return ipc.EngineHello(
        build=__version__,
        boot_id=secrets.token_hex(8),
        pid=os.getpid(),
        model=_describe(config, parts.loaded, parts.dtype, sizes.max_model_len),
        device=replace(parts.backend.info, peak_flops_per_s=peaks.flops_per_s, peak_bytes_per_s=peaks.bytes_per_s),
        max_model_len=sizes.max_model_len,
        kv_block_tokens=sizes.block_tokens,
        kv_blocks=scheduler.pool.total,
        eos_token_ids=list(parts.loaded.spec.eos_token_ids),
    )


def _context(config: Config, spec: ModelSpec, most: int) -> int:
    wanted = config.model.max_model_len
    if wanted is None:
        return min(spec.max_position, most)
    if wanted > spec.max_position:
        raise ConfigError(
            [f"model.max-model-len: {wanted} is more than the {spec.max_position} positions of {spec.name}"]
        )
    return wanted


def _load(loaded: LoadedModel, dtype: torch.dtype, max_positions: int, device: torch.device, report: Report) -> Llama:
    if loaded.weights is None:
        report("making random weights", None)
        weights = random_weights(loaded.spec, dtype, RANDOM_SEED, device)
    else:
        weights = open_weights(loaded.weights, loaded.spec, lambda percent: report("loading weights", percent))
    return Llama(loaded.spec, weights, dtype, device=device, max_positions=max_positions)


def _kv_blocks(config: Config, backend: Backend, model: Llama, sizes: Sizes) -> int:
    """Blocks of the cache, block 0 not counted. Raises ConfigError when one request of full length would not fit."""
    if config.engine.kv_blocks is not None:
        return config.engine.kv_blocks
    needed = math.ceil(sizes.max_model_len / sizes.block_tokens)
    blocks = backend.kv_blocks(model, sizes)
    if blocks < needed:
        raise ConfigError(
            [
                f"model.max-model-len: one request of {sizes.max_model_len} tokens needs {needed} KV blocks and memory "
                f"is there for {max(blocks, 0)}: lower --max-model-len, or set --kv-blocks yourself"
            ]
        )
    return blocks


def _warm_up_lanes(parts: Parts, pace: Pace) -> float:
    """Run every shape of batch once; then tell ``pace`` how long batches take. Seconds of the latter together."""
    backend, lanes, block_tokens = parts.backend, parts.lanes, parts.sizes.block_tokens
    num_tokens = _warm_up_tokens(backend, parts.sizes, parts.kv_blocks)
    first, then = backend.warm_up_plans()
    for length in (num_tokens, *(tail for tail in backend.defaults.warmup_tails if tail < num_tokens)):
        warm_up(lanes, first, None, block_tokens, length)
    began_s = time.monotonic()
    warm_up(lanes, then, pace, block_tokens, num_tokens)
    return time.monotonic() - began_s


def _warm_up_tokens(backend: Backend, sizes: Sizes, kv_blocks: int) -> int:
    """As long a prompt as the context and the cache allow beside its outputs."""
    fits = kv_blocks * sizes.block_tokens - WARMUP_OUTPUT
    return max(1, min(backend.defaults.warmup_tokens, sizes.max_model_len // 2, fits))


def warm_up(
    lanes: dict[Lane, LaneExecutor], plans: Sequence[Plan], pace: Pace | None, block_tokens: int, num_tokens: int
) -> None:
    """Run a chunk and a few decode steps under each plan, one batch at a time; tell ``pace`` how long they took."""
    for plan in plans:
        scheduler = Scheduler(
            kv_blocks=math.ceil((num_tokens + WARMUP_OUTPUT) / block_tokens) + 1,
            block_tokens=block_tokens,
            max_running=1,
            max_model_len=num_tokens + WARMUP_OUTPUT,
            bound=lambda plan, units, decoding, context: num_tokens,
        )
        prompt = array("I", [1] * num_tokens)
        request = Request(1, prompt, array("I"), max_output=WARMUP_OUTPUT, sampling=SamplingParams())
        scheduler.add(request)
        while list(scheduler.requests):
            for batch in scheduler.schedule(plan, {name: lane.idle for name, lane in lanes.items()}):
                _run_now(lanes[batch.lane], batch, scheduler, pace)


def _run_now(lane: LaneExecutor, batch: Batch, scheduler: Scheduler, pace: Pace | None) -> None:
    lane.enqueue(batch)
    lane.wait()
    for done, result in lane.collect():
        if is_out_of_memory(result.error):
            advice = "lower --kv-blocks, --max-model-len or engine.max-batch-requests"
            raise ConfigError([f"engine.kv-blocks: the warm-up ran out of memory: {advice} ({result.error})"])
        if result.error is not None:
            raise DeviceError(f"the warm-up failed: {result.error}") from result.error
        seconds = (result.ended_ns - result.started_ns) / 1e9
        if pace is not None:
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
