"""The console on the real daemon, in a pseudo-terminal: look, unlock, pin a plan, and see the engine die and return."""

import sys

from support.daemon import Daemon, rapidctl, rapidctl_json
from support.terminal import Terminal

UNLOCK, OVERRIDE, APPLY, ESCAPE, QUIT = b"\x0f", b"o", b"y", b"\x1b", b"q"
TAB, RIGHT = b"\t", b"\x1b[C"


def test_an_operator_pins_a_plan_and_watches_the_engine_die_and_return(daemon: Daemon) -> None:
    with Terminal(sys.executable, "-P", "-m", "rapidctl.cli", "--endpoint", daemon.endpoint, "top") as terminal:
        terminal.until(lambda text: "● LIVE" in text and "stories260K" in text and "read-only" in text)

        terminal.press(UNLOCK)
        terminal.until(lambda text: "CONTROL" in text and "read-only" not in text)
        terminal.press(OVERRIDE)
        terminal.until(lambda text: "Apply (y)" in text and "dry run: no profile" in text)
        terminal.press(TAB + TAB)  # from Cancel over Apply around to the mode
        terminal.press(RIGHT)
        terminal.until(lambda text: "(•) shared" in text and "--mode shared" in text)
        terminal.press(APPLY)
        terminal.until(lambda text: "✓ APPLIED" in text)
        shown = rapidctl_json(daemon, "partition", "show")
        assert (shown["mode"], shown["source"]) == ("shared", "override")
        assert shown["override"]["by"]
        terminal.press(ESCAPE)
        terminal.until(lambda text: "Apply (y)" not in text and "OVERRIDE" in text)
        assert rapidctl(daemon, "partition", "auto").returncode == 0

        with daemon.without_engine():
            terminal.until(lambda text: "! ENGINE LOST" in text)
        terminal.until(lambda text: "● LIVE" in text and "ENGINE LOST" not in text)
        daemon.check_serves()

        terminal.press(QUIT)
        assert terminal.end() == 0
        assert terminal.restored
