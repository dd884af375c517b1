"""The overview, log and help under an operator's fingers, on a scripted daemon and a clock that moves when told."""

import re
from typing import Any

import pytest
from textual.app import App
from textual.binding import Binding
from textual.widget import Widget

from rapidctl.console.app import check_keys, key_groups
from rapidctl.console.screens.help import Help
from rapidctl.console.screens.log import Log
from rapidctl.console.screens.overview import Overview
from rapidctl.console.widgets.rows import Rows
from rapidctl.settings import ConfigError
from rapidctl.source import Connection
from support.console import desk
from support.snapshots import ENDPOINT, event, partition, snapshot

TEXTUAL_CHROME = ("c5c8c6", "292929", "ff5f57", "febc2e", "28c840")
"""Window frame and default text of every exported picture: no part of the console."""

SIZES = {
    (120, 36): (["COMPUTE UNITS", "decode busy", "DECISIONS", "REQUESTS 137", "r-8f001"], ["5 log)"]),
    (120, 24): (["COMPUTE UNITS", "LATENCY ms", "REQUESTS 137", "r-8f001"], ["decode busy"]),
    (80, 24): (["COMPUTE UNITS", "LATENCY ms", "QUEUES", "REQUESTS 137", "r-8f001"], ["decode busy", "DECISIONS"]),
    (60, 20): (["TTFT p50/95/99", "r-8f001", "prefill"], ["COMPUTE UNITS", "╭"]),
    (40, 8): (["LIVE", "prefill", "decode"], ["╭"]),
    (120, 10): (["LIVE", "TTFT p50/95/99"], ["╭"]),
}


async def test_every_size_shows_what_fits_and_resizing_keeps_the_selection() -> None:
    async with desk(120, 36) as at:
        await at.press("j", "j")
        for size, (shown, hidden) in SIZES.items():
            await at.pilot.resize_terminal(*size)
            await at.settle()
            assert "● LIVE" in at.text
            assert [word for word in shown if word not in at.text] == [], size
            assert [word for word in hidden if word in at.text] == [], size
            assert at.app.query_one(Rows).selected == "r-8f002"


async def test_before_the_first_snapshot_nothing_is_claimed() -> None:
    async with desk(live=False) as at:
        assert "NO DATA" in at.text
        assert ENDPOINT in at.text
        assert "REQUESTS —" in at.text
        assert "0%" not in at.text.replace("0–100%", "")


async def test_stale_values_stay_dimmed_under_the_word_and_come_back() -> None:
    async with desk(80, 24) as at:
        at.source.put(Connection(ENDPOINT, connected=False))
        await at.later(7)
        assert "◌ STALE 7 s reconnecting" in at.text
        assert "LIVE" not in at.text
        assert "prefill 144 CU" in at.text
        assert at.app.screen.has_class("-stale")
        assert at.app.query_one("#units").styles.text_style.dim
        at.source.put(Connection(ENDPOINT, connected=True))
        await at.show(snapshot(250, boot="b2", front="f2"))
        assert "● LIVE" in at.text
        assert not at.app.screen.has_class("-stale")
        await at.press("5")
        assert "the engine restarted" in at.text


async def test_nothing_is_drawn_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with desk() as at:
        drawn: list[object] = []
        monkeypatch.setattr(Overview, "show", lambda self, view: drawn.append(view))
        for _ in range(3):
            await at.settle()
        assert drawn == []
        await at.show(snapshot(241))
        assert len(drawn) == 1


async def test_the_selection_is_a_request_and_not_a_row() -> None:
    async with desk() as at:
        await at.press("j", "j")
        assert at.app.query_one(Rows).selected == "r-8f002"
        await at.press("s")
        await at.press("full_stop")
        assert at.app.query_one(Rows).selected == "r-8f002"
        found = snapshot(241)
        found.rows = found.rows[2:]
        await at.show(found)
        assert at.app.query_one(Rows).selected is None


async def test_filtering_types_into_the_field_and_esc_drops_it() -> None:
    async with desk() as at:
        await at.press("slash", *"~", "backspace", *"ana")
        assert "shown 2" in at.text
        await at.press("enter")
        assert "filter ana" in at.text
        await at.press("escape")
        assert "shown 5" in at.text


async def test_the_window_the_freeze_the_theme() -> None:
    async with desk() as at:
        assert "last 60 s" in at.text
        await at.press("w")
        assert "last 300 s" in at.text
        await at.press("p")
        at.clock.now += 1
        await at.show(snapshot(241, info=partition(epoch=1900)))
        assert "FROZEN" in at.text
        assert "epoch 1841" in at.text
        await at.press("p")
        assert "epoch 1900" in at.text
        assert at.app.book.snapshot is not None, "recording went on"
        before = at.app.theme
        await at.press("t")
        assert at.app.theme != before


async def test_help_lists_every_key_and_the_figures() -> None:
    async with desk(120, 150) as at:
        await at.press("question_mark")
        assert isinstance(at.app.screen, Help)
        for word in ("?", "^o", "override the partition", "filter requests", "stop the stream", "TTFT SLO", "STALE"):
            assert word in at.text
        await at.press("escape")
        assert isinstance(at.app.screen, Overview)


async def test_the_log_is_opened_at_its_newest_line_and_follows() -> None:
    """Events that had come before it was opened for the first time left it at the oldest, and so did every newer one;
    after a filter it followed no more."""
    async with desk(110, 24) as at:
        at.source.put(*(event(index, "decision", f"number {index}") for index in range(100)))
        await at.settle()
        await at.press("5")
        assert "number 99" in at.text
        await at.press("slash", *"number", "enter", "slash", "escape")
        at.source.put(event(100, "decision", "number 100"))
        await at.settle()
        assert "number 100" in at.text
        await at.press("g")
        at.source.put(event(101, "decision", "number 101"))
        await at.settle()
        assert "connected" in at.text, "who reads stays where he is"
        assert "number 101" not in at.text


async def test_the_log_shows_events_and_what_the_console_noticed() -> None:
    async with desk() as at:
        at.source.put(event(4, "warning", "placement overlap 4 CU"), event(6))
        await at.settle()
        await at.press("l")
        assert isinstance(at.app.screen, Log)
        for word in ("connected", "placement overlap 4 CU", "1 events were lost"):
            assert word in at.text
        await at.press("escape")
        assert isinstance(at.app.screen, Overview)


async def test_without_colour_the_letters_words_and_marks_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with desk() as at:
        assert "DDDPPP" in at.text
        assert "87% !" in at.text
        coloured = re.findall(r"fill: #(..)(..)(..)", at.app.export_screenshot())
        assert coloured
        assert [rgb for rgb in coloured if len(set(rgb)) != 1 and "".join(rgb) not in TEXTUAL_CHROME] == []


async def test_the_palette_offers_the_same_verbs_as_the_keys() -> None:
    async with desk() as at:
        verbs = {command.title for command in at.app.get_system_commands(at.app.screen)}
        assert {"Override", "Release", "Undo", "Unlock", "Prompt", "Log", "Help", "Quit"} <= verbs
        await at.press("ctrl+p", *"overr")
        await at.app.workers.wait_for_complete()
        await at.settle()
        assert "override the partition" in at.text, "what the verb does stands below it"


async def test_quitting_closes_the_source() -> None:
    async with desk() as at:
        await at.press("q")
    assert at.source.closed
    assert at.app.return_value == 0


def own_bindings(kind: type[App[Any] | Widget]) -> list[Binding]:
    """Of all our classes below ``kind``."""
    found: list[Binding] = []
    for below in kind.__subclasses__():
        if below.__module__.startswith("rapidctl."):
            found += [one for one in below.__dict__.get("BINDINGS", []) if isinstance(one, Binding)]
        found += own_bindings(below)
    return found


def test_every_binding_stands_in_the_help_and_has_an_id_of_its_own() -> None:
    listed = [binding for _, group in key_groups() for binding in group if isinstance(binding, Binding)]
    ids = [binding.id for binding in listed]
    assert None not in ids
    assert len(set(ids)) == len(ids)
    assert {binding.id for binding in [*own_bindings(App), *own_bindings(Widget)]} == set(ids)


def test_a_key_for_a_binding_that_does_not_exist_is_an_error() -> None:
    check_keys({"part.override": "O"})
    with pytest.raises(ConfigError, match=r"no binding 'app\.override'") as caught:
        check_keys({"app.override": "O"})
    assert "did you mean part.override?" in caught.value.hint
