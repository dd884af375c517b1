"""The structure check of raw frames: everything msgpack can say passes, everything else is refused, in linear time."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapidctl.framing import MAX_VALUES, FramingError, check_frame

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=300)
    | st.builds(msgspec.msgpack.Ext, st.integers(-128, 127), st.binary(max_size=40))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=16,
)


def check(frame: bytes) -> None:
    check_frame(frame, max_depth=32)


def passes(frame: bytes) -> bool:
    try:
        check(frame)
    except FramingError:
        return False
    return True


def skips(frame: bytes) -> bool:
    """Whether msgspec finds exactly one value: the only one in a list, since alone it would not look."""
    try:
        msgspec.msgpack.decode(b"\x91" + frame, type=list[msgspec.Raw])
    except msgspec.DecodeError:
        return False
    return True


@given(VALUES)
def test_every_well_formed_value_passes(value: object) -> None:
    check_frame(msgspec.msgpack.encode(value), max_depth=1000)


@pytest.mark.parametrize(
    "value",
    [
        "x" * 70_000,
        b"x" * 70_000,
        [0] * 20_000,
        {str(key): 0 for key in range(20_000)},
        msgspec.msgpack.Ext(1, bytes(70_000)),
    ],
)
def test_the_widest_headers_pass(value: object) -> None:
    check(msgspec.msgpack.encode(value))


@given(VALUES, st.data())
def test_no_prefix_of_a_value_passes(value: object, data: st.DataObject) -> None:
    frame = msgspec.msgpack.encode(value)
    cut = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(FramingError, match="cut short"):
        check(frame[:cut])


@given(VALUES, st.binary(min_size=1, max_size=8))
def test_bytes_after_the_value_are_refused(value: object, rest: bytes) -> None:
    with pytest.raises(FramingError):
        check(msgspec.msgpack.encode(value) + rest)


@given(st.binary(max_size=32))
def test_random_bytes_pass_exactly_if_a_decoder_skips_over_them(frame: bytes) -> None:
    """32 bytes cannot nest deeper than the bound, so the only reason to refuse is that they are no value."""
    assert passes(frame) == skips(frame)


@pytest.mark.parametrize("opener", [b"\x91", b"\x81\xa0", b"\xdc\x00\x01", b"\xdf\x00\x00\x00\x01\xa0"])
def test_nesting_is_bounded(opener: bytes) -> None:
    check(opener * 32 + b"\xc0")
    with pytest.raises(FramingError, match="deeper than 32"):
        check(opener * 33 + b"\xc0")
    with pytest.raises(FramingError, match="deeper than 32"):
        check(opener * 100_000)


@pytest.mark.parametrize(
    "frame", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff\xc0", b"\xc6\xff\xff\xff\xff", b"\xdb\xff"]
)
def test_a_huge_count_costs_nothing(frame: bytes) -> None:
    with pytest.raises(FramingError, match="cut short"):
        check(frame)


def test_the_number_of_values_is_bounded() -> None:
    check(msgspec.msgpack.encode([0] * (MAX_VALUES - 1)))
    with pytest.raises(FramingError, match="more than"):
        check(msgspec.msgpack.encode([0] * MAX_VALUES))


def test_the_unused_opcode_is_refused() -> None:
    with pytest.raises(FramingError, match="0xc1"):
        check(b"\x91\xc1")
