"""The GPU's way of running batches, with a device that does everything at once: the same tokens as the CPU's way."""

from functools import cache
from typing import Any

import pytest
import torch
from msgspec.structs import replace

from rapid_kernels import Ragged
from rapid_kernels.reference import ReferenceKernels
from rapidd.engine.batch import Batch, Row
from rapidd.engine.decode_inputs import DecodeInputs
from rapidd.engine.gpu_runner import GpuRunner
from rapidd.engine.outcome import Outcome
from rapidd.engine.request import SamplingParams
from rapidd.policy.plan import Plan
from support.rows import decode_row, prompt_row
from support.tiny import MAX_MODEL_LEN, TinyEngine
from support.tiny_gpu import TinyGpuEngine, stand_in_engine

PROMPTS = [[1, 403, 407, 261, 378], [1] + [403, 407, 261, 378] * 20, [1, 268, 400], [1, 300] * 30, [1]]


@cache
def cpu() -> TinyEngine:
    return TinyEngine()


@cache
def gpu() -> TinyGpuEngine:
    return stand_in_engine()


def ids(outcomes: list[list[Outcome]]) -> list[list[int]]:
    return [[outcome.token_id for outcome in of_one] for of_one in outcomes]


GREEDY = SamplingParams()


@cache
def wanted(sampling: SamplingParams = GREEDY) -> list[list[int]]:
    cpu().reset()
    return ids(cpu().generate(PROMPTS, cpu().plans()["hybrid"], sampling=sampling))


def launch_chunks(engine: TinyGpuEngine) -> None:
    """From now on batches with prompt tokens are no graphs."""
    for state in engine.gpu.streams.values():
        state.chunk_graphs.clear()


def watch_mlps(engine: TinyGpuEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every layer's MLP, as they come."""
    seen: list[int] = []
    gated_linear = engine.model.kernels.gated_linear

    def counted(x: torch.Tensor, *arguments: Any) -> torch.Tensor:
        seen.append(len(x))
        return gated_linear(x, *arguments)

    monkeypatch.setattr(engine.model.kernels, "gated_linear", counted)
    return seen


PLANS = ["serial", "serial_all", "hybrid", "shared", "split"]


@pytest.mark.parametrize("plan", PLANS)
def test_every_mode_gives_the_tokens_of_the_cpu(plan: str) -> None:
    gpu().reset()
    assert ids(gpu().generate(PROMPTS, gpu().plans()[plan])) == wanted()


@pytest.mark.parametrize("plan", PLANS)
def test_batches_launched_kernel_by_kernel_give_the_tokens_of_the_cpu(plan: str) -> None:
    engine = stand_in_engine()
    launch_chunks(engine)
    assert ids(engine.generate(PROMPTS, engine.plans()[plan])) == wanted()


@pytest.mark.parametrize("plan", PLANS)
def test_batches_with_few_prompt_tokens_are_graphs(plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GpuRunner, "_eager", None)
    gpu().reset()
    assert ids(gpu().generate(PROMPTS, gpu().plans()[plan])) == wanted()


@pytest.mark.parametrize("captured", [True, False])
def test_the_last_layer_ends_with_one_token_of_each_row(captured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 60 tokens, 16 rows: the prompt's and padding. The layers before it see all of them."""
    engine = stand_in_engine()
    if not captured:
        launch_chunks(engine)
    seen = watch_mlps(engine, monkeypatch)
    assert ids(engine.generate([PROMPTS[3]], engine.plans()["serial_all"], max_output=1)) == [wanted()[3][:1]]
    *before, last = seen[: engine.model.spec.num_layers]
    assert set(before) == {64 if captured else 60}
    assert last == 16


def test_logits_behind_a_graph_with_prompts_are_those_of_a_decode_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were asked for the prompts' batch, by kernels that no start had compiled: on a GPU the first batches beside
    17 rows and beside 33 took 0.7 s."""
    engine = stand_in_engine()
    asked: list[Ragged] = []
    logits = engine.model.logits

    def watched(x: torch.Tensor, residual: torch.Tensor, ragged: Ragged) -> torch.Tensor:
        asked.append(ragged)
        return logits(x, residual, ragged)

    monkeypatch.setattr(engine.model, "logits", watched)
    assert ids(engine.generate(PROMPTS, engine.plans()["hybrid"])) == wanted()
    assert len(asked) >= len(PROMPTS) - 1
    assert {ragged.num_decode - ragged.num_rows for ragged in asked} == {0}


def test_a_decode_step_launched_kernel_by_kernel_has_no_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last layer was padded to 16 rows, which are multiplied by other kernels: a replayed step had other bits."""
    engine = stand_in_engine()
    launch_chunks(engine)
    for state in engine.gpu.streams.values():
        state.graphs.clear()
    seen = watch_mlps(engine, monkeypatch)
    lane = engine.lanes["decode"]
    lane.enqueue(Batch(1, "decode", 4, "hybrid", [decode_row(1, 3, 5), decode_row(2, 7, 5)], 2, 0, 0))
    lane.wait()
    assert set(seen) == {2}


def test_of_a_batch_launched_kernel_by_kernel_each_row_that_samples_has_its_own_token() -> None:
    """Also behind one that does not: a prompt's chunk in the middle of it."""
    engine = stand_in_engine()
    launch_chunks(engine)
    rows = [replace(prompt_row(1, [1] * 30, 3), samples=False), prompt_row(2, PROMPTS[1][:50], 9)]
    assert launched(engine, rows) == launched(engine, rows[1:])


def test_more_prompts_at_once_than_graphs_hold_are_launched_without_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stand_in_engine(max_running=20, kv_blocks=60)
    seen = watch_mlps(engine, monkeypatch)
    tokens = launched(engine, [prompt_row(slot, [1, 300], 2 * slot) for slot in range(1, 18)])
    assert len(tokens) == 17
    assert set(tokens) == set(launched(engine, [prompt_row(1, [1, 300], 2)]))
    *before, last = seen[: engine.model.spec.num_layers]
    assert set(before) == {34}
    assert last == 17


@pytest.mark.parametrize(("num_slots", "rows"), [(1, 17), (40, 56), (1010, 1010), (1024, 1024)])
def test_no_captured_step_or_batch_has_more_rows_than_it_needs(num_slots: int, rows: int) -> None:
    """The GPU's kernels take 1,024."""
    runner = GpuRunner(gpu().model, gpu().cache, num_slots=num_slots, max_model_len=64, current=int)
    assert runner.make_place().hidden.shape[1] == rows


def test_plans_may_change_between_any_two_batches() -> None:
    gpu().reset()
    plans = [*gpu().plans().values(), Plan("split", 2, 2, None)]
    assert ids(gpu().generate(PROMPTS, lambda turn: plans[turn % len(plans)])) == wanted()


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(temperature=1.0, seed=3),
        SamplingParams(temperature=0.8, seed=4, top_k=20, top_p=0.9, min_p=0.01, logprobs=2),
        SamplingParams(frequency_penalty=2.0, repetition_penalty=1.3),
        SamplingParams(min_tokens=12, stop_ids=frozenset([13, 2])),
    ],
)
def test_sampling_gives_the_tokens_of_the_cpu(sampling: SamplingParams) -> None:
    gpu().reset()
    assert ids(gpu().generate(PROMPTS, gpu().plans()["shared"], sampling=sampling)) == wanted(sampling)


def test_in_float32_ids_may_be_banned_of_several_rows_at_once() -> None:
    """On a GPU weights are plain then, and the logits of few rows were a transposed view: the batch failed."""
    engine = stand_in_engine(ReferenceKernels(pack=False))
    sampling = SamplingParams(min_tokens=12, stop_ids=frozenset([13, 2]))
    assert ids(engine.generate(PROMPTS, engine.plans()["hybrid"], sampling=sampling)) == wanted(sampling)


def test_logprobs_come_with_the_rows_that_asked() -> None:
    gpu().reset()
    ((first, *_), *_) = gpu().generate(PROMPTS[:1], gpu().plans()["hybrid"], sampling=SamplingParams(logprobs=3))
    assert first.logprob is not None
    chosen, top = first.logprob
    assert top[0] == (first.token_id, chosen)
    assert len(top) == 3


def test_padding_touches_nobody() -> None:
    """Three rows in a bucket of four: the row that pads writes to row 0 of the table and to block 0 only."""
    engine = stand_in_engine(max_running=6)
    assert engine.gpu.buckets == (1, 2, 4, 6)
    for layer in engine.cache.layers:
        layer.fill_(float("nan"))
    assert ids(engine.generate(PROMPTS[:3], engine.plans()["shared"])) == wanted()[:3]
    written = engine.cache.layers[0].view(200, -1).isfinite().any(1).nonzero().flatten().tolist()
    assert written[0] == 0
    assert len(written) == 1 + 2 + 7 + 2, "block 0, and the blocks of 28, 104 and 26 tokens"
    assert not engine.gpu.token_table()[4:].any(), "slots that nobody had"


def test_a_sequence_may_fill_the_context_to_its_last_token() -> None:
    engine = gpu()
    engine.reset()
    ((*_, last),) = engine.generate([[1] * (MAX_MODEL_LEN - 3)], engine.plans()["shared"], max_output=50)
    assert last.finish == "length"
    assert len(last.request.tokens) == MAX_MODEL_LEN


def test_a_batch_that_runs_out_of_memory_is_the_only_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stand_in_engine()
    logits, calls = engine.model.logits, 0

    def scarce(*arguments: object, **options: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return logits(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.model, "logits", scarce)
    with pytest.raises(torch.OutOfMemoryError):
        engine.generate(PROMPTS[:1], engine.plans()["hybrid"])
    engine.reset()
    assert ids(engine.generate(PROMPTS, engine.plans()["hybrid"])) == wanted()


def test_tables_of_a_batch_that_failed_before_they_were_copied_are_copied_with_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, fill, calls = stand_in_engine(), DecodeInputs.fill, 0

    def scarce(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise MemoryError("no pinned memory")
        fill(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(DecodeInputs, "fill", scarce)
    lane, row = engine.lanes["decode"], replace(decode_row(slot=1, block=3, start=20), blocks=[3, 9])
    for number in (1, 2):
        lane.enqueue(Batch(number, "decode", 4, "hybrid", [row], 1, 0, 0))
    lane.wait()
    (_, first), (_, second) = lane.collect()
    assert isinstance(first.error, MemoryError)
    assert second.error is None
    assert engine.gpu.streams[14].place.block_tables[0, :3].tolist() == [3, 9, 0]


def test_rows_whose_logits_are_not_finite_fail_alone() -> None:
    engine = stand_in_engine()
    for layer in engine.cache.layers:
        layer.fill_(float("nan"))
    # The second row reads five slots that nobody wrote.
    rows = [decode_row(slot=1, block=3, start=0), decode_row(slot=2, block=7, start=5), decode_row(3, 5, 0)]
    lane = engine.lanes["decode"]
    lane.enqueue(Batch(1, "decode", 4, "hybrid", rows, 3, 0, 0))
    lane.wait()
    ((_, result),) = lane.collect()
    assert (result.error, result.failed, result.token_ids[1]) == (None, [1], 0)
    assert result.token_ids[0] == result.token_ids[2] != 0


def launched(engine: TinyGpuEngine, rows: list[Row]) -> list[int]:
    """The tokens of a batch of prompts on all units."""
    lane = engine.lanes["prefill"]
    lane.enqueue(Batch(1, "prefill", 4, "hybrid", rows, 0, sum(row.count for row in rows), 0))
    lane.wait()
    ((_, result),) = lane.collect()
    assert result.error is None
    return result.token_ids
