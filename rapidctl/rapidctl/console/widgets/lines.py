"""A scrolling list of lines, drawn by the line API: only visible lines cost anything. Selection is by id, not row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Click
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.style import Style
from textual.visual import Visual


class Line(NamedTuple):
    """A line and what it stands for; lines with an empty id cannot be selected."""

    id: str
    content: Content


class Lines(ScrollView, can_focus=True):
    """Lines under an optional head that does not scroll. ``selected`` stays on its id while rows move."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "up", id="lines.up", show=False),
        Binding("down,j", "move(1)", "down", id="lines.down", show=False),
        Binding("pageup", "move(-10)", "page up", id="lines.page_up", show=False),
        Binding("pagedown", "move(10)", "page down", id="lines.page_down", show=False),
        Binding("g,home", "move(-1000000)", "first", id="lines.first", show=False),
        Binding("G,end", "move(1000000)", "last", id="lines.last", show=False),
    ]

    class Moved(Message):
        """Another line is selected."""

    def __init__(self, *, id: str, selectable: bool = True) -> None:  # noqa: A002
        super().__init__(id=id)
        self.selected: str | None = None
        self._selectable = selectable
        self._head: Content | None = None
        self._lines: Sequence[Line] = ()

    def put(self, lines: Sequence[Line], head: Content | None = None) -> None:
        """Show these lines now."""
        if head == self._head and _same(lines, self._lines):
            return
        self._head, self._lines = head, lines
        if self._selectable and self.selected not in {line.id for line in lines}:
            self.selected = None
        self.virtual_size = Size(self.scrollable_content_region.width, len(lines) + self._head_height)
        self.refresh()

    def to_end(self) -> None:
        """Scroll to the newest line unless the reader scrolled away from it."""
        self.scroll_end(animate=False, force=True)

    def bring_into_sight(self, row: int) -> None:
        """Scroll as far as needed for a row to be seen."""
        self.scroll_to_region(Region(0, row, 1, 1 + self._head_height), animate=False, force=True)

    def action_move(self, by: int) -> None:
        """Move the selection, or scroll where nothing can be selected."""
        if not self._lines:
            return
        if not self._selectable:
            self.scroll_to(y=self.scroll_offset.y + by, animate=False)
            return
        ids = [line.id for line in self._lines]
        before = ids.index(self.selected) if self.selected in ids else -1 if by > 0 else len(ids)
        row = before + by
        row = min(len(ids) - 1, max(0, row))
        self.selected = ids[row]
        self.bring_into_sight(row)
        self.refresh()
        self.post_message(self.Moved())

    def on_click(self, event: Click) -> None:
        """The line under the pointer."""
        row = event.y - self.gutter.top - self._head_height + round(self.scroll_offset.y)
        if self._selectable and event.y - self.gutter.top >= self._head_height and 0 <= row < len(self._lines):
            self.selected = self._lines[row].id
            self.refresh()
            self.post_message(self.Moved())

    def render_line(self, y: int) -> Strip:
        """One line of the widget, head first."""
        width = self.scrollable_content_region.width
        if self._head is not None and y == 0:
            return self._draw(self._head, width, Style(bold=True))
        row = y - self._head_height + self.scroll_offset.y
        if not 0 <= row < len(self._lines):
            return Strip.blank(width, self.rich_style)
        shown = self._lines[row]
        chosen = self._selectable and shown.id == self.selected
        return self._draw(shown.content, width, Style(reverse=True) if chosen else Style())

    @property
    def _head_height(self) -> int:
        return 0 if self._head is None else 1

    def _draw(self, content: Content, width: int, style: Style) -> Strip:
        strips = Visual.to_strips(self, content.truncate(width, ellipsis=True), width, 1, self.visual_style + style)
        return strips[0].crop_extend(0, width, self.rich_style) if strips else Strip.blank(width)


def _same(new: Sequence[Line], old: Sequence[Line]) -> bool:
    return len(new) == len(old) and all(
        a.id == b.id and a.content.is_same(b.content) for a, b in zip(new, old, strict=True)
    )
