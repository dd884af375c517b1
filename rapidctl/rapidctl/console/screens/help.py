"""Every key, taken from the bindings themselves, and what each figure means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from textwrap import wrap
from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from rapidctl.console.text import line

Groups = Sequence[tuple[str, Sequence[BindingType]]]
_LEAST_TEXT: Final = 16
METRICS: Final = (
    ("unit", "a compute unit (AMD CU), a streaming multiprocessor (NVIDIA SM) or a core"),
    ("busy", "share of the last second in which the phase's lane ran, of the units it holds"),
    ("of all", "busy x units held / units of the device"),
    ("MFU MBU", "FLOPs and bytes that a phase's batches needed, over the device's measured peaks, while they ran"),
    ("units map", "where each lane was measured to run (a probe writes the unit's number), never what was asked"),
    ("overlap", "units on which both lanes were seen; a transition ends with the old plan's last chunk"),
    ("TTFT", "time to first token, from arrival at the daemon to the first token sent"),
    ("TTFT SLO", "max(floor, seconds per 1000 prompt tokens x prompt tokens / 1000)"),
    ("ITL", "inter-token latency: the gap between two tokens of one request, every gap counted"),
    ("TPOT", "time per output token: a request's decode time / (its output tokens - 1)"),
    ("e2e", "arrival to last token"),
    ("n", "samples in the window; a percentile without any is —"),
    ("met", "share of finished requests within their SLO; ITL is met if the p95 of a request's own gaps is"),
    ("waiting", "no token computed yet; prefilling: part of the prompt; decoding: produces tokens"),
    ("KV used", "blocks that requests hold or that are fenced; cached blocks are free to take"),
    ("prefix hits", "share of prompt tokens whose keys and values were found in the cache"),
    ("epoch", "counts changes of control state: policy, override, release, guard"),
    ("decision", "counts choices of the policy"),
    ("guard", "releases an override if ITL p95 > 1.5 x or TTFT p95 > 2 x SLO for 10 s"),
    ("good", "goodput: finished requests a second that met both objectives; beside it their share"),
    ("WHAT IF", "the daemon's dry run of a plan: what its profile predicts at the present load; — without a profile"),
    ("knee", "the fewest decode units with a predicted ITL within 5 % of the shortest"),
    ("┊", "in the inter-token chart: from here on another plan was in force"),
    ("{ } marks", "o an operator's change, g a guard or an end of time, ! a warning or error, r a recovery"),
    ("STALE", "no snapshot for 2 s: values are old, control is off until the daemon is back"),
)


class Help(ModalScreen[None]):
    """A page to read."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q", "dismiss", "close help", id="help.close"),
    ]

    def __init__(self, groups: Iterable[tuple[str, Iterable[BindingType]]], keys: Mapping[str, str]) -> None:
        super().__init__()
        self._groups = [(name, list(bindings)) for name, bindings in groups]
        self._keys = keys

    def compose(self) -> ComposeResult:  # noqa: D102
        with HelpText(self._groups, self._keys, classes="dialog", id="help") as box:
            box.border_title = "HELP"
            box.border_subtitle = "j k g G scroll  esc closes"
            yield Static(id="help-text")


class HelpText(VerticalScroll):
    """The page's text, in lines as long as the page is wide."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "down", id="help.down", show=False),
        Binding("k", "scroll_up", "up", id="help.up", show=False),
        Binding("g", "scroll_home", "first", id="help.first", show=False),
        Binding("G", "scroll_end", "last", id="help.last", show=False),
    ]

    def __init__(self, groups: Groups, keys: Mapping[str, str], *, classes: str, id: str) -> None:  # noqa: A002
        super().__init__(classes=classes, id=id)
        self._groups = groups
        self._bound = keys

    def on_resize(self) -> None:
        """Lines of the new width."""
        width = self.scrollable_content_region.width
        lines = [*key_lines(self._groups, self._bound, width), Content(""), *metric_lines(width)]
        self.query_one(Static).update(Content("\n").join(lines))


def key_lines(groups: Groups, keys: Mapping[str, str], width: int) -> list[Content]:
    """A binding's keys, what it does, and at the right its id, under the name of its screen; long texts go on below.

    ``keys``: by id, in place of the built-in ones.
    """
    rows: list[tuple[str, Binding]] = []
    result = []
    for _, bindings in groups:
        for binding in bindings:
            assert isinstance(binding, Binding)
            rows.append((key_names(keys.get(binding.id or "", binding.key)), binding))
    first = 3 + max(len(names) for names, _ in rows)
    last = 1 + max(len(binding.id or "") for _, binding in rows)
    left = iter(rows)
    for name, bindings in groups:
        result.append(line((name, "bold")))
        for names, binding in islice(left, len(bindings)):
            room = max(_LEAST_TEXT, width - first - last)
            text, *more = wrap(binding.description, room)
            result.append(
                line((f"  {names}".ljust(first), "$accent"), text.ljust(room), (f" {binding.id or ''}", "$muted"))
            )
            result += [line(" " * first + rest) for rest in more]
    return result


def metric_lines(width: int) -> list[Content]:
    """A figure's name and what it means."""
    first = 3 + max(len(name) for name, _ in METRICS)
    result = [line(("What the figures mean", "bold"))]
    for name, meaning in METRICS:
        text, *more = wrap(meaning, max(_LEAST_TEXT, width - first))
        result.append(line((f"  {name}".ljust(first), "$label"), text))
        result += [line(" " * first + rest) for rest in more]
    return result


def key_names(keys: str) -> str:
    """Keys as people write them."""
    plain = {
        "question_mark": "?", "slash": "/", "comma": ",", "full_stop": ".", "escape": "esc", "pageup": "pgup",
        "pagedown": "pgdn", "plus": "+", "minus": "-", "left_square_bracket": "[", "right_square_bracket": "]",
        "left_curly_bracket": "{", "right_curly_bracket": "}", "less_than_sign": "<", "greater_than_sign": ">",
    }  # fmt: skip
    return " ".join(plain.get(key, key.replace("ctrl+", "^")) for key in keys.split(","))
