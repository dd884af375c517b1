"""`bench.spot_check`: measured arms beside the simulator, from a file of `bench.compare_gpu`."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.spot_check import Checked, Difference, main
from rapidd.cli import main as rapidd
from rapidd.policy.profile import save_profile
from support.h100 import h100_8b

TRACE = Path(__file__).parents[1] / "data" / "traces" / "mooncake_conversation.jsonl"
SLO = {"itl_s": 0.025, "ttft_floor_s": 0.25, "ttft_per_1k_s": 1.0}
SECONDS, SCALE, WARMUP_S = 6.0, 0.5, 2.0


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("p") / "h100.json"
    save_profile(h100_8b(), path)
    return str(path)


@pytest.fixture
def measured(profile: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """A file as `bench.compare_gpu` writes it, whose figures `rapidd simulate` gave for the same window."""
    where = ["--trace", str(TRACE), "--profile", profile, "--slo-itl", "25ms", "--policy", "hybrid:512"]
    window = ["--rate", str(SCALE), "--seconds", str(SECONDS), "--warmup", str(WARMUP_S)]
    assert rapidd(["simulate", *where, *window]) == 0
    (run,) = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
    summary = {
        "both_met": run["met"],
        "met": round(run["met"] * run["requests"]),
        "duration_s": run["seconds"],
        "output_tokens_per_s": run["output_tokens_per_s"],
        "total_tokens_per_s": run["output_tokens_per_s"] + run["prompt_tokens_per_s"],
        "itl_s": run["itl_s"],
        "ttft_s": run["ttft_s"],
    }
    return {
        "schema_version": 1,
        "options": {"shape": [], "start": 0.0, "seconds": SECONDS, "warmup": WARMUP_S, "seed": 0, "gpus": 1},
        "server": {"model": {"max_model_len": 24_576}},
        "runs": [
            {
                "trace": TRACE.stem,
                "scale": SCALE,
                "policy": "hybrid:512",
                "repeat": 0,
                "slo": SLO,
                "summary": summary,
                "valid": True,
            }
        ],
    }


def spot_check(document: dict[str, Any], tmp_path: Path, profile: str, *more: str) -> int:
    file = tmp_path / "measured.json"
    file.write_text(json.dumps(document))
    return main([str(file), "--profile", profile, *more])


def test_a_window_is_simulated_as_it_was_measured(
    measured: dict[str, Any], tmp_path: Path, profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert spot_check(measured, tmp_path, profile, "--trace", str(TRACE)) == 0
    out = capsys.readouterr().out
    (run,) = json.loads(out.splitlines()[-1])["runs"]
    assert len(run["differences"]) == 9
    assert [one["relative"] for one in run["differences"]] == [pytest.approx(0.0, abs=1e-9)] * 9
    assert "| mooncake_conversation x 0.5 hybrid:512 | measured |" in out
    assert "beyond 15%: nothing" in out


def test_a_simulated_run_is_cut_off_where_the_measured_one_was(
    measured: dict[str, Any], tmp_path: Path, profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """So long after the last arrival, wherever the window ends: the simulator had the time to its end more."""

    def simulated(**options: float) -> list[float]:
        measured["options"] |= options
        spot_check(measured, tmp_path, profile, "--trace", str(TRACE))
        (run,) = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
        return [one["simulated"] for one in run["differences"]]

    last_s = 6.098  # and the next request comes after 11.9 s
    whole, cut = simulated(seconds=11.9), simulated(seconds=11.9, drain=1.0)
    assert cut != whole
    assert cut == simulated(seconds=last_s + 0.001, drain=1.0)


def test_what_differs_by_more_than_the_limit_is_named_and_fails(
    measured: dict[str, Any], tmp_path: Path, profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gaps, ttft = (measured["runs"][0]["summary"][name] for name in ("itl_s", "ttft_s"))
    gaps["p95"] *= 1.25
    ttft["p95"] *= 2.0  # told, and held to nothing
    assert spot_check(measured, tmp_path, profile, "--trace", str(TRACE)) == 1
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1])["beyond"] == ["mooncake_conversation x 0.5 hybrid:512: gap p95"]
    assert "-20.0%" in out
    assert "-50.0%" in out
    assert spot_check(measured, tmp_path, profile, "--trace", str(TRACE), "--limit", "0.25") == 0


def test_a_run_that_does_not_count_is_left_out(
    measured: dict[str, Any], tmp_path: Path, profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    measured["runs"][0]["valid"] = False
    assert spot_check(measured, tmp_path, profile, "--trace", str(TRACE)) == 2
    assert "no valid runs" in capsys.readouterr().err


def test_what_cannot_be_compared_is_refused_with_what_is_missing(
    measured: dict[str, Any], tmp_path: Path, profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert spot_check(measured, tmp_path, profile) == 2
    assert "runs of mooncake_conversation: give the file of each with --trace" in capsys.readouterr().err
    measured["runs"][0]["policy"] = "split:17"
    assert spot_check(measured, tmp_path, profile, "--trace", str(TRACE)) == 2
    assert "17 decode units are not a legal split" in capsys.readouterr().err
    assert spot_check({"runs": []}, tmp_path, profile) == 2
    assert "missing required field" in capsys.readouterr().err


@pytest.mark.parametrize(("simulated", "beyond"), [(0.0, []), (0.1, ["goodput"])])
def test_a_goodput_of_none_agrees_with_none_only(simulated: float, beyond: list[str]) -> None:
    one = Checked("t", 1.0, "auto", 0, [Difference("goodput", 0.0, simulated, None)])
    assert one.beyond(0.15) == beyond
