"""A test prompt's bookkeeping: gaps by the daemon's clock, TTFT by ours until the daemon tells its own."""

import pytest
from msgspec.structs import replace

from rapidctl.console.run import Run, exchange, replayed
from rapidctl.console.widgets.gaps import gap_strip
from rapidctl.console.widgets.timeline import timeline
from rapidctl.errors import Unreachable
from rapidctl.source import Streamed
from rapidctl.wire import Accepted, ChoiceResult, Delta, Failed, Finished, Generate, Quantiles, Slo, Timing, pack_ids
from support.snapshots import partition

SLO = Slo(itl_s=0.1, ttft_floor_s=0.5, ttft_per_1k_s=1.0)
REQUEST = Generate(id="r-1", prompt="why")


def delta(index: int, text: str, *stamps_ms: int, choice: int = 0) -> Delta:
    ids = pack_ids(range(len(stamps_ms)))
    return Delta(
        id="r-1", choice=choice, index=index, token_ids=ids, text=text, at_mono_ns=[ms * 1_000_000 for ms in stamps_ms]
    )


FINISHED = Finished(
    id="r-1",
    choices=[ChoiceResult(index=0, finish_reason="stop", text="so it is", token_ids=pack_ids([1, 2, 3]))],
    prompt_tokens=14, cached_tokens=4, output_tokens=3, mode="split",
    timing=Timing(queued_s=0.004, prefill_s=0.175, ttft_s=0.188, e2e_s=1.0, itl_s=Quantiles(n=2)),
)  # fmt: skip


@pytest.fixture
def run() -> Run:
    return Run(REQUEST, partition(), now=50.0)


def feed(run: Run, *events: object, at_s: float = 50.25) -> None:
    for found in events:
        run.take(Streamed("r-1", found, at_s))  # type: ignore[arg-type]


def test_states_from_sending_to_the_end(run: Run) -> None:
    seen = [(run.state, run.over)]
    for found in (Accepted(id="r-1", prompt_tokens=14, seed=1), delta(0, "so", 1000), FINISHED):
        feed(run, found)
        seen.append((run.state, run.over))
    assert seen == [("sent", False), ("queued", False), ("streaming", False), ("finished", True)]
    assert run.text == "so it is"


def test_gaps_are_between_the_daemons_stamps_also_within_and_across_messages(run: Run) -> None:
    feed(run, delta(0, "a", 1000), delta(1, "b", 1030, 1090), delta(3, "c", 1300))
    assert run.gaps_s == pytest.approx([0.03, 0.06, 0.21])
    found = run.gaps()
    assert [found.n, found.p50, found.max] == pytest.approx([3, 0.06, 0.21])
    assert run.tokens == 4
    assert run.tokens_per_s == pytest.approx(3 / 0.3)


def test_without_gaps_there_are_no_figures(run: Run) -> None:
    feed(run, delta(0, "a", 1000))
    assert run.gaps() == Quantiles(n=0)
    assert run.tokens_per_s is None


def test_of_a_hundred_gaps_few_are_beyond_the_high_quantiles(run: Run) -> None:
    """They were a rank too high: of 20 gaps p95 was the longest, beyond an objective that the daemon saw met."""
    stamps_ms = [1000 + gap * (gap + 1) // 2 for gap in range(101)]  # gaps of 1, 2, ... 100 ms
    feed(run, delta(0, "x", *stamps_ms))
    found = run.gaps()
    assert [found.p50, found.p95, found.p99, found.max] == pytest.approx([0.05, 0.095, 0.099, 0.1])


def test_other_choices_do_not_mix_in(run: Run) -> None:
    feed(run, delta(0, "a", 1000), delta(0, "z", 1010, choice=1))
    assert (run.text, run.tokens) == ("a", 1)


def test_control_codes_of_the_model_never_reach_the_screen(run: Run) -> None:
    feed(run, delta(0, "a\x1b]0;owned\x07\n\tb", 1000))
    assert run.text == "a]0;owned\n    b"


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (Failed(code="queue_full", message="queue full", hint="try later", id="r-1"), "queue full — try later"),
        (Unreachable("no daemon answers", "start one"), "no daemon answers — start one"),
    ],
    ids=["failed", "unreachable"],
)
def test_a_failure_keeps_the_text_and_says_why(run: Run, end: object, words: str) -> None:
    feed(run, delta(0, "so far", 1000), end)
    assert (run.state, run.text, run.problem) == ("failed", "so far", words)


def test_a_recorded_failure_is_told_from_the_moment_on_at_which_it_came(run: Run) -> None:
    feed(run, delta(0, "so far", 1000), at_s=51.0)
    feed(run, Failed(code="engine_lost", message="the engine died", id="r-1"), at_s=52.0)
    kept = exchange(run)
    shown = [
        (found.state, found.text, found.problem) for found in (replayed(kept, at_s) for at_s in (50.5, 51.9, 52.0))
    ]
    assert shown == [("sent", "", ""), ("streaming", "so far", ""), ("failed", "so far", "the engine died")]


def test_the_slo_of_a_prompt_grows_with_its_length(run: Run) -> None:
    assert run.ttft_slo_s(SLO) is None
    feed(run, Accepted(id="r-1", prompt_tokens=14, seed=1))
    assert run.ttft_slo_s(SLO) == 0.5
    feed(run, Accepted(id="r-1", prompt_tokens=3000, seed=1))
    assert run.ttft_slo_s(SLO) == 3.0


def test_the_timeline_says_what_is_known_and_by_whose_clock(run: Run) -> None:
    feed(run, Accepted(id="r-1", prompt_tokens=14, seed=1), delta(0, "a", 1000), delta(1, "b", 1030, 1090))
    before = [line.plain.rstrip() for line in timeline(run, SLO, 38, 10)]
    assert before == [
        "queued        —",
        "prefill       —  14 tok",
        "TTFT          —  SLO 500",
        "            250  here",
        "ITL p50      30  n=2",
        "ITL p95      60  SLO 100 ✓",
        "ITL max      60",
        "tokens        3  22.2 tok/s",
        "start     split P144/D160",
        "end       —",
    ]
    feed(run, FINISHED)
    after = [line.plain.rstrip() for line in timeline(run, SLO, 38, 10)]
    assert after[:3] == ["queued      4.0", "prefill     175  14 tok 4 cached", "TTFT        188  SLO 500 ✓"]
    assert after[-1] == "end       stop"


def test_over_the_slo_is_a_word_and_not_only_a_colour(run: Run) -> None:
    late = replace(FINISHED, timing=replace(FINISHED.timing, ttft_s=0.8))
    feed(run, Accepted(id="r-1", prompt_tokens=14, seed=1), late)
    assert timeline(run, SLO, 38, 4)[0].plain == "TTFT        800  SLO 500 ! over"


def test_one_bar_a_token_newest_last_with_the_slo_line(run: Run) -> None:
    feed(run, *(delta(index, "x", 1000 + 50 * index) for index in range(5)), delta(5, "y", 1400))
    assert [line.plain for line in gap_strip(run, 0.1, 12, 4)] == [
        " 150┤    !  ",
        " SLO┼╌╌╌╌█╌╌",
        "    │▃▃▃▃█  ",
        "   0┤█████  ",
    ]
