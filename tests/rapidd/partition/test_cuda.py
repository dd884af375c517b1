"""SM partitions on a real GPU: sizes, disjointness and priorities as measured by the placement probe."""

import re

import pytest
import torch

from rapidd.errors import DeviceError
from rapidd.partition.table import share

gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def external(handle: int) -> torch.cuda.Stream:
    stream: torch.cuda.Stream = torch.cuda.ExternalStream(handle)  # type: ignore[no-untyped-call]
    return stream


def test_shares_are_multiples_that_leave_both_sides_the_least() -> None:
    assert share(132, 8, 8) == (16, 24, 32, 48, 64, 96)
    assert share(8, 8, 8) == ()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_the_error_says_what_to_do() -> None:
    from rapidd.partition.cuda import CudaPartitions

    with pytest.raises(DeviceError) as error:
        CudaPartitions()
    assert "--device cpu" in error.value.hint


@gpu
@needs_gpu
def test_a_split_gives_disjoint_sms_of_the_sizes_asked_for() -> None:
    from rapid_kernels.gpu.probe import unit_ids
    from rapidd.partition.cuda import CudaPartitions

    torch.zeros(1, device="cuda")
    partitions = CudaPartitions()
    total = partitions.table.units_total
    assert partitions.table.splits
    for units in partitions.table.splits:
        decode, prefill = partitions.split(units)
        sides = [set(unit_ids(external(group.stream), total)) for group in (decode, prefill)]
        assert [len(side) for side in sides] == [units, total - units] == [decode.units, prefill.units]
        assert not sides[0] & sides[1]


@gpu
@needs_gpu
def test_the_whole_device_and_its_priorities() -> None:
    from rapid_kernels.gpu.probe import unit_ids
    from rapidd.partition.cuda import CudaPartitions

    torch.zeros(1, device="cuda")
    partitions = CudaPartitions()
    streams = [external(partitions.whole(high_priority=high).stream) for high in (True, False)]
    total = partitions.table.units_total
    assert [len(unit_ids(stream, total)) for stream in streams] == [total, total]
    assert streams[0].priority < streams[1].priority


@gpu
@needs_gpu
def test_fewer_units_than_the_device_has_are_its_first_ones() -> None:
    from rapid_kernels.gpu.probe import unit_ids
    from rapidd.partition.cuda import CudaPartitions

    torch.zeros(1, device="cuda")
    total = CudaPartitions().table.units_total
    partitions = CudaPartitions(0, 64)
    assert partitions.table.units_total == 64
    whole = unit_ids(external(partitions.whole(high_priority=True).stream), total)
    assert len(whole) == 64
    decode, prefill = (set(unit_ids(external(group.stream), total)) for group in partitions.split(16))
    assert (len(decode), len(prefill)) == (16, 48)
    assert decode | prefill == set(whole)


@gpu
@needs_gpu
def test_the_device_has_the_address_that_other_tools_use() -> None:
    from rapidd.partition.cuda import CudaPartitions

    assert re.fullmatch(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.0", CudaPartitions().pci_bus_id)


@gpu
@needs_gpu
def test_an_illegal_split_is_refused() -> None:
    from rapidd.partition.cuda import CudaPartitions

    with pytest.raises(DeviceError, match="legal: 16, 24"):
        CudaPartitions().split(12)
