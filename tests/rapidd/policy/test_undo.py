"""Undo: what the last operator's change replaced comes back, and nothing that ended by itself."""

from rapidd.ipc import ControlDone, SetPolicy, SloReport, Undo
from rapidd.policy.override import GUARD_NS, Control
from support.control import SECOND, TABLE, mode, release, split


def undo(control: Control, now_s: int = 0, if_epoch: int | None = None) -> ControlDone:
    return control.undo(Undo(9, "bo", if_epoch), now_s * SECOND)


def test_undo_brings_back_what_the_last_change_replaced_and_undone_again_it_is_redone() -> None:
    control = Control("auto", TABLE)
    assert undo(control).code == "not_found"
    split(control, units=1)
    split(control, units=3)
    assert "instead of ana's split 1/3" in control.notices[-1].text
    assert undo(control).epoch == 3
    assert mode(control) == "split 1/3"
    undo(control)
    assert mode(control) == "split 3/1"
    release(control)
    undo(control)
    assert mode(control) == "split 3/1"
    control.set_policy(SetPolicy(3, "shared", "ana", None))
    undo(control)
    assert (control.policy, mode(control)) == ("auto", "split 3/1")


def test_undo_says_what_it_brought_back_and_an_override_without_an_end_has_none_again() -> None:
    control = Control("hybrid:32", TABLE)
    control.set_policy(SetPolicy(3, "shared", "ana", None))
    undo(control)
    assert (control.notices[-1].kind, control.notices[-1].text) == ("release", "bo: back to policy hybrid:32")
    assert mode(control) == "hybrid:32"
    split(control, ttl_s=None)
    release(control)
    undo(control)
    assert control.notices[-1].text == "bo: back to policy hybrid:32 and ana's split 2/2"
    assert control.notices[-1].kind == "override"
    assert mode(control, 10**6) == "split 2/2"


def test_the_guard_of_an_override_that_comes_back_starts_anew() -> None:
    """What it had seen before it was replaced counted, and its first breach after that ended it."""
    control = Control("auto", TABLE)
    split(control, units=1)
    control.observe(SloReport(1.6, None), SECOND)
    release(control)
    undo(control, 20)
    control.observe(SloReport(1.6, None), 21 * SECOND)
    assert control.override is not None
    control.observe(SloReport(1.6, None), 21 * SECOND + GUARD_NS)
    assert control.override is None


def test_undo_does_not_bring_back_an_override_whose_time_is_over_nor_act_on_a_stale_epoch() -> None:
    control = Control("auto", TABLE)
    split(control, ttl_s=10.0)
    release(control)
    assert undo(control, 5, if_epoch=1).code == "epoch_conflict"
    assert undo(control, 10).code is None
    assert control.override is None


def test_undoing_a_change_of_policy_does_not_bring_back_what_the_guard_released_since() -> None:
    """The split that had broken the objectives stood again, for the ten seconds that its guard needs."""
    control = Control("auto", TABLE)
    split(control, units=1, ttl_s=None)
    control.set_policy(SetPolicy(3, "shared", "bo", None))
    for second in (1, 12):
        control.observe(SloReport(1.6, None), second * SECOND)
    assert control.override is None
    assert undo(control, 13).code is None
    assert (control.policy, control.override) == ("auto", None)


def test_what_an_override_replaced_comes_back_when_its_guard_released_it() -> None:
    control = Control("auto", TABLE)
    split(control, units=1, ttl_s=None)
    split(control, units=3, ttl_s=None)
    for second in (1, 12):
        control.observe(SloReport(1.6, None), second * SECOND)
    assert control.override is None
    undo(control, 13)
    assert mode(control, 13) == "split 1/3"
