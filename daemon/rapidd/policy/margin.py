"""How much longer gaps count than predicted, from how many exceed the ITL objective. Pure: callers give the times.

A request may miss a twentieth of its gaps. What a mean error says of that twentieth holds for errors of one kind that
do not depend on each other; those of a device come in rows, and by the size of a batch. So what is asked is observed
itself: with every late gap the margin grows, with every other one it shrinks by so much less that, whatever the errors
are, the share of late ones comes to `LATE_SHARE` (adaptive conformal inference: Gibbs and Candes, arXiv 2106.00170).
"""

from __future__ import annotations

from typing import Final

LATE_SHARE: Final = 0.02
"""Of gaps: less than the twentieth that a request may miss, because late ones come together and requests are short."""
STEP: Final = 0.02
"""By which one late gap makes the margin grow. Five in succession are a tenth of the objective."""
MOST: Final = 1.3
"""Beyond it is not the margin that is missing; and who comes back from there takes 750 steps."""


class GapMargin:
    """``factor``, within 1 and `MOST`: predicted gaps count so much longer.

    Of n gaps, none of which was late beyond `MOST` - `STEP`, at most `LATE_SHARE` n + (`MOST` - 1) / `STEP` are late.
    """

    def __init__(self) -> None:
        self.factor = 1.0
        self.n = 0
        """Gaps seen under this objective."""
        self._last_ns: int | None = None
        self._itl_slo_s: float | None = None

    def step_ended(self, ended_ns: int, itl_slo_s: float, *, goes_on: bool) -> None:
        """A batch with decode rows ended. ``goes_on``: whether one of them had a step before: else it was no gap.

        Who goes on with what another engine began had its last step there: the first batch of all ends no gap. What was
        late for one objective says nothing of another.
        """
        if itl_slo_s != self._itl_slo_s:
            self.factor, self.n, self._itl_slo_s = 1.0, 0, itl_slo_s
        if goes_on and self._last_ns is not None:
            late = (ended_ns - self._last_ns) / 1e9 > itl_slo_s
            self.factor = min(max(self.factor + STEP * (late - LATE_SHARE), 1.0), MOST)
            self.n += 1
        self._last_ns = ended_ns
