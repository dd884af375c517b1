"""What a decision of each policy that looks at the load costs: processor time, over a grid of loads. No device.

    PYTHONPATH=rapidctl:daemon python -m bench.policy --profile FILE

Prints a table, then one JSON line. The bound is 100 us a decision on average.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Final

from rapidd.engine.defaults import CPU_DEFAULTS, GPU_DEFAULTS
from rapidd.errors import RapiddError
from rapidd.policy.calibration import Calibration
from rapidd.policy.library import Found
from rapidd.policy.options import Predictor
from rapidd.policy.plan import Plan, State
from rapidd.policy.policies import ADAPTIVE, make
from rapidd.policy.profile import Profile, load_profile

REPEATS: Final = 20
"""Of the whole grid; the quickest counts: the rest is other work on the machine."""
ROWS: Final = (0, 1, 8, 32, 96)
TOKENS_A_ROW: Final = (512, 4096)
PROMPT_TOKENS: Final = (0, 1000, 100_000)
CONTEXTS: Final = (0, 8192)
OBJECTIVES_S: Final = (0.015, 0.025, 0.05)


def loads(profile: Profile) -> list[State]:
    """Idle, light, heavy and impossible ones."""
    defaults = CPU_DEFAULTS if profile.key.device_kind == "cpu" else GPU_DEFAULTS
    total = profile.key.units_total
    return [
        State(
            units_total=total,
            splits=profile.splits,
            num_decoding=rows,
            prefill_tokens=tokens,
            running=Plan("hybrid", total, total, None),
            running_age_s=1.0,
            decode_tokens=rows * kv_tokens,
            context=context,
            itl_slo_s=itl_s,
            max_chunk_s=defaults.max_chunk_s,
            max_chunk_tokens=min(defaults.max_chunk_tokens, 8192),
            running_rows=rows,
            running_backlog=tokens > 0,
        )
        for rows, kv_tokens, tokens, context, itl_s in product(
            ROWS, TOKENS_A_ROW, PROMPT_TOKENS, CONTEXTS, OBJECTIVES_S
        )
    ]


def decision_s(policy: str, profile: Profile, predict: Predictor) -> float:
    """Seconds of processor time, on average over the grid."""
    decide = make(policy, profile.key.units_total, profile.splits, predict)
    states = loads(profile)
    quickest = float("inf")
    for _ in range(REPEATS):
        began = time.process_time()
        for state in states:
            decide(state)
        quickest = min(quickest, time.process_time() - began)
    return quickest / len(states)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", type=Path, required=True, metavar="FILE", help="of rapidd calibrate")
    arguments = parser.parse_args(argv)
    try:
        profile = load_profile(arguments.profile)
    except RapiddError as error:
        print(f"{error}: {error.hint}", file=sys.stderr)
        return 1
    calibration = Calibration(Found(profile, "file"))
    predict = calibration.predictor()
    assert predict is not None
    found = {policy: 1e6 * decision_s(policy, profile, predict) for policy in ADAPTIVE}
    for policy, microseconds in found.items():
        print(f"{policy:6} {microseconds:6.1f} us a decision")
    print(json.dumps({"profile": profile.name, "splits": len(profile.splits), "decision_us": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
