"""The heart of the console: its daemons, one timer, and the frames that go to the screens. It has no keys.

The timer drains every source and, when something changed, hands one frozen `View` to the screens that are shown.
Widgets never touch sockets; a source's thread never touches widgets.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from textual.filter import LineFilter
from textual.screen import Screen

from rapidctl.book import Book
from rapidctl.console import theme
from rapidctl.console.ascii import ASCII
from rapidctl.console.host import Host
from rapidctl.console.keyboard import Keyboard
from rapidctl.console.operator import Operator
from rapidctl.console.safe import SAFE
from rapidctl.console.screens.base import Shows
from rapidctl.console.view import WINDOWS_S, View
from rapidctl.settings import Settings
from rapidctl.source import Answer
from rapidctl.tape import TapeError

EXIT_INTERRUPTED: Final = 130
STREAM_TICK_S: Final = 1 / 12
"""While something streams or plays: text comes in readable pieces, not token by token."""
RATES_HZ: Final = (0.5, 1.0, 2.0, 4.0, 10.0)


class Core(Keyboard):
    """``hosts``: the daemons, at least one. ``clock`` is the monotonic clock, ``wall`` the unix one."""

    TITLE = "rapidctl"
    CSS_PATH = "console.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (70, "-normal"), (110, "-wide")]  # noqa: RUF012 - typed by Textual
    VERTICAL_BREAKPOINTS = [(0, "-low"), (20, "-mid"), (34, "-tall")]  # noqa: RUF012 - typed by Textual

    def __init__(
        self,
        hosts: Sequence[Host],
        settings: Settings = Settings(),  # noqa: B008 - frozen
        *,
        first_screen: str = "overview",
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.hosts = list(hosts)
        self.settings = settings
        self.current = 0
        self._first_screen = first_screen
        self.window = 1
        self.rate_hz = settings.rate_hz
        self._clock = clock
        self._wall = wall
        self._shown: tuple[object, ...] = ()
        for known in theme.THEMES.values():
            self.register_theme(known)
        self.problem: TapeError | None = None
        """Why the last of a recording could not be written when the console ended."""
        self.theme = theme.THEMES[settings.theme].name
        self.set_keymap(settings.keys)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Our colours by meaning under any theme of Textual's."""
        return theme.DARK.variables

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Whatever is drawn goes through `SAFE`, and with ``ascii`` through one more filter."""
        filters = [*super().get_line_filters(), SAFE]
        return [*filters, ASCII] if self.settings.ascii else filters

    def notify(self, message: str, *, markup: bool = False, **how: Any) -> None:
        """As `App.notify`, of text as it is: names and paths with brackets in them are no markup."""
        super().notify(message, markup=False, **how)

    def on_mount(self) -> None:
        """Start the sources and the timers. Signals that end a program end the console as a key does."""
        if not self.is_headless:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(number, self.exit, EXIT_INTERRUPTED)
        for host in self.hosts:
            host.source.start()
        if self.current_mode != self._first_screen:
            self.go(self._first_screen)
        self._ticker = self.set_interval(1 / self.rate_hz, self.tick)
        self._fast_ticker = self.set_interval(STREAM_TICK_S, self.tick, pause=True)

    def on_unmount(self) -> None:
        """End the sources' threads, and the recordings."""
        for host in self.hosts:
            try:
                host.close()
            except TapeError as error:
                self.problem = error

    # --- what is shown ------------------------------------------------------------------------------------------

    @property
    def host(self) -> Host:
        """The daemon that is shown."""
        return self.hosts[self.current]

    @property
    def book(self) -> Book:
        """Its history."""
        return self.host.book

    @property
    def operator(self) -> Operator:
        """Its operator."""
        return self.host.operator

    def view(self) -> View:
        """The frame of this moment."""
        fleet = tuple(host.fleet(current=host is self.host) for host in self.hosts)
        return self.host.view(WINDOWS_S[self.window], fleet)

    def shown_screens(self) -> list[Shows]:
        """Those that want frames, bottom first."""
        return [screen for screen in self.screen_stack if isinstance(screen, Shows) and screen.is_mounted]

    def tick(self) -> None:
        """Take in what arrived and draw if anything changed. Nothing while the app ends: screens lose their parts."""
        if not self.is_running:
            return
        answers: list[Answer] = []
        for host in self.hosts:
            polled = host.poll()
            if host is self.host:
                answers = polled
        for answer in answers:
            for screen in self.shown_screens():
                screen.answered(answer)
        if any(screen.wants_requests for screen in self.shown_screens()):
            self.host.want_requests()
        self._set_pace()
        self.draw(force=bool(answers))

    def draw(self, *, force: bool = False) -> None:
        """Hand a frame to the screens, if it differs from the last one or is forced."""
        view = self.view()
        shown = _signature(view)
        if force or shown != self._shown:
            self._shown = shown
            for screen in self.shown_screens():
                screen.show(view)

    def draw_soon(self) -> None:
        """Once the screens are laid out."""
        self.call_after_refresh(self.draw, force=True)

    def set_rate(self, rate_hz: float) -> None:
        """Draw so often from now on."""
        self.rate_hz = rate_hz
        self._ticker.stop()
        self._ticker = self.set_interval(1 / rate_hz, self.tick)

    def _set_pace(self) -> None:
        player = self.host.player
        if self.host.prompts.busy or (player is not None and player.playing):
            self._fast_ticker.resume()
        else:
            self._fast_ticker.pause()

    def go(self, mode: str) -> None:
        """To another screen."""
        while isinstance(self.screen, Screen) and self.screen.is_modal:
            self.pop_screen()
        if self.current_mode != mode:
            self.switch_mode(mode)
        self.draw_soon()

    def on_screen_resume(self) -> None:
        """A screen came to the front: it has no frame yet."""
        self.draw_soon()


def _signature(view: View) -> tuple[Any, ...]:
    """What makes a frame another one."""
    change, run = view.change, view.prompts.run
    fleet_seen = tuple((line.stale, None if line.snapshot is None else line.snapshot.seq) for line in view.fleet)
    return (
        view.host,
        view.book.version,
        None if view.past is None else (view.past.position_s, view.past.playing, view.past.speed),
        view.stale,
        view.live_stale,
        int(view.now_s) if view.stale else 0,
        None if view.unlocked_s is None else int(view.unlocked_s),
        None if change is None else change.text,
        None if run is None else (run.state, run.tokens),
        view.prompts.verdict(),
        view.connection,
        view.recording,
        fleet_seen if len(view.fleet) > 1 else (),
    )
