"""Errors of simulated batches: as large as asked, the same in every run, and found by what the engine learns online."""

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapidctl.wire import Mode
from rapidd.engine.batch import Batch
from rapidd.policy.tiles import TILE_TOKENS, padded_rows
from rapidd.simulate.errors import EXACT, Errors, read_errors, uniform
from rapidd.simulate.load import Item
from rapidd.simulate.machine import Machine
from rapidd.simulate.metrics import summarize
from support.h100 import TOTAL, calibration, cost_model
from support.simulated import load, serve, setup

DRAWS = 20_000


def batch(number: int = 1, mode: Mode = "hybrid", rows: int = 0, tokens: int = 0) -> Batch:
    return Batch(number, "decode" if rows else "prefill", TOTAL, mode, [], rows, tokens, 0)


def factors(errors: Errors, count: int = DRAWS) -> list[float]:
    return [errors.factor(batch(number, rows=1)) for number in range(1, count + 1)]


@pytest.mark.parametrize("jitter", [0.01, 0.08, 0.3, 0.5])
@pytest.mark.parametrize("bias", [-0.2, 0.0, 0.06])
def test_the_mean_error_is_the_one_asked_for_and_moves_no_mean(jitter: float, bias: float) -> None:
    drawn = [factor / (1 + bias) for factor in factors(Errors(jitter={"all": jitter}, bias={"all": bias}))]
    assert statistics.fmean(abs(factor - 1) for factor in drawn) == pytest.approx(jitter, rel=0.03)
    assert statistics.fmean(drawn) == pytest.approx(1.0, abs=0.03 * jitter + 1e-9)
    assert min(drawn) > 0


def test_the_same_seed_draws_the_same_and_another_one_something_else() -> None:
    jitter = {"all": 0.1}
    one, again, other = (factors(Errors(jitter=jitter, seed=seed), 50) for seed in (1, 1, 2))
    assert one == again
    assert not set(one) & set(other)


def test_the_lanes_draw_apart() -> None:
    errors = Errors(jitter={"all": 0.1})
    decode = {errors.factor(batch(number, rows=1)) for number in range(50)}
    assert not decode & {errors.factor(batch(number, tokens=64)) for number in range(50)}


def test_batches_in_a_row_err_alike_when_asked() -> None:
    errors = Errors(jitter={"all": 0.1}, run=5)
    assert [len(set(factors(errors, 50)[at : at + 5])) for at in (4, 9, 14)] == [1, 1, 1]
    assert len(set(factors(errors, 50))) == 11


@given(seed=st.integers(-(2**70), 2**70), counter=st.integers(0, 2**70))
def test_every_draw_is_between_none_and_all(seed: int, counter: int) -> None:
    assert 0.0 < uniform(seed, counter) < 1.0


def test_what_is_said_of_a_mode_and_kind_goes_before_the_kind_before_all() -> None:
    errors = Errors(bias=read_errors(["0.1", "mixed=0.2", "hybrid/mixed=0.3"]))
    assert errors.factor(batch(rows=1)) == pytest.approx(1.1)
    assert errors.factor(batch(mode="shared", rows=1, tokens=64)) == pytest.approx(1.2)
    assert errors.factor(batch(rows=1, tokens=64)) == pytest.approx(1.3)
    assert EXACT.factor(batch(rows=1)) == 1.0


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("much", "'much' is no number"),
        ("nan", "not within"),
        ("=0.1", "'' is no kind"),
        ("mixd=0.1", "'mixd' is no kind of batch"),
        ("-0.1", "-0.1 is not within 0 and 0.5"),
        ("decode=0.6", "0.6 is not within"),
    ],
)
def test_a_bad_error_is_refused_with_what_is_accepted(word: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_errors([word], 0.0)


# --- in a run


LENGTHS = st.tuples(st.integers(1, 3000), st.integers(1, 30))
POLICIES = ("auto", "rapid", "serial:512", "hybrid", "shared", "split:24")


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    lengths=st.lists(LENGTHS, min_size=1, max_size=10),
    policy=st.sampled_from(POLICIES),
    jitter=st.floats(0, 0.5),
    bias=st.floats(-0.5, 0.5),
    run=st.integers(1, 40),
)
def test_any_load_drains_however_wrong_the_predictions_are(
    lengths: list[tuple[int, int]], policy: str, jitter: float, bias: float, run: int
) -> None:
    items = [Item(0.01 * index, prompt, output, []) for index, (prompt, output) in enumerate(lengths)]
    errors = Errors(jitter={"all": jitter}, bias={"all": bias}, run=run)
    done = serve(policy, items, setup(kv_blocks=100, max_running=4, errors=errors))
    assert [len(record.token_s) for record in done.records] == [output for _, output in lengths]


def test_the_same_errors_give_the_same_run_and_other_seeds_another() -> None:
    runs = [serve("auto", load("2000/60@8", 30), setup(errors=Errors(jitter={"all": 0.1}, seed=s))) for s in (3, 3, 4)]
    stamps = [[list(record.token_s) for record in run.records] for run in runs]
    assert stamps[0] == stamps[1] != stamps[2]


def test_a_batch_takes_its_prediction_and_the_error_on_top() -> None:
    run = serve("hybrid", [Item(1.0, 1000, 2, [])], setup(errors=Errors(bias={"prefill": 0.5, "decode": -0.25})))
    first, second = run.records[0].token_s
    cost = cost_model()
    assert first == pytest.approx(1.0 + 1.5 * cost.prefill_s(1000, 0, TOTAL))
    assert second - first == pytest.approx(0.75 * cost.decode_s(1, 1000, TOTAL))


def test_a_bias_is_found_by_the_correction_and_forgotten_by_the_next_run() -> None:
    known = calibration()
    biased = setup(host_s=0.001, errors=Errors(bias={"decode": 0.2, "split/prefill": -0.1}))
    machine = Machine(known, "split:24", biased)
    machine.run(load("3000/60@6", 30))
    assert machine.correction.factor("split", "decode") == pytest.approx(1.2, rel=0.03)
    assert machine.correction.factor("split", "prefill") == pytest.approx(0.9, rel=0.03)
    assert known.correction.all() == []
    assert Machine(known, "split:24", biased).correction.all() == []


def test_auto_keeps_the_objective_when_its_predictions_err() -> None:
    """Of a request's gaps the slowest twentieth counts: chunks sized to the objective by the mean miss it."""
    erring = setup(0.025, errors=Errors(jitter={"hybrid/mixed": 0.1}))
    summary = summarize(serve("auto", load("8000/150@1.6", 60), erring), erring.slo)
    assert summary.places["hybrid"] > 0.3
    assert summary.itl_met >= 0.9


class OneSizeSlow(Errors, frozen=True, kw_only=True):
    """Mixed batches of every third number of tiles take a quarter longer, and nothing else errs."""

    def factor(self, batch: Batch) -> float:
        tiles = (padded_rows(batch.num_decode) + batch.num_prefill_tokens) // TILE_TOKENS
        return 1.25 if batch.kind == "mixed" and tiles % 3 == 1 else 1.0


@pytest.mark.parametrize("policy", ["auto", "hybrid"])
def test_the_objective_is_kept_where_batches_of_one_size_are_slow(policy: str) -> None:
    """On a GPU those of 448 tokens took a third longer, and most requests missed by less than a millisecond: the mean
    of two kinds of errors says nothing of the slowest twentieth. By it alone 78 and 67 % keep the objective here."""
    slow = setup(0.025, errors=OneSizeSlow())
    assert summarize(serve(policy, load("8000/150@2", 60), slow), slow.slo).itl_met >= 0.95
