"""The base of every widget that only draws: it keeps the view and repaints only when its lines changed."""

from __future__ import annotations

from textual.content import Content
from textual.geometry import Region
from textual.widget import Widget

from rapidctl.console.view import View
from rapidctl.out import printable


def label_border(widget: Widget, title: str, keys: str = "") -> None:
    """Write plain text into a border. Setting a title repaints the widget even if it is the same: call on change."""
    widget.border_title = Content(printable(title))
    widget.border_subtitle = Content(keys)


class Panel(Widget):
    """Lines made from the view; only those that changed are drawn. Subclasses say `lines`, `title` and `keys`."""

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id)
        self.view: View | None = None
        self._shown: list[Content] = []
        self._frame = ("", "")

    def show(self, view: View) -> None:
        """Take a new frame."""
        self.view = view
        frame = (self.title(view), self.keys(view))
        if frame != self._frame:
            label_border(self, *frame)
            self._frame = frame
        lines = self._lines()
        if len(lines) != len(self._shown):
            self.refresh()
        else:
            changed = (row for row, line in enumerate(lines) if not line.is_same(self._shown[row]))
            regions = [Region(0, row, self.content_size.width, 1) for row in changed]
            if regions:
                self.refresh(*regions)

    def render(self) -> Content:
        """The lines at the widget's present size."""
        self._shown = self._lines()
        return Content("\n").join(self._shown)

    def lines(self, view: View, width: int, height: int) -> list[Content]:
        """What to draw in ``width`` x ``height`` cells."""
        raise NotImplementedError

    def title(self, view: View) -> str:
        """Text of the upper border. A change draws the whole widget: no figures that move with every frame."""
        return ""

    def keys(self, view: View) -> str:
        """Text of the lower border: keys that concern this panel."""
        return ""

    def _lines(self) -> list[Content]:
        width, height = self.content_size
        if self.view is None or not width or not height:
            return []
        lines = self.lines(self.view, width, height)[:height]
        return [line.truncate(width, ellipsis=True) for line in lines]
