"""The benchmark's arithmetic: what a figure says about its samples, and what stamps say about streams."""

import pytest

from bench.figures import Figure, ratios, table
from bench.load import Prompts, Run, joint_rate, longest_gap, rate
from rapidctl.stream import Stream
from rapidctl.wire import Generate

MS = 1_000_000


def run(*stamps_ms: int) -> Run:
    return Run(Stream(Generate(id="r"), resume=False), [at * MS for at in stamps_ms])


@pytest.mark.parametrize(
    ("bound", "samples", "met"),
    [
        ("at least", [1.0, 2.0, 9.0], True),
        ("at least", [1.0, 1.9, 9.0], False),
        ("at most", [9.0, 2.0, 1.0], True),
        ("at most", [9.0, 2.1, 1.0], False),
    ],
)
def test_a_requirement_is_judged_by_the_median(bound: str, samples: list[float], met: bool) -> None:
    figure = Figure("x", samples, "s", "at least" if bound == "at least" else "at most", 2.0)
    assert figure.met is met
    assert figure.document()["met"] is met


def test_without_a_requirement_nothing_is_judged() -> None:
    assert Figure("x", [1.0], "s").met is None


def test_pairs_are_divided_before_the_median_is_taken() -> None:
    """The machine was ten times slower in the second pair: both sides felt it."""
    assert ratios("x", [10.0, 1.0, 30.0], [5.0, 0.5, 10.0], 1.0).samples == [2.0, 2.0, 3.0]


def test_the_document_keeps_every_sample_in_order() -> None:
    document = Figure("x", [3.0, 1.0, 2.0], "s").document()
    assert (document["samples"], document["value"], document["min"], document["max"]) == (
        [3.0, 1.0, 2.0],
        2.0,
        1.0,
        3.0,
    )


def test_a_table_has_a_line_a_figure_and_one_for_the_names() -> None:
    lines = table([Figure("slow", [0.123], "s", "at most", 0.1), Figure("fast", [1234.5], "tokens/s")]).splitlines()
    assert [line.split()[0] for line in lines] == ["figure", "slow", "fast"]
    assert lines[1].split()[-3:] == ["most", "0.1", "no"]
    assert lines[2].split()[1] == "1234"


def test_the_rate_counts_from_the_first_token_on() -> None:
    assert rate(run(1000, 1100, 1200, 1300).stamps_ns) == pytest.approx(10.0)


def test_the_joint_rate_counts_only_while_all_streams_decode() -> None:
    early, late = run(0, 100, 200, 300, 400), run(150, 250, 350, 450, 550)
    assert joint_rate([early, late]) == pytest.approx(5 / 0.25)  # from 150 to 400 ms: 200 300 400 and 250 350


def test_the_longest_gap_may_begin_before_the_window_and_end_after_it() -> None:
    stamps = run(0, 900, 1000, 1010, 1500, 2400).stamps_ns
    assert longest_gap(stamps, 1005 * MS, 1600 * MS) == pytest.approx(0.9)
    assert longest_gap(stamps, 1005 * MS, 1400 * MS) == pytest.approx(0.49)


def test_prompts_differ_from_their_first_block_on() -> None:
    prompts = Prompts()
    firsts = [tuple(prompts(64)[:16]) for _ in range(50)]
    assert len(set(firsts)) == 50
