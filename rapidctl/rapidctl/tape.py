"""What a console saw, kept so that any moment of it can be shown again: in memory for the last half hour, or in a file.

A tape is a run of blocks of a few seconds. A block has a small head (when its snapshots came, which events deserve a
jump) and a compressed body; reading a moment decompresses one block. A file is a magic line and the blocks, nothing
else: it can be appended to for days, and one that was cut off is read up to the cut. Snapshots and events carry
no prompt and no output text, so neither does a tape, unless it was asked to hold the `Exchange`s of a console.
Times are seconds of the recorder's monotonic clock.
"""

from __future__ import annotations

import os
import struct
import zlib
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, BinaryIO, Final, Literal, NamedTuple, Self, TextIO

import msgspec

from rapidctl.book import HISTORY_S
from rapidctl.errors import RapidctlError
from rapidctl.wire import (
    EVENT_TOPIC,
    SNAPSHOT_TOPIC,
    Accepted,
    Delta,
    Event,
    Finished,
    Generate,
    PartitionInfo,
    Snapshot,
    WireError,
    decode_event,
    decode_snapshot,
    encode,
)

MAGIC: Final = b"rapidctl tape 1\n"
EXCHANGE_TOPIC: Final = b"x"
"""Before an `Exchange`, as the wire's topics stand before snapshots and events."""
FILE_MODE: Final = 0o600
"""Of recordings: they name clients, and may hold text."""
BLOCK_S: Final = 5.0
MAX_BODY_BYTES: Final = 256 * 1024 * 1024
"""A longer block is no block of ours: 20 snapshots of 64 requests are half a megabyte."""
_LENGTHS: Final = struct.Struct("<II")
_LEVEL: Final = 1
"""zlib's fastest: snapshots repeat each other so much that a higher level saves little."""

Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
"""Of the recorder's monotonic clock."""

MarkKind = Literal["operator", "guard", "problem", "recovery"]
MARKS: Final[dict[str, MarkKind]] = {
    "override": "operator", "release": "operator", "policy": "operator", "drain": "operator",
    "guard": "guard", "ttl": "guard", "engine_ready": "recovery", "front_ready": "recovery",
}  # fmt: skip
"""Kinds of events that one wants to jump to, beside every warning and error."""


class TapeError(RapidctlError):
    """A file that is no tape, or cannot be read or written."""


class Exchange(msgspec.Struct, kw_only=True):
    """A prompt that was sent from the console, and all that came of it and when. The only record that holds text."""

    sent_s: float
    request: Generate
    partition: PartitionInfo | None
    """When it was sent."""
    accepted: tuple[float, Accepted] | None
    deltas: list[tuple[float, Delta]]
    finished: tuple[float, Finished] | None
    problem: str
    """Why there is no `Finished`."""
    end_s: float
    changes: list[int]
    """Before which inter-token gap another plan came into force."""


class Record(NamedTuple):
    """A snapshot, an event or an exchange that ended, and when it came."""

    at_s: float
    item: Snapshot | Event | Exchange


class Mark(msgspec.Struct, array_like=True, frozen=True):
    """A moment worth jumping to."""

    at_s: float
    kind: MarkKind


class Head(msgspec.Struct, array_like=True):
    """What is known of a block without its body."""

    first_s: Seconds
    last_s: Seconds
    frames_s: list[float]
    """When its snapshots came."""
    marks: list[Mark]


_TOPICS: Final[dict[type, bytes]] = {Snapshot: SNAPSHOT_TOPIC, Event: EVENT_TOPIC, Exchange: EXCHANGE_TOPIC}
Packed = list[tuple[Seconds, bytes]]
_head_encoder = msgspec.msgpack.Encoder()
_head_decoder = msgspec.msgpack.Decoder(Head)
_exchange_decoder = msgspec.msgpack.Decoder(Exchange)
_body_decoder: msgspec.msgpack.Decoder[Packed] = msgspec.msgpack.Decoder(Packed)


class Builder:
    """Collects records and seals them into a block."""

    def __init__(self) -> None:
        self.packed: Packed = []
        self._frames_s: list[float] = []
        self._marks: list[Mark] = []

    def add(self, record: Record) -> None:
        """Take the next record; times never go back."""
        at_s, item = record
        self.packed.append((at_s, _TOPICS[type(item)] + encode(item)))
        if isinstance(item, Snapshot):
            self._frames_s.append(at_s)
        elif isinstance(item, Event) and (kind := mark_kind(item)) is not None:
            self._marks.append(Mark(at_s, kind))

    @property
    def full(self) -> bool:
        """Whether it spans a block's time."""
        return bool(self.packed) and self.packed[-1][0] - self.packed[0][0] >= BLOCK_S

    @property
    def head(self) -> Head:
        """Of what is collected so far; there must be something."""
        return Head(self.packed[0][0], self.packed[-1][0], self._frames_s, self._marks)

    def seal(self) -> bytes:
        """The body."""
        return zlib.compress(msgspec.msgpack.encode(self.packed), _LEVEL)


def mark_kind(event: Event) -> MarkKind | None:
    """Whether an event is worth a jump."""
    return "problem" if event.level != "info" else MARKS.get(event.kind)


class Tape:
    """Any tape, for reading. Subclasses hold the blocks."""

    def __init__(self) -> None:
        self._heads: deque[Head] = deque()
        self._dropped = 0
        """Blocks that are no longer held: block numbers do not change when the oldest goes."""
        self._read: tuple[tuple[int, int], list[Record]] = ((-1, 0), [])
        """The block read last: its number, how many records it had then, and these."""

    def heads(self) -> Sequence[Head]:
        """Of all blocks, oldest first."""
        return self._heads

    def packed(self, index: int) -> Packed:
        """The records of a block."""
        raise NotImplementedError

    @property
    def start_s(self) -> float | None:
        """The first moment; null: nothing was recorded."""
        heads = self.heads()
        return heads[0].first_s if heads else None

    @property
    def end_s(self) -> float | None:
        """The last moment."""
        heads = self.heads()
        return heads[-1].last_s if heads else None

    def records(self, index: int) -> list[Record]:
        """The records of a block, decoded; the last one read is kept. Raises `TapeError`."""
        head = self.heads()[index]
        key = (self._dropped + index, len(head.frames_s) + len(head.marks))
        if self._read[0] != key:
            self._read = (key, [_decode(*found) for found in self.packed(index)])
        return self._read[1]

    def snapshot_at(self, at_s: float) -> tuple[float, Snapshot] | None:
        """The newest snapshot that had come by then, and when it came."""
        heads = self.heads()
        index = bisect_right(heads, at_s, key=lambda head: head.first_s) - 1
        while index >= 0:
            for record in reversed(self.records(index)):
                if record.at_s <= at_s and isinstance(record.item, Snapshot):
                    return record.at_s, record.item
            index -= 1
        return None

    def frame_beside(self, at_s: float, by: Literal[-1, 1]) -> float | None:
        """When the snapshot before or after this moment came."""
        heads = self.heads()
        block = max(0, bisect_right(heads, at_s, key=lambda head: head.first_s) - 1)
        while 0 <= block < len(heads):
            frames = heads[block].frames_s
            place = bisect_left(frames, at_s) - 1 if by < 0 else bisect_right(frames, at_s)
            if 0 <= place < len(frames):
                return frames[place]
            block += by
        return None

    def marks(self) -> list[Mark]:
        """Every moment worth a jump, oldest first."""
        return [mark for head in self.heads() for mark in head.marks]

    def __iter__(self) -> Iterator[Record]:
        """Every record, oldest first."""
        for index in range(len(self.heads())):
            for found in self.packed(index):
                yield _decode(*found)


class MemoryTape(Tape):
    """The last `HISTORY_S` seconds of a live feed, a few hundred bytes a snapshot."""

    def __init__(self, keep_s: float = HISTORY_S) -> None:
        super().__init__()
        self._keep_s = keep_s
        self._bodies: deque[bytes] = deque()
        self._open = Builder()

    def add(self, record: Record) -> None:
        """Keep one more, and forget what is too old."""
        self._open.add(record)
        if self._open.full:
            self._heads.append(self._open.head)
            self._bodies.append(self._open.seal())
            self._open = Builder()
        while self._heads and self._heads[0].last_s < record.at_s - self._keep_s:
            self._heads.popleft()
            self._bodies.popleft()
            self._dropped += 1

    def heads(self) -> Sequence[Head]:  # noqa: D102
        return [*self._heads, self._open.head] if self._open.packed else self._heads

    def packed(self, index: int) -> Packed:  # noqa: D102
        if index == len(self._bodies):
            return self._open.packed
        return _body_decoder.decode(zlib.decompress(self._bodies[index]))

    @property
    def held_bytes(self) -> int:
        """Memory that the sealed blocks take."""
        return sum(map(len, self._bodies))


class FileTape(Tape):
    """A recording. Only the heads are read at once. Raises `TapeError` for anything else."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.cut = False
        """Whether its end is missing: the recorder was killed, or still writes."""
        self._places: list[tuple[int, int]] = []
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            self._scan()
        except (OSError, ValueError) as error:
            self._file.close()
            raise _unreadable(path, error) from error

    def packed(self, index: int) -> Packed:  # noqa: D102
        start, length = self._places[index]
        self._file.seek(start)
        try:
            inflater = zlib.decompressobj()
            body = inflater.decompress(self._file.read(length), MAX_BODY_BYTES)
            return _body_decoder.decode(body)
        except (OSError, ValueError, zlib.error) as error:
            raise TapeError(f"{self.path} is damaged at byte {start}: {error}") from error

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def _scan(self) -> None:
        if self._file.read(len(MAGIC)) != MAGIC:
            raise ValueError("it does not begin as one")
        size = self.path.stat().st_size
        while len(lengths := self._file.read(_LENGTHS.size)) == _LENGTHS.size:
            head_length, body_length = _LENGTHS.unpack(lengths)
            start = self._file.tell() + head_length
            if start + body_length > size:
                self.cut = True
                return
            self._heads.append(_head_decoder.decode(self._file.read(head_length)))
            self._places.append((start, body_length))
            self._file.seek(start + body_length)
        self.cut = bool(lengths)


class Recorder:
    """Writes a tape to a new file, a block at a time. Raises `TapeError`; a file that exists is never overwritten."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.snapshots = 0
        self._open = Builder()
        self._file = new_file(path)
        self._file.write(MAGIC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def add(self, record: Record) -> None:
        """Keep one more."""
        self.snapshots += isinstance(record.item, Snapshot)
        self._open.add(record)
        if self._open.full:
            self._write()

    def close(self) -> None:
        """Write what is left. May be called again."""
        if self._file.closed:
            return
        try:
            if self._open.packed:
                self._write()
        finally:
            close_file(self._file, self.path)

    def _write(self) -> None:
        head, body = _head_encoder.encode(self._open.head), self._open.seal()
        try:
            self._file.write(_LENGTHS.pack(len(head), len(body)) + head + body)
            self._file.flush()
        except OSError as error:
            raise _unwritten(self.path, error) from error
        self._open = Builder()


def new_file(path: Path) -> BinaryIO:
    """A file that its owner alone can read. Raises `TapeError`, also when there is one of that name."""
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb")
    except FileExistsError:
        raise TapeError(f"{path} exists already", "name another file, or remove it") from None
    except OSError as error:
        raise _unwritten(path, error) from error


def close_file(file: BinaryIO | TextIO, path: Path) -> None:
    """Write what it still holds. Raises `TapeError`."""
    try:
        file.close()
    except OSError as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> TapeError:
    return TapeError(f"{path} cannot be written: {error.strerror}")


def _unreadable(path: Path, error: Exception) -> TapeError:
    return TapeError(f"{path} cannot be read as a recording: {error}", "make one with: rapidctl record")


def _decode(at_s: float, frame: bytes) -> Record:
    try:
        if frame.startswith(SNAPSHOT_TOPIC):
            return Record(at_s, decode_snapshot(frame))
        if frame.startswith(EXCHANGE_TOPIC):
            return Record(at_s, _exchange_decoder.decode(memoryview(frame)[len(EXCHANGE_TOPIC) :]))
        return Record(at_s, decode_event(frame))
    except (WireError, ValueError) as error:
        raise TapeError(f"the recording holds a message that this rapidctl cannot read: {error}") from error
