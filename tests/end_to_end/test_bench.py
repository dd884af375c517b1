"""`rapidctl bench` as users run it, against the real daemon: what was recorded is what is sent and measured."""

import gzip
import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rapidctl import cli
from rapidctl.client import Client
from rapidctl.errors import Refused
from rapidctl.wire import GetPartition, PlanRequest, ReleasePartition, SetPartition, SetPolicy
from support.daemon import WAIT_S, Daemon
from support.process import ROOT, environment, python_module

SLICES = ROOT / "tests/data/traces"
PATIENT = ("--max-lateness", "1m")
"""On a busy machine the generator is late; that is another test's matter."""

ALONE = ("decode alone", "prefill alone")


class Ran(NamedTuple):
    """What a command did."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """Its last line."""
        found: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return found


Bench = Callable[..., Ran]
Measure = Callable[..., dict[str, Any]]


@pytest.fixture
def bench(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> Bench:
    """``rapidctl bench`` in this process: starting Python takes longer than most of what is measured here."""

    def run(*arguments: str) -> Ran:
        code = cli.main(["--endpoint", daemon.endpoint, "bench", *arguments])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def measure(bench: Bench) -> Measure:
    """The JSON line of a benchmark that goes well."""

    def run(*arguments: str) -> dict[str, Any]:
        ran = bench(*arguments, *PATIENT, "--json")
        assert ran.code == 0, ran.stderr
        assert len(ran.stdout.splitlines()) == 1
        return ran.document

    return run


def set_policy(daemon: Daemon, policy: str) -> None:
    with daemon.client(control=True) as client:
        client.call(SetPolicy(call=0, policy=policy))


def policy_of(daemon: Daemon) -> str:
    with daemon.client() as client:
        return client.call(GetPartition(call=0)).policy


def test_a_trace_is_replayed_to_its_recorded_lengths(measure: Measure, tmp_path: Path) -> None:
    trace, out, svg = SLICES / "mooncake_conversation.jsonl", tmp_path / "out.jsonl.gz", tmp_path / "out.svg"
    scaling = ["--length-scale", "0.03125", "--rate-scale", "10", "--warmup-requests", "2", "--requests", "6"]
    document = measure("run", str(trace), *scaling, "--out", str(out), "--picture", str(svg))
    recorded = [json.loads(line) for line in trace.read_text().splitlines()[:6]]
    assert (document["kind"], document["command"], document["interrupted"]) == ("bench", "run", False)
    (run,) = document["runs"]
    summary = run["summary"]
    assert (run["requests"], summary["offered"], summary["finished"], summary["short"]) == (6, 4, 4, 0)
    assert run["cut"] == sum(r["prompt_tokens"] / 32 + r["output_tokens"] / 32 > 512 for r in recorded)
    lines = [json.loads(line) for line in gzip.decompress(out.read_bytes()).splitlines()]
    assert [line["output_tokens"] for line in lines] == [max(1, round(r["output_tokens"] / 32)) for r in recorded]
    assert [len(line["gaps_us"]) + 1 for line in lines] == [line["output_tokens"] for line in lines]
    assert [line["measured"] for line in lines] == [False] * 2 + [True] * 4
    assert summary["cached_tokens"] == sum(line["cached_tokens"] for line in lines[2:])
    assert summary["cached_tokens"] >= 4 * 16  # the block that all of them begin with
    assert run["generator"]["delivery_s"]["n"] == sum(line["output_tokens"] for line in lines)
    assert svg.read_text().startswith("<svg")


def test_what_was_realised_is_what_the_daemon_ran(daemon: Daemon, measure: Measure) -> None:
    """Bounded by time, not by requests: an engine tells its times once a second at least, however fast the machine."""
    set_policy(daemon, "shared")
    (run,) = measure("run", "--shape", "20/200@10", "--seconds", "2")["runs"]
    set_policy(daemon, "auto")
    realised = run["realised"]
    assert realised["policy"] == "shared"
    assert realised["modes"]["shared"] > 0
    assert realised["modes"]["decode alone"] > 0, "between the prompts"
    assert set(realised["modes"]) <= {"idle", "transition", "shared", *ALONE}
    assert sum(realised["modes"].values()) == pytest.approx(1)
    assert {sample[1] for sample in realised["samples"]} == {"shared"}


def test_no_run_finds_the_prompts_of_another_in_the_cache(measure: Measure) -> None:
    shape = ("--shape", "100/2@inf")
    document = measure("run", *shape, *shape, "--requests", "3")
    assert [run["summary"]["cached_tokens"] for run in document["runs"]] == [0, 0]
    salted = [measure("run", *shape, "--requests", "3", "--salt", "same") for _ in range(2)]
    assert [document["runs"][0]["summary"]["cached_tokens"] for document in salted] == [0, 3 * 96]


def test_objectives_are_the_daemon_s_unless_told(measure: Measure) -> None:
    load = ("--shape", "50/4@inf", "--requests", "4")
    own = measure("run", *load)["runs"][0]
    assert own["slo"] == {"itl_s": 0.3, "ttft_floor_s": 2.0, "ttft_per_1k_s": 10.0}
    strict = measure("run", *load, "--slo-ttft-floor", "0.001ms", "--slo-ttft-per-1k", "0.001ms")["runs"][0]
    assert strict["slo"]["itl_s"] == 0.3
    assert (strict["summary"]["met"], strict["summary"]["finished"]) == (0, 4)


def test_text_is_a_table_and_then_the_json_line(bench: Bench) -> None:
    ran = bench("run", "--shape", "20/2@inf", "--requests", "2", *PATIENT)
    assert ran.code == 0
    assert ran.stdout.splitlines()[0].split() == ["p50", "p90", "p95", "p99", "max", "n"]
    assert ran.document["runs"][0]["summary"]["finished"] == 2


def test_a_late_generator_s_run_is_not_valid(bench: Bench) -> None:
    ran = bench("run", "--shape", "20/2@inf", "--requests", "20", "--max-lateness", "0.001ms")
    assert ran.code == 1
    assert "not valid" in ran.stderr
    assert ran.document["valid"] is False


def test_goodput_is_searched_and_all_runs_are_told(measure: Measure) -> None:
    strict = ("--slo-ttft-floor", "0.001ms", "--slo-ttft-per-1k", "0.001ms")
    document = measure("goodput", "--shape", "20/2@20", "--requests", "5", "--max-runs", "2", *strict)
    (searched,) = document["goodput"]
    assert (searched["found"]["scale"], searched["found"]["edge"]) == (None, "none")
    assert [trial["scale"] for trial in searched["found"]["trials"]] == [1.0, 0.5]
    loose = ("--slo-ttft-floor", "1h", "--slo-itl", "1h")
    (searched,) = measure("goodput", "--shape", "20/2@20", "--requests", "5", "--max-runs", "2", *loose)["goodput"]
    assert (searched["found"]["scale"], searched["found"]["edge"]) == (2.0, "at_least")


def test_policies_are_compared_under_the_same_arrivals_and_the_daemon_s_is_put_back(
    daemon: Daemon, measure: Measure
) -> None:
    set_policy(daemon, "serial:64")
    load = ("--shape", "60/6@40", "--requests", "8", "--seed", "5")
    document = measure("compare", "--policy", "auto", "--policy", "shared", *load)
    assert policy_of(daemon) == "serial:64"
    set_policy(daemon, "auto")
    runs = document["runs"]
    assert [(run["policy"], run["repeat"]) for run in runs] == [
        ("auto", 0), ("shared", 0), ("shared", 1), ("auto", 1),
    ]  # fmt: skip
    assert len({(run["requests"], run["offered_per_s"] and round(run["offered_per_s"], 6)) for run in runs}) == 1
    ran = {"auto": {"hybrid"}, "shared": {"shared", "transition"}}
    assert all(set(run["realised"]["modes"]) <= {"idle", *ALONE, *ran[run["policy"]]} for run in runs)
    met = next(item for item in document["compared"] if item["figure"].startswith("requests"))
    assert (met["reference"], [r["baseline"] for r in met["ratios"]], met["ratios"][0]["n"]) == ("auto", ["shared"], 2)


def test_ctrl_c_prints_what_there_is_and_puts_the_policy_back(daemon: Daemon) -> None:
    command = python_module("rapidctl.cli", "--endpoint", daemon.endpoint, "bench", "compare")
    load = ["--shape", "30/4@50", "--seconds", "10m", "--policy", "shared", "--policy", "serial:64"]
    running = subprocess.Popen(
        [*command, *load], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with running:
        try:
            daemon.until(lambda status: status.requests.prefilling + status.requests.decoding > 0)
            running.send_signal(signal.SIGINT)
            stdout, stderr = running.communicate(timeout=WAIT_S)
        finally:
            running.kill()
    assert running.returncode == 130, stderr
    document = json.loads(stdout.splitlines()[-1])
    assert document["interrupted"] is True
    (run,) = document["runs"]
    assert (run["ending"], run["policy"], run["valid"]) == ("stopped", "shared", False)
    assert run["requests"] == run["summary"]["offered"] > 0
    assert policy_of(daemon) == "auto"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run"], 2, "no trace"),
        (["run", "missing.jsonl"], 2, "missing.jsonl"),
        (["run", "--shape", "20"], 2, "is no shape"),
        (["run", str(SLICES / "lengths_arxiv_summarization.jsonl")], 2, "line 1: .*give a request rate"),
        (["run", "--shape", "20/2@1", "--out", "/dev/null/x"], 2, "cannot be written"),
        (["run", "--shape", "20/2@1", "--picture", "/dev/null/x.svg"], 2, "cannot be written"),
        (["run", "--shape", "20/2@1", "--picture", "x.png"], 2, "the picture is an SVG"),
        (["run", "--shape", "20/2@1", "--model", "other"], 2, "--model and --vocab-size are of a server"),
        (["compare", "--shape", "20/2@1", "--policy", "auto"], 2, "nothing to compare"),
        (["compare", "--shape", "20/2@1", "--policy", "auto", "--policy", "shared", "--repeats", "1"], 2, "no spread"),
        (["compare", "--shape", "20/2@1", "--policy", "auto", "--policy", "fast"], 1, "unknown policy 'fast'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(
    daemon: Daemon, bench: Bench, arguments: list[str], code: int, message: str
) -> None:
    accepted = daemon.status().requests.accepted_total
    ran = bench(*arguments)
    assert (ran.code, ran.stdout) == (code, "")
    assert re.search(message, ran.stderr)
    assert daemon.status().requests.accepted_total == accepted
    assert policy_of(daemon) == "auto"


def pin(client: Client) -> None:
    """Set an override, as soon as the last change is long enough ago."""
    while True:
        try:
            client.call(SetPartition(call=0, plan=PlanRequest(mode="shared"), guard=False))
            return
        except Refused as error:
            if error.code != "too_soon":
                raise
            client.poll(error.retry_after_s or 0.0)


def test_policies_are_not_compared_under_an_override(daemon: Daemon, bench: Bench) -> None:
    with daemon.client(control=True) as client:
        pin(client)
        ran = bench("compare", "--shape", "20/2@1", "--policy", "auto", "--policy", "shared")
        client.call(ReleasePartition(call=0))
    assert (ran.code, ran.stdout) == (1, "")
    assert "override" in ran.stderr


def test_without_a_daemon_it_says_how_to_start_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["--endpoint", f"ipc://{tmp_path}/x.sock", "bench", "run", "--shape", "9/1@1"])
    captured = capsys.readouterr()
    assert (code, captured.out) == (3, "")
    assert "rapidd serve" in captured.err
