"""A command's end: applied only when the daemon says so, unknown when it says nothing."""

import pytest
from msgspec.structs import replace

from rapidctl.console.change import UNKNOWN_AFTER_S, Change, placed
from rapidctl.errors import Refused, TimedOut
from rapidctl.source import Answer
from rapidctl.wire import ControlReply, PlanRequest, ReleasePartition, SetPartition
from support.snapshots import event, moved, partition, placement, snapshot

COMMAND = SetPartition(call=0, plan=PlanRequest(mode="shared"))


@pytest.fixture
def change() -> Change:
    return Change(7, COMMAND, "shared", now=100.0)


def accepted(epoch: int) -> Answer:
    return Answer(7, ControlReply(call=1, epoch=epoch, text="accepted"))


def test_accepted_is_not_applied(change: Change) -> None:
    change.answered(accepted(1842))
    assert (change.state, change.over) == ("pending", False)
    change.observed(moved(snapshot(), partition(epoch=1842)))
    assert change.state == "pending", "the lanes have not adopted it yet"


def test_applied_by_the_event_of_its_own_epoch(change: Change) -> None:
    change.answered(accepted(1842))
    seen = []
    for epoch in (1841, 1842):
        change.happened(event(epoch, "applied", epoch=epoch))
        seen.append((change.state, change.over))
    assert seen == [("pending", False), ("applied", True)]


def test_no_other_event_of_its_epoch_means_that_it_was_applied(change: Change) -> None:
    change.answered(accepted(1842))
    change.happened(event(2, "override", "ana: shared", epoch=1842))
    assert change.state == "pending"


def test_where_the_lanes_were_measured_then_is_told_and_nothing_where_nobody_measured(change: Change) -> None:
    change.answered(accepted(1842))
    change.happened(replace(event(2, "applied", epoch=1842), placement=placement(304, 160, overlap=4)))
    assert change.text == "applied as epoch 1842; measured: decode on 160, prefill on 148 units, overlap 4"
    asked = placement(304, 160)
    unmeasured = replace(asked, lanes=[replace(lane, measured=False) for lane in asked.lanes])
    assert placed(unmeasured) == placed(None) == ""


def test_the_event_may_overtake_the_answer(change: Change) -> None:
    change.happened(event(2, "applied", epoch=1842))
    assert not change.over
    change.answered(accepted(1842))
    assert change.state == "applied"


def test_a_release_moves_no_lane_so_a_snapshot_proves_it() -> None:
    change = Change(7, ReleasePartition(call=0), "release", now=100.0)
    change.observed(moved(snapshot(), partition(epoch=1842)))
    change.answered(accepted(1842))
    assert not change.over
    change.observed(moved(snapshot(), partition(epoch=1842)))
    assert change.state == "applied"


def test_refused_in_the_daemons_words(change: Change) -> None:
    change.answered(Answer(7, Refused("epoch_conflict", "the epoch is 1843, not 1841", "look again")))
    assert (change.state, change.text) == ("refused", "the epoch is 1843, not 1841 (look again)")


def test_a_refusal_without_a_hint_is_the_daemons_sentence_alone(change: Change) -> None:
    change.answered(Answer(7, Refused("not_permitted", "read-only")))
    assert change.text == "read-only"


def test_an_end_stays_whatever_time_passes(change: Change) -> None:
    change.answered(Answer(7, Refused("too_soon", "wait")))
    change.tick(100.0 + 2 * UNKNOWN_AFTER_S)
    assert (change.state, change.text) == ("refused", "wait")


def test_an_event_of_no_epoch_and_a_daemon_without_an_engine_prove_nothing() -> None:
    change = Change(7, ReleasePartition(call=0), "release", now=100.0)
    change.answered(accepted(1842))
    change.happened(event(2, "applied"))
    change.observed(replace(snapshot(), partition=None))
    assert change.state == "pending"


@pytest.mark.parametrize("acknowledged", [False, True])
def test_silence_ends_in_unknown_and_never_in_applied(change: Change, acknowledged: bool) -> None:
    if acknowledged:
        change.answered(accepted(1842))
    change.tick(100.0 + UNKNOWN_AFTER_S - 0.1)
    assert not change.over
    change.tick(100.0 + UNKNOWN_AFTER_S)
    assert change.state == "unknown"
    assert change.text.startswith("epoch 1842 was accepted but never" if acknowledged else "no answer: look")
    change.answered(accepted(1842))
    change.happened(event(2, "applied", epoch=1842))
    assert change.state == "unknown", "an end is an end"


def test_no_answer_in_time_is_unknown_because_the_daemon_may_have_acted(change: Change) -> None:
    change.answered(Answer(7, TimedOut("no answer within 3 s")))
    assert change.state == "unknown"
    assert "may or may not" in change.text


def test_answers_to_others_are_ignored(change: Change) -> None:
    change.answered(Answer(8, Refused("too_soon", "wait")))
    assert change.state == "sent"
