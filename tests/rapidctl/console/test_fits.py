"""What screens and dialogs keep at every size: keys in sight, nothing shining through, every id of the help."""

import pytest

from rapidctl.settings import Settings, ThemeName
from rapidctl.wire import Accepted
from support.console import desk
from support.run import streamed
from support.snapshots import snapshot

SCREENS = ("1", "2", "3", "5", "6", "7", "n")


@pytest.mark.parametrize("size", [(80, 24), (60, 20), (40, 12)], ids=str)
async def test_the_last_line_of_every_screen_says_how_to_get_help_and_out(size: tuple[int, int]) -> None:
    async with desk(*size, live=False) as at:
        await at.show(snapshot())
        for key in SCREENS:
            await at.press(key)
            last = at.text.splitlines()[-1]
            wanted = ("enter send", "esc stop, back", "^q quit") if key == "n" else ("? help", "q quit")
            assert all(f" {pair} " in f"{last} " for pair in wanted), (key, last)


@pytest.mark.parametrize("width", [110, 114, 119, 120])
async def test_side_by_side_boxes_show_whether_the_objectives_are_met(width: int) -> None:
    """Below 120 columns the box was too narrow for its last column."""
    async with desk(width, 36) as at:
        assert "  met " in at.text
        assert " 98% ✓ " in at.text
        assert " 87% ! " in at.text


@pytest.mark.parametrize("size", [(60, 12), (20, 5)], ids=str)
async def test_a_small_terminal_shows_what_a_screen_is_for(size: tuple[int, int]) -> None:
    """The answer had no line left beside its times, nor had a daemon between the edges of its box."""
    async with desk(*size) as at:
        await at.press("7")
        assert "● live" in at.text or "▸ default" in at.text
        await at.press("n", *"why", "enter")
        [asked] = at.source.generated
        at.source.stream(asked.id, Accepted(id=asked.id, prompt_tokens=3, seed=1), *streamed(asked, [11, 12])[:-1])
        await at.settle()
        assert "11 12" in at.text


@pytest.mark.parametrize("size", [(5, 60), (2, 2), (1, 1)], ids=str)
async def test_no_terminal_is_too_small(size: tuple[int, int]) -> None:
    """Lists that had no column left ended the console: a pane of a terminal multiplexer can be so narrow."""
    async with desk(*size) as at:
        for key in SCREENS:
            await at.press(key)
            await at.press("escape")
        assert at.app.is_running


@pytest.mark.parametrize("width", [60, 80])
async def test_the_override_dialog_cuts_nothing(width: int) -> None:
    async with desk(width, 30, control=True, live=False) as at:
        await at.show(snapshot())
        await at.press("o")
        words = " ".join(at.text.replace("│", " ").split())
        for text in ("legal 32–272", "for 10 s", "the console ends", "Apply (y)", "(at most 7d00h) 5m"):
            assert text in words
        await at.press("escape", "T")
        assert "such as 5m" in " ".join(at.text.replace("│", " ").split())


@pytest.mark.parametrize("theme", ["dark", "ansi"])
async def test_nothing_shines_through_a_dialog(theme: ThemeName) -> None:
    async with desk(80, 24, control=True, live=False, settings=Settings(theme=theme)) as at:
        await at.show(snapshot())
        assert "LATENCY" in at.text
        for key, title in (("o", "OVERRIDE"), ("question_mark", "HELP"), ("T", "GO TO"), ("ctrl+p", "Copy")):
            await at.press(key)
            assert title in at.text, key
            assert "LATENCY" not in at.text, key
            assert "LIVE" not in at.text, key
            await at.press("escape")
        await at.press("n", *"hi", "ctrl+t")
        assert "plan" in at.text
        assert "TIMELINE" not in at.text


@pytest.mark.parametrize("width", [60, 120])
async def test_the_help_has_every_key_with_its_id_at_any_width(width: int) -> None:
    async with desk(width, 200, live=False) as at:
        await at.press("question_mark")
        page = [line.strip(" │╭╮╰╯─▁▂▃▄▅▆▇█") for line in at.text.splitlines()]
        assert any(line.startswith("N ") and line.endswith("app.next_host") for line in page)
        assert any(line.startswith("o ") and line.endswith("part.override") for line in page)
        assert not any("…" in line for line in page), "texts go on below"


async def test_the_help_scrolls_by_the_keys_of_every_list() -> None:
    async with desk(60, 20, live=False) as at:
        await at.press("question_mark")
        assert "Everywhere" in at.text
        await at.press("G")
        assert "values are old" in at.text
        await at.press("k", "g", "j", "k")
        assert "Everywhere" in at.text
