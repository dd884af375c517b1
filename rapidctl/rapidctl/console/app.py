"""The console: one source, one book, one timer. It sends nothing that changes the daemon unless it is unlocked.

The timer drains the source into the book and, when something changed, hands one frozen `View` to the screens.
Widgets never touch sockets; the source's thread never touches widgets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, ClassVar, Final

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from rapidctl.book import Book
from rapidctl.client import new_id
from rapidctl.console import form, theme
from rapidctl.console.operator import Operator
from rapidctl.console.run import Run
from rapidctl.console.screens.base import Shows
from rapidctl.console.screens.confirm import Confirm
from rapidctl.console.screens.help import Help
from rapidctl.console.screens.log import Log
from rapidctl.console.screens.override import Override
from rapidctl.console.screens.overview import Overview
from rapidctl.console.screens.prompt import MAX_TOKENS, Prompt
from rapidctl.console.view import WINDOWS_S, View
from rapidctl.console.widgets.lines import Lines
from rapidctl.source import Answer, Connection, LiveSource, Received, Source, Streamed
from rapidctl.wire import Cancel, ChatMessage, Event, Generate, Sampling

TICK_S: Final = 0.25
STREAM_TICK_S: Final = 1 / 12
"""While a prompt streams: text comes in readable pieces, not token by token."""


class Console(App[int]):
    """`run_console` runs it. ``clock`` is the monotonic clock, ``wall`` the unix one."""

    TITLE = "rapidctl"
    CSS_PATH = "console.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (70, "-normal"), (110, "-wide")]  # noqa: RUF012 - typed by Textual
    VERTICAL_BREAKPOINTS = [(0, "-low"), (20, "-mid"), (34, "-tall")]  # noqa: RUF012 - typed by Textual
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {"overview": Overview, "prompt": Prompt, "log": Log}
    DEFAULT_MODE = "overview"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "all keys, and what the figures mean", id="app.help"),
        Binding("1,escape", "overview", "overview", id="app.overview"),
        Binding("4,n", "prompt", "send a test prompt", id="app.prompt"),
        Binding("5,l", "log", "log of events", id="app.log"),
        Binding("w", "window", "latency window: 10 s, 60 s, 5 min", id="app.window"),
        Binding("p", "freeze", "freeze the view; recording goes on", id="app.freeze"),
        Binding("t", "theme", "dark or light", id="app.theme"),
        Binding("ctrl+o", "unlock", "unlock control for 5 min, or lock it", id="app.unlock"),
        Binding("o", "override", "override the partition (control)", id="part.override"),
        Binding("A", "release", "release the override (control)", id="part.release"),
        Binding("u", "undo", "bring the previous control state back (control)", id="part.undo"),
        Binding("q", "quit", "quit", id="app.quit"),
        Binding("ctrl+q", "quit", "quit from anywhere", id="app.quit_anywhere", priority=True),
    ]

    def __init__(
        self,
        source: Source,
        *,
        endpoint: str,
        control: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.book = Book()
        self.operator = Operator(source, clock, unlocked=control)
        self._source = source
        self._clock = clock
        self._wall = wall
        self._connection = Connection(endpoint, connected=False)
        self._window = 1
        self._run: Run | None = None
        self._frozen: View | None = None
        self._shown: tuple[object, ...] = ()
        self.register_theme(theme.DARK)
        self.register_theme(theme.LIGHT)
        self.theme = theme.DARK.name

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Our colours by meaning under any theme of Textual's."""
        return theme.DARK.variables

    def on_mount(self) -> None:
        """Start the source and the timers."""
        self._source.start()
        self._ticker = self.set_interval(TICK_S, self.tick)
        self._stream_ticker = self.set_interval(STREAM_TICK_S, self.tick, pause=True)

    def on_unmount(self) -> None:
        """End the source's thread."""
        self._source.close()

    # --- frames -----------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Take in what arrived and draw if anything changed."""
        for update in self._source.poll():
            self.operator.take(update)
            match update:
                case Received(snapshot, at_s):
                    self.book.add(snapshot, at_s)
                case Event():
                    self.book.add_event(update)
                case Answer():
                    for screen in self._shown_screens():
                        screen.answered(update)
                case Streamed():
                    if self._run is not None and self._run.request.id == update.id:
                        self._run.take(update)
                case Connection():
                    self._connected(update)
        self.operator.tick()
        self._set_pace()
        self._draw()

    def view(self) -> View:
        """What is true now."""
        now = self._clock()
        return View(
            book=self.book,
            snapshot=self.book.snapshot,
            connection=self._connection,
            now_s=now,
            age_s=self.book.age_s(now),
            stale=self.book.stale(now),
            paused=False,
            window_s=WINDOWS_S[self._window],
            unlocked_s=self.operator.left_s,
            change=self.operator.change,
            run=self._run,
        )

    def _shown_screens(self) -> list[Shows]:
        return [screen for screen in self.screen_stack if isinstance(screen, Shows) and screen.is_mounted]

    def _draw(self, *, force: bool = False) -> None:
        view = self._frozen_or(self.view())
        change, run = view.change, view.run
        shown = (
            None if view.paused else self.book.version,
            view.stale,
            int(view.now_s) if view.stale else 0,
            None if view.unlocked_s is None else int(view.unlocked_s),
            None if change is None else change.text,
            None if run is None else (run.state, run.tokens),
            view.connection,
        )
        if force or shown != self._shown:
            self._shown = shown
            for screen in self._shown_screens():
                screen.show(view)

    def _frozen_or(self, view: View) -> View:
        """While frozen: the values of then under the state of now."""
        if self._frozen is None:
            return view
        then = self._frozen
        return replace(view, snapshot=then.snapshot, now_s=then.now_s, paused=True)

    def _set_pace(self) -> None:
        if self._run is not None and not self._run.over:
            self._stream_ticker.resume()
        else:
            self._stream_ticker.pause()

    def _connected(self, connection: Connection) -> None:
        if connection.connected != self._connection.connected:
            text = "connected" if connection.connected else connection.problem or "the connection was lost"
            self.book.note(self._wall(), "info" if connection.connected else "warn", text)
        self._connection = connection

    # --- control ----------------------------------------------------------------------------------------------

    def _may_control(self) -> bool:
        """Whether a command may be sent now; says why not."""
        if not self.operator.unlocked:
            self.notify("read-only: ^o unlocks control for 5 minutes", severity="warning")
        elif self.book.stale(self._clock()) or self.book.snapshot is None or self.book.snapshot.partition is None:
            self.notify("no live daemon: control is off until snapshots come again", severity="error")
        else:
            return True
        return False

    def action_unlock(self) -> None:
        """Unlock for a while, or lock at once."""
        if self.operator.unlocked:
            self.operator.lock()
        else:
            self.operator.unlock()
        self._draw(force=True)

    def action_override(self) -> None:
        """Open the dialog on the partition as it is now."""
        if self._may_control() and self.book.snapshot is not None and self.book.snapshot.partition is not None:
            self.push_screen(Override(self.operator, self.book.snapshot.partition), lambda _: self._draw(force=True))
            self.call_after_refresh(self._draw, force=True)

    def action_release(self) -> None:
        """End the override."""
        snapshot = self.book.snapshot
        if self._may_control() and snapshot is not None and snapshot.partition is not None:
            if snapshot.partition.override is None:
                self.notify("there is no override to release")
            else:
                self.operator.send(form.release(snapshot.partition, self.operator.by), "release")

    def action_undo(self) -> None:
        """Offer to bring the previous control state back as a new change."""
        snapshot = self.book.snapshot
        if not self._may_control() or snapshot is None or snapshot.partition is None:
            return
        found = form.undo(snapshot.partition, self.book.previous, self.operator.by)
        if found is None:
            self.notify("nothing to undo: no other control state was seen since this console started")
            return
        command, title = found

        def answered(yes: bool | None) -> None:
            if yes:
                self.operator.send(command, title)

        self.push_screen(Confirm(f"UNDO: {title}?", f"$ {form.command_line(command)}"), answered)

    def on_overview_cancel_asked(self, message: Overview.CancelAsked) -> None:
        """Cancel a request of anybody's, after a yes."""
        if not self._may_control():
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._source.ask(Cancel(call=0, id=message.request_id), control=True)

        self.push_screen(
            Confirm(f"CANCEL {message.request_id}?", f"$ rapidctl requests cancel {message.request_id}"), answered
        )

    # --- prompts ----------------------------------------------------------------------------------------------

    def on_prompt_asked(self, message: Prompt.Asked) -> None:
        """Send a test prompt; one at a time."""
        if self._run is not None and not self._run.over:
            self._source.abandon(self._run.request.id)
        request = Generate(
            id=new_id(),
            messages=[ChatMessage("user", message.text)],
            sampling=Sampling(max_tokens=MAX_TOKENS),
        )
        partition = None if self.book.snapshot is None else self.book.snapshot.partition
        self._run = Run(request, partition, self._clock())
        self._source.generate(request)
        self.tick()

    def on_prompt_stopped(self) -> None:
        """Stop the stream; without one, go back."""
        if self._run is not None and not self._run.over:
            self._source.abandon(self._run.request.id)
        else:
            self.action_overview()

    # --- screens ----------------------------------------------------------------------------------------------

    def _go(self, mode: str) -> None:
        if self.current_mode != mode:
            self.switch_mode(mode)
        self.call_after_refresh(self._draw, force=True)

    def action_overview(self) -> None:
        """To the overview."""
        self._go("overview")

    def action_prompt(self) -> None:
        """To the prompt."""
        self._go("prompt")

    def action_log(self) -> None:
        """To the log."""
        self._go("log")

    def action_help(self) -> None:
        """Every key of every screen."""
        groups = [
            ("Everywhere", self.BINDINGS),
            ("Overview", Overview.BINDINGS),
            ("Lists", Lines.BINDINGS),
            ("Prompt: typing owns the letters", Prompt.BINDINGS),
            ("Override", Override.BINDINGS),
        ]
        self.push_screen(Help(groups))

    def action_window(self) -> None:
        """The next latency window."""
        self._window = (self._window + 1) % len(WINDOWS_S)
        self._draw(force=True)

    def action_freeze(self) -> None:
        """Hold the view, or let it go."""
        self._frozen = self.view() if self._frozen is None else None
        self._draw(force=True)

    def action_theme(self) -> None:
        """Dark or light."""
        self.theme = theme.LIGHT.name if self.theme == theme.DARK.name else theme.DARK.name

    async def action_quit(self) -> None:
        """Leave with code 0; an override stays in force."""
        self.exit(0)

    def on_screen_resume(self) -> None:
        """A screen came to the front: it has no frame yet."""
        self.call_after_refresh(self._draw, force=True)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette offers the same verbs as the keys."""
        for binding in self.BINDINGS:
            assert isinstance(binding, Binding)
            if binding.id != "app.quit_anywhere":
                name = binding.action.replace("_", " ")
                yield SystemCommand(name.capitalize(), binding.description, lambda b=binding: self._run_binding(b))

    async def _run_binding(self, binding: Binding) -> None:
        await self.run_action(binding.action)


def run_console(endpoint: str, *, control: bool = False, mouse: bool = True) -> int:
    """Show the daemon at ``endpoint``, whether or not it is there yet; returns the exit code.

    Raises `RuntimeError` after a crash, which Textual has printed.
    """
    app = Console(LiveSource(endpoint), endpoint=endpoint, control=control)
    code = app.run(mouse=mouse)
    if code is None:
        raise RuntimeError("the console ended by itself; what went wrong is printed above")
    return code
