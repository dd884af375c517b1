"""The override dialog's fields, the command line they equal, and undo."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from rapidctl.book import Control
from rapidctl.cli import build_parser
from rapidctl.console.change import Command
from rapidctl.console.form import (
    Form,
    FormError,
    command_line,
    describe,
    initial,
    parse_chunk,
    parse_ttl,
    release,
    undo,
)
from rapidctl.wire import Mode, PlanRequest, ReleasePartition, SetPartition, SetPolicy, UndoPartition
from support.snapshots import BOUNDS, override_info, partition

PARSER = build_parser()
SPLIT = Form(mode="split", decode_units=200, chunk="", ttl="5m", guard=True, reason="stalls")


def test_a_form_becomes_a_command_bound_to_the_epoch_it_was_decided_on() -> None:
    assert SPLIT.command(1841, "ana") == SetPartition(
        call=0, plan=PlanRequest(mode="split", decode_units=200), ttl_s=300, guard=True, reason="stalls", by="ana",
        if_epoch=1841,
    )  # fmt: skip


def test_units_go_with_split_mode_only() -> None:
    assert replace_form(mode="shared").plan() == PlanRequest(mode="shared")
    with pytest.raises(FormError, match="choose one of the legal splits"):
        replace_form(decode_units=None).plan()


def replace_form(**changes: object) -> Form:
    fields = {name: getattr(SPLIT, name) for name in SPLIT.__dataclass_fields__}
    return Form(**{**fields, **changes})


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("1h", 3600), ("7d", 604_800), ("90", 90), ("0", None), ("", None)]
)
def test_durations(text: str, seconds: float | None) -> None:
    assert parse_ttl(text) == seconds


def test_the_daemons_bounds_are_the_forms() -> None:
    bounds = replace(BOUNDS, ttl_max_s=3600.0, chunk_max=1024)
    within = replace_form(bounds=bounds, ttl="1h", chunk="1024").command(7, "ana")
    assert (within.ttl_s, within.plan.chunk) == (3600.0, 1024)
    with pytest.raises(FormError, match="at most 1h00m, or 0 for never"):
        replace_form(bounds=bounds, ttl="61m").command(7, "ana")
    with pytest.raises(FormError, match="use 1 to 1024 tokens"):
        replace_form(bounds=bounds, chunk="1025").command(7, "ana")


@pytest.mark.parametrize("text", ["soon", "-5s", "8d", "nan", "inf", "5 m 3"])
def test_bad_durations_say_what_would_do(text: str) -> None:
    with pytest.raises(FormError, match="expires after"):
        parse_ttl(text)


@pytest.mark.parametrize(
    ("text", "mode", "chunk"), [("", "hybrid", None), ("512", "shared", 512), ("all", "serial", "all")]
)
def test_chunks(text: str, mode: Mode, chunk: object) -> None:
    assert parse_chunk(text, mode) == chunk


@pytest.mark.parametrize(("text", "mode"), [("all", "hybrid"), ("0", "serial"), ("1.5", "serial"), ("x", "serial")])
def test_bad_chunks_say_what_would_do(text: str, mode: Mode) -> None:
    with pytest.raises(FormError, match="chunk"):
        parse_chunk(text, mode)


@given(
    mode=st.sampled_from(["serial", "hybrid", "shared", "split"]),
    chunk=st.none() | st.integers(1, 1_000_000),
    ttl=st.none() | st.integers(1, 604_800),
    guard=st.booleans(),
    reason=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=40).filter(
        lambda text: not text.startswith("-")
    ),
    epoch=st.integers(0, 10**6),
)
def test_the_command_line_shown_is_the_command_sent(mode, chunk, ttl, guard, reason, epoch) -> None:  # type: ignore[no-untyped-def]
    plan = PlanRequest(mode=mode, decode_units=200 if mode == "split" else None, chunk=chunk)
    command = SetPartition(call=0, plan=plan, ttl_s=ttl, guard=guard, reason=reason, if_epoch=epoch)
    program, *words = shlex.split(command_line(command))
    args = PARSER.parse_args(words)
    assert program == "rapidctl"
    assert (args.mode, args.decode_units, args.chunk) == (mode, plan.decode_units, chunk)
    assert (args.ttl or None, args.guard, args.reason or "", args.if_epoch) == (ttl, guard, reason, epoch)
    assert args.yes


@pytest.mark.parametrize(
    "command",
    [
        ReleasePartition(call=0, if_epoch=3),
        SetPolicy(call=0, policy="serial:all", if_epoch=3),
        UndoPartition(call=0, if_epoch=3),
    ],
    ids=["release", "policy", "undo"],
)
def test_other_commands_are_command_lines_too(command: Command) -> None:
    args = PARSER.parse_args(shlex.split(command_line(command))[1:])
    assert args.if_epoch == 3


def test_the_form_starts_from_the_plan_in_force() -> None:
    assert initial(partition(decode=160)).decode_units == 160
    odd = partition(decode=160)
    assert initial(replace(odd, plan=replace(odd.plan, decode_units=165))).decode_units == 160
    assert initial(partition(unsupported="no affinity")).mode == "shared"


def test_undo_brings_the_other_state_back() -> None:
    was = override_info(ttl_s=120.0)
    pinned, free = partition(epoch=9, override=was), partition(epoch=9)
    unseen = UndoPartition(call=0, by="ana", if_epoch=9)
    assert undo(free, None, "ana") == (unseen, "the last operator's change"), "the daemon knows what was not seen here"
    assert undo(free, Control("auto", None), "ana") is None
    assert undo(pinned, Control("auto", was), "ana") is None
    assert undo(pinned, Control("auto", None), "ana") == (release(pinned, "ana"), "release the override")
    again, title = undo(free, Control("auto", was), "ana") or pytest.fail("nothing to undo")
    assert again == SetPartition(
        call=0, plan=was.plan, ttl_s=120, guard=True, reason="decode stalls", by="ana", if_epoch=9
    )
    assert title == describe(was.plan) == "split decode 200"
    other, _ = undo(free, Control("shared", None), "ana") or pytest.fail("nothing to undo")
    assert other == SetPolicy(call=0, policy="shared", by="ana", if_epoch=9)
