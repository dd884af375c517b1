"""A calibration of a device that is a law: in time, over the whole range, and as good as the cost model needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import count

import msgspec
import pytest

from rapidd.calibrate.points import Chunk, Step
from rapidd.calibrate.probe import Manner, Probe, TooLarge, _Runs
from rapidd.calibrate.session import Session, differences, least
from rapidd.engine.batch import Batch
from rapidd.errors import DeviceError
from rapidd.policy.cost import CostModel
from rapidd.policy.profile import DecodeSample, Profile
from support import law_device
from support.law_device import BUCKETS, LIMITS, TABLE, LawDevice
from support.profiles import KEY
from support.tiny_gpu import stand_in_engine

VOCAB = 1000


def probe_of(device: LawDevice, settle_s: float = 0.0, **limits: int) -> Probe:
    changed = msgspec.structs.replace(LIMITS, **limits)
    return Probe(device.lanes, device, changed, TABLE.units_total, VOCAB, device.seconds, Manner(settle_s=settle_s))


def session_of(device: LawDevice, budget_s: float = 60.0, *, passes: int = 1, **limits: int) -> Session:
    changed = msgspec.structs.replace(LIMITS, **limits)
    return Session(
        probe_of(device, **limits),
        changed,
        TABLE,
        max_chunk_s=0.1,
        budget_s=budget_s,
        progress=lambda share, stage, text: None,
        clock=device.seconds,
        passes=passes,
    )


def profile_of(session: Session) -> Profile:
    return Profile(
        key=msgspec.structs.replace(KEY, units_total=TABLE.units_total),
        made_unix_s=0.0,
        seconds=1.0,
        splits=TABLE.splits,
        row_buckets=BUCKETS,
        decode=tuple(session.decode),
        prefill=tuple(session.prefill),
        hybrid=tuple(session.hybrid),
    )


# --- one measurement


def test_a_batch_alone_takes_what_the_device_says() -> None:
    probe = probe_of(LawDevice())
    assert probe.decode(Step(64, 1024), 132) == pytest.approx(law_device.decode_law(64, 65536, 132))
    assert probe.decode(Step(64, 1024), 24) == pytest.approx(law_device.decode_law(64, 65536, 24))
    assert probe.prefill(Chunk(512, 4096), 108) == pytest.approx(law_device.prefill_law(512, 4096, 108))
    both = law_device.mixed_law(16, 16 * 2048, 256, 1024)
    assert probe.hybrid(Step(16, 2048), Chunk(256, 1024)) == pytest.approx(both)


@pytest.mark.parametrize("units", [132, 24])
def test_of_both_lanes_only_batches_wholly_beside_the_other_lane_count(units: int) -> None:
    found = probe_of(LawDevice()).beside(Step(32, 1024), Chunk(512, 0), units)
    other = 132 if units == 132 else 132 - units
    assert found is not None
    assert found.step_s == pytest.approx(law_device.beside("decode", law_device.decode_law(32, 32768, units), units))
    assert found.chunk_s == pytest.approx(law_device.beside("prefill", law_device.prefill_law(512, 0, other), other))


def test_a_lane_that_is_starved_is_given_up() -> None:
    """The chunk takes as long as a hundred steps, and longer than the probe waits."""
    device = LawDevice(lambda batch, is_beside: 30.0 if batch.lane == "prefill" else 0.3)
    found = probe_of(device).beside(Step(1, 16), Chunk(16, 0), 132)
    assert device.seconds() < 100
    assert found is not None, "the chunk that was running is waited for, with decode beside it"
    assert found.chunk_s == 30.0


def test_the_first_run_of_a_batch_does_not_count() -> None:
    """It makes kernels."""
    seen: Counter[int] = Counter()

    def slow_at_first(batch: Batch, is_beside: bool) -> float:
        seen[id(batch)] += 1
        return 9.0 if seen[id(batch)] == 1 else 0.01

    assert probe_of(LawDevice(slow_at_first)).decode(Step(4, 64), 132) == pytest.approx(0.01)


@pytest.mark.parametrize(("first_counts", "times"), [(False, 2), (True, 1)])
def test_where_first_runs_count_a_long_batch_runs_once(first_counts: bool, times: int) -> None:
    """As on a processor, where nothing is compiled: in the same time everything can be measured more often."""
    device = LawDevice(lambda batch, is_beside: 0.3)
    manner = Manner(first_counts=first_counts, long_s=0.2)
    probe = Probe(device.lanes, device, LIMITS, TABLE.units_total, VOCAB, device.seconds, manner)
    assert probe.decode(Step(4, 64), 132) == pytest.approx(0.3)
    assert len(device.batches) == times


def boosted() -> Callable[[Batch, bool], float]:
    """The law of a device that is quicker for its first 80 ms."""
    worked_s = 0.0

    def law(batch: Batch, is_beside: bool) -> float:
        nonlocal worked_s
        seconds = law_device.law(batch, is_beside) * (0.88 if worked_s < 0.08 else 1.0)
        worked_s += seconds
        return seconds

    return law


@pytest.mark.parametrize("rows", [0, 16])
@pytest.mark.parametrize("chunk", [Chunk(64, 0), Chunk(512, 0), Chunk(2048, 8192)])
def test_prompts_count_once_the_clock_has_fallen_to_what_the_power_limit_allows(chunk: Chunk, rows: int) -> None:
    """An H200 runs them at 1,980 MHz for 80 ms and then at 1,540. Seven runs of a chunk of 11 ms were over before, and
    while serving batches took 3 to 5 % longer than foretold."""
    device = LawDevice(boosted())
    probe = probe_of(device, settle_s=0.1)
    step = Step(rows, 2048)
    expected = law_device.mixed_law(rows, step.kv_tokens, chunk.tokens, chunk.context)
    found = probe.hybrid(step, chunk) if rows else probe.prefill(chunk, 132)
    assert found == pytest.approx(expected)
    assert device.seconds() < max(0.25, 6 * expected)


@pytest.mark.parametrize("units", [132, 24])
def test_both_lanes_count_once_the_clock_has_fallen(units: int) -> None:
    probe = probe_of(LawDevice(boosted()), settle_s=0.1)
    found = probe.beside(Step(32, 1024), Chunk(512, 0), units)
    other = 132 if units == 132 else 132 - units
    assert found is not None
    assert found.step_s == pytest.approx(law_device.beside("decode", law_device.decode_law(32, 32768, units), units))
    assert found.chunk_s == pytest.approx(law_device.beside("prefill", law_device.prefill_law(512, 0, other), other))


def test_both_lanes_wait_for_the_clock_however_quick_their_batches_are() -> None:
    """Of a small model enough were seen beside each other within 25 ms: all of them before the clock had fallen."""

    def quick(batch: Batch, is_beside: bool) -> float:
        return (1.5e-3 if batch.lane == "decode" else 8e-3) * (0.88 if device.seconds() < 0.08 else 1.0)

    device = LawDevice(quick)
    found = probe_of(device, settle_s=0.1).beside(Step(32, 1024), Chunk(512, 0), 132)
    assert found is not None
    assert (found.step_s, found.chunk_s) == pytest.approx((1.5e-3, 8e-3))


def test_rows_have_blocks_and_slots_of_their_own() -> None:
    device = LawDevice()
    probe_of(device).beside(Step(8, 1000), Chunk(128, 640), 132)
    latest = {batch.lane: batch for batch in device.batches}
    rows = [row for batch in latest.values() for row in batch.rows]
    blocks = [block for row in rows for block in row.blocks]
    assert len(blocks) == len(set(blocks)) == 8 * 16 + 12
    assert 0 < min(blocks) <= max(blocks) <= LIMITS.kv_blocks
    assert len({row.slot for row in latest["decode"].rows}) == 8
    assert [row.start + row.count for row in latest["prefill"].rows] == [768]


@pytest.mark.parametrize(
    ("step", "limits"),
    [(Step(8, 1000), {"kv_blocks": 100}), (Step(8, 1000), {"max_rows": 7}), (Step(1, 500), {"max_model_len": 500})],
)
def test_what_cannot_fit_is_refused_before_it_runs(step: Step, limits: dict[str, int]) -> None:
    device = LawDevice()
    with pytest.raises(TooLarge):
        probe_of(device, **limits).decode(step, 132)
    assert not device.batches


def test_running_out_of_memory_leaves_idle_lanes_and_the_next_batch_works() -> None:
    device = LawDevice(error=lambda batch: MemoryError() if batch.num_decode == 8 else None)
    probe = probe_of(device)
    with pytest.raises(TooLarge):
        probe.decode(Step(8, 64), 132)
    assert all(lane.idle for lane in device.lanes.values())
    assert probe.decode(Step(4, 64), 132) > 0


def test_runs_whose_threads_waited_for_a_core_do_not_count() -> None:
    """Beside other work a batch on a processor took up to twenty times its time, which was then its time."""
    waited = iter([0.0, 0.0, 0.4, 0.41, 0.6, 0.6])
    runs = _Runs(Manner(waited=lambda: next(waited), long_s=0.5))
    for took_s in (1.0, 1.5, 1.1, 1.3):
        runs.add([(0, int(took_s * 1e9))])
    assert runs.counting == [1.0, 1.1]
    assert not runs.enough(0.49)
    assert runs.enough(0.5)


def test_where_every_run_was_disturbed_all_count_and_patience_ends() -> None:
    ticks = count()
    runs = _Runs(Manner(waited=lambda: float(next(ticks)), patient_s=2.0))
    for _ in range(7):
        runs.add([(0, 10**9)])
    assert runs.counting == [1.0] * 7
    assert not runs.enough(1.99)
    assert runs.enough(2.0)


def test_another_failure_ends_the_calibration() -> None:
    probe = probe_of(LawDevice(error=lambda batch: ValueError("no kernel")))
    with pytest.raises(DeviceError, match="no kernel"):
        probe.prefill(Chunk(16, 0), 132)


def test_the_gpus_half_of_the_engine_runs_the_same_batches() -> None:
    """Graphs, padding and staging over a stand-in for the device, in every mode."""
    engine = stand_in_engine(max_running=4, kv_blocks=65)
    limits = msgspec.structs.replace(LIMITS, max_rows=4, max_model_len=512, kv_blocks=64, block_tokens=16)
    ticks = count()
    probe = Probe(
        engine.lanes, engine.wake, limits, engine.table.units_total, engine.model.spec.vocab_size, lambda: next(ticks)
    )
    seconds = [probe.decode(Step(3, 100), units) for units in (4, 1)]
    seconds += [probe.prefill(Chunk(40, 60), units) for units in (4, 3)]
    seconds.append(probe.hybrid(Step(3, 30), Chunk(16, 16)))
    assert min(seconds) > 0
    for units in (4, 1):
        found = probe.beside(Step(2, 50), Chunk(32, 0), units)
        assert found is None or min(found.step_s, found.chunk_s) > 0
    assert all(lane.idle for lane in engine.lanes.values())


# --- the whole of it


@pytest.fixture(scope="module")
def h100() -> tuple[LawDevice, Session]:
    """Calibrated in a minute."""
    device = LawDevice()
    session = session_of(device)
    session.run()
    return device, session


def test_an_h100_is_calibrated_in_a_minute_within_the_errors_that_predictions_may_have(
    h100: tuple[LawDevice, Session],
) -> None:
    device, session = h100
    assert device.seconds() < 62
    assert not session.too_large
    report = CostModel(profile_of(session)).fit
    assert report.n > 150
    assert report.median is not None
    assert report.p95 is not None
    assert report.median < 0.05
    assert report.p95 < 0.25
    units = {sample.units for sample in session.decode}
    assert units == {*TABLE.splits, 132}
    assert {s.units for s in session.decode if s.beside} == units, "shared and every split"
    beside = Counter((s.rows, s.units == 132) for s in session.decode if s.beside)
    assert beside == {(1, True): 2, (96, True): 2, (16, True): 1, (64, True): 1, (1, False): 12, (96, False): 12}


def test_predictions_hold_where_nothing_was_measured(h100: tuple[LawDevice, Session]) -> None:
    model = CostModel(profile_of(h100[1]))
    for rows, context in ((1, 1024), (20, 3000), (64, 1024), (90, 2000), (96, 4096)):
        for units in (24, 48, 132):
            expected = law_device.decode_law(rows, rows * context, units)
            assert model.decode_s(rows, rows * context, units) == pytest.approx(expected, rel=0.15)
            expected = law_device.beside("decode", expected, units)
            assert model.decode_s(rows, rows * context, units, True) == pytest.approx(expected, rel=0.2)
    for tokens, context in ((128, 0), (384, 9000), (1500, 3000), (2048, 30_000)):
        for units in (84, 108, 132):
            expected = law_device.prefill_law(tokens, context, units)
            assert model.prefill_s(tokens, context, units) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("hidden", [0.0, 0.5, 1.0])
def test_mixed_batches_tell_how_far_attentions_overlap(hidden: float) -> None:
    """The batch foretold was not measured; its two attentions take as long, each about a fifth of its time."""
    session = session_of(LawDevice(partial(law_device.law, hidden=hidden)))
    session.run()
    model = CostModel(profile_of(session))
    unseen = (32, 32 * 2000, 480, 2800)
    assert model.hybrid_s(*unseen) == pytest.approx(law_device.mixed_law(*unseen, hidden), rel=0.03)
    report = model.fit.parts["hybrid"]
    assert report.n == 48
    assert report.p95 is not None
    assert report.p95 < 0.05


@pytest.mark.parametrize("budget_s", [0.5, 5.0, 20.0])
def test_less_time_measures_less_and_still_the_whole_device_and_both_lanes(budget_s: float) -> None:
    device = LawDevice()
    session = session_of(device, budget_s)
    session.run()
    assert device.seconds() < budget_s + 3
    assert session.skipped > 0
    assert any(sample.units == 132 and not sample.beside for sample in session.decode)
    assert any(sample.beside for sample in session.prefill)
    CostModel(profile_of(session))


def test_batches_that_run_out_of_memory_are_named_and_the_others_measured() -> None:
    device = LawDevice(error=lambda batch: MemoryError() if batch.num_decode == 96 else None)
    session = session_of(device)
    session.run()
    assert any(text.startswith("96 rows") for text in session.too_large)
    assert {sample.rows for sample in session.decode} >= {1, 16, 64}
    assert max(sample.rows for sample in session.decode) < 96


def test_chunks_that_would_take_far_longer_than_a_chunk_may_are_left_out() -> None:
    def slow(batch: Batch, is_beside: bool) -> float:
        return 20 * law_device.law(batch, is_beside)

    session = session_of(LawDevice(slow), 200.0)
    session.run()
    alone = [sample for sample in session.prefill if not sample.beside]
    assert max(sample.seconds for sample in alone) < 0.5
    assert max(sample.tokens for sample in alone) < 512


def test_what_a_size_takes_by_itself_does_not_foretell_what_a_context_costs() -> None:
    """On an H200 256 tokens take 2 ms longer than 64. That was taken for attention, by which they would take 0.3 s
    behind 16,000 others, and so this was left out."""

    def steep(batch: Batch, is_beside: bool) -> float:
        return law_device.law(batch, is_beside) + (2e-3 if batch.num_prefill_tokens >= 256 else 0.0)

    session = session_of(LawDevice(steep))
    session.run()
    longest = {sample.context for sample in session.prefill if sample.tokens == 256 and sample.units == 132}
    assert max(longest) > 15_000


def test_a_device_without_splits_has_both_lanes_on_all_units() -> None:
    device = LawDevice()
    session = Session(
        probe_of(device),
        LIMITS,
        msgspec.structs.replace(TABLE, splits=()),
        max_chunk_s=0.1,
        budget_s=30.0,
        progress=lambda share, stage, text: None,
        clock=device.seconds,
    )
    session.run()
    assert {sample.units for sample in session.decode} | {sample.units for sample in session.prefill} == {132}
    assert any(sample.beside for sample in session.decode)


def test_a_cache_of_a_few_blocks_is_measured_as_far_as_it_goes() -> None:
    session = session_of(LawDevice(), kv_blocks=6, max_model_len=200)
    session.run()
    assert {sample.rows for sample in session.decode} == {1, 4}
    assert max(sample.tokens + sample.context for sample in session.prefill) <= 64


# --- on a machine that others use


def noisy(law: Callable[[Batch, bool], float], busy: Callable[[int], bool]) -> Callable[[Batch, bool], float]:
    """As ``law``, but three times as long for those batches, by their number in the order of running, that are hit."""
    numbers = count()
    return lambda batch, is_beside: law(batch, is_beside) * (3.0 if busy(next(numbers)) else 1.0)


@pytest.mark.parametrize(("passes", "is_good"), [(1, False), (2, True)])
def test_of_each_batch_the_pass_in_which_nobody_disturbed_it_counts(passes: int, is_good: bool) -> None:
    """Somebody works for a quarter of the time, longer than one batch is measured, in each pass beside other ones."""
    device = LawDevice(noisy(law_device.law, lambda number: number % 1900 >= 1425))
    session = session_of(device, 60.0 * passes, passes=passes)
    session.run()
    fit = CostModel(profile_of(session)).fit
    assert fit.p95 is not None
    assert (fit.p95 <= 0.25) == is_good
    assert (session.passes_differ is None) == (passes == 1)
    alone = [(s.rows, s.kv_tokens, s.units) for s in session.decode if not s.beside]
    assert len(alone) == len(set(alone)), "one sample of each batch"


def test_what_takes_least_counts_and_the_order_stays() -> None:
    def step(rows: int, seconds: float) -> DecodeSample:
        return DecodeSample(rows, 64, 2, seconds)

    assert least([step(1, 3.0), step(2, 1.0), step(1, 2.0), step(2, 4.0)]) == [step(1, 2.0), step(2, 1.0)]


def test_passes_differ_by_what_the_same_batch_took_longer_in_one_of_them() -> None:
    """What no batch but one was measured for twice says nothing."""
    steps = [DecodeSample(rows, 64, 2, seconds) for rows, seconds in ((1, 1.0), (2, 3.0), (1, 1.5), (2, 3.3), (4, 9.0))]
    assert differences(steps) == pytest.approx([0.5, 0.1])
