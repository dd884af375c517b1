"""Every figure of one request. No prompt and no output text: the daemon does not tell them to consoles."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from rapidctl.console.text import bar, clip, count, decimal, line, milliseconds
from rapidctl.console.view import View
from rapidctl.console.widgets.panel import Panel
from rapidctl.console.widgets.rows import row_id
from rapidctl.out import UNKNOWN, percent, share
from rapidctl.wire import RequestRow, Slo

_BAR = 24


class Details(Panel):
    """Seven lines."""

    def __init__(self, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._row: RequestRow | None = None
        self._ahead: int | None = None

    def choose(self, row: RequestRow | None, rows: Sequence[RequestRow]) -> None:
        """Show this one next, among all of these."""
        self._row = row
        self._ahead = None if row is None or row.phase != "waiting" else ahead(row, rows)

    def title(self, view: View) -> str:  # noqa: D102
        return "DETAILS" if self._row is None else f"DETAILS {row_id(self._row)}"

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        if self._row is None:
            return [line(("select a request: j and k, or the arrows", "$muted"))]
        slo = None if view.snapshot is None else view.snapshot.slo
        return details(self._row, self._ahead, slo, width)


def ahead(row: RequestRow, rows: Sequence[RequestRow]) -> int:
    """How many wait that came earlier or have a higher priority."""
    return sum(
        other.phase == "waiting" and (-other.priority, -other.age_s) < (-row.priority, -row.age_s) for other in rows
    )


def details(row: RequestRow, queued_behind: int | None, slo: Slo | None, width: int) -> list[Content]:
    """The lines."""
    prefill, output = share(row.computed_tokens, row.prompt_tokens), share(row.output_tokens, row.max_tokens)
    limit = None if slo is None else slo.ttft_limit_s(row.prompt_tokens)
    queue = "" if queued_behind is None else f"  {queued_behind} wait before it"
    first_row = (
        f"client   {row.client or UNKNOWN}   class {row.slo_class}   priority {row.priority}   "
        f"preempted {row.preemptions}×"
    )
    return [
        line(clip(first_row, width)),
        line(clip(f"phase    {row.phase}  for {decimal(row.age_s)} s in all{queue}", width)),
        line(
            "prompt   ", (bar(None if prefill is None else min(1.0, prefill), _BAR), "$prefill"),
            f" {percent(None if prefill is None else min(1.0, prefill)):>4}  "
            f"{count(min(row.computed_tokens, row.prompt_tokens))} of {count(row.prompt_tokens)} tokens computed, "
            f"{count(row.cached_tokens)} of them from the cache",
        ),
        line(
            "output   ", (bar(output, _BAR), "$decode"),
            f" {percent(output):>4}  {count(row.output_tokens)} of at most {count(row.max_tokens)} tokens, "
            f"{decimal(row.tokens_per_s)} a second",
        ),
        line(f"TTFT     {milliseconds(row.ttft_s)} ms", *_verdict(row.ttft_s, limit)),
        line(
            f"ITL p95  {milliseconds(row.itl_p95_s)} ms", *_verdict(row.itl_p95_s, None if slo is None else slo.itl_s)
        ),
        line(f"KV       {count(row.kv_blocks)} blocks"),
    ]  # fmt: skip


def _verdict(value: float | None, limit: float | None) -> tuple[str | tuple[str, str], ...]:
    if limit is None:
        return ()
    said = f"  SLO {milliseconds(limit)}"
    if value is None:
        return (said,)
    return (said, (" ✓", "$good") if value <= limit else (" ! over", "bold $bad"))
