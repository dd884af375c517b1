"""The HIP table and streams on a stand-in library: what is made, what is refused, and in which words.

That the real library takes it the same way is asked in tests/amd_host.
"""

import ctypes
from pathlib import Path

import pytest

from rapidd.errors import DeviceError
from rapidd.partition.hip import HipDevice, HipStreams, describe, hip_table
from rapidd.partition.hip_contexts import Resource
from rapidd.partition.hip_runtime import (
    HipError,
    HipLibraryMissing,
    HipRuntime,
    HipTooOld,
    NoHipDevice,
)
from rapidd.partition.masks import CuLayout, lane_masks, legal_splits, unit_groups
from support.amd import write_gpu
from support.hip import NO_DEVICE, OUT_OF_MEMORY, UNSUPPORTED, FakeHip, FakeNewerHip

MI300X = CuLayout(units=304, num_xccs=8)
"""Where no sysfs tells the shader engines."""
NOWHERE = Path("/nowhere")


def device_of(fake: FakeHip) -> tuple[HipRuntime, HipDevice]:
    runtime = HipRuntime(fake)
    return runtime, describe(runtime, 0, {}, NOWHERE)


def test_a_device_is_what_the_driver_says() -> None:
    _, device = device_of(FakeHip())
    assert device == HipDevice(
        ordinal=0,
        architecture="gfx942",
        pci_bus_id="0000:c1:00.0",
        layout=MI300X,
        wave_size=64,
        shared_memory_bytes=65536,
    )


def test_the_shader_engines_come_from_the_kernel_driver(tmp_path: Path) -> None:
    write_gpu(tmp_path)
    runtime = HipRuntime(FakeHip())
    device = describe(runtime, 0, {}, tmp_path)
    assert device.layout == CuLayout(units=304, num_xccs=8, engines_per_xcc=4)
    assert hip_table(runtime, device).splits[0] == 32


def test_an_old_hip_that_does_not_tell_the_xccs_leaves_that_to_the_kernel_driver(tmp_path: Path) -> None:
    runtime = HipRuntime(FakeHip(attributes={63: 304, 74: 65536, 87: 64}))
    with pytest.raises(HipError, match="hipDeviceGetAttribute: 1"):
        describe(runtime, 0, {}, tmp_path)
    write_gpu(tmp_path)
    assert describe(runtime, 0, {}, tmp_path).layout.num_xccs == 8


def test_no_xccs_at_all_are_not_told_either(tmp_path: Path) -> None:
    """The table divided by them, and the engine ended with a traceback."""
    runtime = HipRuntime(FakeHip(attributes={63: 304, 74: 65536, 87: 64, 10018: 0}))
    with pytest.raises(DeviceError, match="HIP does not tell how many XCCs the device has"):
        describe(runtime, 0, {}, tmp_path)
    write_gpu(tmp_path)
    assert describe(runtime, 0, {}, tmp_path).layout.num_xccs == 8


def test_handles_are_declared_as_pointers_because_ctypes_would_cut_them_to_32_bits() -> None:
    fake = FakeHip()
    HipRuntime(fake)
    assert fake.hipStreamDestroy.argtypes == (ctypes.c_void_p,)  # type: ignore[attr-defined]
    assert fake.hipExtStreamCreateWithCUMask.argtypes[1] is ctypes.c_uint32  # type: ignore[attr-defined]


def test_the_table_is_of_the_whole_device_and_trying_leaves_no_stream_behind() -> None:
    fake = FakeHip()
    runtime, device = device_of(fake)
    table = hip_table(runtime, device)
    assert (table.units_total, table.unit_name, table.unsupported) == (304, "CU", None)
    assert table.splits == legal_splits(MI300X)
    assert table.groups == unit_groups(MI300X)
    assert not fake.streams


def test_each_split_has_a_stream_a_lane_on_its_complementary_masks() -> None:
    fake = FakeHip()
    runtime, device = device_of(fake)
    table = hip_table(runtime, device)
    streams = HipStreams(runtime, device, table)
    assert sorted(streams.decode) == [*table.splits, 304]
    assert sorted(streams.prefill) == [*(304 - split for split in reversed(table.splits)), 304]
    for split in table.splits:
        masks = lane_masks(MI300X, split)
        assert fake.streams[streams.decode[split].handle] == masks.decode
        assert fake.streams[streams.prefill[304 - split].handle] == masks.prefill
        assert (streams.decode[split].units, streams.prefill[304 - split].units) == (range(split), range(split, 304))
    assert len(fake.streams) == 2 * len(table.splits) + 2


# --- execution contexts -------------------------------------------------------------------------------------------


def test_a_resource_has_the_layout_of_the_runtimes() -> None:
    assert ctypes.sizeof(Resource) == 144
    assert (Resource.sm.offset, Resource.next.offset) == (96, 136)


def test_where_hip_has_execution_contexts_lanes_of_a_split_have_priorities_too() -> None:
    fake = FakeNewerHip()
    runtime, device = device_of(fake)
    table = hip_table(runtime, device)
    streams = HipStreams(runtime, device, table)
    for split in table.splits:
        assert fake.streams[streams.decode[split].handle] == (-1, *range(split))
        assert fake.streams[streams.prefill[304 - split].handle] == (1, *range(split, 304))
    assert (fake.streams[streams.decode[304].handle], fake.streams[streams.prefill[304].handle]) == (-1, 1)


@pytest.mark.parametrize("missing", ["hipGreenCtxCreate", "hipStreamGetDevResource"])
def test_a_hip_that_lacks_one_of_their_calls_gets_masks(missing: str) -> None:
    fake = FakeNewerHip()
    fake.missing.add(missing)
    assert masked_splits(fake) == legal_splits(MI300X)


@pytest.mark.parametrize("call", ["hipDeviceGetDevResource", "hipGreenCtxCreate", "hipStreamGetDevResource"])
def test_contexts_that_are_refused_leave_masks_and_no_stream_behind(call: str) -> None:
    fake = FakeNewerHip()
    fake.fail[call] = UNSUPPORTED
    assert masked_splits(fake) == legal_splits(MI300X)


@pytest.mark.parametrize("fake", [FakeNewerHip(step=64), FakeNewerHip(off_by=-2)], ids=["rounded", "another stream"])
def test_contexts_of_other_sizes_than_asked_for_leave_masks(fake: FakeNewerHip) -> None:
    assert set(masked_splits(fake)) >= {split for split in legal_splits(MI300X) if split % 64}


def test_fewer_units_than_the_device_has_are_masked_also_where_there_are_contexts() -> None:
    fake = FakeNewerHip()
    runtime, device = device_of(fake)
    HipStreams(runtime, device, hip_table(runtime, device, 128))
    assert fake.contexts == []


def masked_splits(fake: FakeNewerHip) -> tuple[int, ...]:
    """Splits whose two streams have the masks of `lane_masks`; every open stream is one of theirs."""
    runtime, device = device_of(fake)
    table = hip_table(runtime, device)
    streams = HipStreams(runtime, device, table)
    assert len(fake.streams) == 2 * len(table.splits) + 2
    masked = []
    for split in table.splits:
        masks = lane_masks(device.layout, split)
        found = fake.streams[streams.decode[split].handle], fake.streams[streams.prefill[304 - split].handle]
        if found == (masks.decode, masks.prefill):
            masked.append(split)
    return tuple(masked)


def test_on_all_units_decode_goes_before_prefill() -> None:
    fake = FakeHip()
    runtime, device = device_of(fake)
    streams = HipStreams(runtime, device, hip_table(runtime, device))
    assert (fake.streams[streams.decode[304].handle], fake.streams[streams.prefill[304].handle]) == (-1, 1)


def test_closing_ends_every_stream_once() -> None:
    fake = FakeHip()
    runtime, device = device_of(fake)
    streams = HipStreams(runtime, device, hip_table(runtime, device))
    streams.close()
    assert not fake.streams
    streams.close()


@pytest.mark.parametrize("made_before", [0, 1, 5])
def test_a_driver_that_has_no_queue_left_is_an_error_and_leaves_no_stream_behind(made_before: int) -> None:
    fake = FakeHip()
    runtime, device = device_of(fake)
    table = hip_table(runtime, device)
    fake.masked_until_failure = made_before
    with pytest.raises(HipError, match="hipExtStreamCreateWithCUMask: 2 hipErrorOutOfMemory"):
        HipStreams(runtime, device, table)
    assert not fake.streams


def test_fewer_units_mask_every_stream_also_those_of_all_units() -> None:
    fake = FakeHip()
    runtime, device = device_of(fake)
    table = hip_table(runtime, device, 128)
    streams = HipStreams(runtime, device, table)
    assert table.units_total == 128
    for stream in (*streams.decode.values(), *streams.prefill.values()):
        words = fake.streams[stream.handle]
        assert isinstance(words, tuple)
        assert sum(word.bit_count() for word in words) == len(stream.units)
        assert max(stream.units) < 128


@pytest.mark.parametrize(("units", "says"), [(305, "the device has 304"), (100, "even over the device's 8 XCCs")])
def test_units_that_the_device_cannot_give_are_refused(units: int, says: str) -> None:
    runtime, device = device_of(FakeHip())
    with pytest.raises(DeviceError, match=says):
        hip_table(runtime, device, units)


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({63: 48, 74: 65536, 87: 32, 10018: 1}, "gfx942 is no CDNA GPU"),
        ({63: 8, 74: 65536, 87: 64, 10018: 8}, "8 units cannot be split over 8 XCCs"),
    ],
)
def test_a_device_whose_units_cannot_be_split_serves_shared_and_says_why(attributes: dict[int, int], says: str) -> None:
    fake = FakeHip(attributes=attributes)
    runtime, device = device_of(fake)
    table = hip_table(runtime, device)
    assert table.splits == ()
    assert table.unsupported is not None
    assert says in table.unsupported
    streams = HipStreams(runtime, device, table)
    assert (len(streams.decode), len(streams.prefill), len(fake.streams)) == (1, 1, 2)


@pytest.mark.parametrize("code", [UNSUPPORTED, OUT_OF_MEMORY])
def test_no_right_to_mask_is_a_table_without_splits_and_the_reason(code: int) -> None:
    fake = FakeHip()
    fake.fail["hipExtStreamCreateWithCUMask"] = code
    runtime, device = device_of(fake)
    table = hip_table(runtime, device)
    assert table.splits == ()
    assert table.unsupported is not None
    assert f"hipExtStreamCreateWithCUMask: {code}" in table.unsupported


def test_fewer_units_are_refused_where_nothing_can_be_masked() -> None:
    fake = FakeHip()
    fake.fail["hipExtStreamCreateWithCUMask"] = UNSUPPORTED
    runtime, device = device_of(fake)
    with pytest.raises(DeviceError, match="need a CU mask, and the driver refuses"):
        hip_table(runtime, device, 128)


def test_so_few_units_that_they_cannot_be_split_are_masked_all_the_same() -> None:
    fake = FakeHip()
    runtime, device = device_of(fake)
    table = hip_table(runtime, device, 8)
    assert (table.splits, table.unsupported) == ((), "8 units cannot be split over 8 XCCs")
    streams = HipStreams(runtime, device, table)
    assert [fake.streams[stream.handle] for stream in (streams.decode[8], streams.prefill[8])] == [
        (0xFF,) + (0,) * 9
    ] * 2


@pytest.mark.parametrize("name", ["HSA_CU_MASK", "ROC_GLOBAL_CU_MASK"])
def test_a_mask_of_the_whole_process_is_refused_because_it_narrows_every_lane(name: str) -> None:
    """HIP ANDs it into each mask without a word; GetCUMask goes on claiming the units that were asked for."""
    runtime = HipRuntime(FakeHip())
    with pytest.raises(DeviceError, match=f"{name}=0:0-127 takes compute units") as refused:
        describe(runtime, 0, {name: "0:0-127"})
    assert f"unset {name}" in refused.value.hint
    assert describe(runtime, 0, {name: ""}, NOWHERE).layout == MI300X


def test_no_device_says_what_to_check() -> None:
    fake = FakeHip()
    fake.fail["hipGetDeviceCount"] = NO_DEVICE
    with pytest.raises(NoHipDevice, match="device 0 was asked for, and 0 can be used") as refused:
        describe(HipRuntime(fake), 0, {})
    assert "/dev/kfd" in refused.value.hint
    with pytest.raises(NoHipDevice, match="device 1 was asked for, and 1 can be used"):
        describe(HipRuntime(FakeHip()), 1, {})


def test_an_error_names_the_call_and_the_code() -> None:
    fake = FakeHip()
    fake.fail["hipDeviceGetPCIBusId"] = 999
    with pytest.raises(HipError, match="hipDeviceGetPCIBusId: 999 hipErrorUnknown") as refused:
        describe(HipRuntime(fake), 0, {})
    assert refused.value.code == 999


@pytest.mark.parametrize("symbol", ["hipGetDevicePropertiesR0600", "hipExtStreamCreateWithCUMask"])
def test_a_runtime_from_before_rocm_6_is_refused(symbol: str) -> None:
    fake = FakeHip()
    fake.missing.add(symbol)
    with pytest.raises(HipTooOld, match=symbol):
        HipRuntime(fake)


def test_no_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCM_PATH", "/nowhere")
    with pytest.raises(HipLibraryMissing, match=r"no HIP runtime: .*libabsent\.so\.1") as refused:
        HipRuntime.load(["libabsent.so.1"])
    assert "--device cpu" in refused.value.hint


def test_a_library_that_is_no_hip_is_refused() -> None:
    """Every Linux process has its C library loaded already; it is found there, and has none of the calls."""
    with pytest.raises(HipTooOld, match="hipGetDeviceCount"):
        HipRuntime.load(["libc.so.6"])
