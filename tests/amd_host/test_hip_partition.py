"""The product's HIP partitions on the real HIP runtime, with a fake GPU behind it: host path on real HIP, no silicon.

What is asserted is what the kernel driver was asked for: the words of every CU mask, and the hardware queue on which
every kernel landed. That silicon honours them is not shown here.
"""

from pathlib import Path
from typing import Any, Final

import pytest

from amd_host.conftest import Run

CHIPS: Final = {
    # units, XCCs, engines an XCC, LDS of a workgroup in bytes, architecture
    "mi300x": (304, 8, 4, 65536, "gfx942"),
    "mi355x": (256, 8, 4, 163840, "gfx950"),
    "mi250x": (110, 1, 8, 65536, "gfx90a"),
}


class Found:
    """What a run of lanes.py saw on one chip."""

    def __init__(self, chip: str, found: dict[str, Any]) -> None:
        self.units, self.xccs, self.engines, self.lds, self.architecture = CHIPS[chip]
        self.raw = found
        self.splits: list[int] = found["table"]["splits"]
        self.masks = {queue: (bits, words) for queue, bits, words in found["made"]["masks"]}
        first = found["launches"][0]
        self.queues: dict[str, int] = {name: seen["packets"][0][0] for name, seen in first.items()}

    @property
    def masked(self) -> dict[str, int]:
        """Queues of the lanes' streams on a part of the units."""
        return {name: queue for name, queue in self.queues.items() if name.split()[1] != str(self.units)}

    def bits(self, queue: int) -> set[int]:
        _, words = self.masks[queue]
        return {32 * index + bit for index, word in enumerate(words) for bit in range(32) if word >> bit & 1}


@pytest.fixture(scope="module", params=CHIPS)
def found(request: pytest.FixtureRequest, fake_amd: Run, kernels: Path) -> Found:
    return Found(request.param, fake_amd("lanes.py", str(kernels), chip=request.param))


def kernels_of(seen: dict[str, Any]) -> list[list[int]]:
    """[queue, programs] of the kernels among the packets."""
    return [packet for packet in seen["packets"] if packet[1]]


def waits(seen: dict[str, Any], queue: int) -> int:
    """Barriers on a queue ahead of its last kernel; those behind it belong to the synchronisation."""
    programs = [programs for on, programs in seen["packets"] if on == queue]
    last = max(index for index, count in enumerate(programs) if count)
    return programs[:last].count(0)


def test_the_device_is_what_the_driver_says(found: Found) -> None:
    assert found.raw["device"] == {
        "ordinal": 0,
        "architecture": found.architecture,
        "pci_bus_id": "0000:c1:00.0",
        "layout": {"units": found.units, "num_xccs": found.xccs, "engines_per_xcc": found.engines},
        "wave_size": 64,
        "shared_memory_bytes": found.lds,
    }


def test_the_table_has_splits_and_trying_the_driver_leaves_no_queue_behind(found: Found) -> None:
    assert found.raw["table"]["unsupported"] is None
    assert found.raw["table"]["units_total"] == found.units
    assert len(found.splits) >= 4
    assert all(split % (found.xccs * found.engines) == 0 for split in found.splits)
    tried = found.raw["tried"]
    assert tried["created"] == tried["destroyed"]
    assert len(tried["destroyed"]) == 1


def test_the_words_that_reach_the_driver_are_the_lanes_units(found: Found) -> None:
    for name, queue in found.masked.items():
        start, stop = found.raw["units"][name]
        bits, words = found.masks[queue]
        assert bits == 32 * len(words) == 32 * -(-found.units // 32)
        assert found.bits(queue) == set(range(start, stop))


def test_the_lanes_of_a_split_are_disjoint_and_both_on_every_xcc(found: Found) -> None:
    for split in found.splits:
        decode = found.bits(found.queues[f"decode {split}"])
        prefill = found.bits(found.queues[f"prefill {found.units - split}"])
        assert decode
        assert prefill
        assert not decode & prefill
        assert len(decode | prefill) == found.units
        for lane in decode, prefill:
            assert {bit % found.xccs for bit in lane} == set(range(found.xccs))


def test_every_stream_has_a_hardware_queue_of_its_own_and_no_more_are_made(found: Found) -> None:
    assert len(set(found.queues.values())) == len(found.queues) == 2 * len(found.splits) + 2
    assert sorted(found.masked.values()) == sorted(found.raw["made"]["created"])


def test_kernels_land_on_their_lanes_queue_at_every_step(found: Found) -> None:
    for step in found.raw["launches"]:
        for name, seen in step.items():
            assert kernels_of(seen) == [[found.queues[name], 5]]


def test_steps_make_no_queues_and_set_no_masks(found: Found) -> None:
    """Switching the partition is choosing another stream, nothing else."""
    for part in (*found.raw["launches"], found.raw["linear"]):
        for seen in part.values():
            assert (seen["created"], seen["destroyed"], seen["masks"]) == ([], [], [])


def test_on_all_units_decode_has_the_higher_priority_and_no_mask(found: Found) -> None:
    """Lower is sooner. A masked stream has neither priority nor the non-blocking flag, and there is no way to ask."""
    decode, prefill = (f"{lane} {found.units}" for lane in ("decode", "prefill"))
    nature = found.raw["nature"]
    assert (nature[decode], nature[prefill]) == ({"flags": 1, "priority": -1}, {"flags": 1, "priority": 1})
    assert not {found.queues[decode], found.queues[prefill]} & set(found.masks)
    assert all(nature[name] == {"flags": 0, "priority": 0} for name in found.masked)


def test_a_linear_graph_captured_once_replays_on_the_queue_of_any_partition(found: Found) -> None:
    for name, seen in found.raw["linear"].items():
        assert kernels_of(seen) == [[found.queues[name], 11], [found.queues[name], 12]]


def test_a_graph_with_a_fork_escapes_the_mask_and_so_is_never_captured(found: Found) -> None:
    """What the runner's rule of linear graphs rests on: here a branch runs on all units."""
    seen = found.raw["fork"]
    decode = found.queues[f"decode {found.splits[0]}"]
    queues = {programs: queue for queue, programs in kernels_of(seen)}
    assert sorted(queues) == [31, 32, 33, 34]
    assert {queues[31], queues[34]} == {decode}
    assert len([queue for queue in queues.values() if queue not in found.masks]) == 1


def test_lanes_do_not_wait_for_each_other_and_the_null_stream_would_join_them(found: Found) -> None:
    apart, joined = found.raw["apart"], found.raw["joined"]
    split = found.splits[0]
    for lane in f"decode {split}", f"prefill {found.units - split}":
        queue = found.queues[lane]
        assert len([on for on, _ in kernels_of(apart) if on == queue]) == 2
        assert waits(apart, queue) == 0
        assert waits(joined, queue) >= 1


def test_the_null_stream_is_never_used_but_on_purpose(found: Found) -> None:
    used = {queue for part in found.raw["launches"] for seen in part.values() for queue, _ in seen["packets"]}
    assert used == set(found.queues.values())
    (null,) = [queue for queue, programs in kernels_of(found.raw["joined"]) if programs == 53]
    assert null not in used


def test_closing_destroys_the_queue_of_every_masked_stream(found: Found) -> None:
    closed = found.raw["closed"]
    assert sorted(closed["destroyed"]) == sorted(queue for queue, _, _ in closed["masks"])
    assert len(closed["destroyed"]) == 2 * len(found.splits)


@pytest.mark.skipif(Path("/dev/kfd").exists(), reason="this machine has an AMD GPU")
def test_without_a_gpu_the_real_library_is_refused_with_what_to_check(fake_amd: Run) -> None:
    refused = fake_amd("no_device.py", host=False)
    assert refused["type"] == "NoHipDevice"
    assert "0 can be used" in refused["message"]
    assert "/dev/kfd" in refused["hint"]
