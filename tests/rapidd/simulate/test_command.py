"""`rapidd simulate` as typed: what it prints, what it writes, what it refuses and with which words."""

import json
from pathlib import Path

import pytest

from rapidctl.bench.trace import SHAPE_REQUESTS, Trace, shape_trace
from rapidd.cli import main
from rapidd.engine.defaults import CPU_DEFAULTS
from rapidd.policy.library import SHIPPED
from rapidd.policy.profile import save_profile
from support.h100 import h100_8b

TRACES = Path(__file__).parents[2] / "data" / "traces"
ROW = '{"prompt_tokens": 5, "output_tokens": 1, "arrival_s": %d}'
MOONCAKE = str(TRACES / "mooncake_conversation.jsonl")


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("p") / "h100.json"
    save_profile(h100_8b(), path)
    return str(path)


def simulate(*words: str) -> int:
    return main(["simulate", *words])


def test_a_run_prints_tables_and_one_json_line_last(profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--policy", "auto", "--policy", "hybrid:512", "--slo-itl", "25ms", "--slo-itl", "50ms")
    assert simulate("--trace", MOONCAKE, "--profile", profile, *words) == 0
    out = capsys.readouterr().out
    document = json.loads(out.splitlines()[-1])
    assert document["schema_version"] == 1
    told = [(run["policy"], run["itl_slo_s"], run["requests"]) for run in document["runs"]]
    assert told == [("auto", 0.025, 15), ("hybrid:512", 0.025, 15), ("auto", 0.05, 15), ("hybrid:512", 0.05, 15)]
    assert "mooncake_conversation  auto  ITL objective 25.0 ms, 15 requests" in out


def test_on_a_cpu_an_urgent_prompt_waits_for_the_one_chunk_that_runs_on_a_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A CPU's prefill lane has one chunk in flight, and so has the simulator's: with a second one behind it, as on a
    GPU, a short prompt beside a long one waited three times as long as in the daemon."""
    trace = tmp_path / "t.jsonl"
    rows = ((0.0, 50, 2000), (1.0, 6000, 2), (8.8, 20, 2))  # decodes all the time; is being computed; is due first
    line = '{"arrival_s": %g, "prompt_tokens": %d, "output_tokens": %d}\n'
    trace.write_text("".join(line % row for row in rows), encoding="utf-8")
    profile = SHIPPED / "amd-epyc-2-cores-smollm2-135m-float32.json"
    assert simulate("--trace", str(trace), "--profile", str(profile), "--warmup", "8s") == 0
    (run,) = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
    assert "split 1" in run["places"]
    assert run["ttft_s"]["n"] == 1
    assert run["ttft_s"]["max"] < CPU_DEFAULTS.max_chunk_s / 2


def test_a_gpus_batches_hold_as_many_prompts_as_its_graphs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Forty prompts of 16 tokens at once are three batches, and one where there is no bound."""
    trace = tmp_path / "t.jsonl"
    trace.write_text('{"arrival_s": 0, "prompt_tokens": 16, "output_tokens": 1}\n' * 40, encoding="utf-8")
    profile = SHIPPED / "nvidia-h200-llama-3.1-8b-bfloat16.json"
    assert simulate("--trace", str(trace), "--profile", str(profile), "--policy", "hybrid:2048") == 0
    (run,) = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
    assert run["ttft_s"]["max"] > 1.2 * run["ttft_s"]["p50"]


def test_errors_and_a_warm_up_are_options_and_bad_ones_are_all_named(
    profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--trace", MOONCAKE, "--profile", profile)
    errors = ("--jitter", "0.03", "--jitter", "hybrid/mixed=0.1", "--jitter-run", "5", "--bias", "0.05", "--seed", "7")
    runs = []
    for more in ((), errors, errors, ("--warmup", "2s")):
        assert simulate(*words, *more) == 0
        (run,) = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
        runs.append(run)
    exact, erring, again, warm = runs
    assert erring == again
    assert erring["itl_s"]["p50"] > exact["itl_s"]["p50"]
    assert 0 < warm["requests"] < exact["requests"] == erring["requests"] == 15
    assert simulate(*words, "--jitter", "-1", "--bias", "mixd=0.1") == 78
    told = capsys.readouterr().err
    assert "--jitter: -1 is not within 0 and 0.5" in told
    assert "--bias: 'mixd' is no kind of batch" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--markdown", "x.md"), "--markdown: the tables are those of --goodput or --sweep"),
        (("--workers", "2"), "--workers: only --goodput and --sweep run in several processes"),
        (("--requests", "5"), "--requests: counts those of a --shape"),
        (("--request-rate", "5"), "--request-rate: every trace has arrival times"),
        (("--jitter-run", "5"), "--jitter-run: nothing errs without --jitter"),
        (("--bias", "0.1", "--seed", "5"), "--seed: of --jitter and --shape only"),
        (("--goodput", "--rate", "2"), "--rate: a search for goodput chooses the rate"),
        (("--goodput", "--warmup", "2"), "--warmup: a search for goodput judges every request"),
        (("--json", "no/such/folder.json"), "--json: no/such/folder.json cannot be written: No such file or directory"),
        (("--max-model-len", "3"), "no request fits the context of 3 tokens: give a larger --max-model-len"),
        (("--goodput", "--max-model-len", "3"), "no request fits the context of 3 tokens"),
        (("--warmup", "1h"), "no request is left to judge: more --seconds, or less --warmup"),
    ],
)
def test_what_would_change_nothing_or_judge_nobody_is_refused_before_anything_runs(
    words: tuple[str, ...],
    said: str,
    profile: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At --request-rate 5 the figures were those of the recorded rate, and nothing said so."""
    monkeypatch.chdir(tmp_path)
    assert simulate("--trace", MOONCAKE, "--profile", profile, *words) == 78
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ("--rate", "1e-300"),
        ("--request-rate", "1e-300"),
        ("--slo-ttft-per-1k", "1e308"),
        ("--kv-blocks", "99999999999"),
    ],
)
def test_numbers_beyond_all_use_are_refused(
    words: tuple[str, ...], profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        simulate("--trace", MOONCAKE, "--profile", profile, *words)
    assert "must be within" in capsys.readouterr().err


def test_prompts_that_were_cut_are_counted(profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate("--trace", MOONCAKE, "--profile", profile, "--max-model-len", "2000") == 0
    out = capsys.readouterr().out
    (run,) = json.loads(out.splitlines()[-1])["runs"]
    assert run["cut"] > 0
    assert f"of the trace {run['cut']} prompts were cut to the context, {run['dropped']} requests dropped" in out


def test_a_shape_needs_no_file_and_a_ttft_objective_judges_it(profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--shape", "4000/20@9", "--profile", profile, "--requests", "30")
    runs = []
    for more in ((), ("--slo-ttft-per-1k", "0.1"), ("--seed", "1")):
        assert simulate(*words, *more) == 0
        runs.append(json.loads(capsys.readouterr().out.splitlines()[-1])["runs"][0])
    usual, strict, other = runs
    assert [run["requests"] for run in runs] == [30, 30, 30]
    assert strict["ttft_met"] < usual["ttft_met"] == 1.0
    assert other["ttft_s"] != usual["ttft_s"]
    assert simulate("--profile", profile) == 78
    assert "--trace: name a file, or a --shape" in capsys.readouterr().err
    assert simulate("--shape", "4000x20", "--profile", profile) == 78
    assert "--shape: '4000x20' is no shape" in capsys.readouterr().err


def test_a_sweep_writes_a_table_and_says_what_auto_is_against_the_best_static_arm(
    profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, table = tmp_path / "out.json", tmp_path / "out.md"
    arms = [word for arm in ("hybrid:512", "split:24", "auto") for word in ("--policy", arm)]
    where = ("--json", str(out), "--markdown", str(table))
    options = ("--goodput", "--slo-itl", "25ms", "--seconds", "3", "--workers", "2")
    assert simulate("--trace", MOONCAKE, "--profile", profile, *options, *arms, *where) == 0
    document = json.loads(out.read_text())
    assert [one["arm"] for one in document["goodput"]] == ["hybrid:512", "split:24", "auto"]
    assert document["verdicts"][0]["best_static"] in ("hybrid:512", "split:24")
    assert "| geometric mean |" in table.read_text()
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == document


def test_a_search_that_ends_at_its_ceiling_says_so(profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate("--shape", "20/2@0.01", "--requests", "4", "--profile", profile, "--goodput") == 0
    out = capsys.readouterr().out
    (found,) = json.loads(out.splitlines()[-1])["goodput"]
    assert found["at_ceiling"]
    assert f">= {found['requests_per_s']:.2f} requests/s" in out
    assert "the highest tried" in out


def test_a_search_has_requests_of_a_shape_for_any_rate(
    profile: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had as many as --requests: a few hundred at high rates, over in a second, and no queue."""
    counts: list[int] = []

    def counted(shape: str, *, seed: int, count: int) -> Trace:
        counts.append(count)
        return shape_trace(shape, seed=seed, count=count)

    monkeypatch.setattr("rapidd.simulate.command.shape_trace", counted)
    words = ("--shape", "20/2@9", "--requests", "4", "--seconds", "1", "--profile", profile)
    assert simulate(*words) == 0
    assert simulate(*words, "--goodput") == 0
    assert counts == [4, SHAPE_REQUESTS]


def test_lengths_without_arrivals_need_a_request_rate(profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    lengths = str(TRACES / "lengths_arxiv_summarization.jsonl")
    assert simulate("--trace", lengths, "--profile", profile) == 78
    assert "request rate" in capsys.readouterr().err
    assert simulate("--trace", lengths, "--profile", profile, "--request-rate", "3") == 0
    assert simulate("--trace", lengths, "--trace", MOONCAKE, "--profile", profile, "--request-rate", "3") == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt_tokens": 5, "arrival_s": 0}', "output_tokens"),
        ('{"prompt_tokens": -5, "output_tokens": 1, "arrival_s": 0}', "prompt_tokens"),
        (ROW % 9 + "\n" + ROW % 1, "sort the file"),
        ("", "no requests"),
    ],
)
def test_a_bad_trace_is_refused_with_what_is_wrong(
    profile: str, line: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(line + "\n")
    assert simulate("--trace", str(path), "--profile", profile) == 78
    assert said in capsys.readouterr().err


def test_an_unknown_policy_an_illegal_split_and_a_foreign_profile_are_refused(
    profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate("--trace", MOONCAKE, "--profile", profile, "--policy", "fastest") == 78
    assert "unknown policy 'fastest'" in capsys.readouterr().err
    assert simulate("--trace", MOONCAKE, "--profile", profile, "--policy", "split:17") == 78
    assert "17 decode units are not a legal split" in capsys.readouterr().err
    foreign = tmp_path / "foreign.json"
    foreign.write_text('{"kind": "something else"}')
    assert simulate("--trace", MOONCAKE, "--profile", str(foreign)) == 78
    assert "no profile of rapidd" in capsys.readouterr().err


def test_without_a_profile_on_the_machine_it_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rapidd.simulate.command.SHIPPED", tmp_path)
    monkeypatch.setattr("rapidd.simulate.command.profile_dir", lambda: tmp_path)
    assert simulate("--trace", MOONCAKE) == 78
    assert "rapidd calibrate" in capsys.readouterr().err


def test_how_long_late_prompts_give_way_is_an_option(profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The longer, the more are in time, and the longer the last one waits."""
    met, longest = [], []
    options = ("--shape", "8000/4@6", "--requests", "60", "--slo-ttft-per-1k", "0.3", "--profile", profile)
    for seconds in ("0", "2", "30"):
        assert simulate(*options, "--give-way", seconds) == 0
        (run,) = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
        met.append(run["met"])
        longest.append(run["ttft_s"]["max"])
    assert met[0] < met[1] < met[2]
    assert longest[0] < longest[1] < longest[2]
    with pytest.raises(SystemExit):
        simulate(*options, "--give-way", "3601")
    assert "must be within 0 and 3600" in capsys.readouterr().err
