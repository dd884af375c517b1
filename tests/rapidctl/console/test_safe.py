"""What daemons repeat of their clients, and what is typed here, is shown as text and obeyed by nobody.

And no number ends the console.
"""

import math
from pathlib import Path

import pytest

from rapidctl.console.app import Console
from rapidctl.errors import Refused
from rapidctl.wire import Failed
from support.console import LIVE_TICKS, Clock, Desk, ScriptedSource, desk, host_of, wall
from support.hostile import HOSTILE, absurd, controls, hostile
from support.snapshots import event, override_info, partition, snapshot

KEYS = ("j", "j x", "2 j", "2 j y", "3", "n h i enter", "n h i ctrl+t", "5", "6", "7", "o", "T [ / x ] enter")


@pytest.mark.parametrize("size", [(120, 36), (60, 20)], ids=str)
@pytest.mark.parametrize("keys", KEYS)
async def test_no_text_drives_the_terminal_or_ends_the_console(
    keys: str, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Titles of boxes, the override dialog and the partition screen wrote a client's escape sequences to the terminal.
    The model's name was read as markup, and so was a notice: ``[/x]`` in one of them ended the console."""
    monkeypatch.chdir(tmp_path)
    clock = Clock()
    source = ScriptedSource(clock)
    app = Console([host_of(source, control=True)], clock=clock, wall=wall)
    async with app.run_test(size=size, notifications=True) as pilot:
        at = Desk(app, source, clock, pilot)
        source.put(hostile(event(1, "override", "ana: split 160")))
        await at.show(*(hostile(snapshot(tick)) for tick in range(5)))
        for key in keys.split():
            await at.press(key)
            assert controls(at.text) == [], key
        for ticket, *_ in source.asked:
            source.refuse(ticket, Refused("epoch_conflict", HOSTILE, HOSTILE))
        for sent in source.generated:
            source.stream(sent.id, Failed(code="queue_full", message=HOSTILE, hint=HOSTILE, id=sent.id))
        await at.settle()
        assert controls(at.text) == []
        assert controls(app.clipboard) == []


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -1e300, 0.0])
async def test_a_number_without_sense_is_shown_as_unknown_or_as_it_is(number: float) -> None:
    """Infinite seconds of anything, a load that is no number or a power limit of 0 W ended the console."""
    async with desk(control=True) as at:
        at.source.put(event(1, "override", "ana: split 160"))
        for tick, key in enumerate(("1", "2", "3", "4", "escape", "5", "6", "7", "1", "o"), LIVE_TICKS):
            found = snapshot(tick, info=partition(override=override_info()))
            await at.show(absurd(found, number))
            await at.press(key)
            at.clock.now += 0.25
