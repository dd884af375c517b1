"""What means ill: messages with text that drives a terminal or numbers without sense, and a disk that is full."""

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, get_type_hints

import msgspec
from msgspec.structs import replace

HOSTILE = "[/x]\x1b]0;title\x07\x9b31m\x7f\r\u202e[red]"
"""A closing tag without its opening one, a title, a colour, single controls, a direction, a tag."""


def hostile(message: Any) -> Any:
    """The message with `HOSTILE` behind every text of which the wire says nothing but that it is one."""
    return _changed(message, (str, str | None), lambda text: text + HOSTILE)


def absurd(message: Any, number: float) -> Any:
    """The message with this number in the place of every one of which the wire says nothing but that it is one."""
    return _changed(message, (float, float | None), lambda _: number)


def _changed(message: Any, kinds: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not isinstance(message, msgspec.Struct):
        return [_changed(item, kinds, change) for item in message] if isinstance(message, list) else message
    hints = get_type_hints(type(message), include_extras=True)
    changed: dict[str, Any] = {}
    for name in message.__struct_fields__:
        value = getattr(message, name)
        free = value is not None and hints[name] in kinds
        changed[name] = change(value) if free else _changed(value, kinds, change)
    return replace(message, **changed)


def controls(text: str) -> list[str]:
    """What in it drives a terminal, line breaks aside."""
    return [char for char in text if unicodedata.category(char) == "Cc" and char != "\n"]


def full_disk(path: Path) -> BinaryIO:
    """In the place of `rapidctl.tape.new_file`."""
    return Path("/dev/full").open("wb")
