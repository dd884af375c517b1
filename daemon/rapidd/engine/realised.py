"""What the device really does, by the batches that the lanes have in flight, whatever the plan is called. Pure.

A mode needs work of both phases: under any plan a device without prompts only decodes, and says so. The simulator
counts its time by the same words.
"""

from __future__ import annotations

from typing import Literal

from rapidd.engine.batch import Batch

Doing = Literal["idle", "decode alone", "prefill alone", "serial", "hybrid", "shared", "split", "transition"]


def doing(
    decode: Batch | None, prefill: Batch | None, units_total: int, *, num_decoding: int, prefill_tokens: int
) -> Doing:
    """What runs: each lane's oldest batch in flight, beside the work that the scheduler has left.

    ``serial`` is a batch whose other phase waits for its turn; ``hybrid`` a batch of both phases; ``shared`` and
    ``split`` both lanes at once under one plan; ``transition`` both at once under two.
    """
    if decode is not None and prefill is not None:
        return _side_by_side(decode, prefill, units_total)
    batch = decode or prefill
    if batch is None:
        return "idle"
    match batch.kind:
        case "mixed":
            return "hybrid"
        case "decode":
            return "serial" if batch.mode == "serial" and prefill_tokens else "decode alone"
        case "prefill":
            # Who ends its prompt in this batch counts as decoding already, and does not wait.
            others = num_decoding - sum(row.samples for row in batch.rows)
            return "serial" if batch.mode == "serial" and others > 0 else "prefill alone"


def _side_by_side(decode: Batch, prefill: Batch, units_total: int) -> Doing:
    if decode.mode == prefill.mode == "shared":
        return "shared"
    if decode.mode == prefill.mode == "split" and decode.units + prefill.units == units_total:
        return "split"
    return "transition"
