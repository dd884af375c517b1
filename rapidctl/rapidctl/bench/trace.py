"""Request traces: when requests arrive, how long they are, and which of their prompts begin alike. No text.

A trace is a file of JSON lines (``.jsonl``, ``.jsonl.gz``; columns in docs/bench.md) or a shape like ``20000/200@0.8``.
A prompt is described by its *parts*: runs of tokens, each named by a key. Equal keys are equal text, so prompts share
exactly the tokens of their leading common parts; `Prompts` makes token ids of them. Everything is pure and a function
of its arguments: the same trace, seed and salt give the same load on any machine. Knows no clock and no socket.
"""

import gzip
import hashlib
import math
import random
import re
import sys
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from dataclasses import replace as replaced
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, Self

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from rapidctl.errors import UsageError

HASH_BLOCK_TOKENS: Final = 512
"""Tokens that one of a row's ``hash_ids`` stands for."""
SESSION_BLOCK_TOKENS: Final = 64
"""Tokens of one of a row's ``shared_blocks``."""
MAX_TOKENS: Final = 10_000_000
SHAPE_REQUESTS: Final = 20_000
"""Requests of a shape's trace: more than any run replays."""


class TraceError(UsageError):
    """A trace that cannot be used; names the file, and the line when it is one line's fault."""


class Part(NamedTuple):
    """The first ``tokens`` tokens of the text named ``key``; negative keys are one request's own."""

    key: int
    tokens: int


class TraceRequest(Struct, frozen=True):
    """One request. ``index``: its number in the trace as read. Lengths are at least 1; the parts make up the prompt."""

    index: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of arrival. ``cut`` and ``dropped`` count what `limited` did to reach its limit."""

    name: str
    requests: tuple[TraceRequest, ...] = field(repr=False)
    cut: int = 0
    dropped: int = 0

    def window(self, start_s: float = 0.0, seconds: float | None = None) -> Self:
        """What arrives in ``[start_s, start_s + seconds)``, as if it began there."""
        end = math.inf if seconds is None else start_s + seconds
        inside = (request for request in self.requests if start_s <= request.arrival_s < end)
        moved = tuple(replace(request, arrival_s=request.arrival_s - start_s) for request in inside)
        return replaced(self, requests=moved)

    def head(self, count: int) -> Self:
        """The first ``count`` requests."""
        return replaced(self, requests=self.requests[:count])

    def scaled(self, factor: float) -> Self:
        """The same requests, arriving ``factor`` times as fast."""
        _check_factor(factor)
        faster = tuple(replace(request, arrival_s=request.arrival_s / factor) for request in self.requests)
        return replaced(self, requests=faster)

    def resized(self, factor: float) -> Self:
        """All lengths times ``factor``, at least 1. Prompts share the same share of their tokens as before."""
        _check_factor(factor)
        return replaced(self, requests=tuple(_resized(request, factor) for request in self.requests))

    def limited(self, max_model_len: int, over: Literal["cut", "drop"] = "cut") -> Self:
        """Requests whose prompt and output fit ``max_model_len`` tokens together.

        ``cut`` shortens a prompt at its end, which keeps what it shares with others; ``drop`` leaves the request out.
        One whose output alone does not fit is dropped either way.
        """
        kept: list[TraceRequest] = []
        cut = dropped = 0
        for request in self.requests:
            room = max_model_len - request.output_tokens
            if request.prompt_tokens <= room:
                kept.append(request)
            elif over == "drop" or room < 1:
                dropped += 1
            else:
                kept.append(replace(request, prompt_tokens=room, parts=_leading(request.parts, room)))
                cut += 1
        return replaced(self, requests=tuple(kept), cut=self.cut + cut, dropped=self.dropped + dropped)


def _check_factor(factor: float) -> None:
    if not 0 < factor < math.inf:
        raise TraceError(f"cannot scale a trace by {factor:g}", "a factor is more than 0")


def _leading(parts: tuple[Part, ...], tokens: int) -> tuple[Part, ...]:
    """The parts of the first ``tokens`` tokens."""
    kept: list[Part] = []
    for part in parts:
        if tokens <= 0:
            break
        kept.append(part if part.tokens <= tokens else Part(part.key, tokens))
        tokens -= part.tokens
    return tuple(kept)


def _resized(request: TraceRequest, factor: float) -> TraceRequest:
    """Each part's end is scaled, not its length: parts that begin prompts alike still end at the same token."""
    parts: list[Part] = []
    end = scaled_end = 0
    for part in request.parts:
        end += part.tokens
        begin, scaled_end = scaled_end, round(end * factor)
        if scaled_end > begin:
            parts.append(Part(part.key, scaled_end - begin))
    if not parts:
        parts, scaled_end = [Part(request.parts[0].key, 1)], 1
    output_tokens = max(1, round(request.output_tokens * factor))
    return replace(request, prompt_tokens=scaled_end, output_tokens=output_tokens, parts=tuple(parts))


# --- shapes -------------------------------------------------------------------------------------------------------


def shape_trace(shape: str, *, seed: int = 0, count: int = SHAPE_REQUESTS) -> Trace:
    """The trace of a shape ``IN/OUT@RATE``: prompts and outputs of fixed lengths, nothing shared.

    Arrivals are Poisson of RATE requests a second; ``inf``: all at once. Raises `TraceError`.
    """
    match = re.fullmatch(r"(\d+)/(\d+)@(\d+\.?\d*|\.\d+|inf)", shape)
    if match is None:
        raise TraceError(f"{shape!r} is no shape", "write IN/OUT@RATE: 20000/200@0.8, or 4096/256@inf for all at once")
    prompt_tokens, output_tokens, rate = int(match[1]), int(match[2]), float(match[3])
    if not (1 <= prompt_tokens <= MAX_TOKENS and 1 <= output_tokens <= MAX_TOKENS and rate > 0):
        raise TraceError(f"the shape {shape!r} has a length or a rate of zero, or is too long")
    arrivals = poisson(rate, seed)
    requests = (
        TraceRequest(index, next(arrivals), prompt_tokens, output_tokens, (_own(index, prompt_tokens),))
        for index in range(count)
    )
    return Trace(shape, tuple(requests))


def poisson(rate: float, seed: int) -> Iterator[float]:
    """Arrivals of a Poisson process of ``rate`` a second, from 0 on; all 0 when the rate is infinite."""
    draw = random.Random(seed)
    arrival_s = 0.0
    while True:
        yield arrival_s
        arrival_s += draw.expovariate(1.0) / rate


def _own(index: int, tokens: int) -> Part:
    """Text that only request ``index`` has."""
    return Part(-1 - index, tokens)


# --- files --------------------------------------------------------------------------------------------------------

_Length = Annotated[int, Meta(ge=1, le=MAX_TOKENS)]
_Count = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]
_Id = Annotated[int, Meta(ge=0)]
_Seconds = Annotated[float, Meta(ge=0, le=1e9)]


class _Row(Struct):
    """One line, as far as it is used. Columns that a kind of trace lacks are null."""

    prompt_tokens: _Length
    output_tokens: _Length
    arrival_s: _Seconds | None = None
    arrival_spread_s: _Seconds | None = None
    hash_ids: list[_Id] | None = None
    segments: list[tuple[_Id, _Count]] | None = None
    session_id: _Id | None = None
    turn: _Count | None = None
    shares_with_turn: _Count | None = None
    shared_blocks: _Count | None = None


_row_decoder = msgspec.json.Decoder(_Row)
_Turns = dict[tuple[int, int], tuple[Part, ...]]
"""Parts of the prompts read so far, by session and turn."""


def read_trace(path: str | Path, *, request_rate: float | None = None, seed: int = 0, spread: bool = True) -> Trace:
    """The trace in a file, from its first arrival on. Raises `TraceError`.

    ``request_rate``: Poisson arrivals of so many a second, seeded, instead of the recorded ones; a file of lengths only
    needs it. ``spread``: use ``arrival_spread_s`` where the file has it; recorded times may sit in batches.
    """
    path = Path(path)
    if request_rate is not None and not request_rate > 0:  # NaN is not, either
        raise TraceError(f"a request rate of {request_rate:g} a second is none", "it is more than 0; inf: all at once")
    arrivals = None if request_rate is None else poisson(request_rate, seed)
    requests: list[TraceRequest] = []
    turns: _Turns = {}
    begin_s = before_s = 0.0
    for number, line in _lines(path):
        try:
            row = _row_decoder.decode(line)
            arrival_s = _arrival_s(row, spread) if arrivals is None else next(arrivals)
            if not requests:
                begin_s = before_s = arrival_s
            if arrival_s < before_s:
                raise ValueError(f"arrives at {arrival_s:g} s, before the line above ({before_s:g} s): sort the file")
            parts = _parts(row, len(requests), turns)
        except (ValueError, RecursionError) as error:  # msgspec's are ValueErrors too
            raise TraceError(f"{path}, line {number}: {error}") from error
        before_s = arrival_s
        requests.append(TraceRequest(len(requests), arrival_s - begin_s, row.prompt_tokens, row.output_tokens, parts))
    if not requests:
        raise TraceError(f"{path} has no requests")
    return Trace(path.name.removesuffix(".gz").removesuffix(".jsonl"), tuple(requests))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not empty."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.isspace():
                    yield number, line
    except (OSError, EOFError, zlib.error) as error:  # BadGzipFile is an OSError
        where = f"{path}, after line {number}" if number else str(path)
        raise TraceError(f"{where}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _arrival_s(row: _Row, spread: bool) -> float:
    if spread and row.arrival_spread_s is not None:
        return row.arrival_spread_s
    if row.arrival_s is None:
        raise ValueError("Object missing required field `arrival_s`; for a file of lengths give a request rate")
    return row.arrival_s


def _parts(row: _Row, index: int, turns: _Turns) -> tuple[Part, ...]:
    """What the prompt is made of, by whichever columns say so. Raises ValueError when they contradict each other."""
    length = row.prompt_tokens
    if row.hash_ids is not None:
        blocks = -(-length // HASH_BLOCK_TOKENS)
        if len(row.hash_ids) != blocks:
            raise ValueError(f"{len(row.hash_ids)} hash_ids for {blocks} blocks of {HASH_BLOCK_TOKENS} prompt tokens")
        last = length - HASH_BLOCK_TOKENS * (blocks - 1)
        return (*(Part(key, HASH_BLOCK_TOKENS) for key in row.hash_ids[:-1]), Part(row.hash_ids[-1], last))
    if row.segments is not None:
        shared = tuple(Part(key, tokens) for key, tokens in row.segments if tokens)
    elif row.shared_blocks is not None:
        shared = _session_parts(row, turns)
    else:
        shared = ()
    left = length - sum(part.tokens for part in shared)
    if left < 0:
        raise ValueError(f"{length - left} tokens in parts, {length} in the prompt")
    parts = (*shared, _own(index, left)) if left else shared
    if row.session_id is not None and row.turn is not None:
        turns[row.session_id, row.turn] = parts
    return parts


def _session_parts(row: _Row, turns: _Turns) -> tuple[Part, ...]:
    """The beginning that a turn has in common with an earlier one of its session."""
    if not row.shared_blocks:
        return ()
    if row.session_id is None or row.shares_with_turn is None:
        raise ValueError("shared_blocks need session_id and shares_with_turn")
    earlier = turns.get((row.session_id, row.shares_with_turn))
    if earlier is None:
        raise ValueError(
            f"shares with turn {row.shares_with_turn}, which no earlier line of session {row.session_id} is"
        )
    tokens = min(row.shared_blocks * SESSION_BLOCK_TOKENS, row.prompt_tokens)
    shared = _leading(earlier, tokens)
    if sum(part.tokens for part in shared) < tokens:
        raise ValueError(f"shares {tokens} tokens with turn {row.shares_with_turn}, whose prompt is shorter")
    return shared


# --- prompts ------------------------------------------------------------------------------------------------------


class Prompts:
    """Token ids of prompts: a hash of (salt, key, position), so that equal parts are equal ids and no others are.

    ``salt``: prompts of different salts share nothing. A run that must not find the blocks of the one before it in a
    prefix cache takes another salt. Ids are below ``vocab_size``, and from 256 to 65,535 where the vocabulary has room:
    tokenizers keep their control tokens at the ends. A block of 16 ids has 128 bits, of a vocabulary of 256 or more.
    """

    def __init__(self, vocab_size: int, salt: str = "") -> None:
        if vocab_size < 2:
            raise ValueError(f"a vocabulary of {vocab_size} tokens cannot tell prompts apart")
        pages = min(vocab_size // 256, 256)
        """Pages of 256 ids; the first is left out where there is another."""
        self._low = bytes(range(256)) if pages else bytes(byte % vocab_size for byte in range(256))
        self._high = bytes(1 + byte % (pages - 1) if pages > 1 else 0 for byte in range(256))
        self._salt = salt

    def __call__(self, request: TraceRequest) -> bytes:
        """The prompt, packed as `rapidctl.wire.pack_ids` does: ``4 * prompt_tokens`` bytes, little-endian u32."""
        packed = bytearray(4 * request.prompt_tokens)
        at = 0
        for key, tokens in request.parts:
            # Two bytes a token of an extendable hash: fewer tokens of a key are the beginning of more.
            drawn = hashlib.shake_128(f"{self._salt}/{key}".encode(), usedforsecurity=False).digest(2 * tokens)
            end = at + 4 * tokens
            packed[at:end:4] = drawn[0::2].translate(self._low)
            packed[at + 1 : end : 4] = drawn[1::2].translate(self._high)
            at = end
        return bytes(packed)

    def ids(self, request: TraceRequest) -> "array[int]":
        """The prompt as an array of unsigned integers, without making an object of each."""
        ids = array("I", self(request))
        if sys.byteorder == "big":
            ids.byteswap()
        return ids
