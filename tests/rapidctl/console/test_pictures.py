"""The pictures of the docs are the console's golden screens: text, place and colour must be as stored.

``UPDATE_PICTURES=1 python -m pytest tests/rapidctl/console/test_pictures.py`` draws them anew.
"""

import os
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace
from textual.widgets import Input

from rapidctl.source import Connection
from rapidctl.wire import (
    Accepted,
    ChoiceResult,
    Delta,
    Finished,
    Prediction,
    PredictPartition,
    Quantiles,
    Timing,
    pack_ids,
)
from support.console import Desk, desk
from support.snapshots import ENDPOINT, EPOCH_UNIX_S, event, moved, override_info, partition, snapshot

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


def test_every_picture_is_shown_in_the_docs_and_every_one_shown_is_drawn() -> None:
    shown = re.findall(r"images/(console[\w-]*)\.svg", (IMAGES.parent / "console.md").read_text())
    assert sorted(shown) == sorted(name for name, *_ in PICTURES)


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


async def breach(at: Desk) -> None:
    """A split that is predicted to miss the objective wants the word."""
    at.source.predict = lambda _: Prediction(
        call=0, legal=True, note="", itl_p95_s=0.044, ttft_p95_s=1.24, prefill_tokens_per_s=9800.0, breaches_slo=True
    )
    await at.press("o")


async def compare(at: Desk) -> None:
    """The same prompt under two plans, both answered."""
    await at.press("n")
    field = at.app.screen.query_one("#prompt", Input)
    field.cursor_blink = False
    field.value = "Explain why decode is memory bound."
    await at.press("ctrl+t", "y")
    for epoch, (mode, units, gap_ms) in enumerate((("hybrid", 304, 61), ("split", 160, 33)), 1842):
        ticket, _ = at.source.commands()[-1]
        at.source.accept(ticket, epoch)
        at.source.put(event(epoch, "applied", epoch=epoch))
        at.source.feed(moved(snapshot(epoch), partition(mode=mode, decode=units, epoch=epoch)))  # type: ignore[arg-type]
        await at.settle()
        await at.settle()
        request = at.source.generated[-1]
        at.clock.now += 0.2
        at.source.stream(request.id, Accepted(id=request.id, prompt_tokens=14, seed=1), *answer(request.id, gap_ms))
        await at.settle()
        await at.settle()
    ticket, _ = at.source.commands()[-1]
    at.source.accept(ticket, 1844)
    at.source.feed(moved(snapshot(1844), partition(epoch=1844)))
    await at.settle()
    await at.settle()


def answer(request_id: str, gap_ms: int) -> list[Delta | Finished]:
    """Forty tokens, so many milliseconds apart."""
    words, ids = ANSWER.split(), list(range(40))
    deltas: list[Delta | Finished] = [
        Delta(
            id=request_id, index=index, token_ids=pack_ids([index]), text=words[index % len(words)] + " ",
            at_mono_ns=[index * (gap_ms + index % 4) * 10**6],
        )
        for index in ids
    ]  # fmt: skip
    choice = ChoiceResult(
        index=0, finish_reason="length", token_ids=pack_ids(ids),
        text="".join(words[index % len(words)] + " " for index in ids),
    )  # fmt: skip
    timing = Timing(queued_s=0.004, prefill_s=0.175, ttft_s=0.188, e2e_s=2.5, itl_s=Quantiles(n=0))
    last = Finished(
        id=request_id,
        choices=[choice],
        prompt_tokens=14,
        cached_tokens=0,
        output_tokens=40,
        timing=timing,
        mode="split",
    )
    return [*deltas, last]


async def requests(at: Desk) -> None:
    """One of them in detail."""
    await at.press("2", "j", "j", "j", "j")


async def units(at: Desk) -> None:
    """Half an hour of changes, and what other plans would do."""
    for minute in range(28):
        mode, decode = (("shared", 304), ("split", 160), ("split", 208), ("hybrid", 304))[minute // 2 % 4]
        info = partition(mode=mode, decode=decode)  # type: ignore[arg-type]
        for second in range(0, 60, 3):
            at.clock.now += 3
            at.source.feed(moved(snapshot(231 + 4 * (60 * minute + second)), info))
            at.app.tick()
    at.source.predict = predicted
    at.source.feed(snapshot(231 + 4 * 28 * 60))
    await at.press("3")
    await at.settle()


def predicted(request: PredictPartition) -> Prediction:
    """Decode gains from units up to 160 of them, prefill from all the others."""
    decode = request.plan.decode_units or 304
    prefill = 304 - decode or 304
    return Prediction(
        call=0, legal=True, note="", prefill_units=prefill, itl_p95_s=0.055 * max(1.0, 160 / decode),
        ttft_p95_s=60 / prefill, prefill_tokens_per_s=150.0 * prefill, breaches_slo=decode < 96 or prefill < 64,
    )  # fmt: skip


async def log(at: Desk) -> None:
    """Events of every grade."""
    for seq, (kind, level, text) in enumerate(
        (
            ("front_ready", "info", "ready on ipc:///run/rapidd/request.sock"),
            ("decision", "info", "split 160/144: batch 112 > 64"),
            ("override", "info", "ana: split decode 200, ttl 5m"),
            ("applied", "info", "split 200/104 runs"),
            ("guard", "warn", "released: ITL p95 162 ms for 10 s"),
            ("engine_lost", "error", "the engine ended by signal 9; 3 requests are submitted again"),
        )
    ):
        at.source.put(replace(event(seq), kind=kind, level=level, text=text))
    await at.press("5")


async def device(at: Desk) -> None:
    """Sensors and processes."""
    await at.press("6")


async def past(at: Desk) -> None:
    """Ten seconds back, with what an operator did in sight."""
    at.source.put(replace(event(1, "override", "ana: split 200", epoch=1842), at_unix_s=EPOCH_UNIX_S + 58))
    await at.settle()
    at.clock.now += 1
    await at.show(snapshot(235))
    await at.press("T", *"30s", "enter")


PICTURES = [
    ("console", (120, 36), live),
    ("console-160", (160, 50), live),
    ("console-80", (80, 24), live),
    ("console-60", (60, 20), live),
    ("console-stale", (80, 24), stale),
    ("console-stale-120", (120, 36), stale),
    ("console-past", (120, 36), past),
    ("console-past-80", (80, 24), past),
    ("console-plain", (120, 36), live),
    ("console-plain-60", (60, 20), live),
    ("console-override", (120, 36), override),
    ("console-breach", (80, 24), breach),
    ("console-prompt", (120, 36), prompt),
    ("console-compare", (120, 36), compare),
    ("console-requests", (120, 36), requests),
    ("console-partition", (120, 36), units),
    ("console-device", (120, 36), device),
    ("console-log", (120, 20), log),
]


@pytest.mark.parametrize(("name", "size", "scene"), PICTURES, ids=[name for name, *_ in PICTURES])
async def test_the_picture_is_the_console(name: str, size: tuple[int, int], scene, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    ids = (f"r-8f1e{number}" for number in range(7, 10))
    monkeypatch.setattr("rapidctl.console.form.new_id", lambda: next(ids))
    if "plain" in name:
        monkeypatch.setenv("NO_COLOR", "1")
    async with desk(*size, control=scene in (override, breach, compare)) as at:
        await scene(at)
        drawn = normal(at.app.export_screenshot(title="rapidctl"))
    stored = IMAGES / f"{name}.svg"
    if os.environ.get("UPDATE_PICTURES"):
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text(drawn)
    assert cells(drawn) == cells(stored.read_text())
