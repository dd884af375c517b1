"""A request's greedy tokens do not depend on neighbours, mode, chunk size, prefix hits, preemption or mode switches.

Compared in float32 up to the first token whose two best logits lie within 1e-3: there rounding may choose.
"""

import random
from collections.abc import Sequence
from functools import cache

import pytest

from rapidd.engine.outcome import Outcome
from rapidd.engine.request import SamplingParams
from support.tiny import TinyEngine

GAP = 1e-3
MAX_OUTPUT = 24


@cache
def engine() -> TinyEngine:
    return TinyEngine()


@cache
def prompts() -> list[list[int]]:
    """Eight prompts of 1 to 150 tokens; the last three share a prefix of 48 tokens."""
    rng = random.Random(7)
    alone = [[1, *(rng.randrange(3, 512) for _ in range(length))] for length in (0, 9, 40, 77, 149)]
    prefix = [1, *(rng.randrange(3, 512) for _ in range(47))]
    return alone + [prefix + [rng.randrange(3, 512) for _ in range(length)] for length in (1, 16, 30)]


@cache
def reference() -> list[list[int]]:
    """Each prompt alone, computed in one piece; cut where the next token is a near tie."""
    tiny = engine()
    outputs = []
    for prompt in prompts():
        tiny.reset()
        tiny.bound = 512
        (outcomes,) = tiny.generate([prompt], tiny.plans()["serial_all"], MAX_OUTPUT, SamplingParams(logprobs=2))
        outputs.append(certain(outcomes))
    tiny.bound = 64
    assert sum(map(len, outputs)) > 100, "too many near ties to test anything"
    return outputs


def certain(outcomes: Sequence[Outcome]) -> list[int]:
    ids = []
    for outcome in outcomes:
        assert outcome.logprob is not None
        (_, best), (_, second) = outcome.logprob[1]
        if best - second <= GAP:
            break
        ids.append(outcome.token_id)
    return ids


def assert_same(outcomes: Sequence[Sequence[Outcome]]) -> None:
    for got, wanted in zip(outcomes, reference(), strict=True):
        assert [outcome.token_id for outcome in got][: len(wanted)] == wanted
        assert len(got) == MAX_OUTPUT


@pytest.mark.parametrize("mode", ["serial", "serial_all", "hybrid", "shared", "split"])
@pytest.mark.parametrize("bound", [5, 64])
def test_modes_and_chunk_sizes(mode: str, bound: int) -> None:
    reference()
    tiny = engine()
    if mode not in tiny.plans():
        pytest.skip("one core: split is not available")
    tiny.reset()
    tiny.bound = bound
    assert_same(tiny.generate(prompts(), tiny.plans()[mode], MAX_OUTPUT))


def test_prefix_hits() -> None:
    reference()
    tiny = engine()
    tiny.reset()
    plan = tiny.plans()["hybrid"]
    tiny.generate(prompts(), plan, MAX_OUTPUT)
    assert_same(tiny.generate(prompts(), plan, MAX_OUTPUT))
    assert tiny.scheduler.prefix_hits > 300


def test_preemption() -> None:
    """A cache far too small for all: requests are preempted and computed again.

    One lane at a time: with two, on a busy machine, prompts could come so late that nobody was ever in their way.
    """
    reference()
    tiny = engine()
    tiny.reset(kv_blocks=16)
    assert_same(tiny.generate(prompts(), tiny.plans()["hybrid"], MAX_OUTPUT))
    assert tiny.scheduler.num_preempted > 0


def test_switching_modes_every_few_turns() -> None:
    reference()
    tiny = engine()
    tiny.reset()
    plans = list(tiny.plans().values())
    assert_same(tiny.generate(prompts(), lambda turn: plans[turn // 3 % len(plans)], MAX_OUTPUT))


def test_forced_preemption_in_every_turn() -> None:
    reference()
    tiny = engine()
    tiny.reset()

    def preempt(turn: int) -> None:
        if turn % 5 == 4 and tiny.scheduler.running:
            tiny.scheduler._preempt(tiny.scheduler.running[-1])

    assert_same(tiny.generate(prompts(), tiny.plans()["shared"], MAX_OUTPUT, between=preempt))


def test_both_lanes_are_in_flight_at_once_in_shared_and_split() -> None:
    tiny = engine()
    for mode in ("shared", "split"):
        if mode in tiny.plans():
            tiny.reset()
            tiny.bound = 16
            tiny.generate(prompts(), tiny.plans()[mode], MAX_OUTPUT)
            assert tiny.max_overlap == 2


def test_a_seeded_sample_does_not_depend_on_neighbours() -> None:
    tiny = engine()
    sampling = SamplingParams(temperature=0.8, top_k=40, seed=5)
    alone = []
    for prompt in prompts():
        tiny.reset()
        alone.append([o.token_id for o in tiny.generate([prompt], tiny.plans()["hybrid"], 8, sampling)[0]])
    tiny.reset()
    together = tiny.generate(prompts(), tiny.plans()["shared"], 8, sampling)
    assert [[o.token_id for o in outcomes] for outcomes in together] == alone
