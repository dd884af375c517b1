"""Requests and what they hold: their place in the queues, slots, KV blocks, and shares of the prefix cache.

`Scheduler` adds what is to be computed next. A request waits or runs; a running one has a slot and the blocks of what
is scheduled. Who needs blocks that are not there may take them from whom it outranks: preemption is recomputation.

Pure bookkeeping on the host, as the scheduler's. `check` states the invariants.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Sequence

from rapidd.engine.blocks import BlockPool, LaneClock
from rapidd.engine.prompts import Prompts, urgency
from rapidd.engine.request import LANES, Request
from rapidd.errors import RequestError
from rapidd.policy.plan import PromptTime

LOOKAHEAD = 2
"""Batches of one request that may be in flight: the running one and the one enqueued before its tokens are seen."""
RESERVED_STEPS = 2
"""Decode steps whose blocks a prefill must leave to the rows that are decoding."""
TOKENS_A_STEP = 64
"""Of a prompt, computed beside a decode step, for what rows will have grown by until its first token: few, as beside
many rows."""
HASHED_A_TURN = 1 << 16
"""Tokens of waiting prompts that are hashed in a turn to judge who gives way, about 1 ms: the rest in a later one."""


class Residents:
    """``kv_blocks`` and ``max_running`` size the pools; ``key``: see `BlockPool`."""

    def __init__(
        self,
        *,
        kv_blocks: int,
        block_tokens: int,
        max_running: int,
        max_model_len: int,
        key: bytes = b"",
        prefix_cache: bool = True,
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
        self.prefix_queries = 0
        self.prefix_hits = 0
        self._requests: dict[int, Request] = {}
        self._prompts = Prompts(self._spared)
        self._may_hash = 0
        """Tokens, in this turn."""
        self._now_ns = 0
        """Of the last turn, as told to `give_way`."""
        self._num_decoding = 0
        self._decode_tokens = 0
        """Both counted along; `check` compares."""
        self._shares = prefix_cache
        self._computing: dict[bytes, Request] = {}
        """Prefix hashes that a running request is about to compute: others wait instead of computing them too."""
        self._owed: Request | None = None
        """A prompt that others were preempted for, or made way for, until it has a chunk."""

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
        return ordered[0].scheduled + ordered[0].spared if ordered else 0

    def give_way(self, now_ns: int, for_ns: int, time: PromptTime | None = None) -> None:
        """See `Prompts.give_way`."""
        self._may_hash, self._now_ns = HASHED_A_TURN, now_ns
        self._prompts.give_way(now_ns, for_ns, time)

    def _in_turn(self, by_deadline: bool) -> Iterator[Request]:
        """Prompts in the order in which they may have the chunk. Each is looked up when its turn comes.

        By due times, whom others gave up their blocks to comes first, or they would start again with them. And who runs
        is never out of sight: those before it may wait for its slot, its blocks, or what it computes.
        """
        if not by_deadline:
            yield from [r for r in self.running if r.is_prefill]
            yield from self.waiting[: self.slots.total]
            return
        ordered = self._prompts.ordered
        first, owed = ordered[: self.slots.total], self._owed
        if owed is not None:
            yield owed
        yield from (request for request in first if request is not owed)
        if len(ordered) > len(first):
            last = urgency(first[-1])
            behind = (r for r in self.running if r.is_prefill and r is not owed and urgency(r) > last)
            yield from sorted(behind, key=urgency)

    # --- memory

    def _spared(self, request: Request) -> int | None:
        """Tokens of a waiting prompt that the prefix cache has, or will have when those end who compute them now.

        Null: its hashes are not known yet, and too many were made in this turn. Goes on from the last time, as below.
        """
        if request.slot or not self._shares:
            return 0
        size, hashes, computing = self.pool.block_tokens, request.hashes, self._computing
        if (fresh := len(request.tokens) - len(hashes) * size) >= size:
            if self._may_hash <= 0:
                return None
            self._may_hash -= fresh
            self.pool.extend_hashes(hashes, request.tokens, len(request.tokens))
        blocks, usable, knows = request.spared // size, self._num_usable(request), self.pool.knows
        while blocks and not (knows(hashes[blocks - 1]) or hashes[blocks - 1] in computing):
            blocks -= 1
        while blocks < usable and (knows(hashes[blocks]) or hashes[blocks] in computing):
            blocks += 1
        request.spared = blocks * size
        return request.spared

    def _waits_for_prefix(self, request: Request) -> bool:
        """Whether the next block this request lacks is being computed by another one right now.

        Asked for every waiting request at every turn, so it goes on from what was found the last time.
        """
        if not self._shares:
            return False
        self.pool.extend_hashes(request.hashes, request.tokens, len(request.tokens))
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

    def _lacks_room(self, request: Request) -> bool:
        """Whether a prompt that is longer than rows are on average leaves the blocks there are to shorter ones.

        That is, until they hold all of it, and what rows grow by until its first token: it would take each block that
        becomes free, and those who need few of them would wait. Not who is alone in line, nor who outranks a running
        request, nor who gave way and is late again.
        """
        rows, tokens = self._num_decoding, request.prefill_target + 1 - request.spared
        if tokens * rows <= self._decode_tokens or len(self._prompts.ordered) == 1:
            return False
        if (request.gave_way and request.due_ns <= self._now_ns) or request.priority > self.running[-1].priority:
            return False
        return self.pool.available < self.pool.blocks_for(tokens + rows * (tokens // TOKENS_A_STEP))

    def _start(self, request: Request) -> bool:
        """Move a waiting request to the running ones, with a slot and what `_waits_for_prefix` has just found of it.

        Only when there are blocks for all of it up to its next token: who began with fewer took what rows grow into,
        and was preempted, or they were, before it ended.
        """
        known, most = request.hashes[: request.found], self.pool.blocks_for(request.prefill_target + 1)
        if self.slots.available == 0 or not self._has_blocks(request, lambda: most - self.pool.num_held(known)):
            return False
        slot = self.slots.take(1)
        assert slot is not None
        hits = self.pool.match(known)
        self.pool.hold(hits)
        request.slot = slot[0]
        request.blocks = hits
        request.published = len(hits)
        request.scheduled = request.computed = request.cached = len(hits) * self.pool.block_tokens
        request.spared = 0
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
        blocks = None if request.is_prefill else self.pool.take(need)  # decoding: mostly there, and nobody's reserve
        if blocks is None:
            if not self._has_blocks(request, lambda: need):
                return False
            blocks = self.pool.take(need)
            assert blocks is not None
        request.blocks.extend(blocks)  # in place: a copy would touch every block's number, in as many cache lines
        return True

    def _has_blocks(self, request: Request, need: Callable[[], int]) -> bool:
        """Whether ``need()`` blocks are there for this request, after preempting whom it outranks.

        A decode row may preempt any lower rank, itself last. A prompt preempts lower ranks of lower *priority*, and
        when it runs and nothing decodes, any: otherwise two half-computed prompts could hold all blocks for ever.
        """
        prefill = request.is_prefill
        while self.pool.available < (wanted := need() + (self._reserved() if prefill else 0)):
            if self.pool.available + self.pool.num_fenced >= wanted:
                return False  # released already; the batches in flight free them
            victim = self.running[-1] if self.running else None
            if victim is None or victim.rank < request.rank:
                return False
            may_take_any = not prefill or (request.slot and victim is not request and not self.num_decoding)
            if not may_take_any and victim.priority >= request.priority:
                return False
            self._preempt(victim)
            if prefill and self._owed is None:
                self._owed = request
            if victim is request:
                return False
        return True

    def _reserved(self) -> int:
        """Blocks that decoding rows will need within the next steps."""
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
        if request is self._owed:
            self._owed = None
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
        if request is self._owed:
            self._owed = None
        if request.slot:
            self._give_back(request)
        else:
            self.waiting.remove(request)
            self._prompts.remove(request)
        request.restart()

    def _publish(self, request: Request) -> None:
        """Full blocks enter the prefix table now that the batch that wrote them is done."""
        if not self._shares:
            return
        full = request.computed // self.pool.block_tokens
        self.pool.extend_hashes(request.hashes, request.tokens, request.computed)
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
            assert 0 <= request.pending <= request.flying <= LOOKAHEAD
            assert len(request.blocks) == self.pool.blocks_for(request.scheduled), "a row holds just what it needs"
        self._prompts.check(r for r in self._requests.values() if r.is_prefill)
        assert self._owed is None or (self._owed.rid in self._requests and self._owed.is_prefill)
        decoding = [r for r in self.running if not r.is_prefill]
        assert self._num_decoding == len(decoding)
        assert self._decode_tokens == sum(r.scheduled for r in decoding)
        assert all(owner.slot for owner in self._computing.values()), "nobody computes a block that others wait for"


def _rank(request: Request) -> tuple[int, int]:
    return request.rank
