"""Keys one after another: what a key opens gets those that were typed behind it.

Textual hands a key to whoever has the focus when it comes. Of a burst, as a slow line makes it of what was typed ahead,
all would go to the screen that the first one leaves: a prompt would be read as commands, "quit" among them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from textual.app import App
from textual.events import Event, Key, Paste
from textual.message_pump import MessagePump

LONGEST_S: Final = 1.0
"""That a key waits for the one before it: no part of the console can silence the keyboard."""


class Keyboard(App[int]):
    """Part of the console: in which order keys are taken."""

    def __init__(self) -> None:
        super().__init__()
        self._typed: deque[Key | Paste] = deque()
        """The first of them is being taken."""

    async def on_event(self, event: Event) -> None:
        """What is typed waits for its turn; what comes back of it from a widget, and everything else, does not."""
        if not isinstance(event, Key | Paste) or event.is_forwarded:
            await super().on_event(event)
            return
        self._typed.append(event)
        if len(self._typed) == 1:
            self.run_worker(self._take())

    async def _take(self) -> None:
        while self._typed:
            way = (self.focused or self.screen).ancestors_with_self
            await super().on_event(self._typed[0])
            for node in way:  # the key, or what came of it, goes up to the app
                await _heard(node)
            await _heard(self.screen)  # it may be another one now: then it has its parts and its focus
            self._typed.popleft()


async def _heard(pump: MessagePump) -> None:
    """It has handled what it was sent, or is gone."""
    heard = asyncio.Event()
    if pump.call_later(heard.set):
        try:
            async with asyncio.timeout(LONGEST_S):
                await heard.wait()
        except TimeoutError:
            pass
