"""The console: screens, keys and palette. It sends nothing that changes a daemon unless it is unlocked."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from rapidctl.console import theme
from rapidctl.console.control import Controls
from rapidctl.console.core import RATES_HZ
from rapidctl.console.host import Host
from rapidctl.console.screens.ask import Ask
from rapidctl.console.screens.compare import Compare
from rapidctl.console.screens.confirm import Confirm
from rapidctl.console.screens.device import Device
from rapidctl.console.screens.fleet import FleetScreen
from rapidctl.console.screens.help import Help, HelpText
from rapidctl.console.screens.log import Log
from rapidctl.console.screens.override import Override
from rapidctl.console.screens.overview import Overview
from rapidctl.console.screens.partition import Partition
from rapidctl.console.screens.prompt import Prompt
from rapidctl.console.screens.requests import Requests
from rapidctl.console.screens.table import TablePage
from rapidctl.console.travel import Travels
from rapidctl.console.view import WINDOWS_S
from rapidctl.console.widgets.choice import Choice
from rapidctl.console.widgets.lines import Lines
from rapidctl.console.widgets.rows import Rows
from rapidctl.export import write_csv
from rapidctl.out import printable
from rapidctl.settings import ConfigError, Settings
from rapidctl.tape import TapeError
from rapidctl.wire import PlanRequest

HIDDEN_VERBS = ("app.quit_anywhere",)


class Console(Controls, Travels):
    """`run_console` runs it."""

    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {
        "overview": Overview,
        "requests": Requests,
        "partition": Partition,
        "prompt": Prompt,
        "log": Log,
        "device": Device,
        "hosts": FleetScreen,
    }
    DEFAULT_MODE = "overview"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "all keys, and what the figures mean", id="app.help"),
        Binding("1,escape", "go('overview')", "overview", id="app.overview"),
        Binding("2", "go('requests')", "every live request, with details", id="app.requests"),
        Binding("3", "go('partition')", "units over time, and what other splits would do", id="app.partition"),
        Binding("4,n", "go('prompt')", "send a test prompt, or compare two modes", id="app.prompt"),
        Binding("5,l", "go('log')", "log of events", id="app.log"),
        Binding("6", "go('device')", "the device's sensors and processes", id="app.device"),
        Binding("7", "go('hosts')", "all daemons of the settings", id="app.hosts"),
        Binding("N", "next_host", "the next daemon", id="app.next_host"),
        Binding("w", "window", "latency window: 10 s, 60 s, 5 min", id="app.window"),
        Binding("plus", "rate(1)", "draw more often, up to 10 a second", id="app.faster"),
        Binding("minus", "rate(-1)", "draw less often", id="app.slower"),
        Binding("M", "maximise", "the focused panel alone, or all again", id="app.maximise"),
        Binding("y", "copy", "copy the selected request's id, or the screen's command line", id="app.copy"),
        Binding("S", "picture", "write the screen to an SVG file", id="app.picture"),
        Binding("E", "export", "write the kept history to a CSV file", id="app.export"),
        Binding("t", "theme", "dark, light, high contrast, 16 colours", id="app.theme"),
        Binding("q", "quit", "quit", id="app.quit"),
        Binding("ctrl+q", "quit", "quit from anywhere", id="app.quit_anywhere", priority=True),
    ]

    # --- screens ----------------------------------------------------------------------------------------------

    def action_go(self, mode: str) -> None:
        """To a screen."""
        self.go(mode)

    def action_help(self) -> None:
        """Every key of every screen, as it is bound now."""
        self.push_screen(Help(key_groups(), self.settings.keys))

    def action_next_host(self) -> None:
        """The next daemon, whatever became of this one."""
        self._show_host((self.current + 1) % len(self.hosts))

    def on_fleet_screen_chosen(self, message: FleetScreen.Chosen) -> None:
        """A line of the fleet table."""
        self._show_host(message.index)
        self.go("overview")

    def _show_host(self, index: int) -> None:
        if len(self.hosts) == 1:
            self.notify("there is only this daemon: rapidctl context add NAME ENDPOINT names more")
        self.operator.lock()  # rights are for what one looks at
        self.current = index
        self.draw(force=True)

    # --- how it is shown ----------------------------------------------------------------------------------------

    def action_window(self) -> None:
        """The next latency window."""
        self.window = (self.window + 1) % len(WINDOWS_S)
        self.draw(force=True)

    def action_rate(self, by: int) -> None:
        """Draw more or less often."""
        nearest = min(range(len(RATES_HZ)), key=lambda index: abs(RATES_HZ[index] - self.rate_hz))
        rate_hz = RATES_HZ[min(len(RATES_HZ) - 1, max(0, nearest + by))]
        self.set_rate(rate_hz)
        self.notify(f"at most {rate_hz:g} frames a second")

    def action_theme(self) -> None:
        """The next theme."""
        names = [known.name for known in theme.THEMES.values()]
        here = names.index(self.theme) if self.theme in names else -1
        self.theme = names[(here + 1) % len(names)]

    def action_maximise(self) -> None:
        """The focused panel alone, or all again."""
        if self.screen.maximized is not None:
            self.screen.minimize()
        elif self.screen.focused is not None:
            self.screen.maximize(self.screen.focused)
        self.draw_soon()

    # --- taking something away ----------------------------------------------------------------------------------

    def action_copy(self) -> None:
        """To the clipboard of the terminal."""
        for rows in self.screen.query(Rows):
            if rows.selected is not None:
                return self._copy(rows.selected)
        return self._copy(shlex.join(["rapidctl", *self._command()]))

    def _command(self) -> list[str]:
        """Words of the command line that shows what this screen does."""
        endpoint = self.host.connection.endpoint
        if self.host.kind == "replay":
            return ["replay", endpoint]
        if self.host.kind == "demo":
            return ["top", "--demo"]
        if self.current_mode == "hosts":
            return ["hosts"] if len(self.hosts) > 1 else ["--endpoint", endpoint, "hosts"]
        mode = {"overview": "status", "requests": "requests ls", "log": "events", "device": "stats device"}
        return ["--endpoint", endpoint, *mode.get(self.current_mode, "partition show").split()]

    def _copy(self, text: str) -> None:
        text = printable(text)  # it may be pasted into a shell
        self.copy_to_clipboard(text)
        self.notify(f"copied: {text}")

    def action_picture(self) -> None:
        """An SVG of the screen, in the folder the console was started in."""
        self._write("svg", lambda path: path.write_text(self.export_screenshot(title="rapidctl")))

    def action_export(self) -> None:
        """The charts' history as CSV."""

        def write(path: Path) -> None:
            with path.open("x", newline="") as file:
                write_csv(self.host.tape, file)

        self._write("csv", write)

    def _write(self, suffix: str, write: Callable[[Path], object]) -> None:
        path = Path(time.strftime(f"rapid-%Y%m%d-%H%M%S.{suffix}", time.localtime(self._wall())))
        try:
            write(path)
        except OSError as error:
            self.notify(f"{path} cannot be written: {error.strerror}", severity="error")
        except TapeError as error:
            self.notify(f"{path} ends early: {error.message}", severity="error")
        else:
            self.notify(f"wrote {path}")

    # --- prompts ----------------------------------------------------------------------------------------------

    def on_prompt_asked(self, message: Prompt.Asked) -> None:
        """Send a test prompt; one at a time."""
        if not self.host.live:
            self.notify("prompts go to a live daemon: L comes back to now", severity="warning")
        else:
            self.host.prompts.send(message.text, message.settings, self.book.snapshot, self._clock())
            self.tick()

    def on_prompt_compare_asked(self, message: Prompt.CompareAsked) -> None:
        """The same prompt under two plans: choose them first."""
        if (partition := self.controlled()) is None:
            return

        def answered(plans: tuple[PlanRequest, PlanRequest] | None) -> None:
            if plans is not None:
                self.host.prompts.compare(message.text, message.settings, plans)
                self.tick()

        self.push_screen(Compare(partition), answered)

    def on_prompt_stopped(self) -> None:
        """Stop the stream; without one, go back."""
        if not self.host.prompts.stop():
            self.go("overview")

    def on_prompt_editor_asked(self, message: Prompt.EditorAsked) -> None:
        """Write the prompt in $EDITOR."""
        editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
        if not editor:
            self.notify("$EDITOR is not set", severity="warning")
            return
        with tempfile.NamedTemporaryFile("w+", suffix=".txt", prefix="rapidctl-") as file:
            file.write(message.text)
            file.flush()
            with self.suspend():
                done = subprocess.run([*shlex.split(editor), file.name], check=False)
            text = Path(file.name).read_text(errors="replace")
        if done.returncode == 0 and isinstance(self.screen, Prompt):
            self.screen.put_text(text.rstrip("\n"))

    # --- palette and end ----------------------------------------------------------------------------------------

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette offers the same verbs as the keys."""
        for owner in (Console, Controls, Travels):
            for binding in owner.__dict__["BINDINGS"]:
                assert isinstance(binding, Binding)
                if binding.id not in HIDDEN_VERBS:
                    yield SystemCommand(verb(binding), binding.description, lambda b=binding: self._run(b))

    async def _run(self, binding: Binding) -> None:
        await self.run_action(binding.action)

    async def action_quit(self) -> None:
        """Leave with code 0; an override stays in force."""
        self.exit(0)


def key_groups() -> list[tuple[str, list[BindingType]]]:
    """Every binding, by where it holds."""
    return [
        ("Everywhere", Console.__dict__["BINDINGS"]),
        ("Control", Controls.__dict__["BINDINGS"]),
        ("Time", Travels.__dict__["BINDINGS"]),
        ("Lists", Lines.BINDINGS),
        ("Requests, here and on the overview", TablePage.BINDINGS),
        ("Partition", Partition.BINDINGS),
        ("Log", Log.BINDINGS),
        ("Prompt: typing owns the letters", Prompt.BINDINGS),
        ("Hosts", FleetScreen.BINDINGS),
        ("Override", Override.BINDINGS),
        ("Help", [*Help.BINDINGS, *HelpText.BINDINGS]),
        ("Other dialogs", [*Compare.BINDINGS, *Confirm.BINDINGS, *Ask.BINDINGS, *Choice.BINDINGS]),
    ]


def check_keys(keys: Mapping[str, str]) -> None:
    """Raises `ConfigError` for an id that no binding has."""
    known = {binding.id for _, group in key_groups() for binding in group if isinstance(binding, Binding)}
    for name in keys:
        if name not in known:
            near = [found for found in known if found and found.rpartition(".")[2] == name.rpartition(".")[2]]
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(f"[keys]: there is no binding {name!r}", f"{hint}the console's help (?) lists their ids")


def verb(binding: Binding) -> str:
    """A binding's name in the palette, from its id: "part.override" is "Override"."""
    return (binding.id or "").rpartition(".")[2].replace("_", " ").capitalize()


def run_console(hosts: list[Host], settings: Settings, *, screen: str = "overview") -> int:
    """Show the daemons, whether or not they are there yet; returns the exit code.

    Raises `ConfigError` for keys of bindings that do not exist, `TapeError` where the end of a recording could not be
    written, and `RuntimeError` after a crash, which Textual has printed.
    """
    check_keys(settings.keys)
    app = Console(hosts, settings, first_screen=screen)
    code = app.run(mouse=settings.mouse)
    if app.problem is not None:
        raise app.problem
    if code is None:
        raise RuntimeError("the console ended by itself; what went wrong is printed above")
    return code
