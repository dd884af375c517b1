"""A profile of a device that does not exist, whose times follow a known law."""

from __future__ import annotations

from rapidd.policy.profile import DecodeSample, HybridSample, PrefillSample, Profile, ProfileKey

KEY = ProfileKey(
    device="Example 4",
    device_kind="cuda",
    units_total=4,
    driver="1.0",
    model="example",
    shape="0123456789abcdef",
    dtype="bfloat16",
    kernels="k1",
    torch="2.0",
    triton="3.0",
    block_tokens=16,
    build="0.1.0",
)
SPLITS = (1, 2)
ROWS = (1, 8, 32, 64)
TOKENS = (16, 128, 512, 1024)
CONTEXTS = (0, 512, 4096)


def decode_law(rows: int, kv_tokens: int, units: int) -> float:
    """A floor of weights, a slope above it, and keys that few units read more slowly."""
    return 4e-3 + 2e-5 * max(rows - 8, 0) * 4 / units + kv_tokens * (4e-8 + 2e-8 / units)


def prefill_law(tokens: int, context: int, units: int) -> float:
    """Products and attention, both limited by arithmetic."""
    return (1e-3 + 2e-5 * tokens + 4e-9 * tokens * (context + tokens / 2)) * 4 / units


def hybrid_law(rows: int, kv_tokens: int, tokens: int, context: int, hidden: float = 0.0) -> float:
    """One product over all tokens, each row its own attention; ``hidden``: of the shorter one, beside the longer."""
    prompt, decode = 4e-9 * tokens * (context + tokens / 2), kv_tokens * 4.5e-8
    return 1e-3 + 2e-5 * (rows + tokens) + prompt + decode - hidden * min(prompt, decode) + 2e-4


def beside_decode_law(rows: int, kv_tokens: int, units: int) -> float:
    """Slower by a share, and by waiting for the other lane's kernels where units are shared."""
    return 1.4 * decode_law(rows, kv_tokens, units) + (2e-3 if units == 4 else 0.0)


def beside_prefill_law(tokens: int, context: int, units: int, rows: int, kv_tokens: int) -> float:
    """Slower the longer the other lane's steps are; on all units it has what these leave."""
    if units == 4:
        taken = 0.9 * decode_law(rows, kv_tokens, 4) / beside_decode_law(rows, kv_tokens, 4)
        return prefill_law(tokens, context, 4) / (1 - taken)
    return prefill_law(tokens, context, units) * (1.2 + 50 * decode_law(rows, kv_tokens, 4 - units))


def make_profile(hidden: float = 0.0) -> Profile:
    """All of it on a grid. ``hidden`` as in `hybrid_law`."""
    grid = [(rows, rows * kv) for rows in ROWS for kv in (512, 2048, 8192)]
    chunks = [(tokens, context) for tokens in TOKENS for context in CONTEXTS]
    decode = [DecodeSample(*at, units, decode_law(*at, units)) for units in (*SPLITS, 4) for at in grid]
    decode += [DecodeSample(*at, units, beside_decode_law(*at, units), True) for units in (*SPLITS, 4) for at in grid]
    prefill = [PrefillSample(*at, units, prefill_law(*at, units)) for units in (2, 3, 4) for at in chunks]
    prefill += [
        PrefillSample(1024, context, units, beside_prefill_law(1024, context, units, *other), True, *other)
        for units in (2, 3, 4)
        for context in CONTEXTS
        for other in grid
    ]
    hybrid = [HybridSample(*at, *chunk, hybrid_law(*at, *chunk, hidden)) for at in grid[::2] for chunk in chunks]
    return Profile(
        key=KEY,
        made_unix_s=1_790_000_000.0,
        seconds=60.0,
        note="made from laws",
        splits=SPLITS,
        decode=tuple(decode),
        prefill=tuple(prefill),
        hybrid=tuple(hybrid),
    )


PROFILE = make_profile()
