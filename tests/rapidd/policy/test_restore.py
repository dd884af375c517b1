"""Control state that outlives its engine, by what the front knows, and that a new front is told."""

from rapidd.ipc import FrontHello, SetPolicy, SloReport
from rapidd.partition.table import PartitionTable
from rapidd.policy.override import Control
from support.control import SECOND, TABLE, mode, split


def test_the_policy_can_change_at_run_time_and_survives_the_engine() -> None:
    control = Control("auto", TABLE)
    assert control.set_policy(SetPolicy(1, "split:3", "ana", None)).epoch == 1
    assert mode(control) == "split 3/1"
    assert control.set_policy(SetPolicy(1, "split:9", "ana", None)).code == "invalid_request"
    successor = Control("auto", TABLE)
    successor.restore(FrontHello("front", control.epoch, control.policy))
    assert (mode(successor), successor.policy, successor.epoch) == ("split 3/1", "split:3", 1)
    successor.restore(FrontHello("front", 7, None))
    assert (mode(successor), successor.policy, successor.epoch) == ("split 3/1", "split:3", 7)


def test_an_override_survives_the_engine_with_what_is_left_of_its_time() -> None:
    """It used to vanish with the engine: no event, the same epoch, and nobody told the operator."""
    control = Control("auto", TABLE)
    split(control, ttl_s=60.0)
    told = control.override_info(20 * SECOND)
    successor = Control("auto", TABLE)
    successor.restore(FrontHello("front", control.epoch, control.policy, told, 20 * SECOND))
    assert (mode(successor, 59), successor.epoch) == ("split 2/2", 1)
    assert successor.notices[-1].text == "split 2/2: test", "why, as it was given"
    assert mode(successor, 60) == "hybrid"


def test_an_override_without_an_end_survives_the_engine_without_one() -> None:
    control = Control("auto", TABLE)
    split(control, ttl_s=None, reason="")
    successor = Control("auto", TABLE)
    successor.restore(FrontHello("front", control.epoch, None, control.override_info(0), 0))
    assert mode(successor, 10**6) == "split 2/2"
    assert successor.notices[-1].text == "split 2/2: override by ana"
    assert successor.override_info(0) == control.override_info(0)


def test_the_guard_of_an_override_of_before_the_engine_began_releases_it_too() -> None:
    control = Control("auto", TABLE)
    split(control, ttl_s=None)
    successor = Control("auto", TABLE)
    successor.restore(FrontHello("front", control.epoch, None, control.override_info(0), 0))
    for second in (1, 12):
        successor.observe(SloReport(1.6, None), second * SECOND)
    assert (successor.override, successor.epoch) == (None, 2)


def test_what_the_new_engines_device_cannot_do_is_not_restored_and_said() -> None:
    """It raised in the engine's loop, and would have in every engine after it."""
    control = Control("auto", TABLE)
    split(control, units=3, ttl_s=None)
    smaller = PartitionTable(units_total=2, unit_name="core", splits=(1,))
    for known in (FrontHello("front", 1, "split:3"), FrontHello("front", 1, "auto", control.override_info(0), 0)):
        successor = Control("auto", smaller)
        successor.restore(known)
        assert (mode(successor), successor.policy, successor.epoch) == ("hybrid", "auto", 2)
        assert successor.notices[0].kind == "warning"


def test_an_engine_that_lives_on_is_not_changed_by_a_new_front() -> None:
    control = Control("auto", TABLE)
    split(control)
    control.restore(FrontHello("front", 0, None))
    control.restore(FrontHello("front", 1, "shared"))
    assert (mode(control), control.policy) == ("split 2/2", "auto")


def test_a_new_front_is_told_the_decision_in_force_once() -> None:
    control = Control("auto", TABLE)
    mode(control)
    control.tell_again()
    assert (mode(control), len(control.notices)) == ("hybrid", 1), "the first decision is still to be told"
    control.notices.clear()
    control.tell_again()
    assert (mode(control), mode(control)) == ("hybrid", "hybrid")
    assert [(notice.kind, notice.decision) for notice in control.notices] == [("decision", 1)]
    assert control.notices[0].text.startswith("hybrid goes on: ")


def test_plans_of_before_a_restoration_are_not_told() -> None:
    """They have the first engine's epochs, which an operator's change may have had."""
    successor = Control("auto", TABLE)
    mode(successor)
    successor.restore(FrontHello("front", 7, "split:3"))
    successor.tell_again()
    mode(successor)
    assert [(notice.kind, notice.epoch, notice.decision) for notice in successor.notices] == [("decision", 7, 2)]
    assert "split 3/1 (was hybrid)" in successor.notices[0].text
