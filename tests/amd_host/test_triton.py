"""Triton's own HIP launcher with the product's streams on a fake GPU: host path on real HIP, no silicon."""

import importlib.util
from typing import Any

import pytest

from amd_host.conftest import Run


@pytest.fixture(scope="module", params=["mi300x", "mi355x"])
def found(request: pytest.FixtureRequest, fake_amd: Run) -> dict[str, Any]:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    answer: dict[str, Any] = fake_amd("triton_launch.py", chip=request.param)
    return answer | {"chip": request.param}


def test_a_launch_lands_on_the_queue_of_its_lanes_mask(found: dict[str, Any]) -> None:
    masks = {queue: sum(word.bit_count() for word in words) for queue, _, words in found["made"]["masks"]}
    for lane, seen in found["seen"].items():
        ((queue, programs),) = [packet for packet in seen["packets"] if packet[1]]
        assert programs == 5
        assert masks[queue] == found["units"][lane]
        assert seen["created"] == []


def test_the_placement_probe_runs_on_the_queue_of_the_lane_that_it_asks_about(found: dict[str, Any]) -> None:
    for lane, seen in found["probed"].items():
        ((queue, programs),) = [packet for packet in seen["packets"] if packet[1]]
        assert programs == 7
        assert [queue] == [packet[0] for packet in found["seen"][lane]["packets"] if packet[1]]
        assert seen["created"] == []


def test_shared_memory_is_refused_by_the_chip_that_lacks_it(found: dict[str, Any]) -> None:
    """A configuration of 128 KiB compiles for both and loads on one: they are pruned by architecture."""
    if found["chip"] == "mi300x":
        assert found["target"] == ["hip", "gfx942", 64]
        assert "shared memory, Required: 131072, Hardware limit: 65536" in found["refused"]
    else:
        assert found["target"] == ["hip", "gfx950", 64]
        assert found["refused"] == ""
