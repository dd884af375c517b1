"""Sampling by a GPU's engine, on its stand-in: whatever the load does, each request's tokens are those of its seed.

Requests of all settings come one after another to a small cache, under plans that change, so that they share prompts'
beginnings, preempt each other and go on elsewhere. What each token should have been is drawn again from logits that
plain torch computes for its sequence alone.
"""

from array import array
from random import Random

import pytest
import torch

from bench.soak_draws import drawn_row
from rapid_kernels.reference import ReferenceKernels
from rapidd.engine.outcome import Outcome
from rapidd.engine.request import LANES, Request, SamplingParams
from rapidd.engine.sampling import SampledToken, sample
from rapidd.policy.plan import Plan
from support.tiny_gpu import TinyGpuEngine, forced_logits, stand_in_engine, tiny_llama

VOCABULARY = 512
REQUESTS = 14


def any_request(draw: Random, rid: int, heads: list[list[int]]) -> Request:
    head = draw.choice(heads)[: draw.randint(1, 150)] if draw.random() < 0.5 else []
    sampling = SamplingParams(
        temperature=draw.choice((0.0, 0.7, 1.4)),
        top_k=draw.choice((0, 5, 60)),
        top_p=draw.choice((1.0, 0.9)),
        min_p=draw.choice((0.0, 0.03)),
        repetition_penalty=draw.choice((1.0, 1.3, 0.8)),
        presence_penalty=draw.choice((0.0, 0.6)),
        frequency_penalty=draw.choice((0.0, 0.4, -0.2)),
        seed=draw.getrandbits(40),
        logprobs=draw.choice((None, 0, 2)),
        min_tokens=draw.choice((0, 10)),
        stop_ids=frozenset(draw.sample(range(VOCABULARY), draw.choice((0, 3)))),
    )
    return Request(
        rid,
        array("I", head + any_ids(draw, draw.randint(1, 20))),
        array("I"),
        max_output=draw.randint(1, 60),
        sampling=sampling,
        arrival_ns=rid,
        priority=draw.choice((-1, 0, 0, 1)),
    )


def any_ids(draw: Random, count: int) -> list[int]:
    return [draw.randrange(VOCABULARY) for _ in range(count)]


def serve(engine: TinyGpuEngine, requests: list[Request], draw: Random) -> list[list[Outcome]]:
    """Outcomes by request."""
    plans = [*engine.plans().values(), Plan("split", 2, 2, None)]
    plan, waiting = draw.choice(plans), list(requests)
    outcomes: list[list[Outcome]] = [[] for _ in requests]
    while waiting or list(engine.scheduler.requests):
        while waiting and (draw.random() < 0.4 or not list(engine.scheduler.requests)):
            engine.scheduler.add(waiting.pop(0))
        if draw.random() < 0.1:
            plan = draw.choice(plans)
        for batch in engine.scheduler.schedule(plan, {name: engine.lanes[name].room for name in LANES}):
            engine.lanes[batch.lane].enqueue(batch)
        engine.wake.wait()
        engine.wake.clear()
        for lane in engine.lanes.values():
            for batch, result in lane.collect():
                assert result.error is None
                for outcome in engine.scheduler.finish(batch, result).outcomes:
                    outcomes[outcome.request.rid].append(outcome)
    engine.settle()
    return outcomes


def drawn_again(request: Request, output: list[int]) -> list[SampledToken]:
    asked, prompt = request.sampling, list(request.tokens[: request.prompt_len])
    rows = [
        drawn_row(asked, len(prompt), index, banned_ids=tuple(asked.stop_ids) if index < asked.min_tokens else ())
        for index in range(len(output))
    ]
    logits = forced_logits(tiny_llama(torch.float32, "cpu"), prompt, output)
    return sample(logits, rows, torch.tensor([prompt + output], dtype=torch.int32)).to_host()


@pytest.mark.parametrize(("seed", "has_graphs"), [(0, True), (1, True), (2, False), (3, False)])
def test_each_token_is_the_one_that_its_seed_gives(seed: int, has_graphs: bool) -> None:
    draw = Random(seed)
    plain = None if has_graphs else ReferenceKernels(pack=False)
    engine = stand_in_engine(plain, kv_blocks=18, max_running=draw.choice((8, 16)))
    heads = [any_ids(draw, 150) for _ in range(2)]
    requests = [any_request(draw, rid, heads) for rid in range(REQUESTS)]
    served = serve(engine, requests, draw)
    assert engine.scheduler.num_preempted
    for request, outcomes in zip(requests, served, strict=True):
        output = [outcome.token_id for outcome in outcomes]
        wanted = drawn_again(request, output)
        assert output == [token.token_id for token in wanted]
        for outcome, token in zip(outcomes, wanted, strict=True):
            said = None if outcome.logprob is None else outcome.logprob[0]
            assert said == (None if token.logprob is None else pytest.approx(token.logprob, abs=1e-3))
