"""Frames that no front may serve, each with the code of its refusal; and what makes more of them."""

import random

import msgspec

from rapidctl.wire import ErrorCode

NAN, INFINITE = float("nan"), float("inf")
DEEP = b"\x91" * 1000 + b"\xc0"


def generate(**fields: object) -> bytes:
    """A request for a stream "bad", with these fields instead of its own."""
    return msgspec.msgpack.encode({"kind": "generate", "id": "bad", "prompt": "x"} | fields)


def sampling(**fields: object) -> bytes:
    """The same with only these fields of sampling."""
    return generate(sampling=fields)


BAD_FRAMES: dict[str, tuple[bytes, ErrorCode]] = {
    "nothing": (b"", "malformed"),
    "random bytes": (random.Random(5).randbytes(500), "malformed"),
    "a truncated frame": (generate()[:-1], "malformed"),
    "invalid UTF-8": (b"\x83\xa4kind\xa8generate\xa2id\xa1r\xa6prompt\xa2\xff\xfe", "malformed"),
    "1,000 deep": (DEEP, "malformed"),
    "1,000 deep in a field": (b"\x82\xa4kind\xa8generate\xa5tools" + DEEP, "malformed"),
    "an unknown kind": (generate(kind="teleport"), "unknown_kind"),
    "an unknown field": (generate(temprature=1), "invalid_request"),
    "n of 0": (generate(n=0), "invalid_request"),
    "17 stop strings": (generate(stop=["a"] * 17), "invalid_request"),
    "a long stop string": (generate(stop=["a" * 257]), "invalid_request"),
    "an unknown class": (generate(slo_class="urgent"), "invalid_request"),
    "a negative temperature": (sampling(temperature=-0.5), "invalid_request"),
    "a NaN temperature": (sampling(temperature=NAN), "invalid_request"),
    "a NaN top_p": (sampling(top_p=NAN), "invalid_request"),
    "an empty prompt": (generate(prompt=""), "empty_prompt"),
    "no messages": (generate(prompt=None, messages=[]), "empty_prompt"),
    "response_format": (generate(response_format={"type": "json_object"}), "unsupported"),
    "tools": (generate(tools=[]), "unsupported"),
    "logit_bias": (generate(logit_bias={"5": 1.0}), "unsupported"),
    "lora": (generate(lora="adapter"), "unsupported"),
}
