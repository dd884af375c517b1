"""What others do, as policies to compare with. Pure; each function's docstring says whose idea it is, and from where.

`rapid` is the paper this project starts from; `atom` and `pdmux` are what two serving engines ship.
"""

from __future__ import annotations

from typing import Final

from rapidd.policy.options import Predictor
from rapidd.policy.plan import Plan, State

ATOM_TOKENS: Final = 64
"""Decode tokens a step from which ATOM masks."""
PDMUX_TABLE: Final = ((1, 20 / 132), (5, 28 / 132), (10, 36 / 132), (15, 52 / 132), (20, 68 / 132), (25, 76 / 132))
"""Rows of a decode step -> decode's share of the units: the example in SGLang's documentation of PD multiplexing."""


def rapid(state: State, predict: Predictor) -> Plan:
    """RAPID-Serve (arXiv 2601.11822), Adaptive Resource Management.

    At low load both phases may use all units; at high load decode gets the fewest units that a table of this model says
    keep the ITL objective for its batch, and prefill the rest. What low load is: the table says that a step on all
    units, with prompts beside it, keeps the objective. When no split keeps it, decode gets the most units there are.
    """
    if not state.splits or not state.num_decoding or not _prompts(state):
        return _shared(state, "one phase only: over-allocated")
    now = predict.at(state)
    step = now.beside("shared", state.units_total).itl_s
    if step <= state.itl_slo_s:
        return _shared(state, f"low load: over-allocated, {1e3 * step:.1f} ms a step")
    for units in state.splits:
        step = now.beside("split", units).itl_s
        if step <= state.itl_slo_s:
            return _split(state, units, f"high load: the fewest units for the objective, {1e3 * step:.1f} ms a step")
    return _split(state, state.splits[-1], f"high load: no split keeps the objective, {1e3 * step:.1f} ms a step")


def atom(state: State) -> Plan:
    """ATOM's rule (2026): no mask while fewer than 64 tokens decode, else half of the units for each phase."""
    if state.num_decoding < ATOM_TOKENS or not state.splits:
        return _shared(state, f"{state.num_decoding} rows: no mask")
    units = min(state.splits, key=lambda size: abs(2 * size - state.units_total))
    return _split(state, units, f"{state.num_decoding} rows: half of the units each")


def pdmux(state: State) -> Plan:
    """SGLang's PD multiplexing: while both phases have work, the decode batch chooses a division from a table.

    The table is the one in SGLang's documentation, for 132 SMs, scaled to this device's nearest legal splits. A phase
    that is alone has all units.
    """
    if not state.splits or not state.num_decoding or not _prompts(state):
        return _shared(state, "one phase only: all units")
    share = max(share for rows, share in PDMUX_TABLE if state.num_decoding >= rows)
    units = min(state.splits, key=lambda size: abs(size - share * state.units_total))
    return _split(state, units, f"{state.num_decoding} rows: {units} units by the table")


def _prompts(state: State) -> bool:
    return state.prefill_tokens > 0 or state.prefill_running


def _shared(state: State, reason: str) -> Plan:
    return Plan("shared", state.units_total, state.units_total, None, reason)


def _split(state: State, units: int, reason: str) -> Plan:
    return Plan("split", units, state.units_total - units, None, reason)
