"""Who computes next: continuous batching over two lanes, paged KV with prefix cache, preemption by recompute.

`schedule` turns a plan into batches for the lanes that have room; `finish` takes a batch's result and returns
what became of its requests. One mode is one short function; they share `_decode_rows` and `_chunk_rows`.

Pure bookkeeping on the host: no torch, no clock, no threads; the caller says when a batch is done. The same
object runs under the engine, the simulator and the tests.
"""

from __future__ import annotations

from array import array
from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct

from rapidctl.wire import ErrorCode
from rapidd.engine.batch import Batch, BatchResult, Row
from rapidd.engine.blocks import BlockPool, LaneClock
from rapidd.engine.prompts import Prompts
from rapidd.engine.request import LANES, Lane, Request
from rapidd.errors import RequestError
from rapidd.policy.plan import Plan

LOOKAHEAD = 2
"""Batches of one request that may be in flight: the running one and the one enqueued before its tokens are seen."""
RESERVED_STEPS = 2
"""Decode steps whose blocks a prefill must leave to the rows that are decoding."""
SHORT_TOKENS = 21
"""Outputs: of so few every gap counts, of more the slowest twentieth does not."""
SHORT_WEIGHT = 0.05
"""Of the newest request that finished: the last twenty make two thirds of `Scheduler.short_share`."""
NO_IDS = array("I")
"""Of decode rows: nobody changes it."""


class Outcome(Struct, gc=False):
    """One sampled token the host now knows; ``finish`` with the request's last one."""

    request: Request
    token_id: int
    finish: Literal["stop", "length"] | None
    logprob: tuple[float, list[tuple[int, float]]] | None


@dataclass(slots=True)
class Drop:
    """A request that ends without a last token."""

    request: Request
    code: ErrorCode
    message: str


@dataclass(slots=True)
class Finished:
    """What a done batch led to."""

    outcomes: list[Outcome] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)


class Scheduler:
    """``kv_blocks`` and ``max_running`` size the pools; ``bound`` gives a plan's chunk in tokens, by predicted time.

    ``bound(plan, units, num_decoding, context)`` -> most prompt tokens that a batch may hold now, if all lie behind
    ``context`` cached ones; at least 1, unless the plan's chunk is 0.
    ``lone_bound(plan, units, context)`` -> the same for a batch that ends the prompt of the only request there is.
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
    ) -> None:
        self.clock = LaneClock(len(LANES))
        self.pool = BlockPool(kv_blocks, block_tokens, self.clock, key)
        self.slots = BlockPool(max_running + 1, 1, self.clock)
        self.max_model_len = max_model_len
        self.waiting: list[Request] = []
        """Ordered by rank; preempted requests return to their rank."""
        self.running: list[Request] = []
        """Ordered by rank; each holds a slot."""
        self.preempted: list[Request] = []
        """Preempted since the caller last emptied this list; for events."""
        self.num_preempted = 0
        self.short_share = 0.0
        """Of the requests that finished lately, those with fewer than `SHORT_TOKENS` outputs; the newest count most."""
        self.prefix_queries = 0
        self.prefix_hits = 0
        self._bound = bound
        self._lone_bound = lone_bound
        self._requests: dict[int, Request] = {}
        self._prompts = Prompts()
        self._num_decoding = 0
        self._decode_tokens = 0
        """Both counted along; `check` compares."""
        self._computing: dict[bytes, Request] = {}
        """Prefix hashes that a running request is about to compute: others wait instead of computing them too."""
        self._turn: Lane = "prefill"
        self._decode_units = 0
        """Of the newest batch on the decode lane."""
        self._other_units = 0
        """Number of the last batch on the decode lane before it that was on other units."""

    # --- requests in and out

    def add(self, request: Request) -> None:
        """Queue a request. Raises RequestError ``kv_too_small`` when it can never fit."""
        most = min(request.prompt_len + request.max_output, self.max_model_len)
        if self.pool.blocks_for(most) > self.pool.total:
            raise RequestError(
                "kv_too_small",
                f"the request may need {most} tokens of KV cache and the cache holds "
                f"{self.pool.total * self.pool.block_tokens}",
                "ask for fewer max_tokens, or start rapidd with a larger --kv-blocks",
            )
        self._requests[request.rid] = request
        self._wait(request)

    def get(self, rid: int) -> Request | None:
        """The live request of this number."""
        return self._requests.get(rid)

    @property
    def requests(self) -> Iterable[Request]:
        """All live requests, waiting ones included."""
        return self._requests.values()

    def abort(self, rid: int) -> bool:
        """Drop a request in whatever phase; its blocks are free when the batches now in flight end."""
        request = self._requests.get(rid)
        if request is None:
            return False
        self._retire(request)
        return True

    def expired(self, now_ns: int) -> list[Drop]:
        """Drop the requests whose deadline has passed."""
        late = [r for r in self._requests.values() if r.deadline_ns is not None and r.deadline_ns <= now_ns]
        for request in late:
            self._retire(request)
        return [Drop(r, "deadline_exceeded", "the request's deadline passed before it finished") for r in late]

    @property
    def num_decoding(self) -> int:
        """Running requests past their prompt."""
        return self._num_decoding

    @property
    def decode_tokens(self) -> int:
        """Tokens of context, summed over the requests past their prompt: what a decode step reads."""
        return self._decode_tokens

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens not yet in any batch, waiting requests included."""
        return self._prompts.tokens

    @property
    def prompts(self) -> Sequence[Request]:
        """Requests whose prompt is not wholly in batches yet, most urgent first: do not change it."""
        return self._prompts.ordered

    @property
    def context(self) -> int:
        """Tokens before the next chunk of the most urgent prompt."""
        ordered = self._prompts.ordered
        return ordered[0].scheduled if ordered else 0

    def give_way(self, now_ns: int) -> None:
        """See `Prompts.give_way`."""
        self._prompts.give_way(now_ns)

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
        """One chunk (or one whole prompt), then one decode step; never two lanes at once."""
        prefill_waits = self._has_prefill()
        if self.in_flight("prefill") or (prefill_waits and self.in_flight("decode")):
            return None
        lanes: tuple[Lane, Lane] = ("prefill", "decode") if self._turn == "prefill" else ("decode", "prefill")
        for lane in lanes:
            if not room[lane]:
                continue
            if lane == "decode":
                rows = self._decode_rows(lane)
                self._turn = "prefill" if rows else self._turn
            else:
                one_prompt = plan.chunk == "all"
                rows = self._chunk_rows(lane, plan, plan.prefill_units, num_decode=0, one_prompt=one_prompt)
                self._turn = "decode" if rows and (not one_prompt or rows[-1].samples) else self._turn
            if rows:
                return self._batch(lane, plan, plan.decode_units, rows)
        return None

    def _hybrid(self, plan: Plan, room: dict[Lane, bool]) -> Batch | None:
        """Decode rows and a chunk in one batch, on the decode lane."""
        if not room["decode"]:
            return None
        rows = self._decode_rows("decode")
        rows += self._chunk_rows("decode", plan, plan.decode_units, num_decode=len(rows))
        rows = _still_valid(rows)
        return self._batch("decode", plan, plan.decode_units, rows) if rows else None

    def _concurrent(self, plan: Plan, room: dict[Lane, bool]) -> list[Batch]:
        """Each lane its own work. Decode first: its rows take the blocks they need before prompts do.

        The first chunk of a split waits for the decode steps, at most two, that still run on other units: they would
        have to share them with the chunk, and take several times as long.
        """
        batches = []
        if room["decode"] and (rows := self._decode_rows("decode")):
            batches.append(self._batch("decode", plan, plan.decode_units, rows))
        if not room["prefill"] or (plan.mode == "split" and self._runs_elsewhere(plan.decode_units)):
            return batches
        if rows := self._chunk_rows("prefill", plan, plan.prefill_units, num_decode=0):
            batches.append(self._batch("prefill", plan, plan.prefill_units, rows))
        return batches

    def _runs_elsewhere(self, decode_units: int) -> bool:
        """Whether a batch on the decode lane still runs on other units."""
        last = self._other_units if self._decode_units == decode_units else self.clock.enqueued[0]
        return self.clock.done[0] < last

    def _batch(self, lane: Lane, plan: Plan, units: int, rows: list[Row]) -> Batch:
        index = LANES.index(lane)
        if lane == "decode" and units != self._decode_units:
            self._decode_units, self._other_units = units, self.clock.enqueued[index]
        self.clock.enqueued[index] += 1
        assert all(row.generation == row.request.generation for row in rows)
        chunks = [row for row in rows if row.known_ids]
        return Batch(
            number=self.clock.enqueued[index],
            lane=lane,
            units=units,
            mode=plan.mode,
            rows=rows,
            num_decode=len(rows) - len(chunks),
            num_prefill_tokens=sum(row.count for row in chunks),
            context=sum(row.start for row in chunks),
        )

    def in_flight(self, lane: Lane) -> bool:
        """Whether a batch of this lane is not seen done yet."""
        index = LANES.index(lane)
        return self.clock.enqueued[index] > self.clock.done[index]

    def _has_prefill(self) -> bool:
        return bool(self._prompts.ordered)

    def _decode_rows(self, lane: Lane) -> list[Row]:
        """One token of every request past its prompt that may go on this lane now."""
        rows = []
        size = self.pool.block_tokens
        for request in list(self.running):
            if not request.can_decode(lane, LOOKAHEAD):
                continue
            if request.scheduled < len(request.blocks) * size or self._grow(request, request.scheduled + 1):
                rows.append(self._row(request, 1, lane))
        return rows

    def _chunk_rows(
        self, lane: Lane, plan: Plan, units: int, *, num_decode: int, one_prompt: bool = False
    ) -> list[Row]:
        """Prompt tokens of as many requests as fit the chunk.

        Behind a long context fewer tokens take as long, so what is shared out is the chunk's time.
        """
        left = 1.0
        rows: list[Row] = []
        may_start = True
        for request in self._in_turn(plan):
            if left <= 0.0 or (one_prompt and rows):
                break
            if not request.slot:
                if plan.chunk == 0 or (one_prompt and any(r.is_prefill for r in self.running)):
                    break
                if not may_start or self._waits_for_prefix(request):
                    continue
                if not self._start(request):
                    may_start = False  # those behind it must not take what it waits for
                    continue
            if request.flying < LOOKAHEAD and request.can_join(lane):
                whole = self._most(plan, units, num_decode, request.scheduled)
                budget = round(left * whole)
                if budget <= 0:
                    break
                left -= self._chunk(request, budget, lane, rows) / whole
        return _still_valid(rows)

    def _in_turn(self, plan: Plan) -> Iterator[Request]:
        """Prompts in the order in which they may have the chunk. Each is looked up when its turn comes."""
        if plan.by_deadline:
            yield from self._prompts.ordered[: self.slots.total]
            return
        yield from [r for r in self.running if r.is_prefill]
        yield from self.waiting[: self.slots.total]

    def _most(self, plan: Plan, units: int, num_decode: int, context: int) -> int:
        """Prompt tokens of the next chunk. Nobody's gap is hurt by the last one of a request that is alone."""
        if self._lone_bound is not None and len(self._requests) == 1:
            most = self._lone_bound(plan, units, context)
            if self.prefill_tokens <= most:
                return most
        return self._bound(plan, units, num_decode, context)

    def _chunk(self, request: Request, budget: int, lane: Lane, rows: list[Row]) -> int:
        """Append a row of at most ``budget`` prompt tokens, as many as blocks allow; returns its tokens."""
        count = min(budget, request.prefill_target - request.scheduled)
        if not self._grow(request, request.scheduled + count):
            spare = self.pool.available - self._reserved()
            room = (len(request.blocks) + max(spare, 0)) * self.pool.block_tokens - request.scheduled
            count = min(count, room)
            if count <= 0 or not self._grow(request, request.scheduled + count):
                return 0
        rows.append(self._row(request, count, lane))
        return count

    def _row(self, request: Request, count: int, lane: Lane) -> Row:
        start, end = request.scheduled, request.scheduled + count
        is_prefill = request.is_prefill
        # The first chunk also brings what the prefix cache spared: penalties look at the whole sequence.
        known_start = 0 if is_prefill and start == request.cached else start
        samples = end == len(request.tokens) + request.pending
        row = Row(
            request=request,
            generation=request.generation,
            slot=request.slot,
            start=start,
            count=count,
            blocks=request.blocks[: self.pool.blocks_for(end)],
            samples=samples,
            known_start=known_start,
            known_ids=request.tokens[known_start:end] if is_prefill else NO_IDS,
            prompt_len=request.prompt_len,
            sampling=request.sampling,
        )
        request.scheduled = end
        if not is_prefill:
            self._decode_tokens += count
        else:
            self._prompts.tokens -= count
            if not request.is_prefill:
                self._prompts.remove(request)
                self._num_decoding += 1
                self._decode_tokens += end
        request.pending += samples
        request.flying += 1
        request.flying_lane = lane
        return row

    # --- memory

    def _waits_for_prefix(self, request: Request) -> bool:
        """Whether the next block this request lacks is being computed by another one right now.

        Asked for every waiting request at every turn, so it goes on from what was found the last time.
        """
        self.pool.extend_hashes(request.hashes, request.tokens)
        hashes, found, usable = request.hashes, request.found, self._num_usable(request)
        while found and not self.pool.knows(hashes[found - 1]):
            found -= 1
        while found < usable and self.pool.knows(hashes[found]):
            found += 1
        request.found = found
        return found < usable and hashes[found] in self._computing

    def _num_usable(self, request: Request) -> int:
        """Blocks that the prefix cache may give: at least one token is computed, its logits give the next one."""
        return (request.prefill_target - 1) // self.pool.block_tokens

    def _start(self, request: Request) -> bool:
        """Move a waiting request to the running ones, with a slot and what the prefix cache has of it."""
        if self.slots.available == 0 or not self._has_blocks(request, 1):
            return False
        slot = self.slots.take(1)
        assert slot is not None
        hits = self.pool.match(request.hashes[: self._num_usable(request)])
        self.pool.hold(hits)
        request.slot = slot[0]
        request.blocks = hits
        request.published = len(hits)
        request.scheduled = request.computed = request.cached = len(hits) * self.pool.block_tokens
        self._prompts.tokens -= request.cached
        self.prefix_queries += request.prefill_target
        self.prefix_hits += request.cached
        for digest in request.hashes[len(hits) :]:
            self._computing.setdefault(digest, request)
        self.waiting.remove(request)
        insort(self.running, request, key=_rank)
        return True

    def _grow(self, request: Request, num_tokens: int) -> bool:
        """Give the request blocks for so many tokens, if rank and reserve allow; preempts when they do."""
        need = self.pool.blocks_for(num_tokens) - len(request.blocks)
        if need <= 0:
            return True
        if not self._has_blocks(request, need):
            return False
        blocks = self.pool.take(need)
        if blocks is None:
            return False
        request.blocks += blocks
        return True

    def _has_blocks(self, request: Request, need: int) -> bool:
        """Whether ``need`` blocks are there for this request, after preempting whom it outranks.

        A decode row may preempt any lower rank, itself last. A prompt preempts lower *priorities*, and when
        nothing decodes, lower ranks: otherwise two half-computed prompts could hold all blocks for ever.
        """
        prefill = request.is_prefill
        reserve = self._reserved() if prefill else 0
        while self.pool.available < need + reserve:
            if self.pool.available + self.pool.num_fenced >= need + reserve:
                return False  # released already; the batches in flight free them
            victim = self.running[-1] if self.running else None
            if victim is None or victim.rank < request.rank:
                return False
            if prefill and victim.rank[0] == request.rank[0] and (victim is request or self.num_decoding):
                return False
            if not prefill or victim is not request:
                self._preempt(victim)
            if victim is request:
                return False
        return True

    def _reserved(self) -> int:
        """Blocks that decoding rows will need within the next steps."""
        if not self._num_decoding:
            return 0
        decoding = (r for r in self.running if not r.is_prefill)
        return sum(self.pool.blocks_for(r.scheduled + RESERVED_STEPS) - len(r.blocks) for r in decoding)

    def _preempt(self, request: Request) -> None:
        """Take everything from a running request; it will be recomputed, mostly from the prefix cache."""
        self._give_back(request)
        request.restart()
        request.preemptions += 1
        self.num_preempted += 1
        self.preempted.append(request)
        self._wait(request)

    def _wait(self, request: Request) -> None:
        insort(self.waiting, request, key=_rank)
        self._prompts.add(request)

    def _give_back(self, request: Request) -> None:
        self.running.remove(request)
        if request.is_prefill:
            self._prompts.remove(request)
        else:
            self._num_decoding -= 1
            self._decode_tokens -= request.scheduled
        self.pool.release(request.blocks)
        self.slots.release([request.slot])
        for digest in request.hashes[request.published :]:
            if self._computing.get(digest) is request:
                del self._computing[digest]

    def _retire(self, request: Request) -> None:
        del self._requests[request.rid]
        if request.slot:
            self._give_back(request)
        else:
            self.waiting.remove(request)
            self._prompts.remove(request)
        request.restart()

    # --- results

    def finish(self, batch: Batch, result: BatchResult) -> Finished:
        """Take the result of a lane's oldest batch in flight. Rows of an older generation are void."""
        index = LANES.index(batch.lane)
        assert batch.number == self.clock.done[index] + 1, "batches of a lane end in order"
        self.clock.done[index] = batch.number
        done = Finished()
        if result.error is not None:
            for row in batch.rows:
                if row.generation == row.request.generation:
                    self._retire(row.request)
                    done.drops.append(Drop(row.request, *_explain(result.error)))
            return done
        sampled = 0
        for row in batch.rows:
            position = sampled
            sampled += row.samples
            if row.generation == row.request.generation:
                self._finish_row(row, position, result, done)
        return done

    def _finish_row(self, row: Row, position: int, result: BatchResult, done: Finished) -> None:
        request = row.request
        request.flying -= 1
        request.computed = row.start + row.count
        if row.samples and position in result.failed:
            self._retire(request)
            done.drops.append(Drop(request, "internal_error", "the model produced no finite logits for this request"))
            return
        if request.computed >= (request.published + 1) * self.pool.block_tokens:
            self._publish(request)
        if not row.samples:
            return
        token_id = result.token_ids[position]
        request.tokens.append(token_id)
        request.pending -= 1
        finish: Literal["stop", "length"] | None = None
        if token_id in request.sampling.stop_ids and request.num_output > request.sampling.min_tokens:
            finish = "stop"
        elif request.num_output >= request.max_output or len(request.tokens) >= self.max_model_len:
            finish = "length"
        done.outcomes.append(Outcome(request, token_id, finish, result.logprobs[position] if result.logprobs else None))
        if finish:
            self.short_share += SHORT_WEIGHT * ((request.num_output < SHORT_TOKENS) - self.short_share)
            self._retire(request)

    def _publish(self, request: Request) -> None:
        """Full blocks enter the prefix table now that the batch that wrote them is done."""
        full = request.computed // self.pool.block_tokens
        self.pool.extend_hashes(request.hashes, request.tokens[: request.computed])
        for index in range(request.published, full):
            digest = request.hashes[index]
            self.pool.publish(request.blocks[index], digest)
            if self._computing.get(digest) is request:
                del self._computing[digest]
        request.published = full

    # --- invariants

    def check(self) -> None:
        """Raise AssertionError unless blocks, slots, queues and requests agree with each other."""
        self.pool.check(r.blocks for r in self._requests.values())
        self.slots.check([r.slot] for r in self.running)
        assert sorted(r.rid for r in (*self.waiting, *self.running)) == sorted(self._requests)
        assert self.waiting == sorted(self.waiting, key=_rank)
        assert self.running == sorted(self.running, key=_rank)
        assert all(r.slot == 0 and not r.blocks and not r.flying for r in self.waiting)
        for request in self.running:
            assert request.computed <= request.scheduled <= len(request.tokens) + request.pending
            assert 0 <= request.flying <= LOOKAHEAD
        self._prompts.check(r for r in self._requests.values() if r.is_prefill)
        decoding = [r for r in self.running if not r.is_prefill]
        assert self._num_decoding == len(decoding)
        assert self._decode_tokens == sum(r.scheduled for r in decoding)
        assert all(owner.slot for owner in self._computing.values()), "nobody computes a block that others wait for"


def _rank(request: Request) -> tuple[int, int, int]:
    return request.rank


def _still_valid(rows: list[Row]) -> list[Row]:
    """Without those whose request was preempted, by a higher priority, while this very batch was formed.

    They must not run: their blocks were released under a fence that does not count this batch.
    """
    return [row for row in rows if row.generation == row.request.generation]


def _explain(error: BaseException) -> tuple[ErrorCode, str]:
    """A batch that failed as a whole, for its clients. OutOfMemoryError is torch's, or Python's own."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out_of_memory", "the device ran out of memory in this request's batch"
    return "internal_error", f"the forward pass failed: {type(error).__name__}"
