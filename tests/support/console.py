"""For tests of the console: a running one, its operator's fingers, and a source that plays a script.

`ScriptedSource` stands at the declared seam (`rapidctl.source.Source`, the transport); nothing of the console is faked.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from textual._context import active_app
from textual.pilot import Pilot

from rapidctl.book import Book
from rapidctl.client import Call
from rapidctl.console.app import Console
from rapidctl.console.host import Host
from rapidctl.console.operator import Operator
from rapidctl.console.prompts import Prompts
from rapidctl.console.view import View
from rapidctl.errors import Refused
from rapidctl.settings import Settings
from rapidctl.source import Answer, Connection, Received, Streamed, Update
from rapidctl.wire import (
    ControlReply,
    Generate,
    Prediction,
    PredictPartition,
    SetPartition,
    Snapshot,
)
from support.snapshots import ENDPOINT, EPOCH_UNIX_S, snapshot

LAYOUTS = 4
"""A layout may bring another one about; more than these do not come."""
LIVE_TICKS = 231
"""A minute of history that ends while prefill is busy."""


class Clock:
    """A monotonic clock that moves when told."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class ScriptedSource:
    """A source whose other side is the test. ``asked`` and ``generated`` hold what the console sent."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked: list[tuple[int, Call, bool]] = []
        self.generated: list[Generate] = []
        self.abandoned: list[str] = []
        self.locked = 0
        self.closed = False
        self.predict: Callable[[PredictPartition], Prediction] = lambda _: Prediction(
            call=0, legal=True, note="no profile: rapidd calibrate"
        )
        self._updates: list[Update] = []

    def start(self) -> None:
        """Connected at once."""
        self.put(Connection(ENDPOINT, connected=True))

    def poll(self) -> list[Update]:
        """What the test put."""
        taken, self._updates = self._updates, []
        return taken

    def ask(self, request: Call, *, control: bool = False) -> int:
        """Dry runs are answered by ``predict``, everything else by the test."""
        ticket = len(self.asked) + 1
        self.asked.append((ticket, request, control))
        if isinstance(request, PredictPartition):
            self.put(Answer(ticket, self.predict(request)))
        return ticket

    def generate(self, request: Generate) -> None:
        """Kept for the test to answer."""
        self.generated.append(request)

    def abandon(self, request_id: str) -> None:
        """Kept for the test to see."""
        self.abandoned.append(request_id)

    def lock(self) -> None:
        """Counted."""
        self.locked += 1

    def close(self) -> None:
        """Noted."""
        self.closed = True

    # --- the test's side ---------------------------------------------------------------------------------------

    def put(self, *updates: Update) -> None:
        """Deliver these at the next poll."""
        self._updates += updates

    def feed(self, *snapshots: Snapshot) -> None:
        """Deliver snapshots a quarter second apart, the last one now."""
        start = self.clock.now - (len(snapshots) - 1) / 4
        self.put(*(Received(found, start + index / 4) for index, found in enumerate(snapshots)))

    def commands(self) -> list[tuple[int, Call]]:
        """What was sent with operator rights."""
        return [(ticket, request) for ticket, request, control in self.asked if control]

    def accept(self, ticket: int, epoch: int) -> None:
        """The daemon takes a command."""
        self.put(Answer(ticket, ControlReply(call=ticket, epoch=epoch, text="accepted")))

    def refuse(self, ticket: int, refused: Refused) -> None:
        """The daemon refuses a command."""
        self.put(Answer(ticket, refused))

    def stream(self, request_id: str, *events: object) -> None:
        """The daemon streams."""
        self.put(*(Streamed(request_id, found, self.clock.now) for found in events))  # type: ignore[arg-type]


def sent_split(source: ScriptedSource) -> tuple[int, SetPartition]:
    """The one override that was sent."""
    [(ticket, request)] = source.commands()
    assert isinstance(request, SetPartition)
    return ticket, request


def wall() -> float:
    """The wall clock of tick 0."""
    return EPOCH_UNIX_S


def host_of(source: ScriptedSource, *, name: str = "", control: bool = False) -> Host:
    """The console's side of a scripted daemon."""
    return Host(source, ENDPOINT, clock=source.clock, wall=wall, name=name, control=control)


def prompts() -> Prompts:
    """A prompt screen that was never used."""
    clock = Clock()
    source = ScriptedSource(clock)
    return Prompts(source, Operator(source, clock, unlocked=True))


def view(*snapshots: Snapshot, age_s: float = 0.2, **changes: Any) -> View:
    """A frame of these snapshots, a quarter second apart, the last one ``age_s`` old."""
    book = Book()
    for index, found in enumerate(snapshots):
        book.add(found, 1000.0 + index / 4)
    now = 1000.0 + (len(snapshots) - 1) / 4 + age_s
    latest = View(
        book=book,
        snapshot=book.snapshot,
        connection=Connection(ENDPOINT, connected=True),
        now_s=now,
        age_s=book.age_s(now),
        stale=book.stale(now),
        window_s=60.0,
        unlocked_s=None,
        change=None,
        prompts=prompts(),
    )
    return dataclasses.replace(latest, **changes)


async def until_quiet(*_seconds: float) -> None:
    """Everybody has handled all messages, and those that came of them, and the screen has been laid out and drawn.

    In the place of Textual's wait, which looks at the processor's time: who gets none looks idle, and who is idle is
    believed after 20 ms. Here no task of the loop can go on but the caller's.
    """
    loop = asyncio.get_running_loop()
    for _ in range(LAYOUTS):
        await asyncio.sleep(0)
        while loop._ready:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        if (app := active_app.get(None)) is not None and app.screen_stack:
            app._check_resize()  # these two are put off to timers
            app.screen._on_timer_update()


@dataclass
class Desk:
    """A running console and everything a test needs to play its world."""

    app: Console
    source: ScriptedSource
    clock: Clock
    pilot: Pilot[int]

    async def settle(self) -> None:
        """Take in what was put, and draw."""
        self.app.tick()
        await self.pilot.pause()

    async def show(self, *snapshots: Snapshot) -> None:
        """The daemon published these."""
        self.source.feed(*snapshots)
        await self.settle()

    async def press(self, *keys: str) -> None:
        """The operator's fingers."""
        await self.pilot.press(*keys)
        await self.settle()

    async def until(self, wanted: str) -> None:
        """For what a timer of Textual's brings about: it stands on the screen some time."""
        async with asyncio.timeout(30):
            while wanted not in self.text:
                await asyncio.sleep(0.01)
                await self.settle()

    async def later(self, seconds: float) -> None:
        """Nothing happens for a while."""
        self.clock.now += seconds
        await self.settle()

    @property
    def text(self) -> str:
        """The screen as text, one line a row."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in strips)


@asynccontextmanager
async def desk(
    width: int = 120,
    height: int = 36,
    *,
    control: bool = False,
    live: bool = True,
    settings: Settings = Settings(),  # noqa: B008 - frozen
) -> AsyncIterator[Desk]:
    """A console of that size, with a minute of history unless told otherwise."""
    clock = Clock()
    source = ScriptedSource(clock)
    host = host_of(source, control=control)
    app = Console([host], settings, clock=clock, wall=wall)
    async with app.run_test(size=(width, height)) as pilot:
        found = Desk(app, source, clock, pilot)
        if live:
            source.feed(*(snapshot(tick) for tick in range(LIVE_TICKS)))
        await found.settle()
        yield found
