"""What daemons repeat of their clients, and what is typed here, is shown as text and obeyed by nobody."""

from pathlib import Path

import pytest

from rapidctl.console.app import Console
from rapidctl.errors import Refused
from rapidctl.wire import Failed
from support.console import Clock, Desk, ScriptedSource, host_of, wall
from support.hostile import HOSTILE, controls, hostile
from support.snapshots import event, snapshot

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
