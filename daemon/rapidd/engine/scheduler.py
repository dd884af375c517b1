"""Who computes next: continuous batching over two lanes, paged KV with prefix cache, preemption by recompute.

`schedule` turns a plan into batches for the lanes that have room; `finish` takes a batch's result and returns
what became of its requests. One mode is one short function; they share `_decode_rows` and `_chunk_rows`.

Pure bookkeeping on the host: no torch, no clock, no threads; the caller says when a batch is done. The same
object runs under the engine, the simulator and the tests.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from typing import Literal

from rapidd.engine.batch import Batch, BatchResult, Row
from rapidd.engine.defaults import UNBOUNDED
from rapidd.engine.outcome import Drop, Finished, Outcome
from rapidd.engine.request import LANES, Lane, Request
from rapidd.engine.residents import LOOKAHEAD, Residents
from rapidd.errors import is_out_of_memory
from rapidd.policy.plan import Plan
from rapidd.policy.tiles import beside_rows, whole_tiles

SHORT_TOKENS = 21
"""Outputs: of so few every gap counts, of more the slowest twentieth does not."""
SHORT_WEIGHT = 0.05
"""Of the newest request that finished: the last twenty make two thirds of `Scheduler.short_share`."""
NO_IDS = array("I")
"""Of decode rows: nobody changes it."""
NO_MEMORY = "the device ran out of memory in this request's batch"
NOT_FINITE = "the model produced no finite logits for this request"


class Scheduler(Residents):
    """``kv_blocks`` and ``max_running`` size the pools; ``bound`` gives a plan's chunk in tokens, by predicted time.

    ``bound(plan, units, num_decoding, context)`` -> most prompt tokens that a batch may hold now, if all lie behind
    ``context`` cached ones; at least 1, unless the plan's chunk is 0.
    ``lone_bound(plan, units, context)`` -> the same for a batch that ends the prompt of the only request there is.
    A batch holds at most ``max_prompts`` prompts.
    """

    def __init__(
        self,
        *,
        kv_blocks: int,
        block_tokens: int,
        max_running: int,
        max_model_len: int,
        bound: Callable[[Plan, int, int, int], int],
        lone_bound: Callable[[Plan, int, int], int] | None = None,
        key: bytes = b"",
        prefix_cache: bool = True,
        max_prompts: int = UNBOUNDED,
    ) -> None:
        super().__init__(
            kv_blocks=kv_blocks,
            block_tokens=block_tokens,
            max_running=max_running,
            max_model_len=max_model_len,
            key=key,
            prefix_cache=prefix_cache,
        )
        self.short_share = 0.0
        """Of the requests that finished lately, those with fewer than `SHORT_TOKENS` outputs; the newest count most."""
        self.chunk_limit: int | None = None
        """Most prompt tokens of a batch since one ran out of memory, for the rest of this process; null: none did.

        Half of those it had: what a batch takes beyond the weights and the cache grows with them.
        """
        self._max_prompts = max_prompts
        self._bound = bound
        self._lone_bound = lone_bound
        self._turn: Lane = "prefill"
        self._decode_units = 0
        """Of the newest batch on the decode lane."""
        self._other_units = 0
        """Number of the last batch on the decode lane before it that was on other units."""

    # --- forming batches

    def schedule(self, plan: Plan, room: dict[Lane, bool]) -> list[Batch]:
        """Batches to enqueue now, at most one a lane; ``room``: lanes that can take one more."""
        match plan.mode:
            case "serial":
                batch = self._serial(plan, room)
                return [batch] if batch else []
            case "hybrid":
                batch = self._hybrid(plan, room)
                return [batch] if batch else []
            case "shared" | "split":
                return self._concurrent(plan, room)

    def _serial(self, plan: Plan, room: dict[Lane, bool]) -> Batch | None:
        """One chunk (or one whole prompt), then one decode step; never two lanes at once.

        Prompts may have the blocks of decode rows that gave theirs up: nothing else would begin another turn.
        """
        prefill_waits = bool(self._prompts.ordered)
        if self.in_flight("prefill") or (prefill_waits and self.in_flight("decode")):
            return None
        lanes: tuple[Lane, ...] = ("decode", "prefill") if self._turn == "decode" else ("prefill", "decode", "prefill")
        for lane in lanes:
            if not room[lane]:
                continue
            if lane == "decode":
                if rows := self._decode_rows(lane):
                    self._turn = "prefill"
                    return self._batch(lane, plan, plan.decode_units, rows, [])
            else:
                one_prompt = plan.chunk == "all"
                if rows := self._chunk_rows(lane, plan, plan.prefill_units, num_decode=0, one_prompt=one_prompt):
                    self._turn = "decode" if not one_prompt or rows[-1].samples else self._turn
                    return self._batch(lane, plan, plan.decode_units, [], rows)
        return None

    def _hybrid(self, plan: Plan, room: dict[Lane, bool]) -> Batch | None:
        """Decode rows and a chunk in one batch, on the decode lane."""
        if not room["decode"]:
            return None
        decode = self._decode_rows("decode")
        preempted = self.num_preempted
        chunks = self._chunk_rows("decode", plan, plan.decode_units, num_decode=len(decode))
        if self.num_preempted != preempted:
            decode = _still_valid(decode)
        return self._batch("decode", plan, plan.decode_units, decode, chunks) if decode or chunks else None

    def _concurrent(self, plan: Plan, room: dict[Lane, bool]) -> list[Batch]:
        """Each lane its own work. Decode first: its rows take the blocks they need before prompts do.

        The first chunk of a split waits for the decode steps, at most two, that still run on other units: they would
        have to share them with the chunk, and take several times as long.
        """
        batches = []
        if room["decode"] and (rows := self._decode_rows("decode")):
            batches.append(self._batch("decode", plan, plan.decode_units, rows, []))
        if not room["prefill"] or (plan.mode == "split" and self._runs_elsewhere(plan.decode_units)):
            return batches
        if rows := self._chunk_rows("prefill", plan, plan.prefill_units, num_decode=0):
            batches.append(self._batch("prefill", plan, plan.prefill_units, [], rows))
        return batches

    def _runs_elsewhere(self, decode_units: int) -> bool:
        """Whether a batch on the decode lane still runs on other units."""
        last = self._other_units if self._decode_units == decode_units else self.clock.enqueued[0]
        return self.clock.done[0] < last

    def _batch(self, lane: Lane, plan: Plan, units: int, decode: list[Row], chunks: list[Row]) -> Batch:
        index = LANES.index(lane)
        if lane == "decode" and units != self._decode_units:
            self._decode_units, self._other_units = units, self.clock.enqueued[index]
        self.clock.enqueued[index] += 1
        return Batch(
            number=self.clock.enqueued[index],
            lane=lane,
            units=units,
            mode=plan.mode,
            rows=decode + chunks,
            num_decode=len(decode),
            num_prefill_tokens=sum(row.count for row in chunks),
            context=sum(row.start for row in chunks),
        )

    def in_flight(self, lane: Lane) -> bool:
        """Whether a batch of this lane is not seen done yet."""
        index = LANES.index(lane)
        return self.clock.enqueued[index] > self.clock.done[index]

    def _decode_rows(self, lane: Lane) -> list[Row]:
        """One token of every request past its prompt that may go on this lane now.

        Nothing else is done so often: one loop, without keywords, properties, or calls but for those that make a row.
        """
        rows: list[Row] = []
        size = self.pool.block_tokens
        for request in self.running.copy():  # who grows may preempt those behind
            start = request.scheduled
            if start < request.prefill_target or start + 1 >= request.limit:
                continue
            flying = request.flying
            if flying and (flying >= LOOKAHEAD or request.flying_lane != lane):
                continue
            if start >= len(request.blocks) * size and not self._grow(request, start + 1):
                continue
            rows.append(
                Row(
                    request,
                    request.generation,
                    request.slot,
                    start,
                    1,
                    request.blocks,
                    True,  # samples: all tokens before it are known or pending
                    start,
                    NO_IDS,
                    request.prompt_len,
                    request.sampling,
                )
            )
            request.scheduled = start + 1
            request.flying = flying + 1
            request.flying_lane = lane
        self._decode_tokens += len(rows)
        return rows

    def _chunk_rows(
        self, lane: Lane, plan: Plan, units: int, *, num_decode: int, one_prompt: bool = False
    ) -> list[Row]:
        """Prompt tokens of as many requests as fit the chunk.

        Behind a long context fewer tokens take as long, so what is shared out is the chunk's time. Whoever joins others
        takes no more than fills the last tile.
        """
        rows: list[Row] = []
        if not self._prompts.ordered:
            return rows
        left, taken, may_start, least = 1.0, 0, True, -math.inf
        most = 1 if one_prompt else self._max_prompts
        for request in self._in_turn(plan.by_deadline):
            if left <= 0.0 or len(rows) == most:
                break
            if not request.slot:
                if plan.chunk == 0 or (one_prompt and any(r.is_prefill for r in self.running)):
                    break
                if not may_start or request.priority < least:
                    continue
                if plan.by_deadline and self._lacks_room(request):
                    least = max(least, request.priority)
                    continue
                if self._waits_for_prefix(request):
                    continue
                if not self._start(request):
                    may_start = False  # those behind it must not take what it waits for
                    continue
            if request.flying < LOOKAHEAD and request.can_join(lane):
                whole = self._most(plan, units, num_decode, request.scheduled)
                budget = round(left * whole)
                if taken:
                    total = taken + budget
                    budget = (beside_rows(total, num_decode) if num_decode else whole_tiles(total)) - taken
                if budget <= 0:
                    break
                count = self._chunk(request, budget, lane, rows)
                left, taken = left - count / whole, taken + count
        return _still_valid(rows)

    def _most(self, plan: Plan, units: int, num_decode: int, context: int) -> int:
        """Prompt tokens of the next chunk. Nobody's gap is hurt by the last one of a request that is alone."""
        if self._lone_bound is not None and len(self._requests) == 1:
            most = self.limited(self._lone_bound(plan, units, context))
            if self.prefill_tokens <= most:
                return most
        return self.limited(self._bound(plan, units, num_decode, context), num_decode)

    def limited(self, tokens: int, num_decode: int = 0) -> int:
        """So many, or what `chunk_limit` allows; beside decode rows a size without waste again."""
        if self.chunk_limit is None or tokens <= self.chunk_limit:
            return tokens
        return beside_rows(self.chunk_limit, num_decode) if num_decode else self.chunk_limit

    def _chunk(self, request: Request, budget: int, lane: Lane, rows: list[Row]) -> int:
        """Append a row of at most ``budget`` prompt tokens, as many as blocks allow; returns its tokens."""
        count = min(budget, request.prefill_target - request.scheduled)
        if not self._grow(request, request.scheduled + count):
            spare = self.pool.available - self._reserved()
            room = (len(request.blocks) + max(spare, 0)) * self.pool.block_tokens - request.scheduled
            count = min(count, room)
            if count <= 0 or not self._grow(request, request.scheduled + count):
                return 0
        rows.append(self._prompt_row(request, count, lane))
        if request is self._owed:
            self._owed = None
        return count

    def _prompt_row(self, request: Request, count: int, lane: Lane) -> Row:
        start, end = request.scheduled, request.scheduled + count
        # The first chunk also brings what the prefix cache spared: penalties look at the whole sequence.
        known_start = 0 if start == request.cached else start
        row = Row(
            request=request,
            generation=request.generation,
            slot=request.slot,
            start=start,
            count=count,
            blocks=request.blocks,
            samples=end == request.prefill_target,
            known_start=known_start,
            known_ids=request.tokens[known_start:end],
            prompt_len=request.prompt_len,
            sampling=request.sampling,
        )
        request.scheduled = end
        self._prompts.tokens -= count
        if not request.is_prefill:
            self._prompts.remove(request)
            self._num_decoding += 1
            self._decode_tokens += end
        request.flying += 1
        request.flying_lane = lane
        return row

    # --- results

    def finish(self, batch: Batch, result: BatchResult) -> Finished:
        """Take the result of a lane's oldest batch in flight. Rows of an older generation are void."""
        index = LANES.index(batch.lane)
        assert batch.number == self.clock.done[index] + 1, "batches of a lane end in order"
        self.clock.done[index] = batch.number
        done = Finished()
        if is_out_of_memory(result.error):
            self._run_out_of_memory(batch, done)
        elif result.error is not None:
            self._fail(batch, result.error, done)
        else:
            self._take(batch, result, done)
        return done

    def _fail(self, batch: Batch, error: BaseException, done: Finished) -> None:
        """Nothing of it was computed."""
        for row in _still_valid(batch.rows):
            self._retire(row.request)
            done.drops.append(Drop(row.request, "internal_error", f"the forward pass failed: {type(error).__name__}"))

    def _run_out_of_memory(self, batch: Batch, done: Finished) -> None:
        """Nothing of it was computed. Who asked for most ends, the others run again, and no batch is as large again."""
        rows = _still_valid(batch.rows)
        most = max(rows, key=lambda row: (row.count, row.start), default=None)
        for row in rows:
            if row is most:
                self._retire(row.request)
                done.drops.append(Drop(row.request, "out_of_memory", NO_MEMORY))
            else:
                self._preempt(row.request)
        if tokens := batch.num_prefill_tokens:
            self.chunk_limit = self.limited(max(whole_tiles(tokens // 2), self.pool.block_tokens))

    def _take(self, batch: Batch, result: BatchResult, done: Finished) -> None:
        """Rows that were computed, in one loop as when they were made."""
        ids, logprobs, failed, size = result.token_ids, result.logprobs, set(result.failed), self.pool.block_tokens
        sampled = 0
        for row in batch.rows:
            request, position = row.request, sampled
            sampled += row.samples
            if row.generation != request.generation:
                continue
            request.flying -= 1
            request.computed = computed = row.start + row.count
            if failed and row.samples and position in failed:
                self._retire(request)
                done.drops.append(Drop(request, "internal_error", NOT_FINITE))
                continue
            if computed >= (request.published + 1) * size:
                self._publish(request)
            if not row.samples:
                continue
            token_id, tokens, sampling = ids[position], request.tokens, row.sampling
            tokens.append(token_id)
            known = len(tokens)
            finish: Literal["stop", "length"] | None = None
            if token_id in sampling.stop_ids and known - request.prompt_len > sampling.min_tokens:
                finish = "stop"
            elif known >= request.limit or known >= self.max_model_len:
                finish = "length"
            done.outcomes.append(Outcome(request, token_id, finish, logprobs[position] if logprobs else None))
            if finish:
                self.short_share += SHORT_WEIGHT * ((request.num_output < SHORT_TOKENS) - self.short_share)
                self._retire(request)


def _still_valid(rows: list[Row]) -> list[Row]:
    """Without those whose request was preempted while this very batch was formed, by a higher priority, or after.

    The former must not run: their blocks were released under a fence that does not count this batch.
    """
    return [row for row in rows if row.generation == row.request.generation]
