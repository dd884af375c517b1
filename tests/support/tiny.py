"""The real engine parts over the 260K-parameter test model, without sockets: scheduler, lanes, workers, runner."""

import threading
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from rapidd.config import ModelConfig
from rapidd.engine.cpu import make_lanes, make_whole
from rapidd.engine.outcome import Outcome
from rapidd.engine.request import LANES, Request, SamplingParams
from rapidd.engine.runner import Runner
from rapidd.engine.scheduler import Scheduler
from rapidd.model.llama import Llama
from rapidd.model.resolve import load_model
from rapidd.model.weights import open_weights
from rapidd.partition.cpu import cpu_table
from rapidd.policy.plan import Plan

MODEL = Path(__file__).parent.parent / "data" / "stories260K_hf"
BLOCK_TOKENS = 16
MAX_MODEL_LEN = 512


class Wake(threading.Event):
    """What workers call when a batch is done."""


class TinyEngine:
    """Runs requests to their end under any plan; every batch goes through the lanes' own threads."""

    block_tokens = BLOCK_TOKENS

    def __init__(self, kv_blocks: int = 200, max_running: int = 16) -> None:
        loaded = load_model(ModelConfig(path=str(MODEL)))
        assert loaded.weights is not None
        self.model = Llama(loaded.spec, open_weights(loaded.weights, loaded.spec), torch.float32)
        self.table, cores = cpu_table(min(2, len(cpu_table(None)[1])))
        self.wake = Wake()
        cache = self.model.kernels.allocate_cache(self.model.cache_layout(kv_blocks, BLOCK_TOKENS))
        for layer in cache.layers:
            layer.fill_(float("nan"))  # what a request reads it must have written
        self.runner = Runner(self.model, cache, num_slots=max_running, max_model_len=MAX_MODEL_LEN)
        whole = make_whole(self.table, cores, self.wake.set)
        self.lanes = make_lanes(self.runner.run, self.table, cores, whole, self.wake.set)
        self.bound = 64
        self._kv_blocks, self._max_running = kv_blocks, max_running
        self.reset()

    def reset(self, kv_blocks: int | None = None) -> Scheduler:
        """An empty scheduler over the same cache: no prefix hits from earlier runs."""
        self.scheduler = Scheduler(
            kv_blocks=kv_blocks or self._kv_blocks,
            block_tokens=self.block_tokens,
            max_running=self._max_running,
            max_model_len=MAX_MODEL_LEN,
            bound=lambda plan, units, decoding, context: (
                min(self.bound, plan.chunk) if isinstance(plan.chunk, int) else self.bound
            ),
        )
        self.max_overlap = 0
        return self.scheduler

    def plans(self) -> dict[str, Plan]:
        """One plan a mode, as far as this machine can run it."""
        n = self.table.units_total
        plans = {
            "serial": Plan("serial", n, n, 24),
            "serial_all": Plan("serial", n, n, "all"),
            "hybrid": Plan("hybrid", n, n, 24),
            "shared": Plan("shared", n, n, None),
        }
        if self.table.splits:
            plans["split"] = Plan("split", self.table.splits[0], n - self.table.splits[0], None)
        return plans

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        plan: Plan | Callable[[int], Plan],
        max_output: int = 24,
        sampling: SamplingParams | None = None,
        between: Callable[[int], None] = lambda turn: None,
    ) -> list[list[Outcome]]:
        """Outcomes by prompt. ``between(turn)`` may do something to the scheduler before each turn."""
        requests = [
            Request(
                rid,
                array("I", prompt),
                array("I"),
                max_output=max_output,
                sampling=sampling or SamplingParams(),
                arrival_ns=rid,
            )
            for rid, prompt in enumerate(prompts)
        ]
        for request in requests:
            self.scheduler.add(request)
        outcomes: list[list[Outcome]] = [[] for _ in prompts]
        turn = 0
        while list(self.scheduler.requests):
            between(turn)
            now = plan if isinstance(plan, Plan) else plan(turn)
            for batch in self.scheduler.schedule(now, {name: self.lanes[name].room for name in LANES}):
                self.lanes[batch.lane].enqueue(batch)
            self.max_overlap = max(self.max_overlap, sum(not lane.idle for lane in self.lanes.values()))
            self.wake.wait()
            self.wake.clear()
            for lane in self.lanes.values():
                for batch, result in lane.collect():
                    for outcome in self.scheduler.finish(batch, result).outcomes:
                        outcomes[outcome.request.rid].append(outcome)
                    if result.error is not None:
                        raise result.error
            self.scheduler.check()
            turn += 1
        self.settle()
        return outcomes

    def settle(self) -> None:
        """Wait for lookahead batches whose rows are void by now."""
        for lane in self.lanes.values():
            lane.wait()
            for batch, result in lane.collect():
                self.scheduler.finish(batch, result)
