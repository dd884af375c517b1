"""A device that computes nothing: runs a scheduler's batches in any order two lanes could, checking each row.

The token after a position is a fixed function of the whole prefix, so that lost, repeated or misplaced tokens
show as a wrong output.
"""

from array import array
from collections import deque
from hashlib import blake2b

from msgspec.structs import replace

from rapidctl.wire import SloClass
from rapidd.engine.batch import Batch, BatchResult
from rapidd.engine.defaults import UNBOUNDED
from rapidd.engine.outcome import Finished
from rapidd.engine.request import LANES, Lane, Request, SamplingParams
from rapidd.engine.scheduler import Scheduler
from rapidd.policy.plan import Plan

VOCAB = 50
BLOCK_TOKENS = 4

SERIAL = Plan("serial", 2, 2, 6)
SERIAL_ALL = Plan("serial", 2, 2, "all")
HYBRID = Plan("hybrid", 2, 2, 6)
SHARED = Plan("shared", 2, 2, None)
SPLIT = Plan("split", 1, 1, None)
DUE = replace(HYBRID, by_deadline=True)
DUE_SPLIT = replace(SPLIT, by_deadline=True)
PAUSED = replace(DUE, chunk=0)
PLANS = [SERIAL, SERIAL_ALL, HYBRID, SHARED, SPLIT, DUE, DUE_SPLIT, PAUSED]


def next_token(prefix: list[int]) -> int:
    """What the imaginary model answers to this prefix."""
    return blake2b(repr(prefix).encode(), digest_size=2).digest()[0] % VOCAB


def expected_output(prompt: list[int], max_output: int, stop_ids: frozenset[int] = frozenset()) -> list[int]:
    """The whole output of a request that nobody disturbs."""
    tokens = list(prompt)
    while len(tokens) - len(prompt) < max_output:
        tokens.append(next_token(tokens))
        if tokens[-1] in stop_ids:
            break
    return tokens[len(prompt) :]


def make_request(
    rid: int,
    prompt: list[int],
    max_output: int = 5,
    priority: int = 0,
    stop: int | None = None,
    *,
    due_ns: int | None = None,
    arrival_ns: int | None = None,
    slo_class: SloClass = "interactive",
) -> Request:
    """A greedy request; later ``rid``s arrive later."""
    stop_ids = frozenset() if stop is None else frozenset([stop])
    return Request(
        rid,
        array("I", prompt),
        array("I"),
        max_output=max_output,
        sampling=SamplingParams(stop_ids=stop_ids),
        priority=priority,
        arrival_ns=rid if arrival_ns is None else arrival_ns,
        due_ns=due_ns,
        slo_class=slo_class,
    )


class Machine:
    """A KV cache of token ids, a token table, and two queues of batches."""

    def __init__(
        self,
        kv_blocks: int,
        max_running: int = 4,
        bound: int = 8,
        max_model_len: int = 64,
        lone_bound: int | None = None,
        prefix_cache: bool = True,
        max_prompts: int = UNBOUNDED,
    ) -> None:
        self.bound = lone_bound or bound
        self.scheduler = Scheduler(
            kv_blocks=kv_blocks,
            block_tokens=BLOCK_TOKENS,
            max_running=max_running,
            max_model_len=max_model_len,
            bound=lambda plan, units, decoding, context: (
                min(bound, plan.chunk) if isinstance(plan.chunk, int) else bound
            ),
            lone_bound=None if lone_bound is None else lambda plan, units, context: lone_bound,
            prefix_cache=prefix_cache,
            max_prompts=max_prompts,
        )
        self.queues: dict[Lane, deque[Batch]] = {lane: deque() for lane in LANES}
        self.kv = [[-1] * BLOCK_TOKENS for _ in range(kv_blocks)]
        self.table = [[-1] * (max_model_len + 4) for _ in range(max_running + 1)]
        self.outputs: dict[int, list[int]] = {}
        self.finished: set[int] = set()

    def launch(self, plan: Plan) -> list[Batch]:
        """Enqueue what the scheduler forms for the lanes that have room."""
        room = {lane: len(self.queues[lane]) < 2 for lane in LANES}
        batches = self.scheduler.schedule(plan, room)
        for batch in batches:
            assert len({row.request.rid for row in batch.rows}) == len(batch.rows)
            if plan.mode in ("serial", "hybrid") or batch.lane == "prefill":
                # Elsewhere a chunk formed after a decode batch may have preempted its rows: a fence counts that batch.
                assert all(row.generation == row.request.generation for row in batch.rows), "a void row would run"
            assert all(bool(row.known_ids) == (at >= batch.num_decode) for at, row in enumerate(batch.rows))
            assert batch.num_prefill_tokens <= self.bound
            self.queues[batch.lane].append(batch)
        return batches

    def complete(self, lane: Lane, error: BaseException | None = None) -> Finished | None:
        """Run and finish the oldest batch of a lane, or find that it failed."""
        if not self.queues[lane]:
            return None
        batch = self.queues[lane].popleft()
        done = self.scheduler.finish(batch, self._run(batch) if error is None else BatchResult(error=error))
        for outcome in done.outcomes:
            self.outputs.setdefault(outcome.request.rid, []).append(outcome.token_id)
            if outcome.finish:
                self.finished.add(outcome.request.rid)
        self.scheduler.check()
        return done

    def _run(self, batch: Batch) -> BatchResult:
        result = BatchResult()
        for row in batch.rows:
            table = self.table[row.slot]
            table[row.known_start : row.known_start + len(row.known_ids)] = row.known_ids
            end = row.start + row.count
            assert len(row.blocks) >= -(-end // BLOCK_TOKENS), "a row in flight changed with its request"
            for position in range(row.start, end):
                self.kv[row.blocks[position // BLOCK_TOKENS]][position % BLOCK_TOKENS] = table[position]
            seen = [self.kv[row.blocks[p // BLOCK_TOKENS]][p % BLOCK_TOKENS] for p in range(end)]
            if row.generation == row.request.generation:
                known = row.request.tokens[:end].tolist()
                assert seen[: len(known)] == known, "a live row read KV that is not its own"
            if row.samples:
                table[end] = next_token(seen)
                result.token_ids.append(table[end])
        return result

    def drain(self, plan: Plan, limit: int = 10_000) -> None:
        """Run until nothing is left to do."""
        for _ in range(limit):
            launched = self.launch(plan)
            worked = [self.complete(lane) for lane in LANES]
            if not launched and not any(worked):
                break
        assert not list(self.scheduler.requests), "requests are left but nothing runs"
