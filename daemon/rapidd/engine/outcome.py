"""What a batch's result means for its requests: tokens that the host now knows, and requests that end without one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct

from rapidctl.wire import ErrorCode
from rapidd.engine.request import Request


class Outcome(Struct, gc=False):
    """One sampled token the host now knows; ``finish`` with the request's last one."""

    request: Request
    token_id: int
    finish: Literal["stop", "length"] | None
    logprob: tuple[float, list[tuple[int, float]]] | None


@dataclass(slots=True)
class Drop:
    """A request that ends without a last token."""

    request: Request
    code: ErrorCode
    message: str


@dataclass(slots=True)
class Finished:
    """What a done batch led to."""

    outcomes: list[Outcome] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)
