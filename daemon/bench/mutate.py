"""Damaged copies of good input: of frames for the request socket and of bodies for the HTTP server.

Half are damaged in their bytes, which is what parsers trip over, and half in a value, which gets further.
"""

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from rapidctl import wire
from rapidctl.wire import ChatMessage, Generate, PlanRequest, Sampling, pack_ids

OPCODES: Final = (0x80, 0x90, 0xA0, 0xC0, 0xC1, 0xC6, 0xCB, 0xD9, 0xDB, 0xDD, 0xDF, 0xFF)
"""Of msgpack: containers, lengths and the one byte that begins nothing."""
JSON_BYTES: Final = tuple(b'{}[]",:\\\0\xff')
"""What gives JSON its structure, and what it may not hold."""
DEEP: Final[Any] = [[[[[[[[1]]]]]]]]
ODD: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 2, 17, 511, 512, 2**31, 2**32, 2**53, 2**63 - 1, -(2**63), 0.0, -0.5, 1e-300, 1e300,
    "", "x", "\0", "\ud7ff", "x" * 300, "x" * 5000, [], {}, [[]], [None], [-1], ["x"] * 20, {"x": 1}, {"": None}, DEEP,
)  # fmt: skip
"""Values on the bounds of something, or of a type nobody expects."""
HTTP_MODEL: Final = "stories"
"""What `Bodies` call the model."""
Encode = Callable[[Any], bytes]


class Mutator:
    """Damages one of ``documents`` at a time. ``odd``: `ODD`, and what only this encoding can say."""

    def __init__(
        self, documents: Sequence[Any], encode: Encode, odd: Sequence[Any], special: Sequence[int], seed: int
    ) -> None:
        self.documents = documents
        self._good = [encode(document) for document in documents]
        self._encode, self._odd, self._special = encode, odd, special
        self._draw = random.Random(seed)

    def __call__(self) -> tuple[int, bytes]:
        """Number of the document, and what became of it."""
        which = int(self._draw.random() * len(self._good))
        if self._draw.random() < 0.5:
            return which, self._break(self._good[which])
        return which, self._encode(self._twist(self.documents[which]))

    def _break(self, data: bytes) -> bytes:
        """One to four bytes or runs of bytes replaced, inserted or left out; or the rest cut off."""
        draw, damaged = self._draw, bytearray(data)
        for _ in range(1 + int(draw.random() ** 2 * 4)):
            at = int(draw.random() * (len(damaged) + 1))
            kind = draw.random()
            if kind < 0.5:
                damaged[at : at + 1] = bytes((int(draw.random() * 256),))
            elif kind < 0.7:
                damaged[at : at + 1] = bytes((self._special[int(draw.random() * len(self._special))],))
            elif kind < 0.8:
                damaged[at:at] = draw.randbytes(1 + int(draw.random() * 8))
            elif kind < 0.95:
                del damaged[at : at + 1 + int(draw.random() * 8)]
            else:
                del damaged[at:]
        return bytes(damaged)

    def _twist(self, document: Any) -> Any:
        """One or two values replaced by odd ones, or a field left out or too many."""
        draw, twisted = self._draw, copy.deepcopy(document)
        for _ in range(1 + (draw.random() < 0.3)):
            inner = twisted
            while draw.random() < 0.5 and (deeper := [one for one in _values(inner) if isinstance(one, dict | list)]):
                inner = draw.choice(deeper)
            odd = copy.deepcopy(self._odd[int(draw.random() * len(self._odd))])
            if isinstance(inner, list):
                inner[draw.randrange(len(inner) + 1) :] = [odd]
            elif draw.random() < 0.1 or not inner:
                inner["unknown"] = odd
            elif draw.random() < 0.1:
                del inner[draw.choice(list(inner))]
            else:
                inner[draw.choice(list(inner))] = odd
        return twisted


def _values(container: Any) -> list[Any]:
    return list(container.values() if isinstance(container, dict) else container)


def requests() -> list[wire.Request]:
    """One of every kind that a client may send, with most fields set."""
    plan = PlanRequest(mode="split", decode_units=1, chunk=64)
    sampling = Sampling(temperature=0.7, top_k=5, top_p=0.9, seed=1, max_tokens=4, stop_token_ids=[1], logprobs=2)
    return [
        wire.Hello(client="storm"),
        wire.Ping(call=1),
        Generate(id="a", prompt="Once upon", sampling=sampling, stop=["x"], n=2, priority=1, deadline_s=2.0),
        Generate(id="b", messages=[ChatMessage("user", "hi"), ChatMessage("assistant", "ho")], slo_class="batch"),
        Generate(id="c", prompt_ids=pack_ids([1, 2, 3]), resume_ids=[pack_ids([1])], sampling=Sampling(max_tokens=2)),
        wire.Cancel(call=2, id="a"),
        wire.GetStatus(call=3),
        wire.GetSnapshot(call=4),
        wire.GetRequests(call=5, id="a"),
        wire.GetEvents(call=6, from_seq=1, limit=2),
        wire.GetPartition(call=7),
        wire.PredictPartition(call=8, plan=plan),
        wire.GetProfile(call=9, itl_s=0.1),
        wire.SetPartition(call=10, plan=plan, reason="why", by="me", if_epoch=1, deadline_unix_s=1e9),
        wire.ReleasePartition(call=11, by="me", reason="why"),
        wire.UndoPartition(call=12, by="me"),
        wire.SetPolicy(call=13, policy="auto", by="me"),
        wire.Drain(call=14, on=False, by="me"),
    ]


def frames(seed: int) -> Mutator:
    """Of `requests` on the wire."""
    documents = [msgspec.msgpack.decode(wire.encode(one)) for one in requests()]
    odd = (*ODD, b"", b"12345", b"\xff" * 8, float("nan"), float("inf"), 2**64 - 1)
    return Mutator(documents, msgspec.msgpack.encode, odd, OPCODES, seed)


class Bodies:
    """Damaged requests of the HTTP server."""

    def __init__(self, seed: int) -> None:
        sampling = {"max_tokens": 2, "temperature": 0.5, "top_p": 0.9, "seed": 1, "stop": ["x"], "logprobs": 1}
        stream = {"stream": True, "stream_options": {"include_usage": True}}
        messages = [{"role": "user", "content": "hi"}]
        parts = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
        paths_and_bodies: tuple[tuple[str, dict[str, Any]], ...] = (
            ("/v1/completions", {"prompt": "Once upon", "n": 2, **sampling}),
            ("/v1/completions", {"prompt": [1, 2, 3], "max_tokens": 1, "user": "somebody", **stream}),
            ("/v1/chat/completions", {"messages": messages, "max_completion_tokens": 2, "tools": None}),
            ("/v1/chat/completions", {"messages": parts, "max_tokens": 1, **stream}),
        )
        self._paths = [path for path, _ in paths_and_bodies]
        documents = [{"model": HTTP_MODEL, **body} for _, body in paths_and_bodies]
        self._mutator = Mutator(documents, _json, (*ODD, float("nan")), JSON_BYTES, seed)

    @property
    def good(self) -> list[tuple[str, bytes]]:
        """Paths and bodies before any damage."""
        return list(zip(self._paths, map(_json, self._mutator.documents), strict=True))

    def __call__(self) -> tuple[str, bytes]:
        """A path, and a body that may be none."""
        which, body = self._mutator()
        return self._paths[which], body


def _json(document: Any) -> bytes:
    return json.dumps(document).encode()  # NaN too, which JSON has not
