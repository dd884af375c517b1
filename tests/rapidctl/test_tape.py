"""Tapes: what goes in comes out, any moment can be found, memory is bounded, and a cut file is read up to the cut."""

import math
import struct
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from rapidctl.player import SPEEDS, Player
from rapidctl.tape import BLOCK_S, MAGIC, Exchange, FileTape, Head, MemoryTape, Record, Recorder, TapeError
from rapidctl.wire import Event, Snapshot
from support import samples

steps = st.lists(st.tuples(st.floats(0.01, 4.0), st.booleans()), min_size=1, max_size=40)


def records(found: list[tuple[float, bool]]) -> list[Record]:
    """Snapshots, and events where true, so many seconds apart."""
    now, made = 100.0, []
    for number, (step, is_event) in enumerate(found):
        now += step
        item: Snapshot | Event = replace(samples.SNAPSHOT, seq=number)
        if is_event:
            item = replace(samples.EVENT, seq=number, level="info", kind="override" if number % 2 else "decision")
        made.append(Record(now, item))
    return made


def in_memory(found: list[Record]) -> MemoryTape:
    tape = MemoryTape()
    for record in found:
        tape.add(record)
    return tape


@given(steps)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_and_memory_give_back_what_was_recorded(
    tmp_path_factory: pytest.TempPathFactory, found: list[tuple[float, bool]]
) -> None:
    made = records(found)
    path = tmp_path_factory.mktemp("tape") / "a.tape"
    with Recorder(path) as recorder:
        for record in made:
            recorder.add(record)
    assert recorder.snapshots == sum(isinstance(record.item, Snapshot) for record in made)
    tape = FileTape(path)
    assert list(tape) == list(in_memory(made)) == made
    assert (tape.start_s, tape.end_s, tape.cut) == (made[0].at_s, made[-1].at_s, False)
    tape.close()


@given(steps, st.floats(95.0, 200.0))
def test_the_snapshot_of_any_moment_is_the_newest_that_had_come(found: list[tuple[float, bool]], at_s: float) -> None:
    made = records(found)
    come = [(record.at_s, record.item) for record in made if isinstance(record.item, Snapshot) and record.at_s <= at_s]
    assert in_memory(made).snapshot_at(at_s) == (come[-1] if come else None)


@given(steps)
def test_stepping_visits_every_snapshot_in_both_directions(found: list[tuple[float, bool]]) -> None:
    made = records(found)
    frames = [record.at_s for record in made if isinstance(record.item, Snapshot)]
    tape, visited, back = in_memory(made), [], []
    at: float | None = 0.0
    while at is not None and (at := tape.frame_beside(at, 1)) is not None:
        visited.append(at)
    at = 1e9
    while at is not None and (at := tape.frame_beside(at, -1)) is not None:
        back.append(at)
    assert visited == back[::-1] == frames


def test_memory_keeps_no_more_than_it_should_and_numbers_stay_right_when_the_oldest_goes() -> None:
    tape = MemoryTape(keep_s=60.0)
    for tick in range(1200):
        tape.add(Record(tick / 4, replace(samples.SNAPSHOT, seq=tick)))
        if tick == 400:
            assert tape.snapshot_at(50.0) == (50.0, replace(samples.SNAPSHOT, seq=200))
    assert tape.end_s is not None
    assert tape.start_s is not None
    assert 60.0 <= tape.end_s - tape.start_s <= 60.0 + 2 * BLOCK_S
    assert tape.snapshot_at(299.0) == (299.0, replace(samples.SNAPSHOT, seq=1196))
    assert tape.snapshot_at(100.0) is None
    assert tape.held_bytes < 60 * 4 * 1000


def test_only_events_that_matter_are_marked() -> None:
    tape = MemoryTape()
    for at, event in enumerate(
        [
            replace(samples.EVENT, kind="decision", level="info"),
            replace(samples.EVENT, kind="override", level="info"),
            replace(samples.EVENT, kind="warning", level="warn"),
            replace(samples.EVENT, kind="ttl", level="info"),
            replace(samples.EVENT, kind="engine_ready", level="info"),
        ]
    ):
        tape.add(Record(float(at), event))
    assert [(mark.at_s, mark.kind) for mark in tape.marks()] == [
        (1.0, "operator"), (2.0, "problem"), (3.0, "guard"), (4.0, "recovery"),
    ]  # fmt: skip


# --- files that are not as they should be ---------------------------------------------------------------------------


def recorded(path: Path, ticks: int = 200) -> bytes:
    with Recorder(path) as recorder:
        for tick in range(ticks):
            recorder.add(Record(tick / 4, replace(samples.SNAPSHOT, seq=tick)))
    return path.read_bytes()


@pytest.mark.parametrize("share", [0.99, 0.5, 0.3])
def test_a_recording_that_was_cut_off_is_read_up_to_the_cut(tmp_path: Path, share: float) -> None:
    whole = recorded(tmp_path / "whole")
    (tmp_path / "cut").write_bytes(whole[: int(len(whole) * share)])
    tape = FileTape(tmp_path / "cut")
    kept = [record.item.seq for record in tape if not isinstance(record.item, Exchange)]
    assert tape.cut
    assert kept == list(range(len(kept)))
    assert 0 < len(kept) < 200
    tape.close()


def test_a_recording_is_found_block_by_block(tmp_path: Path) -> None:
    recorded(tmp_path / "a")
    tape = FileTape(tmp_path / "a")
    assert tape.snapshot_at(20.1) == (20.0, replace(samples.SNAPSHOT, seq=80))
    assert tape.snapshot_at(20.1) == (20.0, replace(samples.SNAPSHOT, seq=80))
    assert tape.snapshot_at(-1.0) is None
    tape.close()


@pytest.mark.parametrize("content", [b"", b"something else", b"rapidctl tape 1\n\x05\0\0\0\0\0\0\0hello"])
def test_what_is_no_recording_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(TapeError, match="cannot be read as a recording"):
        FileTape(tmp_path / "a")
    with pytest.raises(TapeError, match="cannot be read as a recording"):
        FileTape(tmp_path / "absent")


def test_a_damaged_block_is_named(tmp_path: Path) -> None:
    whole = bytearray(recorded(tmp_path / "a"))
    whole[-40:] = bytes(40)
    (tmp_path / "a").write_bytes(bytes(whole))
    tape = FileTape(tmp_path / "a")
    with pytest.raises(TapeError, match="damaged at byte"):
        list(tape)
    tape.close()


@pytest.mark.parametrize("at_s", [math.nan, math.inf, -1.0, 1e300])
def test_a_recording_whose_clock_makes_no_sense_is_none(tmp_path: Path, at_s: float) -> None:
    """It was opened, and the console ended in a traceback over the length of it."""
    with Recorder(tmp_path / "a") as recorder:
        recorder.add(Record(at_s, samples.SNAPSHOT))
    with pytest.raises(TapeError, match="cannot be read as a recording"):
        FileTape(tmp_path / "a")
    packed = zlib.compress(msgspec.msgpack.encode([(at_s, b"")]))
    head = msgspec.msgpack.encode(Head(0.0, 0.0, [], []))
    (tmp_path / "b").write_bytes(MAGIC + struct.pack("<II", len(head), len(packed)) + head + packed)
    tape = FileTape(tmp_path / "b")
    with pytest.raises(TapeError, match="damaged at byte"):
        list(tape)
    tape.close()


def test_a_file_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(TapeError, match="exists already"):
        Recorder(tmp_path / "a")
    with pytest.raises(TapeError, match="cannot be written"):
        Recorder(tmp_path / "no" / "folder")
    assert (tmp_path / "a").read_text() == "mine"


# --- the player -----------------------------------------------------------------------------------------------------


def playing(ticks: int = 100) -> Player:
    return Player(
        in_memory([Record(tick / 4, replace(samples.SNAPSHOT, seq=tick)) for tick in range(ticks)]), 0.0, 50.0
    )


def test_it_plays_at_its_speed_and_stops_at_the_end() -> None:
    player = playing()
    player.toggle()
    player.tick(52.0)
    assert player.position_s == 2.0
    player.faster(1)
    player.tick(53.0)
    assert player.position_s == 4.0
    player.tick(500.0)
    assert (player.position_s, player.playing) == (24.75, False)
    player.toggle()
    assert (player.position_s, player.playing) == (0.0, True)


def test_standing_still_time_passes_without_it() -> None:
    player = playing()
    player.seek(10.0)
    player.tick(80.0)
    player.toggle()
    player.tick(81.0)
    assert player.position_s == 11.0


@given(st.lists(st.sampled_from([-1, 1]), max_size=30))
def test_speeds_have_ends(presses: list[int]) -> None:
    player = playing(2)
    for press in presses:
        player.faster(1 if press > 0 else -1)
        assert player.speed in SPEEDS


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=10))
def test_nothing_leaves_the_tape(targets: list[float]) -> None:
    player = playing()
    for target in targets:
        player.seek(target)
        assert 0.0 <= player.position_s <= 24.75
        assert math.isfinite(player.position_s)


def test_jumps_go_from_event_to_event() -> None:
    tape = MemoryTape()
    for tick in range(40):
        item: Snapshot | Event = replace(samples.SNAPSHOT, seq=tick)
        tape.add(Record(tick / 4, replace(samples.EVENT, kind="override") if tick in (10, 20) else item))
    player = Player(tape, 0.0, now=0.0)
    assert [player.jump(1), player.position_s] == [True, 2.5]
    assert [player.jump(1), player.position_s] == [True, 5.0]
    assert [player.jump(1), player.position_s] == [False, 5.0]
    assert [player.jump(-1), player.position_s] == [True, 2.5]
    assert player.jump(-1) is False


def test_an_empty_tape_has_nothing_to_show() -> None:
    player = Player(MemoryTape(), 0.0, now=0.0)
    player.step(1)
    player.tick(1.0)
    assert player.tape.snapshot_at(1.0) is None
    assert player.jump(1) is False
