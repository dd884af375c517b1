"""`rapidctl bench` as users run it, against the real daemon: what was recorded is what is sent and measured."""

import gzip
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rapidctl.wire import GetPartition
from support.daemon import WAIT_S, Daemon, rapidctl, rapidctl_json
from support.process import ROOT, environment

SLICES = ROOT / "tests/data/traces"
PATIENT = ("--max-lateness", "1m")
"""On a busy machine the generator is late; that is another test's matter."""


@pytest.fixture(autouse=True)
def released(daemon: Daemon) -> Iterator[None]:
    """Each test leaves the policy in charge."""
    yield
    assert rapidctl(daemon, "partition", "auto").returncode == 0
    assert rapidctl(daemon, "policy", "set", "auto").returncode == 0
    daemon.until_idle()


def bench(daemon: Daemon, *arguments: str) -> dict[str, Any]:
    """The JSON line of a benchmark that goes well."""
    return rapidctl_json(daemon, "bench", *arguments, *PATIENT)


def policy_of(daemon: Daemon) -> str:
    with daemon.client() as client:
        return client.call(GetPartition(call=0)).policy


def test_a_trace_is_replayed_to_its_recorded_lengths(daemon: Daemon, tmp_path: Path) -> None:
    trace, out, svg = SLICES / "mooncake_conversation.jsonl", tmp_path / "out.jsonl.gz", tmp_path / "out.svg"
    scaling = ["--length-scale", "0.03125", "--rate-scale", "10", "--warmup-requests", "2", "--requests", "6"]
    document = bench(daemon, "run", str(trace), *scaling, "--out", str(out), "--picture", str(svg))
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
    assert run["realised"]["modes"]["hybrid"] > 0
    assert run["generator"]["delivery_s"]["n"] == sum(line["output_tokens"] for line in lines)
    assert svg.read_text().startswith("<svg")


def test_no_run_finds_the_prompts_of_another_in_the_cache(daemon: Daemon) -> None:
    shape = ("--shape", "100/2@inf")
    document = bench(daemon, "run", *shape, *shape, "--requests", "3")
    assert [run["summary"]["cached_tokens"] for run in document["runs"]] == [0, 0]
    salted = [bench(daemon, "run", *shape, "--requests", "3", "--salt", "same") for _ in range(2)]
    assert [document["runs"][0]["summary"]["cached_tokens"] for document in salted] == [0, 3 * 96]


def test_objectives_are_the_daemon_s_unless_told(daemon: Daemon) -> None:
    load = ("--shape", "50/4@inf", "--requests", "4")
    own = bench(daemon, "run", *load)["runs"][0]
    assert own["slo"] == {"itl_s": 0.3, "ttft_floor_s": 2.0, "ttft_per_1k_s": 10.0}
    strict = bench(daemon, "run", *load, "--slo-ttft-floor", "0.001ms", "--slo-ttft-per-1k", "0.001ms")["runs"][0]
    assert strict["slo"]["itl_s"] == 0.3
    assert (strict["summary"]["met"], strict["summary"]["finished"]) == (0, 4)


def test_text_is_a_table_and_then_the_json_line(daemon: Daemon) -> None:
    done = rapidctl(daemon, "bench", "run", "--shape", "20/2@inf", "--requests", "2", *PATIENT)
    assert done.returncode == 0
    *text, last = done.stdout.splitlines()
    assert text[0].split() == ["p50", "p90", "p95", "p99", "max", "n"]
    assert json.loads(last)["runs"][0]["summary"]["finished"] == 2


def test_a_late_generator_s_run_is_not_valid(daemon: Daemon) -> None:
    done = rapidctl(daemon, "bench", "run", "--shape", "20/2@inf", "--requests", "20", "--max-lateness", "0.001ms")
    assert done.returncode == 1
    assert "not valid" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["valid"] is False


def test_goodput_is_searched_and_all_runs_are_told(daemon: Daemon) -> None:
    strict = ("--slo-ttft-floor", "0.001ms", "--slo-ttft-per-1k", "0.001ms")
    document = bench(daemon, "goodput", "--shape", "20/2@20", "--requests", "5", "--max-runs", "2", *strict)
    (searched,) = document["goodput"]
    assert (searched["found"]["scale"], searched["found"]["edge"]) == (None, "none")
    assert [trial["scale"] for trial in searched["found"]["trials"]] == [1.0, 0.5]
    loose = ("--slo-ttft-floor", "1h", "--slo-itl", "1h")
    (searched,) = bench(daemon, "goodput", "--shape", "20/2@20", "--requests", "5", "--max-runs", "2", *loose)[
        "goodput"
    ]
    assert (searched["found"]["scale"], searched["found"]["edge"]) == (2.0, "at_least")


def test_policies_are_compared_under_the_same_arrivals_and_the_daemon_s_is_put_back(daemon: Daemon) -> None:
    assert rapidctl(daemon, "policy", "set", "serial:64").returncode == 0
    load = ("--shape", "60/6@40", "--requests", "8", "--seed", "5")
    document = bench(daemon, "compare", "--policy", "auto", "--policy", "shared", *load)
    assert policy_of(daemon) == "serial:64"
    runs = document["runs"]
    assert [(run["policy"], run["repeat"]) for run in runs] == [
        ("auto", 0), ("shared", 0), ("shared", 1), ("auto", 1),
    ]  # fmt: skip
    assert len({(run["requests"], run["offered_per_s"] and round(run["offered_per_s"], 6)) for run in runs}) == 1
    assert all(set(run["realised"]["modes"]) <= {"idle", "hybrid"} for run in runs if run["policy"] == "auto")
    assert any("shared" in run["realised"]["modes"] for run in runs if run["policy"] == "shared")
    met = next(item for item in document["compared"] if item["figure"].startswith("requests"))
    assert (met["reference"], [r["baseline"] for r in met["ratios"]], met["ratios"][0]["n"]) == ("auto", ["shared"], 2)


def test_ctrl_c_prints_what_there_is_and_puts_the_policy_back(daemon: Daemon) -> None:
    command = [sys.executable, "-P", "-m", "rapidctl.cli", "--endpoint", daemon.endpoint, "bench", "compare"]
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
        (["run", "--shape", "20/2@1", "--out", "/nonexistent/x"], 2, "cannot be written"),
        (["run", "--shape", "20/2@1", "--picture", "/nonexistent/x"], 2, "cannot be written"),
        (["compare", "--shape", "20/2@1", "--policy", "auto"], 2, "nothing to compare"),
        (["compare", "--shape", "20/2@1", "--policy", "auto", "--policy", "shared", "--repeats", "1"], 2, "no spread"),
        (["compare", "--shape", "20/2@1", "--policy", "auto", "--policy", "fast"], 1, "unknown policy 'fast'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(
    daemon: Daemon, arguments: list[str], code: int, message: str
) -> None:
    accepted = daemon.status().requests.accepted_total
    done = rapidctl(daemon, "bench", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert re.search(message, done.stderr)
    assert daemon.status().requests.accepted_total == accepted
    assert policy_of(daemon) == "auto"


def test_policies_are_not_compared_under_an_override(daemon: Daemon) -> None:
    while rapidctl(daemon, "partition", "set", "--mode", "shared", "--yes").returncode:
        daemon.status()  # the last change was too recent
    done = rapidctl(daemon, "bench", "compare", "--shape", "20/2@1", "--policy", "auto", "--policy", "shared")
    assert (done.returncode, done.stdout) == (1, "")
    assert "override" in done.stderr


def test_without_a_daemon_it_says_how_to_start_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "rapidctl.cli", "--endpoint", f"ipc://{tmp_path}/x.sock",
         "bench", "run", "--shape", "9/1@1"],
        env=environment(), capture_output=True, text=True, timeout=WAIT_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "")
    assert "rapidd serve" in done.stderr
