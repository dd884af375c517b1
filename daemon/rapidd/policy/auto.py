"""`auto`: choose among all plans, every tick, by what the cost model predicts. Pure: the state carries all memory.

    no prompt waits            decode on all units
    nothing decodes            prompts on all units, in long chunks
    both                       of the plans whose longest gap that counts keeps the ITL objective, the one that
                               computes prompts fastest, in order of due times
    no plan keeps it           prompts wait, for a bounded time, if decode alone keeps it; else the least bad plan,
                               and it says so

A change of place (mode or units) waits `DWELL_S` after the last one unless the load changed, whatever the predictions
of the place say meanwhile, and must be worth it.
"""

from __future__ import annotations

import math
from typing import Final

from msgspec.structs import replace

from rapidd.policy.options import ITL_SHARE, SHORT_SHARE, Option, Outlook, Predictor
from rapidd.policy.plan import TURNS, Plan, State

ENTER: Final = ITL_SHARE
STAY: Final = 0.95
"""Of the ITL objective that a plan's prediction may reach: less to be entered than to be stayed in."""
DWELL_S: Final = 0.5
"""Between two changes of mode or units without a change of load: at most two a second."""
LOAD_SHARE: Final = 0.125
LOAD_ROWS: Final = 2
"""The load changed when prompts began or ceased to wait, or the rows by more than this share and this number."""
WORTH: Final = 1.05
"""How much better another place must be."""
STEP_WEIGHT: Final = 0.1
"""Of the step's share in a plan's score, beside the prefill rate's of 1."""
JOIN_STEPS: Final = 3
"""Steps from a first token to the second: the one that runs, the one enqueued, and its own."""
PAUSE_S: Final = 2.0
"""Longest that prompts wait for rows to finish, so that the rest keep the ITL objective."""


def auto(state: State, predict: Predictor) -> Plan:
    """See the module."""
    plan = _choose(state, predict.at(state))
    running = state.running
    if running is None or not state.prefill_running or not _takes_units(running, plan):
        return plan
    reason = f"{plan.describe()} when the chunk that runs has ended: {plan.reason}"
    return replace(running, chunk=0, reason=reason)


def _takes_units(running: Plan, plan: Plan) -> bool:
    """Whether decode would get units that a chunk of the plan in force may be running on."""
    if plan.mode == running.mode == "split":
        return plan.decode_units > running.decode_units
    return plan.mode in TURNS and running.mode not in TURNS


def _choose(state: State, now: Outlook) -> Plan:
    if not state.prefill_tokens:
        return _without_prompts(state, now)
    if not state.num_decoding:
        rate = now.lone_tokens_per_s
        plan = _whole(state, f"nothing decodes: prompts on all units at {_rate(rate)}")
        return replace(plan, prompt_time=now.prompt_time(rate))
    may_move = _may_move(state)
    options = _options(state, now) if may_move else [_here(state, now)]
    kept = [o for o in options if _keeps(state, o)]
    if not kept:
        return _least_bad(state, now, options) if may_move else _wait_here(state, now, options[0])
    running = next((o for o in kept if o.runs(state.running)), None)
    best = max(kept, key=lambda o: _score(state, o))
    while best is not running and len(kept) > 1 and _is_outgrown(state, now, best):
        kept.remove(best)
        best = max(kept, key=lambda o: _score(state, o))
    if running is not None and running is not best and not _worth(state, running, best):
        best = running
    return _plan(state, now, best, _reason(state, best))


def _without_prompts(state: State, now: Outlook) -> Plan:
    """Decode on all units; or where it is, in a split that is about as fast: the next prompt can start at once."""
    if not state.num_decoding:
        return _whole(state, "nothing to do")
    step_s = now.step_s
    running = state.running
    if running is not None and running.mode == "split":
        here_s = now.step_on(running.decode_units)
        if here_s <= WORTH * step_s:
            reason = f"no prompt waits: decode stays on {running.decode_units} units, {_ms(here_s)} a step"
            return replace(running, chunk=None, reason=reason)
    return _whole(state, f"no prompt waits: decode on all units, {_ms(step_s)} a step")


def _plan(state: State, now: Outlook, option: Option, reason: str) -> Plan:
    """A mixed batch's chunk is left to the bound: it knows the context of each prompt in it."""
    plan = option.plan(state.units_total, reason)
    chunk = None if option.mode == "hybrid" and option.chunk else plan.chunk
    return replace(plan, chunk=chunk, prompt_time=now.prompt_time(option.tokens_per_s))


def _whole(state: State, reason: str) -> Plan:
    return Plan("hybrid", state.units_total, state.units_total, None, reason, by_deadline=True)


def _keeps(state: State, option: Option) -> bool:
    """Whether the longest gap that counts keeps the objective.

    Where the lanes run side by side a request's first step waits for those already enqueued. That one gap counts only
    where outputs are short; a mixed batch has no such gap.
    """
    joins = option.mode not in TURNS and state.short_share > SHORT_SHARE
    gap_s = JOIN_STEPS * option.itl_s if joins else option.itl_s
    return gap_s <= state.itl_slo_s * (STAY if option.runs(state.running) else ENTER)


def _is_outgrown(state: State, now: Outlook, option: Option) -> bool:
    """Whether rows that may come before the place can be left, being no other load, would be too many for it.

    A mixed batch's chunk gets shorter with each of them; steps on a split get longer, by much where one row more is
    padded to many.
    """
    if option.mode not in ("shared", "split"):
        return False
    rows = state.num_decoding + max(LOAD_ROWS, int(LOAD_SHARE * state.num_decoding))
    return not _keeps(state, now.with_rows(rows).beside(option.mode, option.decode_units))


def _options(state: State, now: Outlook) -> list[Option]:
    mixed = now.mixed(state.itl_slo_s * ENTER)
    found = [] if mixed is None else [mixed]
    found.append(now.beside("shared", state.units_total))
    found += [now.beside("split", units) for units in state.splits]
    return found


def _here(state: State, now: Outlook) -> Option:
    """Where the plan in force is; with the shortest chunk where no longer one keeps the objective."""
    assert state.running is not None, "who runs nothing may move"
    mode = state.running.mode
    if mode in ("shared", "split"):
        return now.beside(mode, state.running.decode_units)
    return now.mixed(state.itl_slo_s * ENTER) or now.shortest()


def _score(state: State, option: Option) -> float:
    """Prompt tokens a second; a little of them is given for steps well below the objective, which free rows sooner."""
    return option.tokens_per_s * math.pow(state.itl_slo_s / option.itl_s, STEP_WEIGHT)


def _worth(state: State, running: Option, best: Option) -> bool:
    """Whether to leave a place that keeps the objective for a better one."""
    return _score(state, best) > WORTH * _score(state, running)


def _may_move(state: State) -> bool:
    """Whether the last change of mode or units is long enough ago, or the load is another one since.

    Chunks in turn are never chosen, so whatever told to take them is over.
    """
    running = state.running
    return running is None or running.mode == "serial" or state.running_moved_s >= DWELL_S or _load_changed(state)


def _load_changed(state: State) -> bool:
    before, now = state.running_rows, state.num_decoding
    changed = abs(now - before) > max(LOAD_ROWS, LOAD_SHARE * before) or (before == 0) != (now == 0)
    return changed or state.running_backlog != (state.prefill_tokens > 0)


def _wait_here(state: State, now: Outlook, here: Option) -> Plan:
    """The place no longer keeps the objective, and changed too lately to be left: prompts wait, if that helps.

    Where it never kept it they have waited already.
    """
    running = state.running
    assert running is not None, "who runs nothing may move"
    why = f"{_ms(state.itl_slo_s)} are not kept, and the last change was less than {DWELL_S:g} s ago"
    if not running.least_bad and now.step_on(running.decode_units) <= state.itl_slo_s * STAY:
        return replace(running, chunk=0, prompt_time=None, reason=f"prompts wait: {why}")
    plan = _plan(state, now, here, f"{why}: {_reason(state, here)}")
    return replace(plan, least_bad=running.least_bad)


def _least_bad(state: State, now: Outlook, options: list[Option]) -> Plan:
    """No plan keeps the ITL objective while prompts are computed."""
    best = min(options, key=lambda o: o.itl_s)
    running = next((o for o in (*options, now.shortest()) if o.runs(state.running)), None)
    just_went_on = running is not None and state.running_age_s < DWELL_S and not _load_changed(state)
    if not just_went_on and _may_pause(state, now.paused()):
        only = f"{state.num_decoding} rows keep {_ms(state.itl_slo_s)} only alone ({_ms(now.step_s)})"
        return now.paused().plan(state.units_total, f"prompts wait: {only}")
    if running is not None and (just_went_on or running.itl_s < WORTH * best.itl_s):
        best = running
    reason = (
        f"no plan keeps {_ms(state.itl_slo_s)} with {state.num_decoding} rows: the least bad, {_reason(state, best)}"
    )
    return replace(_plan(state, now, best, reason), least_bad=True)


def _may_pause(state: State, paused: Option) -> bool:
    """Whether decode alone keeps the objective, and prompts have not waited for that too long already."""
    too_long = paused.runs(state.running) and state.running_age_s > PAUSE_S
    return paused.itl_s <= state.itl_slo_s * STAY and not too_long


def _reason(state: State, option: Option) -> str:
    needed = f", due times need {_rate(state.needed_tokens_per_s)}" if state.needed_tokens_per_s else ""
    return f"{_ms(option.itl_s)} a step beside prompts at {_rate(option.tokens_per_s)}{needed}"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms"


def _rate(tokens_per_s: float) -> str:
    return f"{tokens_per_s:,.0f} tokens/s"
