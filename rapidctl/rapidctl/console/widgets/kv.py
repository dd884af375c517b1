"""The paged KV cache: how full, how soon full, and what the prefix cache saves."""

from __future__ import annotations

from textual.content import Content

from rapidctl.book import kv_used
from rapidctl.console.text import bar, clip, count, gibibytes, line
from rapidctl.console.view import View
from rapidctl.console.widgets.panel import Panel
from rapidctl.out import UNKNOWN, duration, percent
from rapidctl.wire import KvStats, Snapshot

_NEARLY_FULL = 0.95


class Kv(Panel):
    """Six lines where there is room, else two."""

    def title(self, view: View) -> str:  # noqa: D102
        return "KV CACHE"

    def lines(self, view: View, width: int, height: int) -> list[Content]:  # noqa: D102
        return kv_lines(view, width, height)


def kv_lines(view: View, width: int, height: int) -> list[Content]:
    """The panel's lines."""
    snapshot = view.snapshot
    if snapshot is None or snapshot.kv is None:
        return [line(("no engine: unknown", "$muted"))]
    kv, used = snapshot.kv, kv_used(snapshot)
    full = used is not None and used >= _NEARLY_FULL
    head = f"used {percent(used):>4} {'! ' if full else ''}"
    gauge = line(head, (bar(used, max(4, width - len(head))), "$bad" if full else "$shared"))
    headroom = "not filling" if kv.headroom_s is None else f"full in ≈ {duration(kv.headroom_s)}"
    window, life = _hits(view, kv)
    if height < 6:
        return [gauge, line(clip(f"hit {window}  {headroom}", width))]
    evicted = count(view.book.increase("evicted", view.now_s, 60.0))
    return [
        gauge,
        line(clip(f"blocks {count(kv.blocks_used)} / {count(kv.blocks_total)} ({kv.block_tokens} tok)", width)),
        line(clip(f"cached {count(kv.blocks_cached)}  evicted/min {evicted}", width)),
        line(clip(f"prefix hit {window} /{view.window_s:.0f} s  {life} life", width)),
        line(clip(f"headroom {headroom}", width)),
        line(clip(_memory(snapshot), width)),
    ]


def _hits(view: View, kv: KvStats) -> tuple[str, str]:
    """Share of prompt tokens found in the cache: over the window, and since the engine's start."""
    asked = view.book.increase("query_tokens", view.now_s, view.window_s)
    hit = view.book.increase("hit_tokens", view.now_s, view.window_s)
    window = percent(hit / asked) if asked and hit is not None else UNKNOWN
    total = kv.prefix_query_tokens_total
    return window, percent(kv.prefix_hit_tokens_total / total) if total else UNKNOWN


def _memory(snapshot: Snapshot) -> str:
    device = snapshot.device
    if device is None:
        return f"memory {UNKNOWN}"
    return f"memory {gibibytes(device.memory_used_bytes)} of {gibibytes(device.memory_total_bytes)} GiB"
