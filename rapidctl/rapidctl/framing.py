"""Structure check of a raw msgpack frame, before anything decodes it.

One linear pass over the opcodes: no recursion, no allocation beyond a stack of at most ``max_depth`` counters,
strings and byte strings skipped unread. It knows no message, no field and no text encoding: whether a string is
UTF-8 is the decoder's to say. Opcodes: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from typing import Final

MAX_VALUES: Final = 65_536
"""Most values (scalars, keys and containers) in a frame: bounds the scan to about 20 ms. The largest honest
message, `MAX_MESSAGES` chat turns, has about 5,000."""

# What follows each opcode: (children per counted item, bytes of the count, constant added to the count).
# Scalars have no children and their count is of payload bytes; c1 is the one opcode that msgpack never uses.
_Opcode = tuple[int, int, int]
_OPCODES: Final[list[_Opcode | None]] = [
    *[(0, 0, 0)] * 0x80,  # 00-7f positive fixint
    *[(2, 0, pairs) for pairs in range(16)],  # 80-8f fixmap
    *[(1, 0, items) for items in range(16)],  # 90-9f fixarray
    *[(0, 0, size) for size in range(32)],  # a0-bf fixstr
    *[(0, 0, 0), None, (0, 0, 0), (0, 0, 0)],  # c0-c3 nil, never used, false, true
    *[(0, 1, 0), (0, 2, 0), (0, 4, 0)],  # c4-c6 bin 8/16/32
    *[(0, 1, 1), (0, 2, 1), (0, 4, 1)],  # c7-c9 ext 8/16/32: a type byte before the payload
    *[(0, 0, 4), (0, 0, 8)],  # ca-cb float 32/64
    *[(0, 0, 1), (0, 0, 2), (0, 0, 4), (0, 0, 8)] * 2,  # cc-d3 uint and int 8/16/32/64
    *[(0, 0, 1 + size) for size in (1, 2, 4, 8, 16)],  # d4-d8 fixext
    *[(0, 1, 0), (0, 2, 0), (0, 4, 0)],  # d9-db str 8/16/32
    *[(1, 2, 0), (1, 4, 0)],  # dc-dd array 16/32
    *[(2, 2, 0), (2, 4, 0)],  # de-df map 16/32
    *[(0, 0, 0)] * 0x20,  # e0-ff negative fixint
]


class FramingError(ValueError):
    """The bytes are not one msgpack value, or nest deeper or hold more values than allowed."""


def check_frame(frame: bytes, *, max_depth: int, max_values: int = MAX_VALUES) -> None:
    """Return when ``frame`` is exactly one well-formed value within the bounds, else raise `FramingError`.

    A scalar has depth 0, an empty list depth 1.
    """
    end = len(frame)
    position = values = 0
    open_counts = [1]  # values still expected at each level; the outermost level is the frame itself
    while open_counts:
        if open_counts[-1] == 0:
            open_counts.pop()
            continue
        open_counts[-1] -= 1
        values += 1
        if values > max_values:
            raise FramingError(f"the frame holds more than {max_values} values")
        if position >= end:
            raise FramingError(f"the frame is cut short after {end} bytes")
        opcode = _OPCODES[frame[position]]
        if opcode is None:
            raise FramingError(f"byte {position} (0xc1) begins no msgpack value")
        children, count_bytes, count = opcode
        position += 1
        if count_bytes:
            count += int.from_bytes(frame[position : position + count_bytes], "big")
            position += count_bytes
        if children:
            if len(open_counts) > max_depth:
                raise FramingError(f"the frame nests deeper than {max_depth} levels")
            open_counts.append(children * count)
        else:
            position += count
        if position > end:
            raise FramingError(f"the frame is cut short after {end} bytes")
    if position != end:
        raise FramingError(f"{end - position} bytes follow the message")
