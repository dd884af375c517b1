"""Whose prompt is computed first. Pure; the engine orders by it, and the front predicts by it."""

from typing import Final

from rapidctl.wire import SloClass

BATCH_PATIENCE_NS: Final = 60_000_000_000
"""How much later a batch request counts as arrived, and due: how long it lets newer interactive ones go first."""
PRIORITY_NS: Final = 60_000_000_000
"""How much earlier a request counts as arrived, and due, for each level of its priority."""


def patience_ns(slo_class: SloClass) -> int:
    """How much later a request of this class counts as arrived, and due."""
    return 0 if slo_class == "interactive" else BATCH_PATIENCE_NS
