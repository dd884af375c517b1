"""Time: the last half hour and recordings, looked at through the same screens that show what is live."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from rapidctl.console.app import Console
from rapidctl.console.host import Host
from rapidctl.console.screens.override import Override
from rapidctl.console.travel import moment
from rapidctl.console.widgets.timebar import timebar
from rapidctl.replay import ReplaySource
from rapidctl.tape import FileTape, Record, Recorder
from rapidctl.wire import Snapshot
from support.console import Clock, Desk, desk, view, wall
from support.hostile import full_disk
from support.run import streamed
from support.snapshots import ENDPOINT, EPOCH_UNIX_S, event, moved, partition, snapshot


async def live_minute(at: Desk) -> None:
    """A minute in which an operator changed something half way, each second as it happens."""
    for tick in range(231, 291):
        at.clock.now += 0.25
        at.source.feed(moved(snapshot(tick), partition(epoch=1841 + (tick >= 261))))
        if tick == 261:
            changed = event(1, "override", "ana: split 160", epoch=1842)
            at.source.put(replace(changed, at_unix_s=EPOCH_UNIX_S + tick / 4))
        at.app.tick()
    await at.pilot.pause()


async def test_frames_and_events_of_the_past_are_shown_as_they_were() -> None:
    async with desk() as at:
        await live_minute(at)
        assert "epoch 1842" in at.text
        await at.press("left_curly_bracket")
        assert "FROZEN" in at.text
        assert "epoch 1842" in at.text
        await at.press("left_square_bracket")
        assert "epoch 1841" in at.text
        assert "ana: split 160" not in at.app.view().log[-1].text
        await at.press("right_square_bracket", "right_square_bracket")
        assert "epoch 1842" in at.text
        await at.press("right_curly_bracket")
        assert "no event there" in [note.message for note in at.app._notifications]
        await at.press("L")
        assert "● LIVE" in at.text


async def test_the_past_plays_at_a_speed_of_choice() -> None:
    async with desk() as at:
        await live_minute(at)
        await at.press("p", "T", *"1m", "enter")
        start = at.app.view().now_s
        assert at.clock.now - start == pytest.approx(60.0, abs=1.0)
        await at.press("greater_than_sign", "space")
        await at.later(5)
        assert "▶ PAST" in at.text
        assert "×2" in at.text
        assert at.app.view().now_s == pytest.approx(start + 10.0)
        await at.press("space")
        assert "‖ FROZEN" in at.text


async def test_events_of_before_are_in_the_log_and_not_on_the_tape() -> None:
    """All were once put at the moment when the console came, and the tape's times went back."""
    async with desk(live=False) as at:
        at.source.put(event(0, "override", "long ago"))
        at.source.feed(*(snapshot(tick) for tick in range(100, 140)))
        await at.settle()
        at.source.put(event(1, "override", "also long ago"))
        at.source.put(replace(event(2, "override", "now"), at_unix_s=EPOCH_UNIX_S + 35))
        await at.settle()
        tape = at.app.host.tape
        assert len(tape.marks()) == 1
        times = [record.at_s for record in tape]
        assert times == sorted(times)
        assert [entry.text for entry in at.app.book.log if entry.kind == "override"] == [
            "long ago", "also long ago", "now",
        ]  # fmt: skip


async def test_nothing_is_controlled_from_the_past_and_taping_goes_on() -> None:
    async with desk(control=True) as at:
        await live_minute(at)
        await at.press("left_square_bracket", "o")
        assert not isinstance(at.app.screen, Override)
        assert "this is the past: L comes back to now" in [note.message for note in at.app._notifications]
        at.clock.now += 1
        await at.show(moved(snapshot(300), partition(epoch=1999)))
        assert "epoch 1999" not in at.text
        await at.press("L")
        assert "epoch 1999" in at.text


async def test_a_daemon_that_dies_while_one_looks_back_is_said() -> None:
    async with desk() as at:
        await live_minute(at)
        await at.press("p")
        await at.later(7)
        assert "◌ STALE now" in at.text
        assert "FROZEN" in at.text


async def test_recording_from_the_console_can_be_replayed(tmp_path: Path) -> None:
    path = tmp_path / "a.tape"
    async with desk() as at:
        await at.press("R")
        at.app.screen.query_one("#asked").value = str(path)  # type: ignore[attr-defined]
        await at.press("enter")
        assert "REC a.tape" in at.text
        await live_minute(at)
        await at.press("R")
        assert "REC" not in at.text
    tape = FileTape(path)
    assert [record.item.seq for record in tape if isinstance(record.item, Snapshot)] == list(range(231, 291))
    assert [mark.kind for mark in tape.marks()] == ["operator"]
    tape.close()


@pytest.mark.parametrize("with_text", [False, True])
async def test_prompts_are_recorded_only_when_asked_and_come_again_as_they_came(
    tmp_path: Path, with_text: bool
) -> None:
    path = tmp_path / "a.tape"
    async with desk() as at:
        at.app.host.with_text = with_text
        await at.press("R")
        assert ("prompts sent from here" in at.text) is with_text
        at.app.screen.query_one("#asked").value = str(path)  # type: ignore[attr-defined]
        await at.press("enter")
        assert "REC " + ("+text " if with_text else "") + "a.tape" in at.text
        await live_minute(at)
        await at.press("4", *"why", "enter")
        sent_s = at.clock.now
        for number, found in enumerate(streamed(at.source.generated[-1], [11, 12])):
            at.clock.now += 1
            at.source.stream(found.id, found)
            await at.show(snapshot(300 + number))
        await at.press("ctrl+q")
    tape = FileTape(path)
    assert [type(record.item).__name__ for record in tape].count("Exchange") == with_text
    tape.close()
    assert path.stat().st_mode & 0o777 == 0o600
    async with replaying(path) as at:
        await at.settle()
        await at.press("space", "4")
        for passed_s, words in ((-1, ""), (1, "11"), (2, "11 12"), (3, "finished")):
            at.app.host.hold().seek(sent_s + passed_s)
            await at.settle()
            assert (words in at.text) is (with_text or not words)
            assert ("why" in at.text) is (with_text and passed_s > 0)


async def test_a_file_that_exists_is_not_recorded_over(tmp_path: Path) -> None:
    (tmp_path / "a.tape").write_text("mine")
    async with desk() as at:
        await at.press("R")
        at.app.screen.query_one("#asked").value = str(tmp_path / "a.tape")  # type: ignore[attr-defined]
        await at.press("enter")
        assert at.app.host.recorder is None
        assert "exists already" in next(iter(at.app._notifications)).message


async def test_a_recording_that_a_full_disk_ends_ends_no_console(monkeypatch: pytest.MonkeyPatch) -> None:
    """`R` to end it, and `q` while it ran, ended in a traceback."""
    monkeypatch.setattr("rapidctl.tape.new_file", full_disk)
    async with desk() as at:
        await at.press("R", "enter")
        await at.show(snapshot(240))
        await at.press("R")
        assert at.app.host.recorder is None
        assert "No space left on device" in list(at.app._notifications)[-1].message
        await at.press("R", "enter")
        await at.show(snapshot(241))
        await at.press("q")
    assert at.app.problem is not None
    assert "No space left on device" in at.app.problem.message


# --- recordings -----------------------------------------------------------------------------------------------------


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Two minutes; the epoch moves in the middle and the daemon falls silent for ten seconds near the end."""
    path = tmp_path / "two-minutes.tape"
    with Recorder(path) as recorder:
        for tick in range(480):
            if not 400 <= tick < 440:
                recorder.add(Record(tick / 4, moved(snapshot(tick), partition(epoch=1841 + (tick >= 240)))))
            if tick == 240:
                recorder.add(Record(tick / 4, event(1, "override", "ana: split 160", epoch=1842)))
    return path


@asynccontextmanager
async def replaying(path: Path) -> AsyncIterator[Desk]:
    """A console on a recording."""
    clock = Clock()
    source = ReplaySource(path)
    host = Host(source, str(path), clock=clock, wall=wall, kind="replay", tape=source.tape)
    app = Console([host], clock=clock, wall=wall)
    async with app.run_test(size=(120, 36)) as pilot:
        yield Desk(app, source, clock, pilot)  # type: ignore[arg-type]


async def test_a_recording_is_seen_through_the_same_screens(recording: Path) -> None:
    async with replaying(recording) as at:
        await at.settle()
        await at.settle()
        assert "▶ REPLAY 08:00:00" in at.text
        assert "a recording" in at.text
        await at.later(20)
        assert at.app.view().now_s == pytest.approx(20.0, abs=0.3)
        await at.press("right_curly_bracket")
        assert "epoch 1842" in at.text
        await at.press("p", "end", "L")
        assert at.app.view().now_s == 119.75
        await at.press("T", *"08:01:45", "enter")
        assert "nothing came then" in at.text, "it was silent for ten seconds"
        assert at.app.screen.has_class("-stale")
        await at.press("ctrl+o", "o", "x")
        assert "this is a recording: there is nothing to control" in [n.message for n in at.app._notifications]
        assert at.app.current_mode == "overview"
        for key in "2356":
            await at.press(key)
            assert "REPLAY" in at.text
        await at.press("y")
        assert at.app.clipboard == f"rapidctl replay {recording}", "the file's name went as a daemon's address"


async def test_a_damaged_recording_is_shown_up_to_the_damage_and_after_it(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`E` ended the console: the table can hold what comes before the damage."""
    whole = bytearray(recording.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 40] = bytes(40)
    recording.write_bytes(bytes(whole))
    async with replaying(recording) as at:
        await at.settle()
        await at.press("p")
        shown = []
        for second in range(0, 120, 2):
            player = at.app.host.player
            assert player is not None
            player.seek(float(second))
            await at.settle()
            shown.append("nothing came then" not in at.text)
        assert shown[0]
        assert shown[-1]
        assert not all(shown[10:45])
        assert any("damaged at byte" in entry.text for entry in at.app.book.log)
        monkeypatch.chdir(recording.parent)
        await at.press("E")
        assert "damaged at byte" in list(at.app._notifications)[-1].message


@pytest.mark.parametrize(
    ("text", "back"),
    [("5m", 300), ("-90s", 90), ("08:00:30", 30), ("07:59", 120), ("23:59:30", 8 * 3600 + 90), ("08:02", -60)],
)
def test_where_to_go_is_said_in_two_ways(text: str, back: float) -> None:
    assert moment(text, 1000.0, EPOCH_UNIX_S + 60) == pytest.approx(1000.0 - back)


@pytest.mark.parametrize("text", ["soon", "25:00", "8:61:00"])
def test_what_is_no_time_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="is n"):
        moment(text, 1000.0, EPOCH_UNIX_S)


async def test_the_timebar_shows_where_and_what_happened() -> None:
    async with desk() as at:
        await live_minute(at)
        await at.press("left_curly_bracket")
        drawn = timebar(at.app.view(), 80).plain
        assert drawn.startswith(" 08:00:00 ├")
        assert drawn.rstrip().endswith("08:01:12")
        assert drawn.count("●") == 1
        await at.press("L", "p")
        assert "o" in timebar(at.app.view(), 80).plain
    assert timebar(view(snapshot()), 80).plain == ""


async def test_what_is_seen_can_be_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with desk() as at:
        await live_minute(at)
        await at.press("E", "S")
        name = time.strftime("rapid-%Y%m%d-%H%M%S", time.localtime(EPOCH_UNIX_S))
        header, *rows = (tmp_path / f"{name}.csv").read_text().splitlines()
        assert header.startswith("at,at_mono_ns,")
        assert rows[-1].startswith("2027-01-15T08:01:12.500+00:00,")
        assert "split" in rows[-1]
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()
        await at.press("y")
        assert json.dumps(at.app.clipboard) == f'"rapidctl --endpoint {ENDPOINT} status"'
        await at.press("j", "y")
        assert at.app.clipboard == "r-8f001"
