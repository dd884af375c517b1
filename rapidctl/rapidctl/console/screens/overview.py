"""Everything about the daemon on one screen, at any size: boxes where they fit, lines where they do not."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Container

from rapidctl.console.screens.table import TablePage, filter_field
from rapidctl.console.widgets.banner import Banner
from rapidctl.console.widgets.brief import Brief
from rapidctl.console.widgets.decisions import Decisions, LastEvent
from rapidctl.console.widgets.keyline import Keyline
from rapidctl.console.widgets.kv import Kv
from rapidctl.console.widgets.quantiles import Latency
from rapidctl.console.widgets.queues import Queues
from rapidctl.console.widgets.rows import Rows
from rapidctl.console.widgets.strip import Strip
from rapidctl.console.widgets.timebar import Timebar
from rapidctl.console.widgets.units import Units

KEYS = (
    ("?", "help"), ("q", "quit"), ("1-7", "screens"), ("n", "prompt"), ("o", "override"), ("^o", "unlock"),
    ("^p", "palette"), ("w", "window"), ("p", "freeze"), ("[", "back in time"), ("/", "filter"), ("x", "cancel"),
)  # fmt: skip
SMALL_KEYS = (("?", "help"), ("q", "quit"), ("1-7", "screens"), ("n", "prompt"), ("o", "override"))


class Overview(TablePage):
    """The first screen."""

    def compose(self) -> ComposeResult:  # noqa: D102
        yield Banner(id="banner")
        yield Timebar(id="timebar")
        yield Brief(id="brief")
        with Container(id="top"):
            yield Units(id="units")
            yield Latency(id="latency")
        with Container(id="strips"):
            yield Strip("decode busy", "decode_busy", "$decode", id="strip-decode")
            yield Strip("prefill busy", "prefill_busy", "$prefill", id="strip-prefill")
            yield Strip("ITL p95", "itl_p95_s", "$decode", id="strip-itl")
        with Container(id="middle"):
            yield Queues(id="queues")
            yield Kv(id="kv")
            yield Decisions(id="decisions")
        yield Rows(id="rows")
        yield filter_field()
        yield LastEvent(id="last-event")
        yield Keyline(*KEYS)
        yield Keyline(*SMALL_KEYS, id="keyline-small")
