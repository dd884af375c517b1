"""The pictures of docs/results.md are what the raw output beside it says."""

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench.plots import RESULTS, arms, pictures, simulated

IMAGES = Path(__file__).resolve().parents[2] / "docs/images"
NS = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", ["results-arms.svg", "results-vllm.svg", "results-simulated.svg"])
def test_the_picture_is_that_of_the_raw_output(name: str) -> None:
    """`make docs` draws them again."""
    drawn = pictures(RESULTS)[name]
    stored = IMAGES / name
    if os.environ.get("UPDATE_PICTURES"):
        stored.write_text(drawn, encoding="utf-8")
    assert stored.read_text(encoding="utf-8") == drawn


def words(drawn: str) -> list[str]:
    return [found.text or "" for found in ET.fromstring(drawn).iter(f"{NS}text")]


def run(policy: str, met: int, trace: str = "t@0.9", rate: float = 2.0) -> dict[str, object]:
    return {"trace": trace, "policy": policy, "offered_per_s": rate, "summary": {"met": met, "offered": 10}}


def test_arms_of_one_rate_stand_together_and_what_ran_again_is_shown_as_it_ran_first() -> None:
    drawn = arms(
        [{"runs": [run("auto", 9), run("shared", 1)]}, {"runs": [run("auto", 2, rate=2.001), run("auto", 5, "u")]}]
    )
    said = words(drawn)
    assert [value for value in said if value in ("90", "10", "20", "50")].count("20") == 0
    assert {"2.0/s", "10"} <= set(said)
    assert sum(found.startswith(("t:", "u:")) for found in said) == 2


def test_a_ratio_beyond_the_axis_is_cut_and_still_said() -> None:
    verdicts = [{"trace": trace, "itl_s": 0.025, "over_best": ratio} for trace, ratio in (("t", 7.5), ("u", 1.0))]
    drawn = simulated({"verdicts": verdicts})
    assert {"7.50", "1.00", "ITL objective 25 ms"} <= set(words(drawn))
    bars = [
        float(found.get("height", 0))
        for found in ET.fromstring(drawn).iter(f"{NS}rect")
        if found.get("width") not in ("100%", "10.00")
    ]
    assert sorted(bars) == [36.4, 200.0]
