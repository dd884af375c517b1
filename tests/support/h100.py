"""A profile of an 8B model on an H100, put together from this repository's tables: for experiments and tests only.

Nothing here was calibrated. Where each number is from:

    decode, alone      docs/results/gpu/2026-11-22-v7.json, "step", chained, times 1.03 for the engine around it
    prefill, alone     docs/results-earlier.md: 2,048 tokens in 47.5 ms and 8,192 in 237; shorter ones from hybrid steps
    fewer units        docs/log-gpu.md: a chunk of 2,048 takes 1.43 times its time on 100 SMs; v7.json, "corun", "part"
    beside             docs/results-earlier.md, "Streams beside arriving prompts" and v7.json, "corun", "beside"
    16 and 96 SMs      nobody measured them: extrapolated

Write it to a file: PYTHONPATH=rapidctl:daemon:tests python -m support.h100 FILE
"""

import sys
from functools import cache
from pathlib import Path

from rapidd.policy.calibration import Calibration
from rapidd.policy.cost import CostModel
from rapidd.policy.library import Found
from rapidd.policy.plan import State
from rapidd.policy.profile import DecodeSample, HybridSample, PrefillSample, Profile, ProfileKey, save_profile
from rapidd.policy.tiles import beside_rows

TOTAL = 132
SPLITS = (16, 24, 32, 48, 64, 96)
STEPS_MS = {
    (1, 1024): {16: 10.3, 24: 7.69, 32: 7.48, 48: 6.31, 64: 6.45, 96: 6.3, TOTAL: 6.27},
    (32, 262_144): {16: 31.0, 24: 23.49, 32: 19.79, 48: 17.52, 64: 17.29, 96: 17.4, TOTAL: 17.47},
    (64, 65_536): {16: 17.5, 24: 12.46, 32: 10.40, 48: 9.36, 64: 8.99, 96: 9.0, TOTAL: 9.04},
    (96, 393_216): {16: 49.0, 24: 35.94, 32: 29.07, 48: 25.01, 64: 23.91, 96: 23.5, TOTAL: 23.31},
}
"""(rows, cached tokens) -> decode units -> ms."""
ENGINE = 1.03
DECODE_BESIDE = {16: 1.42, 24: 1.42, 32: 1.45, 48: 1.38, 64: 1.38, 96: 1.3}
SHARED_STEP_MS = 20.5
"""What a step on all units takes longer while a chunk runs there too."""
CHUNKS_MS = {16: 5.6, 64: 6.4, 128: 7.2, 256: 10.0, 512: 15.0, 1024: 25.5, 2048: 43.6}
"""Tokens -> ms of everything but attention, on all units."""
ATTENTION_S = 1.87e-9
"""A token and cached token before it."""
PREFILL_UNITS = {116: 1.37, 108: 1.40, 100: 1.43, 84: 1.48, 68: 1.57, 36: 3.1}
PREFILL_BESIDE = {116: 1.18, 108: 1.23, 100: 1.28, 84: 1.48, 68: 1.70, 36: 1.9, TOTAL: 1.30}
"""Units -> times the time alone on all of them; and times that, beside decode."""


BUSY = State(
    units_total=TOTAL,
    splits=SPLITS,
    num_decoding=32,
    prefill_tokens=12_000,
    running=None,
    running_age_s=10.0,
    decode_tokens=40_000,
    itl_slo_s=0.025,
    running_rows=32,
    running_backlog=True,
)
"""Both phases have work, for long now."""


def _chunk_s(tokens: int, context: int, units: int) -> float:
    alone = CHUNKS_MS[tokens] / 1e3 + ATTENTION_S * tokens * (context + tokens / 2)
    return alone * PREFILL_UNITS.get(units, 1.0)


def h100_8b() -> Profile:
    """See the module."""
    decode, prefill, hybrid = [], [], []
    for (rows, kv_tokens), by_units in STEPS_MS.items():
        for units, ms in by_units.items():
            alone = ENGINE * ms / 1e3
            beside = alone * DECODE_BESIDE[units] if units < TOTAL else alone + SHARED_STEP_MS / 1e3
            decode.append(DecodeSample(rows, kv_tokens, units, alone))
            decode.append(DecodeSample(rows, kv_tokens, units, beside, beside=True))
    for units in (*PREFILL_UNITS, TOTAL):
        for tokens in CHUNKS_MS:
            for context in (0, 8192):
                alone = _chunk_s(tokens, context, units)
                prefill.append(PrefillSample(tokens, context, units, alone))
                beside = alone * PREFILL_BESIDE[units]
                prefill.append(PrefillSample(tokens, context, units, beside, True, 64, 65_536))
    for rows, kv_tokens in STEPS_MS:
        for total in (256, 512, 1024):
            tokens = beside_rows(total, rows)
            attention = ATTENTION_S * tokens * (2048 + tokens / 2) + kv_tokens * 43e-9
            seconds = CHUNKS_MS[total] / 1e3 + attention + 0.0015 + rows * 18e-6
            hybrid.append(HybridSample(rows, kv_tokens, tokens, 2048, seconds))
    key = ProfileKey(
        device="H100 (not calibrated: put together from tables)",
        device_kind="cuda",
        units_total=TOTAL,
        model="8B shape",
        shape="llama-3.1-8b",
        dtype="bfloat16",
        kernels="",
        block_tokens=64,
    )
    return Profile(
        key=key,
        made_unix_s=0.0,
        seconds=0.0,
        note="for experiments: put together from published tables, not calibrated",
        splits=SPLITS,
        row_buckets=(1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128),
        decode=tuple(decode),
        prefill=tuple(prefill),
        hybrid=tuple(hybrid),
    )


@cache
def cost_model() -> CostModel:
    """Of that profile."""
    cost = calibration().cost
    assert cost is not None
    return cost


@cache
def calibration() -> Calibration:
    """As an engine with that profile has it, before anything was corrected."""
    return Calibration(Found(h100_8b(), "file"))


if __name__ == "__main__":
    save_profile(h100_8b(), Path(sys.argv[1]))
