"""The engine on a real GPU, with the test model in bfloat16: lanes, graphs, partitions, memory."""

import gc
import socket
from array import array
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random

import pytest
import torch

from rapidctl.wire import Mode
from rapidd import ipc
from rapidd.config import Config, EngineConfig, ModelConfig
from rapidd.engine.batch import Batch, BatchResult, Row
from rapidd.engine.build import build
from rapidd.engine.gpu_runner import StreamState
from rapidd.engine.gpu_streams import GpuStreams, open_streams
from rapidd.engine.outcome import Outcome
from rapidd.engine.request import Lane, Request, SamplingParams
from rapidd.errors import ConfigError, DeviceError
from rapidd.model.llama import Llama
from rapidd.paths import RuntimeDir
from rapidd.policy.plan import Plan
from support.tiny import MAX_MODEL_LEN, MODEL
from support.tiny_gpu import TinyGpuEngine, forced_logits, gpu_engine, tiny_llama

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available() or torch.version.hip is not None, reason="no CUDA device"),
]

BLOCK_TOKENS = 64
KV_BLOCKS = 200
TOLERANCE = 0.3
"""Of a float32 logit under the highest, for a token chosen in bfloat16; logits of this model reach about 20."""
PROMPTS = [[1, 403, 407, 261, 378], [1] + [403, 407, 261, 378] * 40, [1, 268, 400], [1, 300] * 90, [1]]
WATCHED = SamplingParams(logprobs=5)
"""Log-probabilities show whether two runs agree in every bit, or only in what they chose."""


@cache
def streams() -> GpuStreams:
    return open_streams("cuda", 0, None)


@cache
def engine() -> TinyGpuEngine:
    """Graphs on the stream of all SMs and on every split's."""
    return gpu_engine(tiny_llama(torch.bfloat16, "cuda"), streams(), BLOCK_TOKENS, KV_BLOCKS)


@pytest.fixture(autouse=True)
def an_empty_scheduler() -> Iterator[None]:
    engine().reset()
    yield
    torch.cuda.synchronize()


# --- the same tokens


def assert_chosen_by_float32(outcomes: Sequence[Sequence[Outcome]], prompts: Sequence[Sequence[int]]) -> None:
    """Teacher forcing: a float32 run over prompt and output finds every output token among the highest."""
    model = _float32()
    for of_one, prompt in zip(outcomes, prompts, strict=True):
        output = [outcome.token_id for outcome in of_one]
        logits = forced_logits(model, prompt, output)
        chosen = logits.gather(1, torch.tensor(output)[:, None])[:, 0]
        assert ((logits.max(1).values - chosen) < TOLERANCE).all()


@cache
def _float32() -> Llama:
    return tiny_llama(torch.float32, "cpu")


def plans() -> dict[str, Plan]:
    total = engine().table.units_total
    splits = {f"split {n}": Plan("split", n, total - n, None) for n in engine().table.splits}
    return {name: plan for name, plan in engine().plans().items() if name != "split"} | splits


MODES = ["serial", "serial_all", "hybrid", "shared", *(f"split {units}" for units in (16, 24, 32, 40, 48, 64))]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_what_a_float32_run_gives(mode: str) -> None:
    if mode not in plans():
        pytest.skip(f"no {mode} on this device: {sorted(plans())}")
    outcomes = engine().generate(PROMPTS, plans()[mode], max_output=60)
    assert_chosen_by_float32(outcomes, PROMPTS)
    assert all(len(of_one) == 60 for of_one in outcomes)
    assert engine().lanes["decode"].stats(engine().table.units_total).busy_decode_s_total > 0


def test_plans_may_change_between_any_two_batches() -> None:
    changing = list(plans().values())
    outcomes = engine().generate(PROMPTS, lambda turn: changing[turn % len(changing)], max_output=60)
    assert_chosen_by_float32(outcomes, PROMPTS)


def test_the_lanes_run_at_the_same_time() -> None:
    split = next(plan for name, plan in plans().items() if name.startswith("split"))
    random = Random(1)
    prompts = [[1, *(random.randrange(3, 500) for _ in range(random.randrange(1, 300)))] for _ in range(16)]
    assert_chosen_by_float32(engine().generate(prompts, split, max_output=40), prompts)
    assert engine().max_overlap == 2


def test_seeded_sampling_repeats() -> None:
    sampling = SamplingParams(temperature=0.9, top_p=0.9, top_k=40, seed=5, logprobs=2)
    runs = []
    for _ in range(2):
        engine().reset()
        outcomes = engine().generate(PROMPTS, plans()["serial"], sampling=sampling)
        runs.append([[(outcome.token_id, outcome.logprob) for outcome in of_one] for of_one in outcomes])
    assert runs[0] == runs[1]


def test_in_float32_plain_torch_gives_what_a_cpu_gives() -> None:
    """On both lanes at once, with ids that are banned of several rows."""
    engine = gpu_engine(tiny_llama(torch.float32, "cuda"), streams(), BLOCK_TOKENS, KV_BLOCKS)
    sampling = SamplingParams(min_tokens=12, stop_ids=frozenset([13, 2]))
    outcomes = engine.generate(PROMPTS, engine.plans()["shared"], sampling=sampling)
    for prompt, of_one in zip(PROMPTS, outcomes, strict=True):
        output = [outcome.token_id for outcome in of_one]
        logits = forced_logits(_float32(), prompt, output).clone()  # made in inference mode
        logits[:12, list(sampling.stop_ids)] = -torch.inf
        chosen = logits.gather(1, torch.tensor(output)[:, None])[:, 0]
        assert ((logits.max(1).values - chosen) < 0.01).all()


# --- graphs


def run(lane: Lane, *batches: Batch) -> list[BatchResult]:
    """The results of batches that are enqueued one behind the other."""
    executor = engine().lanes[lane]
    for batch in batches:
        executor.enqueue(batch)
    return collect(lane)


def collect(lane: Lane) -> list[BatchResult]:
    executor = engine().lanes[lane]
    executor.wait()
    results = [result for _, result in executor.collect()]
    for result in results:
        if result.error is not None:
            raise result.error
    return results


def fill_cache() -> None:
    """Sequences that nobody computed: random keys and values in every block, random ids in every slot."""
    generator = torch.Generator("cuda").manual_seed(1)
    for layer in engine().cache.layers:
        layer.normal_(generator=generator)
    engine().gpu.token_table().random_(3, 500, generator=generator)
    torch.cuda.synchronize()


def decode_rows(count: int) -> list[Row]:
    """One token of ``count`` sequences of up to 448 tokens, each with blocks of its own."""
    random = Random(count)
    rows = []
    for slot in range(1, count + 1):
        start = random.randrange(7 * BLOCK_TOKENS)
        request = Request(slot, array("I", [1] * (start + 1)), array("I"), max_output=9, sampling=WATCHED)
        blocks = list(range(1 + 7 * (slot - 1), 2 + 7 * (slot - 1) + start // BLOCK_TOKENS))
        rows.append(Row(request, 0, slot, start, 1, blocks, True, start, array("I"), start + 1, WATCHED))
    return rows


def decode_batch(rows: list[Row], units: int) -> Batch:
    mode: Mode = "hybrid" if units == engine().table.units_total else "split"
    return Batch(1, "decode", units, mode, rows, len(rows), 0, 0)


@pytest.mark.parametrize("units", [0, 16, 32], ids=["all", "16", "32"])
def test_a_replayed_step_is_a_launched_one(units: int) -> None:
    """With a full bucket both run the same kernels on the same numbers; padding may choose another tile."""
    units = units or engine().table.units_total
    if units not in streams().decode:
        pytest.skip(f"no split of {units} on this device")
    fill_cache()
    handle = streams().decode[units].cuda_stream
    captured = engine().gpu.streams[handle]
    for rows in range(1, engine().gpu.buckets[-1] + 1):
        batch = decode_batch(decode_rows(rows), units)
        (replayed,) = run("decode", batch)
        engine().gpu.streams[handle] = StreamState(captured.place)
        (launched,) = run("decode", batch)
        engine().gpu.streams[handle] = captured
        if rows in engine().gpu.buckets:
            assert (replayed.token_ids, replayed.logprobs) == (launched.token_ids, launched.logprobs), rows
        for one, other in zip(replayed.logprobs, launched.logprobs, strict=True):
            assert one is not None
            assert other is not None
            assert abs(one[0] - other[0]) < TOLERANCE


# --- two lanes


def test_two_lanes_at_once_give_the_bits_of_each_alone() -> None:
    split = next((plan for plan in plans().values() if plan.mode == "split"), None)
    if split is None:
        pytest.skip(f"no split: {engine().table.unsupported}")
    fill_cache()
    steps = decode_batch(decode_rows(8), split.decode_units)
    prompt = array("I", [1] + [403, 407, 261] * 130)
    request = Request(9, prompt, array("I"), max_output=9, sampling=WATCHED)
    blocks = list(range(100, 107))
    row = Row(request, 0, 9, 0, len(prompt), blocks, True, 0, prompt, len(prompt), WATCHED)
    chunk = Batch(1, "prefill", split.prefill_units, "split", [row], 0, len(prompt), 0)
    (step_alone,), (chunk_alone,) = run("decode", steps), run("prefill", chunk)
    for _ in range(30):
        for batch in (chunk, steps, chunk, steps):
            engine().lanes[batch.lane].enqueue(batch)
        for result in collect("decode"):
            assert (result.token_ids, result.logprobs) == (step_alone.token_ids, step_alone.logprobs)
        for result in collect("prefill"):
            assert (result.token_ids, result.logprobs) == (chunk_alone.token_ids, chunk_alone.logprobs)


# --- memory


def test_a_batch_that_runs_out_of_memory_is_the_only_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, calls = engine().model.logits, 0

    def greedy(*arguments: object, **options: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 1:
            torch.empty(1 << 45, dtype=torch.uint8, device="cuda")
        return logits(*arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(engine().model, "logits", greedy)  # which is not part of a chunk's graph
        with pytest.raises(torch.OutOfMemoryError):
            engine().generate(PROMPTS[:1], plans()["hybrid"])
    engine().settle()
    engine().reset()
    assert_chosen_by_float32(engine().generate(PROMPTS, plans()["hybrid"]), PROMPTS)


# --- the whole assembly


def build_engine(tmp_path: Path, **settings: object) -> list[str]:
    """What `build` reports on its way; raises what it raises."""
    directory = RuntimeDir(f"ipc://{tmp_path}/request.sock")
    directory.prepare()
    ours, theirs = socket.socketpair()
    config = Config(
        model=ModelConfig(path=str(MODEL), max_model_len=MAX_MODEL_LEN),
        engine=EngineConfig(device="cuda", max_batch_requests=8, **settings),  # type: ignore[arg-type]
    )
    reports: list[str] = []
    with ours:
        made = build(config, directory, ipc.Channel(theirs), lambda detail, percent: reports.append(detail))
        reports.append(made.summary)
        made._link.close()
        made._channel.close()
    return reports


def test_the_assembly_of_an_engine(tmp_path: Path) -> None:
    reports = build_engine(tmp_path, kv_blocks=100)
    assert "capturing graphs" in reports
    assert any("graphs in" in report and "MiB" in report for report in reports)
    assert reports[-1].endswith(f"{streams().table.units_total} SMs of cuda, bfloat16")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"compute_units": 10_000}, DeviceError, "10000 compute units were asked for"),
        ({"kv_blocks": 1 << 40}, ConfigError, "lower --kv-blocks"),
        ({"block_tokens": 24, "kv_blocks": 100}, ConfigError, "block_tokens must be a power of two"),
    ],
)
def test_settings_that_the_device_cannot_have(
    tmp_path: Path, settings: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build_engine(tmp_path, **settings)


def test_memory_left_for_the_cache_is_measured(tmp_path: Path) -> None:
    """Without --kv-blocks: the cache takes what is free but for what serving needs, and the engine still fits."""
    free, _ = torch.cuda.mem_get_info()
    reports = build_engine(tmp_path)
    left, _ = torch.cuda.mem_get_info()
    assert left < free - (2 << 30)
    assert reports
    gc.collect()
    torch.cuda.empty_cache()
