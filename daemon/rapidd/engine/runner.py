"""Turns a batch into tensors, runs the model and samples: the only place where the scheduler's plain data meets torch.

The token table on the device, [slots, max_len] int32, holds every running sequence: a batch first writes the ids the
host knows, reads its inputs from it, and writes what it samples, so that the next batch can be enqueued before the
host has seen them. One runner serves both lanes at once: nothing is kept between calls, rows own their slots.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from rapid_kernels import KVCache, Ragged, make_ragged
from rapidd import faults
from rapidd.engine.batch import Batch, BatchResult, Row
from rapidd.engine.request import LANES
from rapidd.engine.sampling import SampledToken, SamplingRow, sample
from rapidd.model.llama import Llama


class Runner:
    """``num_slots`` sequences of at most ``max_model_len`` tokens, over one model and one cache."""

    def __init__(
        self,
        model: Llama,
        cache: KVCache,
        *,
        num_slots: int,
        max_model_len: int,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._model = model
        self._cache = cache
        # One column more: a last token is sampled at position max_model_len - 1, a lookahead row one behind it.
        self._tokens = torch.zeros((num_slots + 1, max_model_len + len(LANES)), dtype=torch.int32)
        self._clock = clock

    def run(self, batch: Batch) -> BatchResult:
        """Execute a batch on the calling thread. Never raises: an error is part of the result."""
        result = BatchResult(started_ns=self._clock())
        try:
            self._run(batch, result)
        except Exception as error:  # a worker's boundary: nothing above it could report
            result.error = error
        result.ended_ns = self._clock()
        return result

    @torch.inference_mode()
    def _run(self, batch: Batch, result: BatchResult) -> None:
        faults.hit("engine.step")
        rows = batch.rows
        for row in rows:
            if row.known_ids:
                known = torch.from_numpy(np.frombuffer(row.known_ids, np.uint32).astype(np.int32))
                self._tokens[row.slot, row.known_start : row.known_start + len(known)] = known
        ragged = make_ragged(
            [row.count for row in rows],
            [row.start + row.count for row in rows],
            [row.blocks for row in rows],
            self._cache.layout.block_tokens,
            batch.units,
        )
        slots = torch.tensor([row.slot for row in rows])
        ends = ragged.query_start[1:].long()
        lengths = torch.diff(ragged.query_start)
        token_ids = self._tokens[slots.repeat_interleave(lengths), ragged.positions].long()
        sampling = [index for index, row in enumerate(rows) if row.samples]
        alone = self._alone([rows[index] for index in sampling], batch.units) if batch.num_prefill_tokens else None
        logits = self._model.forward(token_ids, ragged, self._cache, ends[sampling] - 1, ends=alone)
        if not sampling:
            return
        sampled = sample(logits, [sampling_row(rows[index]) for index in sampling], self._tokens)
        positions = ragged.kv_lens[sampling].long()
        self._tokens[slots[sampling], positions] = sampled.ids.int()
        fill_result(sampled.to_host(), result)

    def _alone(self, rows: Sequence[Row], units: int) -> Ragged | None:
        """The last tokens of rows as a batch of their own; none without rows."""
        if not rows:
            return None
        lengths = [row.start + row.count for row in rows]
        blocks = [row.blocks for row in rows]
        return make_ragged([1] * len(rows), lengths, blocks, self._cache.layout.block_tokens, units)


def sampling_row(row: Row) -> SamplingRow:
    """What the sampler needs to know of a row whose last token yields the next one."""
    params = row.sampling
    length = row.start + row.count
    early = length - row.prompt_len < params.min_tokens
    return SamplingRow(
        slot=row.slot,
        prompt_len=row.prompt_len,
        length=length,
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        seed=params.seed,
        choice=params.choice,
        banned_ids=tuple(params.stop_ids) if early else (),
        logprobs=params.logprobs,
    )


def fill_result(tokens: list[SampledToken], result: BatchResult) -> None:
    """Put sampled tokens into a batch's result."""
    result.token_ids = [token.token_id for token in tokens]
    result.failed = [index for index, token in enumerate(tokens) if token.failed]
    result.logprobs = [None if token.logprob is None else (token.logprob, token.top or []) for token in tokens]
