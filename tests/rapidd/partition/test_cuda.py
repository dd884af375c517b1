"""SM partitions: what is made of the driver's answers; on a GPU sizes, disjointness and priorities by the probe."""

import re

import pytest
import torch

from rapidd.errors import DeviceError
from rapidd.partition.cuda import CudaPartitions
from rapidd.partition.table import share
from support.cuda import FakeDriver

gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def external(handle: int) -> torch.cuda.Stream:
    stream: torch.cuda.Stream = torch.cuda.ExternalStream(handle)  # type: ignore[no-untyped-call]
    return stream


def test_shares_are_multiples_that_leave_both_sides_the_least() -> None:
    assert share(132, 8, 8) == (16, 24, 32, 40, 48, 64)
    assert share(8, 8, 8) == ()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_the_error_says_what_to_do() -> None:
    with pytest.raises(DeviceError) as error:
        CudaPartitions()
    assert "--device cpu" in error.value.hint


def test_the_table_and_the_groups_are_what_the_driver_says() -> None:
    partitions = CudaPartitions(driver=FakeDriver(132))
    assert (partitions.table.units_total, partitions.table.splits) == (132, (16, 24, 32, 40, 48, 64))
    decode, prefill = partitions.split(32)
    assert (decode.units, prefill.units) == (32, 100)
    assert decode.stream != prefill.stream


def test_a_driver_that_is_too_old_to_partition_serves_shared_only_and_says_why() -> None:
    table = CudaPartitions(driver=FakeDriver(132, too_old=True)).table
    assert (table.units_total, table.splits) == (132, ())
    assert table.unsupported is not None
    assert 'Function "cuDeviceGetDevResource" not found' in table.unsupported


def test_a_device_that_another_process_has_for_itself_says_where_to_look() -> None:
    """As in compute mode EXCLUSIVE_PROCESS: the driver's code stood alone, and `rapidd doctor` sent people to dmesg."""
    with pytest.raises(DeviceError, match="the device cannot be opened: cuDevicePrimaryCtxRetain failed: 46") as error:
        CudaPartitions(driver=FakeDriver(132, taken=True))
    assert "nvidia-smi" in error.value.hint


def test_a_driver_that_is_too_old_cannot_limit_the_units() -> None:
    with pytest.raises(DeviceError, match="64 of the device's 132 SMs cannot be had") as error:
        CudaPartitions(compute_units=64, driver=FakeDriver(132, too_old=True))
    assert "leave out --compute-units" in error.value.hint


def test_fewer_units_are_split_among_themselves() -> None:
    partitions = CudaPartitions(compute_units=64, driver=FakeDriver(132))
    assert partitions.table.units_total == 64
    assert [group.units for group in partitions.split(16)] == [16, 48]


@pytest.mark.parametrize(("units", "limit"), [(8, None), (14, None), (132, 8)])
def test_too_few_units_for_two_sides_are_not_split_and_the_table_says_why(units: int, limit: int | None) -> None:
    """`rapidctl partition show` read "splits none: None", and the doctor "decode may get" with nothing behind it."""
    table = CudaPartitions(compute_units=limit, driver=FakeDriver(units)).table
    assert table.splits == ()
    assert table.unsupported == f"{limit or units} SMs cannot be split: each side needs at least 8"


def test_units_that_the_driver_would_round_are_refused() -> None:
    """It gives 24 where 20 are asked for."""
    with pytest.raises(DeviceError, match="20 of the device's 132 SMs cannot be had: the driver gave 24 SMs") as error:
        CudaPartitions(compute_units=20, driver=FakeDriver(132))
    assert "a multiple of 8" in error.value.hint


def test_more_units_than_there_are() -> None:
    with pytest.raises(DeviceError, match="133 compute units were asked for and the device has 132 SMs"):
        CudaPartitions(compute_units=133, driver=FakeDriver(132))


def test_streams_are_opened_for_all_sms_and_for_every_split() -> None:
    partitions = CudaPartitions(driver=FakeDriver(132))
    opened = {units: [group.units for group in groups] for units, groups in partitions.open().items()}
    assert opened == {132: [132, 132]} | {units: [units, 132 - units] for units in partitions.table.splits}


def test_a_driver_that_lists_splits_and_refuses_to_make_them_serves_shared_only_and_says_why() -> None:
    """A container without the right: `cuGreenCtxCreate` fails, though the device's SMs are told."""
    partitions = CudaPartitions(driver=FakeDriver(132, may_partition=False))
    assert partitions.table.splits
    assert list(partitions.open()) == [132]
    assert partitions.table.splits == ()
    assert "cuGreenCtxCreate failed: 800" in (partitions.table.unsupported or "")


@pytest.mark.parametrize("units", [0, 12, 132])
def test_a_split_that_is_not_in_the_table_is_refused(units: int) -> None:
    with pytest.raises(DeviceError, match="legal: 16, 24, 32, 40, 48, 64"):
        CudaPartitions(driver=FakeDriver(132)).split(units)


def test_a_driver_that_does_not_start_says_what_to_check() -> None:
    with pytest.raises(DeviceError, match="no CUDA device can be used: cuInit says 803") as error:
        CudaPartitions(driver=FakeDriver(init=803))
    assert "nvidia-smi" in error.value.hint


@gpu
@needs_gpu
def test_a_split_gives_disjoint_sms_of_the_sizes_asked_for() -> None:
    from rapid_kernels.gpu.probe import unit_ids

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
    assert re.fullmatch(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.0", CudaPartitions().pci_bus_id)


@gpu
@needs_gpu
def test_an_illegal_split_is_refused() -> None:
    with pytest.raises(DeviceError, match="legal: 16, 24"):
        CudaPartitions().split(12)
