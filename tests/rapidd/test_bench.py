"""The benchmark's arithmetic: what a figure says about its samples, and what stamps say about streams."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bench import gpu
from bench.console import FAST_HZ, SNAPSHOT_HZ, Publisher
from bench.figures import Figure, ratios, table
from bench.gpu import Results
from bench.gpu_alone import decode, graphs
from bench.gpu_setup import Setup, Spent, between, efficiency, gaps_beside_ms, gaps_ms, spent, steady_rate
from bench.gpu_sharing import _Arrivals, _beside
from bench.gpu_sizes import SMALL, Decode
from bench.http_cost import count_chunks
from bench.load import Prompts, Run, joint_rate, longest_gap, rate
from bench.policy import main as decisions
from bench.processes import Daemon
from rapidctl.client import Client
from rapidctl.stream import Stream
from rapidctl.wire import Generate, LaneStats, PhaseWork, Snapshot
from rapidd.policy.policies import ADAPTIVE
from rapidd.policy.profile import save_profile
from support import samples
from support.h100 import h100_8b

MS = 1_000_000


def run(*stamps_ms: int) -> Run:
    return Run(Stream(Generate(id="r"), resume=False, sent_s=0.0), [at * MS for at in stamps_ms])


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


def stats(lane: Literal["decode", "prefill"], busy_s: float, *works: PhaseWork) -> LaneStats:
    lanes = replace(samples.LANES[0], lane=lane, work=list(works))
    return replace(lanes, busy_decode_s_total=busy_s, busy_mixed_s_total=busy_s / 2)


def test_what_was_spent_between_two_snapshots_is_of_one_phase_on_both_lanes() -> None:
    def snapshot(scale: int) -> Snapshot:
        work = PhaseWork(phase="decode", n=0, flops_total=8.0 * scale, bytes_total=4.0 * scale, batches_total=scale)
        mixed = replace(work, phase="mixed")
        return replace(
            samples.SNAPSHOT, lanes=[stats("decode", 0.5 * scale, work), stats("prefill", 0.25, work, mixed)]
        )

    used = spent(snapshot(1), snapshot(3), "decode")
    assert used == (4, 1.0, 32.0, 16.0)
    assert used.ms == 250.0
    assert spent(snapshot(1), snapshot(3), "mixed") == (2, 0.5, 16.0, 8.0)


def test_a_sample_without_a_batch_is_no_time() -> None:
    """Counters that were too old made a hybrid step of 0.0 ms on an H200, which met its bound of 17."""
    with pytest.raises(RuntimeError, match="no batch"):
        _ = Spent(0, 0.0, 0.0, 0.0).ms


def test_a_stream_that_ends_while_it_is_measured_ends_the_section() -> None:
    """It was waited for for ever: of its four more tokens none could come."""
    ended = run(0, 10, 20)
    ended.stream.ended = samples.FINISHED
    client = cast(Client, SimpleNamespace(poll=lambda timeout_s: False))
    setup = Setup(cast(Daemon, None), client, dataclasses.replace(SMALL, window_s=0.0))
    with pytest.raises(RuntimeError, match="ended"):
        setup.window([ended])


def test_prompts_that_come_within_one_step_have_its_gap_beside_them() -> None:
    """On a CPU four short prompts take less time than a step: no whole gap was beside them, and the section ended with
    the mean of nothing."""
    stream = run(0, 100)
    client = SimpleNamespace(poll=lambda timeout_s: stream.stamps_ns.append(200 * MS))
    setup = Setup(cast(Daemon, None), cast(Client, client), SMALL)
    arrivals = SimpleNamespace(complete=lambda runs: [110 * MS, 120 * MS, 130 * MS])
    _, gap_ms, tokens = _beside(setup, cast(_Arrivals, arrivals), [stream])
    assert (gap_ms, tokens) == (100, 3)
    arrivals.complete = lambda runs: [110 * MS, 120 * MS, 230 * MS]
    stream.stream.ended = samples.FINISHED
    with pytest.raises(RuntimeError, match="ended"):
        _beside(setup, cast(_Arrivals, arrivals), [stream])


def test_gaps_count_only_when_both_tokens_are_within_the_time() -> None:
    runs = [run(0, 10, 30, 60), run(5, 25, 65)]
    assert gaps_ms(runs, 5 * MS, 60 * MS) == [20, 30, 20]


def test_beside_prompts_a_gap_counts_that_began_before_they_came() -> None:
    """Prompts that come at 12 ms stop a stream until 510: its "longest gap" was of what was left, or of nothing."""
    assert gaps_beside_ms([run(0, 10, 510, 520, 530)], 12 * MS, 515 * MS) == [500, 10]
    assert gaps_beside_ms([run(0, 10, 510)], 12 * MS, 505 * MS) == [500]


def test_a_steady_rate_begins_when_the_second_prompt_is_done() -> None:
    """The first one's way here is not counted: 500 ms for it change nothing."""
    rate, begin, end = steady_rate([500 * MS, 540 * MS, 580 * MS, 620 * MS], tokens=1000)
    assert rate == pytest.approx(25.0)
    assert (begin, end) == (540 * MS, 620 * MS)


def test_taking_turns_has_an_efficiency_of_one() -> None:
    assert efficiency(rate=5.0, rate_alone=20.0, gap_ms=40.0, gap_alone_ms=30.0) == 1.0


def test_the_speed_alone_is_read_between_the_two_times_it_was_measured() -> None:
    assert between((100, 10.0), (300, 12.0), 200) == 11.0
    assert between((100, 10.0), (100, 12.0), 100) == 11.0


def test_graphs_are_read_from_what_the_daemon_said() -> None:
    said = "rapidd: starting\nrapidd: 77 graphs in 6.5 s, 1234 MiB\nrapidd: ready"
    assert [figure.value for figure in graphs(said)] == [77, 6.5, 1234]
    assert graphs("rapidd: plain torch on the GPU: no graphs") == []


def test_a_section_that_fails_is_kept_as_such_and_the_next_one_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    results = Results(out, {"shape": "s"})

    def fails() -> list[Figure]:
        raise RuntimeError("a stream failed")

    results.run("broken", fails)
    assert json.loads(out.read_text())["figures"] == []
    results.run("good", lambda: [Figure("x", [1.0], "s")])
    document = json.loads(out.read_text())
    assert document["failed"] == {"broken": "RuntimeError('a stream failed')"}
    assert [figure["name"] for figure in document["figures"]] == ["x"]
    assert set(document["sections_s"]) == {"broken", "good"}


def test_a_section_that_fails_late_keeps_the_figures_it_had(tmp_path: Path) -> None:
    """One load's streams had ended, and three minutes of the other loads' figures were lost with it."""

    def fails() -> Iterator[Figure]:
        yield Figure("x", [1.0], "s")
        raise RuntimeError("no gaps")

    results = Results(tmp_path / "out.json", {"shape": "s"})
    results.run("half", fails)
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["failed"] == {"half": "RuntimeError('no gaps')"}
    assert [figure["name"] for figure in document["figures"]] == ["x"]


@contextmanager
def _daemon(*options: str) -> Iterator[SimpleNamespace]:
    """One that says nothing but `samples.SNAPSHOT`."""

    @contextmanager
    def client() -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(call=lambda request: SimpleNamespace(snapshot=samples.SNAPSHOT))

    yield SimpleNamespace(client=client, said=lambda: "", ready_s=1.0)


def _fails(setup: Setup) -> list[Figure]:
    raise RuntimeError("a stream failed")


@pytest.mark.parametrize(("section", "status"), [(_fails, 1), (lambda setup: [Figure("x", [1.0], "s")], 0)])
def test_a_gpu_benchmark_of_which_a_section_failed_does_not_succeed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], section: object, status: int
) -> None:
    """Its exit status was 0, its last table without a word of the section."""
    monkeypatch.setattr(gpu, "daemon", _daemon)
    monkeypatch.setattr(gpu, "SERVED", {"prefill": section})
    monkeypatch.setattr(sys, "argv", ["bench.gpu", "--only", "prefill"])
    assert gpu.main() == status
    shown = capsys.readouterr()
    assert ("prefill failed: RuntimeError('a stream failed')" in shown.err) == bool(status)
    assert bool(json.loads(shown.out.splitlines()[-1])["failed"]) == bool(status)


def test_transformers_is_compared_with_its_own_shape_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """`bench.gpu --shape smollm2-135m` divided the tokens of that model by those of transformers' 8B one."""
    monkeypatch.setattr("bench.gpu.subprocess.run", lambda *_, **__: pytest.fail("it was measured"))
    ours = Figure("64 x 1024 in, 128 out, all at once", [1000.0], "tokens/s")
    assert gpu._peer([ours], SMALL, "smollm2-135m") == []


def test_transformers_that_fails_is_a_section_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a comparison that was asked for and could not be had the JSON said nothing."""
    monkeypatch.setattr("bench.gpu.sys.executable", "false")
    ours = Figure("64 x 1024 in, 128 out, all at once", [1000.0], "tokens/s")
    results = Results(None, {})
    results.run("transformers", lambda: gpu._peer([ours], SMALL, gpu.PEER_SHAPE))
    assert "CalledProcessError" in results.failed["transformers"]


def test_steps_that_cannot_be_measured_leave_the_ones_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fourth decode step failed, and the figures of the three before it went with it."""

    def step(setup: Setup, load: Decode) -> list[Figure]:
        if load is SMALL.decodes[-1]:
            raise RuntimeError("no batch was counted")
        return [Figure(load.name, [1.0], "ms")]

    monkeypatch.setattr("bench.gpu_alone._decode", step)
    setup = SimpleNamespace(sizes=SMALL, plan=lambda plan: None)
    results = Results(None, {})
    results.run("decode", lambda: decode(cast(Setup, setup)))
    assert [figure.name for figure in results.figures] == ["decode 1 x 16"]
    assert results.failed


@pytest.mark.parametrize("rate_hz", [SNAPSHOT_HZ, FAST_HZ])
def test_a_feed_of_any_rate_takes_as_long_as_it_tells(rate_hz: float) -> None:
    """At 200 messages a second the make-believe daemon stood still: keys were pressed on a console with nothing new."""
    publisher = Publisher("ipc:///nowhere", rate_hz)
    begin = publisher._next()
    for _ in range(round(5 * rate_hz)):
        end = publisher._next()
    assert end.at_unix_s - begin.at_unix_s == pytest.approx(5.0)
    assert end.seq - begin.seq == round(5 * rate_hz)


@given(st.lists(st.binary(min_size=1, max_size=40).filter(lambda text: b"d" not in text), max_size=9), st.data())
def test_chunks_are_counted_wherever_a_read_ends(texts: list[bytes], data: st.DataObject) -> None:
    """One whose beginning lay in two reads was not, and `bench.http_cost` gave up: 1 chunks came for 2 tokens."""
    sent = b"".join(b'data: {"' + text + b"\n\n" for text in texts) + b"data: [DONE]\n\n"
    count, tail, at = 0, b"", 0
    while at < len(sent):
        end = data.draw(st.integers(at + 1, len(sent)))
        more, tail = count_chunks(tail, sent[at:end])
        count, at = count + more, end
    assert count == len(texts)


def test_the_cost_of_a_decision_is_told_for_every_policy_that_looks_at_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.policy.REPEATS", 1)
    save_profile(h100_8b(), tmp_path / "p.json")
    assert decisions(["--profile", str(tmp_path / "p.json")]) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(document["decision_us"]) == set(ADAPTIVE)
    assert decisions(["--profile", str(tmp_path / "none.json")]) == 1
    assert "rapidd calibrate" in capsys.readouterr().err
