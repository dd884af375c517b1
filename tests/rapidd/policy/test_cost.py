"""The cost model: exact on its own laws, near on what devices measured, and sensible everywhere."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import rapidd
from rapidd.policy.cost import CostModel, Sample, predict
from rapidd.policy.profile import DecodeSample, HybridSample, PrefillSample, Profile, load_profile
from rapidd.policy.tiles import beside_rows, padded_rows, padded_total
from support import profiles
from support.h100 import PREFILL_BESIDE, TOTAL, h100_8b
from support.profiles import KEY, PROFILE, make_profile

MODEL = CostModel(PROFILE)
HIDDEN = 0.8
OVERLAPPING = CostModel(make_profile(HIDDEN))
"""A device that runs most of the attentions of a mixed batch side by side."""
GRAPHS = CostModel(msgspec.structs.replace(OVERLAPPING.profile, row_buckets=(1, 8, 32, 64)))
SHIPPED = Path(rapidd.__file__).parent / "profiles"
RESULTS = Path(__file__).parents[3] / "docs" / "results" / "gpu"
KERNELS = [RESULTS / "2026-11-22-v7.json", RESULTS / "2026-11-29-v9.json"]
"""The kernels by themselves: on an H100, and on an H200."""

units = st.sampled_from([1, 2, 3, 4])
rows = st.integers(1, 300)
kv_tokens = st.integers(0, 3_000_000)
tokens = st.integers(1, 40_000)
context = st.integers(0, 200_000)
both = st.booleans()
quick = settings(deadline=None, max_examples=100, derandomize=True)


def near(value: float) -> object:
    return pytest.approx(value, rel=0.01)


# --- what it predicts


@pytest.mark.parametrize("on", [1, 2, 4])
@pytest.mark.parametrize("at", [(1, 100), (20, 20_000), (48, 300_000), (64, 2_000_000)])
def test_decode_steps_between_and_beyond_the_measured_ones(at: tuple[int, int], on: int) -> None:
    assert MODEL.decode_s(*at, on) == near(profiles.decode_law(*at, on))
    assert MODEL.decode_s(*at, on, beside=True) == near(profiles.beside_decode_law(*at, on))


@pytest.mark.parametrize("on", [2, 3, 4])
@pytest.mark.parametrize("at", [(64, 0), (700, 1000), (1024, 50_000), (3000, 0)])
def test_chunks_between_and_beyond_the_measured_ones(at: tuple[int, int], on: int) -> None:
    assert MODEL.prefill_s(*at, on) == near(profiles.prefill_law(*at, on))
    other = (32, 100_000)
    assert MODEL.prefill_s(*at, on, True, *other) == near(profiles.beside_prefill_law(*at, on, *other))


def test_beside_unknown_rows_a_chunk_takes_as_long_as_beside_usual_ones() -> None:
    alone = MODEL.prefill_s(512, 0, 4)
    light, heavy = MODEL.prefill_s(512, 0, 4, True, 1, 512), MODEL.prefill_s(512, 0, 4, True, 64, 64 * 8192)
    assert alone < light < MODEL.prefill_s(512, 0, 4, True) < heavy


def test_where_chunks_ran_beside_one_kind_of_step_they_are_slower_by_one_factor_beside_any() -> None:
    """Two coefficients for one step were a matter of rounding: beside other steps chunks took no longer at all."""
    model = CostModel(h100_8b())
    for units, factor in PREFILL_BESIDE.items():
        if units == TOTAL:
            continue
        alone = model.prefill_s(512, 0, units)
        for rows in (1, 4, 64):
            assert model.prefill_s(512, 0, units, True, rows, 4000 * rows) == near(factor * alone)


@pytest.mark.parametrize(
    "at", [(1, 512, 700, 1000), (40, 100_000, 64, 0), (40, 100_000, 500, 2000), (64, 500_000, 2000, 9000)]
)
def test_hybrid_steps(at: tuple[int, int, int, int]) -> None:
    assert MODEL.hybrid_s(*at) == near(profiles.hybrid_law(*at))
    assert OVERLAPPING.hybrid_s(*at) == near(profiles.hybrid_law(*at, HIDDEN))


def test_where_no_long_context_was_measured_attention_still_takes_its_time() -> None:
    """A calibration that ran out of time had only short contexts on splits: there keys and values cost nothing.

    Such splits have the line of all units, as many times as steep as their batches take longer.
    """
    short = msgspec.structs.replace(
        PROFILE,
        decode=tuple(s for s in PROFILE.decode if s.units == 4 or (not s.beside and s.kv_tokens == 512 * s.rows)),
        prefill=tuple(s for s in PROFILE.prefill if s.units == 4 or (not s.beside and s.context == 0)),
    )
    model = CostModel(short)
    assert (MODEL.short_contexts(), model.short_contexts()) == ({}, {"decode": [1, 2], "prefill": [2, 3]})
    for on in (1, 2):
        ratio = profiles.decode_law(32, 32 * 512, on) / profiles.decode_law(32, 32 * 512, 4)
        extra = model.decode_s(32, 500_000, on) - model.decode_s(32, 100_000, on)
        assert extra == pytest.approx(ratio * 400_000 * 4.5e-8, rel=0.25)
        assert model.decode_s(32, 32 * 512, on) == near(profiles.decode_law(32, 32 * 512, on))
    for on in (2, 3):
        assert model.prefill_s(512, 4096, on) == near(profiles.prefill_law(512, 4096, on))
        assert model.prefill_s(1024, 0, on) == near(profiles.prefill_law(1024, 0, on))


def test_between_the_few_sizes_of_a_split_its_times_bend_where_those_of_all_units_do() -> None:
    """A split with the smallest and the largest step alone was a straight line between: half too long at 64 rows."""

    def law(rows: int, kv_tokens: int, units: int) -> float:
        return (4e-3 + 3e-5 * max(rows - 64, 0)) * (1.2 + rows / 256 * (4 / units - 1)) + 2e-8 * kv_tokens * 4 / units

    rows, contexts = (1, 16, 64, 128, 192, 256), (64, 2048)
    whole = [DecodeSample(n, n * context, 4, law(n, n * context, 4)) for n in rows for context in contexts]
    ends = [(1, 64), (1, 2048), (256, 256 * 64), (256, 256 * 2048)]
    split = [DecodeSample(*at, 2, law(*at, 2)) for at in ends]
    model = CostModel(msgspec.structs.replace(PROFILE, decode=tuple(whole + split)))
    for n in rows:
        assert model.decode_s(n, 64 * n, 2) == pytest.approx(law(n, 64 * n, 2), rel=0.03)


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.json")), ids=lambda file: file.stem)
def test_in_profiles_that_ship_a_context_costs_fewer_units_no_less_time_than_all(file: Path) -> None:
    """Splits of an H200 saw long contexts behind 16 tokens alone, from which attention of longer chunks was a gift."""
    profile = load_profile(file)
    model, total = CostModel(profile), profile.key.units_total

    def chunk(units: int) -> float:
        return model.prefill_s(1024, 16_000, units) - model.prefill_s(1024, 0, units)

    def step(units: int) -> float:
        return model.decode_s(8, 8 * 16_000, units) - model.decode_s(8, 8 * 64, units)

    for units in profile.splits:
        assert chunk(total - units) > 0.95 * chunk(total)
        assert step(units) > 0.95 * step(total)


def test_where_only_one_length_was_measured_on_all_units_none_is_known_of_any() -> None:
    alone = msgspec.structs.replace(
        PROFILE, decode=tuple(s for s in PROFILE.decode if not s.beside and s.kv_tokens == 512 * s.rows)
    )
    assert CostModel(alone).short_contexts() == {"decode": [1, 2, 4]}
    fewer = msgspec.structs.replace(alone, decode=tuple(s for s in alone.decode if s.units != 1))
    assert CostModel(fewer).short_contexts() == {"decode": [1, 2, 4]}, "what one unit takes follows from two"


def test_a_split_of_few_samples_counts_few_tokens_behind_a_long_context_as_all_units_do() -> None:
    """Its samples were counted by a `least` of its own, predictions by that of all units: a third too long."""

    def law(tokens: int, context: int, units: int) -> float:
        return (1e-3 + 2e-5 * tokens + 4e-9 * (max(tokens, 64) * context + tokens * tokens / 2)) * 4 / units

    whole = [PrefillSample(*at, 4, law(*at, 4)) for at in product(profiles.TOKENS, profiles.CONTEXTS)]
    few = [(16, 0), (24, 8192), (128, 0)]
    split = [PrefillSample(*at, 2, law(*at, 2)) for at in few]
    model = CostModel(msgspec.structs.replace(PROFILE, prefill=tuple(whole + split)))
    for at in few:
        assert model.prefill_s(*at, 2) == near(law(*at, 2))


def test_rows_are_padded_to_the_next_bucket() -> None:
    model = CostModel(msgspec.structs.replace(PROFILE, row_buckets=(1, 8, 32, 64)))
    assert model.decode_s(9, 5000, 4) == model.decode_s(32, 5000, 4) > MODEL.decode_s(9, 5000, 4)
    assert model.decode_s(65, 5000, 4) > model.decode_s(64, 5000, 4)


def test_where_there_are_graphs_a_mixed_batch_is_as_long_as_its_padded_rows_and_whole_tiles() -> None:
    model = CostModel(msgspec.structs.replace(PROFILE, row_buckets=(1, 8, 32, 64)))
    assert model.hybrid_s(3, 512, 100, 0) < model.hybrid_s(3, 512, 112, 0) == model.hybrid_s(16, 512, 112, 0)
    assert model.hybrid_s(3, 512, 113, 0) > 1.1 * model.hybrid_s(3, 512, 112, 0)
    assert MODEL.hybrid_s(3, 512, 113, 0) < 1.02 * MODEL.hybrid_s(3, 512, 112, 0)


def test_a_unit_count_that_was_not_measured_is_taken_for_the_next_smaller_one() -> None:
    assert MODEL.decode_s(8, 100, 3) == MODEL.decode_s(8, 100, 2)


def test_below_all_unit_counts_that_were_measured_times_are_in_inverse_proportion_to_units() -> None:
    """A calibration that ran out of time before the splits once promised of one unit what two had done."""
    whole = CostModel(
        msgspec.structs.replace(
            PROFILE,
            decode=tuple(s for s in PROFILE.decode if s.units == KEY.units_total),
            prefill=tuple(s for s in PROFILE.prefill if s.units == KEY.units_total),
        )
    )
    for split in PROFILE.splits:
        fewer, rest = KEY.units_total / split, KEY.units_total / (KEY.units_total - split)
        assert whole.decode_s(8, 100, split) == pytest.approx(fewer * whole.decode_s(8, 100, KEY.units_total))
        assert whole.prefill_s(8, 100, KEY.units_total - split) == pytest.approx(
            rest * whole.prefill_s(8, 100, KEY.units_total)
        )


def test_what_was_never_run_beside_the_other_lane_is_taken_for_taking_turns() -> None:
    alone = msgspec.structs.replace(
        PROFILE,
        decode=tuple(s for s in PROFILE.decode if not s.beside),
        prefill=tuple(s for s in PROFILE.prefill if not s.beside),
    )
    model = CostModel(alone)
    assert model.decode_s(8, 512, 4, True) == 2 * model.decode_s(8, 512, 4)
    assert model.prefill_s(64, 0, 4, True) == 2 * model.prefill_s(64, 0, 4)


def test_one_step_and_one_chunk_are_enough_for_a_model() -> None:
    profile = msgspec.structs.replace(
        PROFILE, decode=(DecodeSample(4, 64, 4, 0.01),), prefill=(PrefillSample(64, 0, 4, 0.02),), hybrid=()
    )
    model = CostModel(profile)
    assert model.decode_s(4, 64, 4) == near(0.01)
    assert model.prefill_s(64, 0, 4) == near(0.02)
    assert model.prefill_s(128, 0, 4) > 0.03
    assert model.hybrid_s(4, 64, 64, 0) >= 0.02
    assert (model.fit.n, model.fit.median) == (0, None)


def test_absurd_samples_give_no_times_that_nobody_can_divide_by() -> None:
    """A long context in no time, and none in a long time: the fit leaves nothing for what lies between."""
    odd = (DecodeSample(1, 10**9, 4, 1e-6), DecodeSample(1, 1, 4, 3000.0), DecodeSample(64, 0, 4, 1e-9, True))
    chunks = (PrefillSample(1, 0, 4, 1e-9), PrefillSample(4096, 10**6, 4, 1e-9), PrefillSample(1, 0, 4, 1.0, True, 1))
    model = CostModel(msgspec.structs.replace(PROFILE, decode=odd, prefill=chunks))
    assert model.decode_s(1, 0, 4) > 0
    assert model.prefill_s(1, 0, 4, True) > 0
    assert model.hybrid_s(1, 0, 1, 0) > 0


@given(rows, kv_tokens, tokens, context, units, both, st.sampled_from(["rows", "kv_tokens", "tokens", "context"]))
@quick
def test_more_of_anything_never_takes_less(
    rows: int, kv_tokens: int, tokens: int, context: int, units: int, beside: bool, what: str
) -> None:
    def seconds(**more: int) -> tuple[float, ...]:
        r, k = rows + more.get("rows", 0), kv_tokens + more.get("kv_tokens", 0)
        t, c = tokens + more.get("tokens", 0), context + more.get("context", 0)
        return (
            MODEL.decode_s(r, k, units, beside),
            MODEL.prefill_s(t, c, units, beside, r, k),
            MODEL.hybrid_s(r, k, t, c),
            OVERLAPPING.hybrid_s(r, k, t, c),
        )

    before, after = seconds(), seconds(**{what: 37})
    assert all(0 < low <= high * (1 + 1e-12) for low, high in zip(before, after, strict=True))


@given(
    st.sampled_from([MODEL, OVERLAPPING]), st.floats(1e-4, 3.0), context, units, both, st.integers(0, 100), kv_tokens
)
@quick
def test_the_longest_chunk_that_fits(
    model: CostModel, seconds: float, context: int, units: int, beside: bool, rows: int, kv_tokens: int
) -> None:
    def took(tokens: int) -> float:
        if rows and not beside:
            return model.hybrid_s(rows, kv_tokens, tokens, context)
        return model.prefill_s(tokens, context, units, beside, rows, kv_tokens)

    found = model.chunk_for(seconds, context, units, beside, rows, kv_tokens)
    assert found == 0 or took(found) <= seconds * (1 + 1e-9)
    assert took(found + 1) >= seconds * (1 - 1e-9)


@given(st.floats(5e-3, 0.2), context, st.integers(1, 64), kv_tokens)
@quick
def test_where_there_are_graphs_a_chunk_of_whole_tiles_is_the_longest_of_those_that_fit(
    seconds: float, context: int, rows: int, kv_tokens: int
) -> None:
    chunk = beside_rows(GRAPHS.chunk_for(seconds, context, 4, False, rows, kv_tokens), rows)
    total = padded_rows(rows) + chunk
    assume(chunk > 0 and total == padded_total(total))
    assert GRAPHS.hybrid_s(rows, kv_tokens, chunk, context) <= seconds * (1 + 1e-9)
    longer = padded_total(total + 1) - padded_rows(rows)
    assert GRAPHS.hybrid_s(rows, kv_tokens, longer, context) >= seconds * (1 - 1e-9)


def test_the_knee_is_the_fewest_units_that_keep_the_objective() -> None:
    slow, fast = MODEL.decode_s(64, 64 * 2048, 1, True), MODEL.decode_s(64, 64 * 2048, 2, True)
    alone = MODEL.decode_s(64, 64 * 2048, 4)
    assert alone < fast < slow

    def units_for(objective_s: float) -> int | None:
        return MODEL.knee(objective_s, 2048)[64]

    assert [units_for(limit) for limit in (slow, fast, alone, 0.9 * alone)] == [1, 2, 4, None]
    assert MODEL.knee(fast, 2048, rows=[64], beside=1.1) == {64: 4}
    assert MODEL.knee(alone, 2048, rows=[64], alone=1.1) == {64: None}
    assert list(MODEL.knee(0.1, 2048)) == [1, 2, 4, 8, 16, 32, 64]


# --- how well it fits


def test_laws_of_the_models_own_form_are_held_back_and_met() -> None:
    report = MODEL.fit
    assert report.n > 200
    assert set(report.parts) == {"decode", "decode beside", "prefill", "prefill beside", "hybrid"}
    assert report.p95 is not None
    assert report.p95 < 0.05


def test_a_sample_that_is_held_back_does_not_help_to_predict_itself() -> None:
    """The model passes through both chunks exactly; neither follows from the other."""
    chunks = (PrefillSample(16, 0, 4, 0.1), PrefillSample(1024, 0, 4, 0.2))
    model = CostModel(msgspec.structs.replace(PROFILE, prefill=chunks))
    assert [predict(model, chunk) for chunk in chunks] == [pytest.approx(0.1), pytest.approx(0.2)]
    report = model.fit.parts["prefill"]
    assert report.n == 2
    assert report.median is not None
    assert report.median > 0.1


def test_the_same_profile_gives_the_same_report() -> None:
    assert CostModel(PROFILE).fit == MODEL.fit


def kernels_profile(file: Path) -> Profile:
    """Decode steps of an 8B model, alone by partition and beside chunks of 2,048 tokens, one workload a row."""
    document = json.loads(file.read_text())
    decode = [
        DecodeSample(step["rows"], step["rows"] * step["tokens"], int(units), ms / 1e3)
        for step in document["step"]
        for units, ms in step["ms"]["chained"].items()
    ]
    prefill = [PrefillSample(2048, 0, 132, document["corun"][0]["chunk_ms"]["all"] / 1e3)]
    for run in document["corun"]:
        units, other, ms = run["units"], (run["rows"], run["rows"] * run["tokens"]), run["chunk_ms"]
        decode.append(DecodeSample(*other, units, run["step_ms"]["part"] / 1e3))
        decode.append(DecodeSample(*other, units, run["step_ms"]["beside"] / 1e3, True))
        prefill.append(PrefillSample(2048, 0, 132 - units, ms["part"] / 1e3))
        prefill.append(PrefillSample(2048, 0, 132 - units, ms["beside"] / 1e3, True, *other))
    key = msgspec.structs.replace(KEY, units_total=132)
    return msgspec.structs.replace(
        PROFILE, key=key, splits=(24, 32, 40, 48, 64), decode=tuple(decode), prefill=tuple(prefill), hybrid=()
    )


@pytest.mark.parametrize("file", KERNELS, ids=["H100", "H200"])
def test_the_form_fits_decode_steps_by_partition_and_beside_prompts(file: Path) -> None:
    """Four workloads and five partitions: no grid, so these are errors of the form, not of held-back points."""
    profile = kernels_profile(file)
    model = CostModel(profile)
    samples: list[Sample] = [*profile.decode, *profile.prefill]
    errors = sorted(abs(predict(model, sample) / sample.seconds - 1) for sample in samples)
    assert len(errors) > 60
    assert errors[len(errors) // 2] < 0.03
    assert errors[int(0.95 * len(errors))] < 0.10


@pytest.mark.parametrize("file", KERNELS, ids=["H100", "H200"])
def test_a_workload_within_the_measured_ones_is_predicted_for_every_partition(file: Path) -> None:
    """64 rows of 1,024 tokens from 1 x 1,024, 32 x 8,192 and 96 x 4,096; 40 units lack the first and are left out."""
    profile = kernels_profile(file)
    inside = [sample for sample in profile.decode if sample.rows == 64 and sample.units != 40]
    model = CostModel(
        msgspec.structs.replace(profile, decode=tuple(sample for sample in profile.decode if sample.rows != 64))
    )
    errors = [abs(predict(model, sample) / sample.seconds - 1) for sample in inside]
    assert len(errors) == 13
    assert max(errors) <= 0.25


PLAIN_TORCH = {
    # rows, tokens a row, tokens before the chunk: decode step, chunk of 512, hybrid of 256, 512, 1024 and 2048; in ms
    (64, 1024, 512): (10.0, 14.6, 14.5, 20.4, 33.8, 62.7),
    (96, 4096, 2048): (24.2, 16.0, 30.0, 35.9, 50.6, 81.8),
    (32, 8192, 4096): (18.2, 18.1, 24.7, 31.5, 47.9, 81.8),
    (16, 16384, 10240): (18.3, 23.3, 26.0, 35.8, 55.4, 100.0),
}
"""Measured on an H100 with plain torch's kernels, an 8B model, bf16."""


def test_hybrid_steps_of_an_h100_follow_from_steps_and_chunks() -> None:
    decode, prefill, hybrid = [], [], []
    for (rows, each, context), (step, chunk, *mixed) in PLAIN_TORCH.items():
        decode.append(DecodeSample(rows, rows * each, 4, step / 1e3))
        prefill.append(PrefillSample(512, context, 4, chunk / 1e3))
        hybrid += [
            HybridSample(rows, rows * each, tokens, context, ms / 1e3)
            for tokens, ms in zip((256, 512, 1024, 2048), mixed, strict=True)
        ]
    profile = msgspec.structs.replace(
        PROFILE, decode=tuple(decode), prefill=tuple(prefill), hybrid=tuple(hybrid), splits=()
    )
    report = CostModel(profile).fit.parts["hybrid"]
    assert report.n == 16
    assert report.median is not None
    assert report.p95 is not None
    assert report.median <= 0.10
    assert report.p95 <= 0.25
