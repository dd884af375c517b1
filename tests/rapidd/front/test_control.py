"""Operator verbs: rights, passing on to the engine, and one answer for every call."""

import pytest
from msgspec.structs import replace

from rapidctl import wire
from rapidctl.wire import PlanRequest
from rapidd import ipc
from rapidd.policy.override import BOUNDS
from support import messages, samples
from support.front import Peer, Rig, ScriptedEngine, note

SPLIT = PlanRequest(mode="split", decode_units=1)
VERBS: list[wire.Request] = [
    wire.SetPartition(call=9, plan=SPLIT),
    wire.ReleasePartition(call=9),
    wire.SetPolicy(call=9, policy="shared"),
    wire.UndoPartition(call=9),
    wire.Drain(call=9),
    wire.GetPartition(call=9, probe=True),
]


def names(message: object) -> str:
    return type(message).__name__


@pytest.mark.parametrize("verb", VERBS, ids=names)
def test_operator_verbs_need_control(rig: Rig, verb: wire.Request) -> None:
    rig.ready()
    peer = Peer(rig)
    assert not peer.hello(control=False).control
    peer.send(verb)
    failed = peer.fails()
    assert (failed.code, failed.call) == ("not_permitted", 9)
    assert failed.hint


def test_a_plan_is_passed_on_and_answered_with_its_epoch(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.send(wire.SetPartition(call=1, plan=SPLIT, ttl_s=60.0, guard=False, reason="stalls", by="ana", if_epoch=3))
    asked = engine.expect(ipc.SetPlan)
    assert (asked.plan, asked.ttl_s, asked.guard, asked.reason, asked.by, asked.if_epoch) == (
        SPLIT, 60.0, False, "stalls", "ana", 3,
    )  # fmt: skip
    engine.send(ipc.ControlDone(asked.token, 4, "accepted", None, ""))
    assert peer.expect(wire.ControlReply) == wire.ControlReply(call=1, epoch=4, text="accepted")


def test_undo_is_passed_on_with_the_epoch_it_goes_by(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.send(wire.UndoPartition(call=1, by="bo", if_epoch=4))
    asked = engine.expect(ipc.Undo)
    assert (asked.by, asked.if_epoch) == ("bo", 4)
    engine.send(ipc.ControlDone(asked.token, 5, "bo: back to policy auto", None, ""))
    assert peer.expect(wire.ControlReply).text == "bo: back to policy auto"


def test_a_probe_is_passed_on_and_answered_with_what_the_engine_told_before_it_was_done(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.send(wire.GetPartition(call=1, probe=True))
    asked = engine.expect(ipc.ProbePlacement)
    seen = replace(samples.PLACEMENT, probed_unix_s=1.9e9)
    engine.state(partition=replace(samples.PARTITION, measured=seen))
    engine.send(ipc.ControlDone(asked.token, 5, "", None, ""))
    answer = peer.expect(wire.PartitionInfo)
    assert (answer.call, answer.measured) == (1, seen)


def test_who_asks_is_named_when_they_do_not_say(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.send(wire.ReleasePartition(call=1))
    asked = engine.expect(ipc.SetPlan)
    assert asked.plan is None
    assert asked.by.startswith("test/")


def test_the_engines_refusal_is_the_answer_and_counts_as_no_change(rig: Rig) -> None:
    peer, engine = rig.ready()
    for call, expected in ((1, 3), (2, 9)):
        peer.send(wire.SetPartition(call=call, plan=SPLIT, if_epoch=expected))
        token = engine.expect(ipc.SetPlan).token
        engine.send(ipc.ControlDone(token, 8, "the epoch is 8", "epoch_conflict", "look again"))
        failed = peer.fails()
        assert (failed.code, failed.call, failed.hint) == ("epoch_conflict", call, "look again")


def test_one_change_of_the_partition_every_two_seconds_but_release_always(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.send(wire.SetPartition(call=1, plan=SPLIT))
    peer.send(wire.SetPartition(call=2, plan=SPLIT))
    assert peer.fails().code == "too_soon"  # the first is not even answered
    engine.send(ipc.ControlDone(engine.expect(ipc.SetPlan).token, 1, "accepted", None, ""))
    peer.expect(wire.ControlReply)
    rig.pass_time(BOUNDS.change_every_s - 0.1)
    peer.send(wire.SetPartition(call=3, plan=SPLIT))
    failed = peer.fails()
    assert failed.code == "too_soon"
    assert failed.retry_after_s == pytest.approx(0.1)
    peer.send(wire.ReleasePartition(call=4))
    engine.send(ipc.ControlDone(engine.expect(ipc.SetPlan).token, 2, "released", None, ""))
    assert peer.expect(wire.ControlReply).call == 4
    rig.pass_time(0.1)
    peer.send(wire.SetPartition(call=5, plan=SPLIT))
    engine.expect(ipc.SetPlan)


def test_an_illegal_plan_is_told_before_how_soon_it_came(rig: Rig) -> None:
    """It was told to wait, and only then that waiting would not have helped."""
    peer, engine = rig.ready()
    engine.state()
    peer.send(wire.SetPartition(call=1, plan=SPLIT))
    engine.send(ipc.ControlDone(engine.expect(ipc.SetPlan).token, 1, "accepted", None, ""))
    peer.expect(wire.ControlReply)
    peer.send(wire.SetPartition(call=2, plan=PlanRequest(mode="split", decode_units=7)))
    failed = peer.fails()
    assert (failed.code, failed.call, failed.retry_after_s) == ("invalid_request", 2, None)
    assert failed.message == "7 decode units are not a legal split here; legal: 1"
    peer.send(wire.SetPartition(call=3, plan=SPLIT))
    assert peer.fails().code == "too_soon"


def test_a_stale_epoch_is_told_before_how_soon_it_came(rig: Rig) -> None:
    """Right after another operator's change one was told to wait, and not that the partition had changed."""
    peer, engine = rig.ready()
    engine.state()
    peer.send(wire.SetPartition(call=1, plan=SPLIT))
    engine.send(ipc.ControlDone(engine.expect(ipc.SetPlan).token, 7, "accepted", None, ""))
    peer.expect(wire.ControlReply)
    peer.send(wire.SetPartition(call=2, plan=SPLIT, if_epoch=6))
    failed = peer.fails()
    assert (failed.code, failed.message) == (
        "epoch_conflict",
        "the control state changed: epoch is 7, the command expected 6",
    )
    peer.send(wire.SetPartition(call=3, plan=SPLIT, if_epoch=7))
    assert peer.fails().code == "too_soon"


def test_a_command_that_waited_too_long_is_not_carried_out(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.send(wire.SetPartition(call=1, plan=SPLIT, deadline_unix_s=rig.clock.wall() - 1))
    assert peer.fails().code == "deadline_exceeded"
    peer.send(wire.SetPartition(call=2, plan=SPLIT, deadline_unix_s=rig.clock.wall() + 1))
    assert engine.expect(ipc.SetPlan).plan == SPLIT


def test_predictions_are_the_engines_and_need_no_control(rig: Rig) -> None:
    _, engine = rig.ready()
    peer = Peer(rig)
    peer.hello(control=False)
    peer.send(wire.PredictPartition(call=6, plan=SPLIT))
    token = engine.expect(ipc.Predict).token
    engine.send(ipc.Predicted(token, True, "no profile", 1, None, None, None, None))
    assert peer.expect(wire.Prediction) == wire.Prediction(call=6, legal=True, note="no profile", prefill_units=1)


def test_the_profile_is_the_engines_and_needs_no_control(rig: Rig) -> None:
    _, engine = rig.ready()
    peer = Peer(rig)
    peer.hello(control=False)
    peer.send(wire.GetProfile(call=7, itl_s=0.025, kv_per_row=2048))
    asked = engine.expect(ipc.AskProfile)
    assert (asked.itl_s, asked.kv_per_row) == (0.025, 2048)
    reply = messages.REPLIES["profile"]
    assert isinstance(reply, wire.ProfileReply)
    engine.send(ipc.ProfileAnswer(asked.token, reply.calibration, reply.notes, reply.itl_s, 2048, reply.knee))
    assert peer.expect(wire.ProfileReply) == reply


def test_the_partition_is_the_engines_last_word(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.send(wire.GetPartition(call=1))
    assert peer.fails().code == "starting"
    engine.state()
    rig.until(lambda: rig.front.link.state is not None)
    info = peer.ask(wire.GetPartition(call=2), wire.PartitionInfo)
    assert info == replace(samples.PARTITION, override=None, call=2)


def test_a_call_gets_its_answer_when_the_engine_dies_or_is_silent(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.send(wire.SetPolicy(call=1, policy="shared"))
    engine.expect(ipc.SetPolicy)
    for _ in range(6):
        rig.pass_time(1)
    assert (failed := peer.fails()).code == "engine_lost"
    assert failed.call == 1
    peer.send(wire.SetPolicy(call=2, policy="shared"))
    engine.expect(ipc.SetPolicy)
    engine.die()
    rig.until(lambda: not rig.front.link.connected, meanwhile=lambda: rig.pass_time(1))
    assert peer.fails().call == 2
    peer.send(wire.SetPolicy(call=3, policy="shared"))
    assert (failed := peer.fails()).code == "engine_lost"
    assert failed.call == 3
    ScriptedEngine(rig, "boot-2").hello()
    rig.serves()


def test_drain_refuses_new_work_lets_the_old_finish_and_can_be_taken_back(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate("old")
    assert peer.ask(wire.Drain(call=1), wire.ControlReply).text == "draining"
    peer.send(wire.Generate(id="new", prompt="x"))
    failed = peer.fails()
    assert (failed.code, failed.id) == ("draining", "new")
    assert failed.retry_after_s is not None
    engine.say(engine.submitted().rid, "ok", "length")
    assert peer.expect(wire.Finished).id == "old"
    assert peer.ask(wire.GetStatus(call=2), wire.Status).state == "drained"
    assert peer.ask(wire.Drain(call=3, on=False), wire.ControlReply).text == "serving"
    rig.serves()


def test_a_drain_holds_for_the_next_front_which_lets_in_who_was_let_in_before(rig: Rig) -> None:
    """It forgot the drain; had it not, streams that were to be finished would have been refused."""
    peer, _ = rig.ready()
    peer.ask(wire.Drain(call=1), wire.ControlReply)
    assert ipc.AdmissionStopped(True) in map(ipc.decode_child, rig.supervisor.lines())
    peer.vanish()
    rig.engines[0].die()
    rig.server.close()
    rig.start()
    rig.supervisor.send(note(4242, draining=True))
    peer, engine = rig.ready()
    peer.send(wire.Generate(id="new", prompt="x"))
    assert peer.fails().code == "draining"
    peer.generate("old", resume_ids=[b""])
    engine.say(engine.submitted().rid, "ok", "length")
    assert peer.expect(wire.Finished).id == "old"
    assert peer.ask(wire.Drain(call=2, on=False), wire.ControlReply).text == "serving"
    rig.supervisor.send(note(4242, draining=True))  # sent before it heard of that
    rig.serves()


def test_without_any_engine_to_come_everybody_is_told_at_once(rig: Rig) -> None:
    """The front drained for as long as it may, and was killed before it told anybody."""
    peer, engine = rig.ready()
    peer.generate("r")
    engine.die()
    rig.supervisor.send(ipc.NoEngine("device fault: Xid 79"))
    failed = peer.expect(wire.Failed)
    assert (failed.id, failed.code, failed.message) == ("r", "engine_lost", "device fault: Xid 79")
    peer.send(wire.Generate(id="new", prompt="x"))
    assert peer.fails().code == "draining"
    rig.front.stop()
    assert rig.front.stopped


def test_a_stop_waits_for_live_requests_and_then_tells_the_rest(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate("quick")
    peer.generate("slow")
    quick, slow = engine.submitted(), engine.submitted()
    rig.front.stop()
    peer.send(wire.Generate(id="new", prompt="x"))
    assert peer.fails().code == "draining"
    engine.say(quick.rid, "ok", "length")
    assert peer.expect(wire.Finished).id == "quick"
    for _ in range(6):
        peer.ask(wire.Ping(), wire.Pong)
        rig.pass_time(4.9)
    assert not rig.front.stopped
    rig.pass_time(0.6)
    assert rig.front.stopped
    failed = peer.expect(wire.Failed)
    assert (failed.id, failed.code) == ("slow", "draining")
    assert engine.expect(ipc.Abort).rids == [slow.rid]


def test_a_second_stop_is_now(rig: Rig) -> None:
    peer, _ = rig.ready()
    peer.generate()
    rig.front.stop()
    assert not rig.front.stopped
    rig.front.stop()
    assert rig.front.stopped
    assert peer.expect(wire.Failed).code == "draining"


def test_the_guard_hears_how_latency_is_while_an_override_runs(rig: Rig) -> None:
    peer, engine = rig.ready()
    peer.generate()
    rid = engine.submitted().rid
    for finish in (None, None, "length"):
        engine.say(rid, "x", finish)
        peer.expect(wire.Deltas)
        rig.clock.advance(0.6)
    engine.state()
    rig.until(lambda: rig.front.link.state is not None)
    rig.pass_time(1)
    engine.read()
    assert not [message for message in engine.inbox if isinstance(message, ipc.SloReport)]
    engine.state(partition=samples.PARTITION)
    rig.until(lambda: rig.front.link.state.partition.override is not None)
    rig.pass_time(1)
    report = engine.expect(ipc.SloReport)
    assert report.itl_p95_ratio == pytest.approx(2.0, rel=0.01)
    assert report.ttft_p95_ratio is not None


@pytest.mark.parametrize(("slo_class", "late"), [("interactive", True), ("batch", False)])
def test_the_guard_hears_of_first_tokens_that_do_not_come(rig: Rig, slo_class: wire.SloClass, late: bool) -> None:
    """Only those that came were counted: an override under which prompts stood still kept its objectives.

    Who lets others go first is no sign of it.
    """
    peer, engine = rig.ready()
    peer.generate(slo_class=slo_class)
    engine.submitted()
    assert (_slo_after(rig, peer, engine, 6).ttft_p95_ratio is not None) is late


def test_the_guard_hears_of_next_tokens_that_do_not_come(rig: Rig) -> None:
    """Gaps that had ended were counted: under an override that had decode stand still there were none."""
    peer, engine = rig.ready()
    peer.generate()
    engine.say(engine.submitted().rid, "x")
    peer.expect(wire.Deltas)
    assert _slo_after(rig, peer, engine, 6).itl_p95_ratio == pytest.approx(20.0, rel=0.01)


def _slo_after(rig: Rig, peer: Peer, engine: ScriptedEngine, seconds: int) -> ipc.SloReport:
    """What the guard hears under an override when so much time has passed."""
    engine.state(partition=samples.PARTITION)
    rig.until(lambda: rig.front.link.state is not None)
    for _ in range(seconds):
        peer.ask(wire.Ping(), wire.Pong)
        rig.pass_time(1)
        report = engine.expect(ipc.SloReport)
    return report
