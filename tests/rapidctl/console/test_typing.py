"""Keys that come in one burst, as of a slow line or of whoever types ahead, do what they do one by one."""

import asyncio

import pytest
from textual.events import Key, Paste
from textual.widget import Widget
from textual.widgets import Input

from rapidctl.console.run import asked
from support.console import Desk, desk, until_quiet


async def burst(at: Desk, *keys: str) -> None:
    """All of them before the console has looked at the first one."""
    for key in keys:
        at.app.post_message(Key(key, key if len(key) == 1 else None))
    await at.settle()
    await at.settle()


async def test_what_is_typed_behind_the_key_that_opens_the_prompt_is_the_prompt() -> None:
    """It was read as the commands of the screen before: of ``nq`` the q ended the console."""
    async with desk() as at:
        await burst(at, "n", *"why", "q", "enter")
        assert [asked(sent) for sent in at.source.generated] == ["whyq"]


async def test_what_is_pasted_stands_between_what_was_typed_before_and_after_it() -> None:
    async with desk() as at:
        at.app.post_message(Key("n", "n"))
        at.app.post_message(Key("a", "a"))
        at.app.post_message(Paste("long text"))
        await burst(at, "z", "enter")
        assert [asked(sent) for sent in at.source.generated] == ["along textz"]


@pytest.mark.parametrize(
    "keys",
    [
        "n w h y ctrl+t y",
        "n w h y ctrl+t tab tab right y",
        "2 slash a n a enter j",
        "j x y",
        "question_mark escape 5 slash g enter",
        "R escape 6 M escape t 7",
    ],
)
async def test_a_burst_does_what_its_keys_do_one_by_one(keys: str) -> None:
    """A comparison, for one, could not be begun in the burst that asked for it: the y became part of the prompt."""
    ends = []
    for press in (Desk.press, burst):
        async with desk(control=True) as at:
            await press(at, *keys.split())
            screen, focused = at.app.screen, at.app.focused
            fields = [field.value for field in screen.query(Input)]
            sent = [type(command).__name__ for _, command in at.source.commands()]
            ends.append((type(screen), focused and focused.id, fields, at.app.theme, at.app.window, sent))
    assert ends[0] == ends[1]


class Deaf(Widget, can_focus=True):
    """A part of the screen that never comes to the end of a key, until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.end = asyncio.Event()

    async def on_key(self) -> None:
        await self.end.wait()


async def test_a_part_of_the_screen_that_hangs_does_not_silence_the_keyboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rapidctl.console.keyboard.LONGEST_S", 0.0)
    async with desk() as at:
        deaf = Deaf()
        await at.app.screen.mount(deaf)
        deaf.focus()
        at.app.post_message(Key("x", "x"))
        await until_quiet()
        at.app.screen.set_focus(None)
        at.app.post_message(Key("2", "2"))
        await until_quiet()
        deaf.end.set()
        assert at.app.current_mode == "requests"
