"""The live requests: columns by width, filter and order by the operator. Pure but for the thin widget."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from textual.content import Content
from textual.message import Message

from rapidctl.console.text import Part, clip, decimal, fit, line, milliseconds
from rapidctl.console.view import View
from rapidctl.console.widgets.lines import Line, Lines
from rapidctl.console.widgets.panel import label_border
from rapidctl.wire import RequestRow

Value = float | str | None


class Column(NamedTuple):
    """A column: ``rank`` 0 is shown at any width, higher ranks need more room."""

    name: str
    width: int
    rank: int
    value: Callable[[RequestRow], Value]
    text: Callable[[RequestRow], str]
    right: bool = True


def row_id(row: RequestRow) -> str:
    """What names a row: the request, and its choice when it has several."""
    return row.id if row.choice == 0 else f"{row.id}#{row.choice}"


def _number(value: int) -> str:
    return str(value)


COLUMNS: Final = (
    Column("ID", 12, 0, row_id, row_id, right=False),
    Column("PHASE", 10, 0, lambda r: r.phase, lambda r: r.phase, right=False),
    Column("AGE s", 6, 0, lambda r: r.age_s, lambda r: decimal(r.age_s)),
    Column("PROMPT", 6, 0, lambda r: r.prompt_tokens, lambda r: _number(r.prompt_tokens)),
    Column("CACHED", 6, 2, lambda r: r.cached_tokens, lambda r: _number(r.cached_tokens)),
    Column("DONE", 6, 2, lambda r: r.computed_tokens, lambda r: _number(r.computed_tokens)),
    Column("OUT", 5, 0, lambda r: r.output_tokens, lambda r: _number(r.output_tokens)),
    Column("TTFT ms", 7, 1, lambda r: r.ttft_s, lambda r: milliseconds(r.ttft_s)),
    Column("ITL95", 5, 1, lambda r: r.itl_p95_s, lambda r: milliseconds(r.itl_p95_s)),
    Column("tok/s", 5, 0, lambda r: r.tokens_per_s, lambda r: decimal(r.tokens_per_s)),
    Column("KV", 5, 2, lambda r: r.kv_blocks, lambda r: _number(r.kv_blocks)),
    Column("CLIENT", 16, 1, lambda r: r.client, lambda r: r.client, right=False),
)
_RANK_WIDTHS: Final = ((110, 2), (70, 1), (0, 0))
_PHASE_STYLE: Final = {"waiting": "$label", "prefilling": "$prefill", "decoding": "$decode"}
_FILTERABLE: Final[dict[str, Callable[[RequestRow], Value]]] = {
    "id": row_id,
    "phase": lambda r: r.phase,
    "client": lambda r: r.client,
    "class": lambda r: r.slo_class,
    "age": lambda r: r.age_s,
    "prompt": lambda r: r.prompt_tokens,
    "cached": lambda r: r.cached_tokens,
    "out": lambda r: r.output_tokens,
    "kv": lambda r: r.kv_blocks,
    "priority": lambda r: r.priority,
    "preemptions": lambda r: r.preemptions,
}
_TERM: Final = re.compile(r"([a-z]+)([:=~<>])(.+)")


class FilterError(ValueError):
    """A filter that means nothing; the message says what would."""


Test = Callable[[RequestRow], bool]


def parse_filter(text: str) -> list[Test]:
    """Terms that must all hold: ``phase:dec`` begins with, ``client~ana`` contains, ``age>5``, a bare word is anywhere.

    Raises `FilterError`.
    """
    return [_term(word) for word in text.split()]


def _term(word: str) -> Test:
    found = _TERM.fullmatch(word)
    if found is None:
        return lambda row: any(word in str(read(row)) for read in (row_id, lambda r: r.phase, lambda r: r.client))
    name, sign, wanted = found.groups()
    read = _FILTERABLE.get(name)
    if read is None:
        raise FilterError(f"no field {name!r}: use {', '.join(_FILTERABLE)}")
    if sign in ":=":
        return lambda row: str(read(row)).startswith(wanted)
    if sign == "~":
        return lambda row: wanted in str(read(row))
    try:
        limit = float(wanted)
    except ValueError:
        raise FilterError(f"{word!r}: {sign} compares with a number") from None
    if sign == "<":
        return lambda row: isinstance(value := read(row), int | float) and value < limit
    return lambda row: isinstance(value := read(row), int | float) and value > limit


class Order(NamedTuple):
    """Sort by this column of `COLUMNS`; ``reverse``: largest first."""

    column: int = 2
    reverse: bool = True

    def step(self, by: int) -> Order:
        """The next column in that direction."""
        return self._replace(column=(self.column + by) % len(COLUMNS))


def arrange(rows: Sequence[RequestRow], tests: Sequence[Test], order: Order) -> list[RequestRow]:
    """The rows that pass, in order; equal ones by id so that they never dance; unknown values last."""
    value = COLUMNS[order.column].value
    kept = sorted((row for row in rows if all(test(row) for test in tests)), key=row_id)
    known = [row for row in kept if value(row) is not None]
    known.sort(key=lambda row: _comparable(value(row)), reverse=order.reverse)
    return known + [row for row in kept if value(row) is None]


def _comparable(value: Value) -> tuple[float, str]:
    return (0.0, value) if isinstance(value, str) else (value or 0.0, "")


def shown_columns(width: int) -> list[Column]:
    """The columns for a width; words in the last one get what is left."""
    rank = next(rank for least, rank in _RANK_WIDTHS if width >= least)
    columns = [column for column in COLUMNS if column.rank <= rank]
    left = width - sum(column.width + 1 for column in columns[:-1])
    if not columns[-1].right:
        columns[-1] = columns[-1]._replace(width=max(6, left))
    return columns


def head(width: int, order: Order) -> Content:
    """Names of the columns, the sorted one marked."""
    mark = "↓" if order.reverse else "↑"
    cells = []
    for column in shown_columns(width):
        chosen = column.name == COLUMNS[order.column].name
        cells.append(_cell(column.name[: column.width - 1] + mark if chosen else column.name, column))
    return line((" ".join(cells), "$label"))


def draw(row: RequestRow, width: int) -> Content:
    """One request."""
    parts: list[Part] = []
    for column in shown_columns(width):
        style = _PHASE_STYLE[row.phase] if column.name == "PHASE" else ""
        parts += [(_cell(column.text(row), column), style), " "]
    return line(*parts[:-1])


def _cell(text: str, column: Column) -> str:
    return clip(text, column.width).rjust(column.width) if column.right else fit(text, column.width)


def _second(view: View) -> tuple[object, ...]:
    """What has to be another one for the table to be drawn anew: once a second is what a person can read, and a
    fraction of the work. Steps through the past are all drawn, and the first answer with every request."""
    now = view.snapshot
    step = view.past.position_s if view.past is not None and not view.past.playing else None
    return (now and now.front_boot_id, now and int(now.at_unix_s), view.requests is None, view.host, step)


class CancelAsked(Message):
    """The operator wants this request to end."""

    def __init__(self, request_id: str) -> None:
        super().__init__()
        self.request_id = request_id


class Rows(Lines):
    """The table on the overview."""

    def __init__(self, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self.order = Order()
        self.filter = ""
        self.problem = ""
        self._tests: list[Test] = []
        self._view: View | None = None
        self._second: tuple[object, ...] = ()
        self._title = ""

    def show(self, view: View) -> None:
        """Take a new frame."""
        second = _second(view)
        if self._view is not None and view is not self._view and second == self._second:
            return
        self._view, self._second = view, second
        rows = self.rows(view)
        kept = arrange(rows, self._tests, self.order)
        width = self.scrollable_content_region.width
        self.put([Line(row_id(row), draw(row, width)) for row in kept], head(width, self.order))
        total = "—" if view.snapshot is None else view.snapshot.rows_total
        order = COLUMNS[self.order.column].name + ("↓" if self.order.reverse else "↑")
        chosen = self.problem or self.filter or "none"
        title = f"REQUESTS {total}  shown {len(kept)}  sort {order}  filter {chosen}"
        if title != self._title:
            self._title = title
            label_border(self, title, "/ filter  , . sort  s reverse  j k select")

    def rows(self, view: View) -> Sequence[RequestRow]:
        """Which requests; those of the snapshot, at most 64."""
        return [] if view.snapshot is None else view.snapshot.rows

    def find(self, row: str | None) -> RequestRow | None:
        """The request of a row as shown last."""
        rows = [] if self._view is None else self.rows(self._view)
        return next((found for found in rows if row_id(found) == row), None)

    def sort(self, order: Order) -> None:
        """Change the order."""
        self.order = order
        self._again()

    def set_filter(self, text: str) -> None:
        """Change the filter; a bad one is named in the border and the last good one stays."""
        try:
            self._tests, self.filter, self.problem = parse_filter(text), text, ""
        except FilterError as error:
            self.problem = f"! {error}"
        self._again()

    def on_resize(self) -> None:
        """Other columns may fit now."""
        self._again()

    def _again(self) -> None:
        if self._view is not None:
            self.show(self._view)


class AllRows(Rows):
    """Every live request, where the daemon was asked for them; in the past those of the snapshot."""

    def rows(self, view: View) -> Sequence[RequestRow]:  # noqa: D102
        return super().rows(view) if view.requests is None else view.requests
