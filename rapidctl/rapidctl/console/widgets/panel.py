"""The base of every widget that only draws: it keeps the view and repaints only when its lines changed."""

from __future__ import annotations

from textual.content import Content
from textual.widget import Widget

from rapidctl.console.view import View


def label_border(widget: Widget, title: str, keys: str = "") -> None:
    """Write plain text into a border. Setting a title repaints the widget even if it is the same: call on change."""
    widget.border_title = Content(title)
    widget.border_subtitle = Content(keys)


class Panel(Widget):
    """Lines made from the view. Subclasses say `lines`, and `title` and `keys` for the border."""

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id)
        self.view: View | None = None
        self._shown = Content.empty()
        self._frame = ("", "")

    def show(self, view: View) -> None:
        """Take a new frame."""
        self.view = view
        frame = (self.title(view), self.keys(view))
        if frame != self._frame:
            label_border(self, *frame)
            self._frame = frame
        content = self._content()
        if not content.is_same(self._shown):
            self.refresh()

    def render(self) -> Content:
        """The lines at the widget's present size."""
        self._shown = self._content()
        return self._shown

    def lines(self, view: View, width: int, height: int) -> list[Content]:
        """What to draw in ``width`` x ``height`` cells."""
        raise NotImplementedError

    def title(self, view: View) -> str:
        """Text of the upper border."""
        return ""

    def keys(self, view: View) -> str:
        """Text of the lower border: keys that concern this panel."""
        return ""

    def _content(self) -> Content:
        width, height = self.content_size
        if self.view is None or not width or not height:
            return Content.empty()
        lines = self.lines(self.view, width, height)[:height]
        return Content("\n").join(line.truncate(width, ellipsis=True) for line in lines)
