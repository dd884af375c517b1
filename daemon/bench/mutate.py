"""Damaged copies of good input: of frames for the request socket and of bodies for the HTTP server."""

import json
import random
from collections.abc import Sequence
from typing import Final

from rapidctl import wire
from rapidctl.wire import ChatMessage, Generate, PlanRequest, Sampling, pack_ids

OPCODES: Final = (0x80, 0x90, 0xA0, 0xC0, 0xC1, 0xC6, 0xCB, 0xD9, 0xDB, 0xDD, 0xDF, 0xFF)
"""Of msgpack: containers, lengths and the one byte that begins nothing: where parsers trip."""
MAX_DAMAGES: Final = 4


def mutate(data: bytes, draw: random.Random, special: Sequence[int] = OPCODES) -> bytes:
    """One to four damages: a byte replaced, some inserted, some left out, one of ``special``, or the rest cut off."""
    damaged = bytearray(data)
    for _ in range(1 + int(draw.random() * MAX_DAMAGES)):
        at = int(draw.random() * (len(damaged) + 1))
        kind = draw.random()
        if kind < 0.4:
            damaged[at : at + 1] = bytes((int(draw.random() * 256),))
        elif kind < 0.6:
            damaged[at : at + 1] = bytes((special[int(draw.random() * len(special))],))
        elif kind < 0.75:
            damaged[at:at] = draw.randbytes(1 + int(draw.random() * 8))
        elif kind < 0.95:
            del damaged[at : at + 1 + int(draw.random() * 8)]
        else:
            del damaged[at:]
    return bytes(damaged)


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


def frames() -> list[bytes]:
    """`requests` on the wire."""
    return [wire.encode(request) for request in requests()]


HTTP_MODEL: Final = "stories"
"""What `bodies` call the model."""
BODY_BYTES: Final = tuple(b'{}[]",:\\\0\xff')
"""What gives JSON its structure, and what it may not hold."""


def bodies() -> list[tuple[str, bytes]]:
    """Good requests of the HTTP server: path and JSON."""
    sampling = {"max_tokens": 2, "temperature": 0.5, "top_p": 0.9, "seed": 1, "stop": ["x"], "logprobs": 1}
    options = {"stream": True, "stream_options": {"include_usage": True}}
    documents = [
        ("/v1/completions", {"prompt": "Once upon", "n": 2, **sampling}),
        ("/v1/completions", {"prompt": [1, 2, 3], "max_tokens": 1, "user": "somebody", **options}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 2}),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}], "max_tokens": 1, **options},
        ),
    ]
    return [(path, json.dumps({"model": HTTP_MODEL, **document}).encode()) for path, document in documents]
