"""The kernel driver's topology: shapes, partitions of one GPU, and files that are missing, unreadable or wrong."""

from pathlib import Path

import pytest

from rapidctl.wire import DeviceProcess
from rapidd.telemetry.kfd import KfdNode, find_node, processes, read_int
from support.amd import BUS_ID, GPU_ID, MI300X, PROC, write, write_gpu, write_node


def test_a_node_is_found_by_its_pci_address(tmp_path: Path) -> None:
    write_gpu(tmp_path)
    node = KfdNode(gpu_id=GPU_ID, num_xccs=8, engines_per_xcc=4)
    assert find_node(BUS_ID, tmp_path) == node
    assert find_node("0000:c2:00.0", tmp_path) is None
    assert find_node("0001:c1:00.0", tmp_path) is None
    assert find_node(BUS_ID, tmp_path / "nowhere") is None


def test_partitions_of_one_gpu_differ_in_the_function_and_share_the_shape(tmp_path: Path) -> None:
    part = MI300X | {"simd_count": 152, "array_count": 4, "num_xcc": 1}
    for number in range(8):
        write_node(tmp_path, number, 100 + number, part | {"location_id": 0xC100 + number})
    third = find_node("0000:c1:00.2", tmp_path)
    assert third == KfdNode(gpu_id=102, num_xccs=1, engines_per_xcc=4)
    write_node(tmp_path, 2, 102, part | {"location_id": 0xC200})
    assert find_node("0000:c1:00.2", tmp_path) == KfdNode(gpu_id=100, num_xccs=1, engines_per_xcc=4)


def test_counts_that_contradict_each_other_are_not_used(tmp_path: Path) -> None:
    write_node(tmp_path, 1, GPU_ID, MI300X | {"array_count": 4})
    node = find_node(BUS_ID, tmp_path)
    assert node is not None
    assert node.engines_per_xcc is None


def test_processes_are_read_with_ours_among_them(tmp_path: Path) -> None:
    write_gpu(tmp_path)
    write(
        tmp_path,
        {
            f"{PROC}/200/vram_{GPU_ID}": "21474836480",
            f"{PROC}/30/vram_{GPU_ID}": "4096",
            f"{PROC}/40/vram_999": "4096",
        },
    )
    assert processes(GPU_ID, tmp_path) == [
        DeviceProcess(pid=30, memory_bytes=4096),
        DeviceProcess(pid=200, memory_bytes=21474836480),
    ]


@pytest.mark.parametrize(("text", "value"), [("37", 37), ("-5", -5), ("", None), ("N/A", None), ("0x10", None)])
def test_a_file_is_one_number_or_nothing(tmp_path: Path, text: str, value: int | None) -> None:
    write(tmp_path, {"file": text})
    assert read_int(tmp_path / "file") == value
    (tmp_path / "raw").write_bytes(b"\xff\xfe")
    assert read_int(tmp_path / "raw") is None
    assert read_int(tmp_path) is None
