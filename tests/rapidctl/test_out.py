"""How commands speak: safe text, JSON on one line, numbers with units."""

import errno
import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapidctl import out
from rapidctl.errors import OutputError
from rapidctl.out import Out


def test_a_document_is_one_line_that_begins_with_its_schema_version() -> None:
    stream = io.StringIO()
    Out(json=True, color="never", stdout=stream).document({"text": "a\nb", "x_s": math.nan, "none": None})
    line = stream.getvalue()
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert list(json.loads(line)) == ["schema_version", "text", "x_s", "none"]
    assert json.loads(line)["x_s"] is None


@given(st.text())
def test_no_control_character_reaches_a_terminal(text: str) -> None:
    for safe, kept in ((out.safe_text(text), "\n\t"), (out.safe_line(text), "")):
        controls = [char for char in safe if (ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0) and char not in kept]
        assert controls == []
    printable = [char for char in text if char.isprintable()]
    assert [char for char in out.safe_text(text) if char.isprintable()] == printable


def test_escape_sequences_become_plain_text() -> None:
    assert out.safe_text("\x1b]0;title\x07\x9b31mred\r\n\tx") == "]0;title31mred\n\tx"


def test_columns_line_up() -> None:
    stream = io.StringIO()
    Out(json=False, color="never", stdout=stream).table(["ID", ">OUT"], [["r-1", "7"], ["r-long", "1234"]])
    assert stream.getvalue() == "ID       OUT\nr-1        7\nr-long  1234\n"


def test_columns_line_up_behind_wide_letters_too() -> None:
    """A model's or a client's name in letters of two cells, or with accents of none, moved the rest of its line."""
    stream = io.StringIO()
    shown = Out(json=False, color="never", stdout=stream)
    shown.table(["NAME", ">OUT", "END"], [["模型", "7", "x"], ["cafe\u0301", "模", "x"], ["model-12", "1234", "x"]])
    shown.pairs([("模", "x"), ("long", "x")])
    for line in stream.getvalue().splitlines()[1:]:
        at = line.index("x")
        assert out.cells_of(line[:at]) == (16 if len(line) > 10 else 6)


@pytest.mark.parametrize(
    ("color", "environment", "terminal", "styled"),
    [
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {"FORCE_COLOR": "1"}, True, False),
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"TERM": "dumb"}, True, False),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"FORCE_COLOR": "1"}, False, True),
    ],
)
def test_when_text_is_styled(
    color: str, environment: dict[str, str], terminal: bool, styled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    assert ("\x1b" in Out(json=False, color=color, stdout=stream).style("x", "bold")) is styled


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"),
        (0.0312, "31.2 ms"),
        (0.212, "212 ms"),
        (0.9996, "1 s"),
        (1.49, "1.49 s"),
        (0.0, "0 ms"),
        (999.6, "1000 s"),
        (1234, "1234 s"),
    ],
)
def test_short_times(value: float | None, text: str) -> None:
    """Behind a long queue a request waits for more than a quarter of an hour: 1.23e+03 s, it said."""
    assert out.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"),
        (math.nan, "—"),
        (-math.inf, "—"),
        (45, "45s"),
        (59.7, "1m00s"),
        (297.5, "4m58s"),
        (3725, "1h02m"),
        (273_600, "3d04h"),
    ],
)
def test_long_times(value: float | None, text: str) -> None:
    assert out.duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "—"), (0, "0 B"), (1023, "1023 B"), (1 << 20, "1 MiB"), (1010 << 20, "1010 MiB"), (3 << 40, "3 TiB")],
)
def test_sizes(value: int | None, text: str) -> None:
    """A KV cache of a little less than a GiB took 1.01e+03 MiB."""
    assert out.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "—"), (1234567, "1234567"), (1.5, "1.5"), (999.4, "999"), (999.7, "1000"), (1500.2, "1500")],
)
def test_numbers(value: float | None, text: str) -> None:
    assert out.number(value) == text


def test_a_share_of_nothing_is_unknown() -> None:
    assert out.share(1, 0) is None
    assert out.share(None, 4) is None
    assert out.percent(out.share(1, 4)) == "25%"
    assert out.percent(None) == "—"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"),
        (0.0, "0 B/s"),
        (999.4, "999 B/s"),
        (999.6, "1 kB/s"),
        (2.4e12, "2.4 TB/s"),
        (1.5e16, "15000 TB/s"),
    ],
)
def test_rates(value: float | None, text: str) -> None:
    assert out.rate(value, "B") == text


@pytest.mark.parametrize(
    ("refused", "raised"),
    [(OSError(errno.EIO, "Input/output error"), OutputError), (BrokenPipeError(), BrokenPipeError)],
    ids=["no room", "no reader"],
)
@pytest.mark.parametrize("method", ["write", "flush"])
def test_what_stdout_does_not_take_is_an_error_of_its_own(
    method: str, refused: OSError, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An `OSError` came out as it was, and nobody could tell it from another one."""
    stream = io.StringIO()

    def refuse(*args: object) -> None:
        raise refused

    monkeypatch.setattr(stream, method, refuse)
    shown = Out(json=False, color="never", stdout=stream)
    with pytest.raises(raised):
        shown.text("x")
    with pytest.raises(raised):
        shown.document({})


@pytest.mark.parametrize(
    ("terminal", "kind", "between"),
    [(True, "xterm", "\x1b[H\x1b[2J"), (True, "dumb", "\n"), (False, "xterm", "\n")],
)
def test_a_picture_stays_until_the_next_one_is_there(
    terminal: bool, kind: str, between: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch cleared the screen before it asked: nothing was there while a daemon came back. Where TERM says that
    escape sequences are shown and not obeyed, there are none."""
    monkeypatch.setenv("TERM", kind)
    stream, errors = io.StringIO(), io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    shown = Out(json=False, color="never", stdout=stream, stderr=errors)
    shown.text("one")
    shown.clear()
    assert stream.getvalue() == "one\n"
    shown.text("two")
    shown.clear()
    shown.error("away")
    assert (stream.getvalue(), errors.getvalue()) == (f"one\n{between}two\n{between}", "rapidctl: away\n")
