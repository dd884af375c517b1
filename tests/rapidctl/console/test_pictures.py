"""The pictures of the docs are the console's golden screens: text, place and colour must be as stored.

``UPDATE_PICTURES=1 python -m pytest tests/rapidctl/console/test_pictures.py`` draws them anew.
"""

import os
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from textual.widgets import Input

from rapidctl.source import Connection
from rapidctl.wire import Accepted, Delta, pack_ids
from support.console import ENDPOINT, Desk, desk, moved, override_info, partition, snapshot

IMAGES = Path(__file__).resolve().parents[3] / "docs" / "images"
ANSWER = "each step reads all weights and every sequence's keys and values to do little arithmetic;"
SVG = "{http://www.w3.org/2000/svg}"


def normal(svg: str) -> str:
    """Without fonts from elsewhere, and with the same ids every time."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"terminal-\d+", "terminal", svg)
    return re.sub(r"[ \t]+$", "", svg.replace("Fira Code, monospace", "monospace"), flags=re.MULTILINE)


def cells(svg: str) -> list[tuple[str, str, str, str]]:
    """Every run of text: where it is, its style sheet rule, and what it says. Nothing else is compared."""
    rules = dict(re.findall(r"\.(terminal-r\d+) \{([^}]*)\}", svg))
    return [
        (node.get("y", ""), node.get("x", ""), rules.get(node.get("class", ""), "").strip(), node.text or "")
        for node in ElementTree.fromstring(svg).iter(f"{SVG}text")
    ]


async def live(at: Desk) -> None:
    """As it comes."""


async def stale(at: Desk) -> None:
    """Seven seconds after the daemon's death."""
    at.source.put(Connection(ENDPOINT, connected=False))
    await at.later(7)


async def override(at: Desk) -> None:
    """The dialog over a running override."""
    await at.show(moved(snapshot(231), partition(override=override_info())))
    await at.press("o")


async def prompt(at: Desk) -> None:
    """A prompt half way."""
    await at.press("n")
    field = at.app.screen.query_one("#prompt", Input)
    field.cursor_blink = False
    field.value = "Explain why decode is memory bound."
    await at.press("enter")
    request = at.source.generated[0]
    words = ANSWER.split()
    at.clock.now += 0.188
    at.source.stream(request.id, Accepted(id=request.id, prompt_tokens=14, seed=1))
    stamp = 0
    for index in range(100):
        stamp += int(30e6 + 9e6 * (index % 5) + (90e6 if index == 62 else 0))
        text = words[index % len(words)] + " "
        at.source.stream(
            request.id, Delta(id=request.id, index=index, token_ids=pack_ids([index]), text=text, at_mono_ns=[stamp])
        )
    await at.settle()


@pytest.mark.parametrize(
    ("name", "size", "scene"),
    [
        ("console", (120, 36), live),
        ("console-80", (80, 24), live),
        ("console-60", (60, 20), live),
        ("console-stale", (80, 24), stale),
        ("console-override", (120, 36), override),
        ("console-prompt", (120, 36), prompt),
    ],
)
async def test_the_picture_is_the_console(name: str, size: tuple[int, int], scene, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("rapidctl.console.form.new_id", lambda: "r-8f1e7")
    async with desk(*size, control=scene is override) as at:
        await scene(at)
        drawn = normal(at.app.export_screenshot(title="rapidctl"))
    stored = IMAGES / f"{name}.svg"
    if os.environ.get("UPDATE_PICTURES"):
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text(drawn)
    assert cells(drawn) == cells(stored.read_text())
