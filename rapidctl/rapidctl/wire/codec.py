"""Messages to frames and back, and the refusal that fits a frame which is none of ours."""

import sys
from array import array
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw

from rapidctl.framing import FramingError, check_frame
from rapidctl.wire.protocol import EVENT_TOPIC, MAX_DEPTH, MAX_ID_CHARS, SNAPSHOT_TOPIC
from rapidctl.wire.replies import Deltas, Finished, Reply
from rapidctl.wire.requests import Request
from rapidctl.wire.snapshots import Event, Snapshot
from rapidctl.wire.terms import ErrorCode

encode = msgspec.msgpack.Encoder().encode
"""One message as one frame."""
_request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_reply_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_snapshot_decoder = msgspec.msgpack.Decoder(Snapshot)
_event_decoder = msgspec.msgpack.Decoder(Event)
_envelope_decoder: msgspec.msgpack.Decoder[dict[str, Raw]] = msgspec.msgpack.Decoder(dict[str, Raw])
_REQUEST_KINDS: Final = frozenset(kind.__struct_config__.tag for kind in Request.__args__)


class WireError(ValueError):
    """A frame that is not one of our messages; ``code`` says in which way.

    ``id`` and ``call`` are the frame's own where they can be read, so that the refusal can name them.
    """

    def __init__(self, code: ErrorCode, message: str, *, id: str | None = None, call: int | None = None) -> None:  # noqa: A002
        super().__init__(message)
        self.code: ErrorCode = code
        self.id = id
        self.call = call


def decode_request(frame: bytes) -> Request:
    """A frame from a client. Raises `WireError` with ``malformed``, ``unknown_kind`` or ``invalid_request``."""
    try:
        check_frame(frame, max_depth=MAX_DEPTH)
        return _request_decoder.decode(frame)
    except FramingError as error:
        raise WireError("malformed", str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _classify(frame, error) from error


def _classify(frame: bytes, error: Exception) -> WireError:
    """Which refusal a well-formed frame deserves that does not decode as a `Request`."""
    try:
        fields = _envelope_decoder.decode(frame)
    except (ValueError, RecursionError):
        return WireError("malformed", "a message is a map with string keys")
    kind, id_, call = (_read(fields.get(name), expected) for name, expected in _ENVELOPE)
    if not isinstance(kind, str):
        code: ErrorCode = "malformed"
        message = 'a message names its kind as a string under "kind"'
    elif kind not in _REQUEST_KINDS:
        code = "unknown_kind"
        message = f"this daemon knows no message of kind {kind[:64]!r}"
    elif isinstance(error, msgspec.ValidationError):
        code = "invalid_request"
        message = _readable(str(error))
    else:  # UnicodeDecodeError, which names no field
        code = "malformed"
        message = f"a string in the message is not valid UTF-8 ({error})"
    return WireError(
        code, message, id=id_ if isinstance(id_, str) else None, call=call if isinstance(call, int) else None
    )


_ENVELOPE: Final = (
    ("kind", str),
    ("id", Annotated[str, Meta(max_length=MAX_ID_CHARS)]),
    ("call", Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]),
)


def _read(value: Raw | None, expected: object) -> object:
    """The value when it is of the expected type, else None."""
    if value is None:
        return None
    try:
        return msgspec.msgpack.decode(value, type=expected)
    except (ValueError, RecursionError):
        return None


def _readable(message: str) -> str:
    """msgspec's "Expected `int` - at `$.plan.chunk`" as "plan.chunk: expected int"."""
    problem, _, path = message.partition(" - at `$.")
    problem = f"{problem[0].lower()}{problem[1:]}".replace("`", "")
    return f"{path.removesuffix('`')}: {problem}" if path else problem


def decode_reply(frame: bytes) -> Reply:
    """A frame from the daemon, whose token ids `unpack_ids` takes. Raises `WireError`."""
    try:
        reply = _reply_decoder.decode(frame)
        packed = reply.items if isinstance(reply, Deltas) else reply.choices if isinstance(reply, Finished) else ()
        for part in packed:
            _check_ids(part.token_ids)
    except (ValueError, RecursionError) as error:
        raise WireError("malformed", f"the daemon sent a message this client cannot read: {error}") from error
    return reply


def decode_snapshot(frame: bytes) -> Snapshot:
    """A frame of the snapshot topic, topic byte included. Raises `WireError`."""
    try:
        return _snapshot_decoder.decode(memoryview(frame)[len(SNAPSHOT_TOPIC) :])
    except (ValueError, RecursionError) as error:
        raise WireError("malformed", f"unreadable snapshot: {error}") from error


def decode_event(frame: bytes) -> Event:
    """A frame of the event topic, topic byte included. Raises `WireError`."""
    try:
        return _event_decoder.decode(memoryview(frame)[len(EVENT_TOPIC) :])
    except (ValueError, RecursionError) as error:
        raise WireError("malformed", f"unreadable event: {error}") from error


def pack_ids(ids: Iterable[int]) -> bytes:
    """Token ids as little-endian u32 bytes."""
    packed = array("I", ids)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_ids(data: bytes) -> list[int]:
    """Inverse of `pack_ids`. Raises `WireError` unless the length is a multiple of 4."""
    _check_ids(data)
    unpacked = array("I", data)
    if sys.byteorder == "big":
        unpacked.byteswap()
    return unpacked.tolist()


def _check_ids(data: bytes) -> None:
    if len(data) % 4:
        raise WireError("invalid_request", f"token ids must be u32 bytes; {len(data)} bytes is no multiple of 4")
