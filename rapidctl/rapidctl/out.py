"""How commands speak: data on stdout, everything else on stderr.

Text is for people and is stripped of control characters, whoever wrote it. JSON is for programs: one document on
one line, ``schema_version`` first, flushed at once. It knows no command and no message.
What stdout does not take is an `OutputError`; what stderr does not take is lost.
"""

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, TextIO
from unicodedata import category, combining, east_asian_width

import msgspec

from rapidctl.errors import OutputError
from rapidctl.wire import SCHEMA_VERSION

UNKNOWN: Final = "—"
_CONTROL: Final = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)])
_UNSAFE_IN_TEXT: Final = {code: None for code in _CONTROL if code not in (0x09, 0x0A)}
_ESCAPED: Final = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""Control characters that JSON allows in strings, and a terminal obeys."""
_STYLES: Final = {"bold": "1", "dim": "2", "good": "32", "warn": "33", "bad": "31"}


def safe_text(text: str) -> str:
    """Without C0 and C1 control characters (ESC among them) and DEL; newlines and tabs stay."""
    return text.translate(_UNSAFE_IN_TEXT)


def safe_line(text: str) -> str:
    """As `safe_text`, and on one line."""
    return text.replace("\n", " ").replace("\t", " ").translate(_CONTROL)


def printable(text: str, *, lines: bool = False) -> str:
    """Text from outside without anything that can drive a terminal: control, escape and direction codes.

    With ``lines`` newlines stay and tabs become spaces; otherwise both become a space.
    """
    kept = []
    for char in text:
        if char == "\n" and lines:
            kept.append(char)
        elif char in "\n\t\r":
            kept.append("    " if char == "\t" and lines else " " if char != "\r" else "")
        elif category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
            kept.append(char)
    return "".join(kept)


def cells_of(text: str) -> int:
    """How many cells of a terminal it takes: letters of East Asia two, accents that join a letter none."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cells_of(text))


class Out:
    """The two streams of one command. ``json``: documents are wanted instead of text; ``quiet``: no notes."""

    def __init__(
        self,
        *,
        json: bool,
        color: str,
        quiet: bool = False,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.json = json
        self._quiet = quiet
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self._styled = _wants_color(color, self._stdout)
        self._between = ""
        """What goes before the next thing that is shown."""

    def document(self, body: Mapping[str, object]) -> None:
        """One JSON document on one line."""
        encoded = msgspec.json.encode({"schema_version": SCHEMA_VERSION, **body})
        self.write(encoded.decode().translate(_ESCAPED) + "\n")
        self.flush()

    def text(self, text: str, end: str = "\n") -> None:
        """Text for people, shown at once. Styles must come from `style`, on pieces that went through `safe_line`."""
        self.write(self._take_between() + text + end)
        self.flush()

    def write(self, text: str) -> None:
        """As files do: what is not meant for people, such as a table of commas; it may wait for `flush`."""
        with _to_stdout():
            self._stdout.write(text)

    def flush(self) -> None:
        """Show what was written."""
        with _to_stdout():
            self._stdout.flush()

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Aligned names and values, which are made safe here."""
        safe = [(safe_line(name), safe_line(value)) for name, value in pairs]
        width = max(cells_of(name) for name, _ in safe)
        for name, value in safe:
            self.text(f"{self.style(_padded(name, width), 'dim')}  {value}")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns as wide as their widest cell; a column whose header begins with ">" is aligned right."""
        titles = [title.removeprefix(">") for title in header]
        cells = [[safe_line(cell) for cell in row] for row in rows]
        widths = [max(map(cells_of, column)) for column in zip(titles, *cells, strict=True)]
        for index, row in enumerate([titles, *cells]):
            line = "  ".join(
                " " * (width - cells_of(cell)) + cell if title.startswith(">") else _padded(cell, width)
                for title, cell, width in zip(header, row, widths, strict=True)
            ).rstrip()
            self.text(self.style(line, "dim") if index == 0 else line)

    def clear(self) -> None:
        """Between two pictures of a watch: clear a terminal, else leave a blank line, once there is the next one.

        Who waits for it goes on looking at the one before.
        """
        self._between = "\x1b[H\x1b[2J" if self._stdout.isatty() and not is_dumb() else "\n"

    def _take_between(self) -> str:
        between, self._between = self._between, ""
        return between

    def note(self, text: str) -> None:
        """Something that is not data."""
        if not self._quiet:
            self._say(text)

    def error(self, message: str, hint: str = "") -> None:
        """What went wrong, and below it what to do."""
        self._say(f"rapidctl: {message}" + (f"\n  {hint}" if hint else ""))

    def _say(self, text: str) -> None:
        if self._between:
            self.text("", end="")
        say(text, self._stderr)

    def style(self, text: str, *names: str) -> str:
        """The text in bold, dim, good, warn or bad, when the terminal shows styles."""
        if not self._styled:
            return text
        return f"\x1b[{';'.join(_STYLES[name] for name in names)}m{text}\x1b[0m"


def say(text: str, stderr: TextIO) -> None:
    """A line beside the data. Where it cannot be written nobody reads it, and the command goes on as it would have."""
    with suppress(OSError):
        print(safe_text(text), file=stderr, flush=True)


@contextmanager
def _to_stdout() -> Iterator[None]:
    """Says of what is written why it cannot be. Raises `OutputError`, `BrokenPipeError`."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write the output: {error.strerror}") from error


def _wants_color(choice: str, stream: TextIO) -> bool:
    """``--color``, else NO_COLOR, FORCE_COLOR, TERM=dumb and whether it is a terminal (no-color.org)."""
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and not is_dumb()


def is_dumb() -> bool:
    """A terminal that shows escape sequences instead of obeying them."""
    return os.environ.get("TERM") == "dumb"


# --- numbers for people ---------------------------------------------------------------------------------------


def seconds(value: float | None) -> str:
    """A short time in the unit that suits it: "31 ms", "1.49 s"."""
    if value is None:
        return UNKNOWN
    if value < 0.0995:
        return f"{value * 1000:.3g} ms"
    return f"{value * 1000:.0f} ms" if value < 0.9995 else f"{_digits(value)} s"


def duration(value: float | None) -> str:
    """A long time: "45s", "4m57s", "1h02m", "3d04h"."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    whole = round(value)
    for size, unit, part, part_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02d}{part_unit}"
    return f"{whole}s"


def percent(value: float | None) -> str:
    """A share of 1."""
    return UNKNOWN if value is None else f"{value * 100:.0f}%"


def number(value: float | None) -> str:
    """A count or rate, three digits at least."""
    if value is None:
        return UNKNOWN
    return str(value) if isinstance(value, int) else _digits(value)


def _digits(value: float) -> str:
    """Three of them, or all before the point."""
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def size(value: int | None) -> str:
    """Bytes in binary units."""
    if value is None:
        return UNKNOWN
    scaled = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if scaled < 1024:
            return f"{_digits(scaled)} {unit}"
        scaled /= 1024
    return f"{_digits(scaled)} TiB"


def rate(value: float | None, unit: str) -> str:
    """Per second in decimal units: "2.4 TB/s", "788 GFLOP/s"."""
    if value is None:
        return UNKNOWN
    for prefix in ("", "k", "M", "G", "T"):
        if value < 999.5 or prefix == "T":
            break
        value /= 1000
    return f"{_digits(value)} {prefix}{unit}/s"


def unit_count(units: int, name: str) -> str:
    """``2 cores``, ``304 CU``: only the English word has a plural."""
    return f"{units} {name}" + ("s" if name == "core" and units != 1 else "")


def share(value: float | None, of: float | None) -> float | None:
    """``value / of``, null when either is unknown or there is nothing to share."""
    return value / of if value is not None and of else None
