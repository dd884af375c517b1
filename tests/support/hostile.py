"""What means ill: messages with text in them that drives a terminal, and a disk that is full."""

import unicodedata
from pathlib import Path
from typing import Any, BinaryIO, get_type_hints

import msgspec
from msgspec.structs import replace

HOSTILE = "[/x]\x1b]0;title\x07\x9b31m\x7f\r\u202e[red]"
"""A closing tag without its opening one, a title, a colour, single controls, a direction, a tag."""


def hostile(message: Any) -> Any:
    """The message with `HOSTILE` behind every text of which the wire says nothing but that it is one."""
    if not isinstance(message, msgspec.Struct):
        return [hostile(item) for item in message] if isinstance(message, list) else message
    kinds = get_type_hints(type(message))
    changed: dict[str, Any] = {}
    for name in message.__struct_fields__:
        value = getattr(message, name)
        free = isinstance(value, str) and kinds[name] in (str, str | None)
        changed[name] = value + HOSTILE if free else hostile(value)
    return replace(message, **changed)


def controls(text: str) -> list[str]:
    """What in it drives a terminal, line breaks aside."""
    return [char for char in text if unicodedata.category(char) == "Cc" and char != "\n"]


def full_disk(path: Path) -> BinaryIO:
    """In the place of `rapidctl.tape.new_file`."""
    return Path("/dev/full").open("wb")
