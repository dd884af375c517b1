"""`Runner` for a GPU: turns a batch into work that is enqueued on the current stream, and never waits for the device.

Decode steps, and batches with few prompt tokens, replay a graph that reads static buffers, filled by one copy; every
other batch is launched kernel by kernel. The token table on the device, [slots + 1, max_len], carries ids from batch to
batch, so that a batch can be enqueued before the host has seen what the one before sampled. Row 0 of it, and block 0 of
the cache, are padding's.

Streams that may run at the same time have a `Place` each: nothing static is shared by two of them. Knows no lanes: a
place goes by the handle of the stream that is current.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rapid_kernels import DUMMY_BLOCK, KVCache, Ragged, Scratch, make_ragged
from rapidd import faults
from rapidd.engine import device_sampling
from rapidd.engine.batch import Batch, BatchResult, Row
from rapidd.engine.block_tables import BlockTables
from rapidd.engine.chunk_inputs import ChunkInputs, Size, size_for, sizes
from rapidd.engine.decode_inputs import DecodeInputs
from rapidd.engine.device_stream import Launched
from rapidd.engine.graphs import Capture, Graph, bucket_for, buckets
from rapidd.engine.request import LANES
from rapidd.engine.runner import fill_result, sampling_row
from rapidd.engine.sampling import GREEDY_BELOW, Sampled, SamplingRow
from rapidd.engine.staging import Inputs, Stage, download, upload
from rapidd.errors import is_out_of_memory
from rapidd.model.llama import Llama
from rapidd.policy.tiles import CHUNK_ROWS, MIXED_ROWS, MIXED_TOTALS


@dataclass(slots=True)
class Place:
    """Static memory for streams of which only one works at a time. most_rows: of a captured step or batch."""

    scratch: Scratch | None
    stage: Stage
    block_tables: Tensor
    """[most_rows, width] int32: of the captured batch that runs, gathered by its graph."""
    logits: Tensor
    """[max_rows, vocab_size] float32: of the last decode step."""
    chosen: Tensor
    """[2 * max_rows] int32: as [2, bucket], its ids with the highest logits, then where these are not finite."""
    hidden: Tensor
    """[2, most_rows, hidden_size]: what the last captured batch with prompt tokens left for its rows' logits."""


@dataclass(frozen=True, slots=True)
class ChunkGraph:
    """A captured batch with prompt tokens, up to its last layer."""

    graph: Graph
    ends: Ragged
    """Its rows with one token each. For their logits, which are launched behind it by the kernels of a decode step:
    those were compiled at start."""


@dataclass(slots=True)
class StreamState:
    """What the runner keeps for one stream. ``graphs`` of decode steps by bucket; empty where none ever runs."""

    place: Place
    graphs: dict[int, Graph] = field(default_factory=dict)
    chunk_graphs: dict[Size, ChunkGraph] = field(default_factory=dict)


class GpuRunner:
    """``num_slots`` sequences of at most ``max_model_len`` tokens over one model and one cache.

    ``current``: the handle of the current stream, for `streams`.
    """

    def __init__(
        self,
        model: Llama,
        cache: KVCache,
        *,
        num_slots: int,
        max_model_len: int,
        current: Callable[[], int] = lambda: torch.cuda.current_stream().cuda_stream,
    ) -> None:
        self.streams: dict[int, StreamState] = {}
        self.buckets = buckets(num_slots)
        self._model = model
        self._cache = cache
        self._num_slots = num_slots
        self._max_model_len = max_model_len
        self._current = current
        self._block_tokens = cache.layout.block_tokens
        self._width = -(-max_model_len // self._block_tokens)
        # One column more: a last token is sampled at position max_model_len - 1, a lookahead row one behind it.
        self._stride = max_model_len + len(LANES)
        self._tokens = torch.zeros((num_slots + 1, self._stride), dtype=torch.int32, device=model.device)
        self._inputs = {rows: DecodeInputs(rows, self._stride) for rows in self.buckets}
        self.chunk_sizes, self.mixed_sizes = sizes(num_slots, mixed=False), sizes(num_slots, mixed=True)
        """To capture on streams that take prompt chunks only, and on the one that takes mixed batches."""
        self._chunk_inputs = {size: ChunkInputs(size, self._stride) for size in self.mixed_sizes}
        # Of a decode step, or of the rows that a captured batch ends with.
        self._most_rows = max(num_slots, CHUNK_ROWS + max(decode for decode, _ in self.mixed_sizes))
        # What a graph reads lives as long as the graph.
        self._query_start = torch.arange(self._most_rows + 1, dtype=torch.int32, device=model.device)

    # --- at start

    def make_place(self) -> Place:
        """Memory for a stream, or for several that take turns. Raises torch's OutOfMemoryError."""
        device, rows, most = self._model.device, self._num_slots, self._most_rows
        spec = self._model.spec
        scratch = self._model.kernels.make_scratch(
            self._cache.layout, max_rows=most, max_tokens=rows * self._max_model_len, device=device
        )
        tables = BlockTables(rows, self._width, self._block_tokens, device)
        every: list[Inputs] = [*self._inputs.values(), *self._chunk_inputs.values()]
        return Place(
            scratch=scratch,
            stage=Stage(tables, max(inputs.nbytes for inputs in every)),
            block_tables=torch.zeros((most, self._width), dtype=torch.int32, device=device),
            logits=torch.empty((rows, spec.vocab_size), device=device),
            chosen=torch.zeros(2 * rows, dtype=torch.int32, device=device),
            hidden=torch.empty((2, most, spec.hidden_size), dtype=self._model.dtype, device=device),
        )

    @torch.inference_mode()
    def capture(self, rows: int, units: int, capture: Capture) -> None:
        """Capture the decode step of a bucket on the current stream, with padding in every row."""
        state = self.streams[self._current()]
        state.place.stage.bring(self._inputs[rows], [], 0)
        step = self._decode_step(state.place, rows, units)
        state.graphs[rows] = capture(step)

    def _decode_step(self, place: Place, rows: int, units: int) -> Callable[[], None]:
        """A step of so many rows, from the place's inputs to the token table, its logits and its choice."""
        positions, slot_mapping, source, kv_lens, cells = self._inputs[rows].parts(place.stage.buffer)
        tables, block_tables = place.stage.tables, place.block_tables[:rows]
        tokens = self._tokens.view(-1)
        behind = tokens[1:]  # where an output goes, by the place of its input
        logits, chosen = place.logits[:rows], place.chosen[: 2 * rows].view(2, rows)

        def step() -> None:
            tables.gather(cells, block_tables)
            ragged = self._one_token_each(positions, slot_mapping, block_tables, kv_lens, units, place)
            token_ids = tokens.index_select(0, source).long()
            x, residual = self._model.hidden(token_ids, ragged, self._cache)
            raw = self._model.raw_logits(x, residual, ragged)
            self._model.kernels.choose(raw, logits, chosen, behind, source, ragged)

        return step

    def _one_token_each(
        self, positions: Tensor, slot_mapping: Tensor, block_tables: Tensor, kv_lens: Tensor, units: int, place: Place
    ) -> Ragged:
        """Rows of one token, of which the host knows nothing but the number."""
        rows = len(kv_lens)
        return Ragged(
            positions=positions,
            slot_mapping=slot_mapping,
            block_tables=block_tables,
            query_start=self._query_start[: rows + 1],
            query_start_cpu=list(range(rows + 1)),
            kv_lens=kv_lens,
            kv_lens_cpu=[1] * rows,
            block_tokens=self._block_tokens,
            units=units,
            scratch=place.scratch,
        )

    @torch.inference_mode()
    def capture_chunk(self, size: Size, units: int, capture: Capture) -> None:
        """Capture batches of up to so many decode rows and prompt tokens on the current stream, with padding alone."""
        state = self.streams[self._current()]
        inputs, place = self._chunk_inputs[size], state.place
        stage = place.stage
        stage.bring(inputs, [], 0)
        positions, slot_mapping, source, query_start, kv_lens, cells = inputs.parts(stage.buffer)
        block_tables = place.block_tables[: inputs.rows]
        # The host's lengths: the decode rows, then as if all prompt tokens were of one row.
        ragged = Ragged(
            positions=positions,
            slot_mapping=slot_mapping,
            block_tables=block_tables,
            query_start=query_start,
            query_start_cpu=[*range(inputs.decode + 1), *[inputs.tokens] * CHUNK_ROWS],
            kv_lens=kv_lens,
            kv_lens_cpu=[1] * inputs.decode + [inputs.chunk] * CHUNK_ROWS,
            block_tokens=self._block_tokens,
            units=units,
            scratch=place.scratch,
        )
        tokens, hidden = self._tokens.view(-1), place.hidden[:, : inputs.rows]

        def step() -> None:
            stage.tables.gather(cells, block_tables)
            token_ids = tokens.index_select(0, source).long()
            last = (query_start[1:].long() - 1).clamp_(min=0)  # of padding, any token
            ends = self._one_token_each(positions[last], slot_mapping[last], block_tables, kv_lens, units, place)
            results = self._model.hidden(token_ids, replace(ragged, derived={}), self._cache, (last, ends))
            for kept, result in zip(hidden, results, strict=True):
                kept.copy_(result)

        first = positions[: inputs.rows], slot_mapping[: inputs.rows]  # for logits any position will do
        ends = self._one_token_each(*first, block_tables, kv_lens, units, place)
        state.chunk_graphs[size] = ChunkGraph(capture(step), ends)

    @torch.inference_mode()
    def launch_mixed(self, units: int) -> None:
        """Launch longer chunks than are captured beside few decode rows, all padding, kernel by kernel.

        Those come while serving, behind rows in any power of two; what they take is compiled now.
        """
        place, tokens = self.streams[self._current()].place, min(2 * MIXED_TOTALS[-1], self._max_model_len)
        for rows in (1 << power for power in range(MIXED_ROWS[0].bit_length())):
            counts = [*[1] * rows, tokens]
            ragged = make_ragged(
                counts,
                counts,
                [*[[DUMMY_BLOCK]] * rows, [DUMMY_BLOCK] * -(-tokens // self._block_tokens)],
                self._block_tokens,
                units,
                device=self._model.device,
                scratch=place.scratch,
            )
            token_ids = torch.zeros(sum(counts), dtype=torch.int64, device=self._model.device)
            self._model.hidden(token_ids, ragged, self._cache)

    def token_table(self) -> Tensor:
        """For tests: [slots + 1, max_len] int32."""
        return self._tokens

    # --- while serving

    def launch(self, batch: Batch) -> BatchResult:
        """Enqueue a batch on the current stream. Never raises: an error is part of the result."""
        try:
            faults.hit("engine.step")
            return self._launch(batch)
        except Exception as error:  # of this batch alone: its stream goes on behind what was enqueued
            self.streams[self._current()].place.stage.tables.forget()  # what was to be written may not be there
            if is_out_of_memory(error):
                traceback.clear_frames(error.__traceback__)  # they hold the memory that was still had
                torch.cuda.empty_cache()
            return BatchResult(error=error)

    @torch.inference_mode()
    def _launch(self, batch: Batch) -> Launched:
        state = self.streams[self._current()]
        if state.graphs and batch.kind == "decode":
            return self._decode(batch.rows, state)
        size = size_for(batch, list(state.chunk_graphs))
        if size is not None:
            return self._chunk(batch, state.place, self._chunk_inputs[size], state.chunk_graphs[size])
        return self._eager(batch, state.place)

    def _decode(self, rows: Sequence[Row], state: StreamState) -> Launched:
        """Replay the graph; rows that need more than the highest logit are then sampled from the logits it left."""
        place, n = state.place, len(rows)
        bucket = bucket_for(n, self.buckets)
        inputs = self._inputs[bucket]
        place.stage.bring(inputs, rows, n)
        state.graphs[bucket].replay()
        if all(map(takes_highest, rows)):
            return _chosen(place.chosen[: 2 * bucket], n)
        source = inputs.parts(place.stage.buffer).source[:n]
        return self._sample(place.logits[:n], [sampling_row(row) for row in rows], source + 1)

    def _chunk(self, batch: Batch, place: Place, inputs: ChunkInputs, captured: ChunkGraph) -> Launched:
        """Replay the graph of the layers; launch the logits of the rows that sample."""
        rows = batch.rows
        sampling = [index for index, row in enumerate(rows) if row.samples]
        known, known_at = _known(rows, self._stride)
        places = inputs.places(len(rows), batch.num_decode)[sampling]
        ids, ids_at, at, target = upload((known, known_at, places, self._after(rows, sampling)), self._model.device)
        self._tokens.view(-1).index_copy_(0, ids_at, ids)
        place.stage.bring(inputs, rows, batch.num_decode)
        captured.graph.replay()
        if not sampling:
            return Launched()
        x, residual = place.hidden.index_select(1, at)
        logits = self._model.logits(x, residual, captured.ends)
        return self._sample(logits, [sampling_row(rows[index]) for index in sampling], target)

    def _after(self, rows: Sequence[Row], sampling: Sequence[int]) -> NDArray[np.int64]:
        """Where the tokens that these rows sample belong in the flat token table."""
        return np.array([rows[i].slot * self._stride + rows[i].start + rows[i].count for i in sampling], np.int64)

    def _eager(self, batch: Batch, place: Place) -> Launched:
        rows, device = batch.rows, self._model.device
        flat = self._tokens.view(-1)
        sampling = [index for index, row in enumerate(rows) if row.samples]
        known, known_at = _known(rows, self._stride)
        ends = np.cumsum([row.count for row in rows])
        base = np.repeat([row.slot * self._stride for row in rows], [row.count for row in rows])
        after = self._after(rows, sampling)
        alone = self._alone(batch, sampling, place)
        last = np.zeros(len(sampling) if alone is None else alone.num_rows, np.int64)
        last[: len(sampling)] = ends[sampling] - 1
        ids, ids_at, bases, last_at, target = upload((known, known_at, base, last, after), device)
        flat.index_copy_(0, ids_at, ids)
        ragged = make_ragged(
            [row.count for row in rows],
            [row.start + row.count for row in rows],
            [row.blocks for row in rows],
            self._block_tokens,
            batch.units,
            device=device,
            scratch=place.scratch,
        )
        token_ids = flat[bases + ragged.positions].long()
        logits = self._model.forward(token_ids, ragged, self._cache, last_at, alone)
        if not sampling:
            return Launched()
        return self._sample(logits[: len(sampling)], [sampling_row(rows[index]) for index in sampling], target)

    def _alone(self, batch: Batch, sampling: Sequence[int], place: Place) -> Ragged | None:
        """The last tokens of the rows that sample, as a batch of their own, and padding up to `CHUNK_ROWS` rows.

        So many rows ran on every stream when graphs were captured, and more as decode steps: nothing is compiled now.
        None of a decode step, and without rows.
        """
        rows = [batch.rows[index] for index in sampling]
        padding = CHUNK_ROWS - len(rows)
        if not rows or not batch.num_prefill_tokens:
            return None
        return make_ragged(
            [1] * max(len(rows), CHUNK_ROWS),
            [row.start + row.count for row in rows] + [1] * padding,
            [*(row.blocks for row in rows), *[[DUMMY_BLOCK]] * padding],
            self._block_tokens,
            batch.units,
            device=self._model.device,
            scratch=place.scratch,
        )

    def _sample(self, logits: Tensor, rows: Sequence[SamplingRow], target: Tensor) -> Launched:
        """Sample, write the ids to the flat token table at ``target``, and bring them to the host."""
        sampled = device_sampling.sample(logits, rows, self._tokens)
        self._tokens.view(-1).index_copy_(0, target, sampled.ids.int())
        host = Sampled(
            ids=download(sampled.ids),
            failed=download(sampled.failed),
            logprob_rows=sampled.logprob_rows,
            logprobs=_download_if(sampled.logprobs),
            top_ids=_download_if(sampled.top_ids),
            top_logprobs=_download_if(sampled.top_logprobs),
        )
        return Launched(fetch=lambda result: fill_result(host.to_host(), result))


def _download_if(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else download(tensor)


def takes_highest(row: Row) -> bool:
    """Whether the highest logit is the row's next token, and all that is asked for."""
    params = row.sampling
    if params.temperature >= GREEDY_BELOW or params.logprobs is not None:
        return False
    if params.repetition_penalty != 1.0 or params.presence_penalty != 0.0 or params.frequency_penalty != 0.0:
        return False
    return not params.stop_ids or row.start + row.count - row.prompt_len >= params.min_tokens


def _chosen(chosen: Tensor, num_rows: int) -> Launched:
    """Ids and failures of a greedy step's first rows, from [2 * bucket] on the device."""
    host = download(chosen)

    def fetch(result: BatchResult) -> None:
        ids, failed = host.view(2, -1)[:, :num_rows].tolist()
        result.token_ids = ids
        result.failed = [index for index, flag in enumerate(failed) if flag]

    return Launched(fetch=fetch)


def _known(rows: Sequence[Row], stride: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Ids [n] int32 that the host brings, and where [n] int64 they belong in the flat token table."""
    with_ids = [row for row in rows if row.known_ids]
    if not with_ids:
        return np.empty(0, np.int32), np.empty(0, np.int64)
    ids = [np.frombuffer(row.known_ids, np.uint32).astype(np.int32) for row in with_ids]
    places = [
        np.arange(len(part), dtype=np.int64) + (row.slot * stride + row.known_start)
        for row, part in zip(with_ids, ids, strict=True)
    ]
    return np.concatenate(ids), np.concatenate(places)
