"""Policies: pure functions from `State` to `Plan`, chosen by name at start or at run time.

    auto              ours (`auto.py`); without a profile: hybrid with a chunk bounded by time
    rapid | atom | pdmux                                            what others do (`arms.py`)
    serial:N | serial:all | hybrid:N | shared[:N] | split:UNITS     fixed: the control arms

All are testable without a device. They keep nothing: the state passed in holds the running plan and its age.
"""

import re
from collections.abc import Callable

from rapidctl.wire import PlanRequest
from rapidd.policy import arms
from rapidd.policy.auto import auto
from rapidd.policy.options import Predictor
from rapidd.policy.plan import Plan, State

Policy = Callable[[State], Plan]

NO_PROFILE = "no profile: rapidd calibrate"
PREDICTING = ("auto", "rapid")
"""Policies that choose by predicted times, where there is a profile."""
_FIXED = re.compile(r"(?P<mode>serial|hybrid|shared|split)(:(?P<number>[1-9][0-9]{0,5}))?")
ADAPTIVE = ("auto", "rapid", "atom", "pdmux")
"""Those that look at the state."""
GRAMMAR = "auto, rapid, atom, pdmux, serial:N, serial:all, hybrid[:N], shared[:N] or split:UNITS"


def parse(text: str) -> PlanRequest | None:
    """The fixed plan that a policy's name asks for; None for adaptive ones.

    Raises ValueError saying what is accepted.
    """
    if text in ADAPTIVE:
        return None
    if text == "serial:all":
        return PlanRequest(mode="serial", chunk="all")
    match = _FIXED.fullmatch(text)
    if match is None:
        raise ValueError(f"unknown policy {text!r}; use {GRAMMAR}")
    number = int(match["number"]) if match["number"] else None
    match match["mode"]:
        case "hybrid" | "shared" as mode:
            return PlanRequest(mode=mode, chunk=number)
        case "serial" if number:
            return PlanRequest(mode="serial", chunk=number)
        case "split" if number:
            return PlanRequest(mode="split", decode_units=number)
    raise ValueError(f"policy {text!r} needs a number; use {GRAMMAR}")


def fixed(request: PlanRequest, units_total: int, splits: tuple[int, ...], reason: str) -> Plan:
    """The plan for ``request`` on this device. Raises ValueError, for people, when it is not legal here.

    A split without decode units is the most even one.
    """
    if request.chunk == "all" and request.mode != "serial":
        raise ValueError(f"chunk 'all' is for serial mode only, not {request.mode}")
    if request.mode != "split":
        if request.decode_units is not None:
            raise ValueError(f"decode units belong to split mode; {request.mode} runs on all {units_total} units")
        return Plan(request.mode, units_total, units_total, request.chunk, reason)
    if not splits:
        raise ValueError("this device cannot be partitioned: split is not available, use shared")
    units = request.decode_units
    if units is None:
        units = min(splits, key=lambda size: abs(2 * size - units_total))
    if units not in splits:
        legal = ", ".join(map(str, splits))
        raise ValueError(f"{units} decode units are not a legal split here; legal: {legal}")
    return Plan("split", units, units_total - units, request.chunk, reason)


def make(text: str, units_total: int, splits: tuple[int, ...], predict: Predictor | None = None) -> Policy:
    """The policy named ``text`` on this device. Raises ValueError, for people.

    Without ``predict`` (no profile) `auto` and `rapid` are hybrid with a chunk bounded by time, and say so.
    """
    request = parse(text)
    if request is not None:
        plan = fixed(request, units_total, splits, f"policy {text}")
        return lambda state: plan
    match text:
        case "atom":
            return arms.atom
        case "pdmux":
            return arms.pdmux
        case _ if predict is None:
            return without_profile
        case "rapid":
            return lambda state: arms.rapid(state, predict)
        case _:
            return lambda state: auto(state, predict)


def without_profile(state: State) -> Plan:
    """Hybrid with a time-bounded chunk: the best choice that needs no measured profile."""
    return Plan("hybrid", state.units_total, state.units_total, None, NO_PROFILE)
