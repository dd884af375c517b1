"""What single commands promise: their keys, what they send, and what they say."""

import time
from collections.abc import Iterator
from typing import Literal

import pytest
from msgspec.structs import replace

from rapidctl import wire
from rapidctl.client import DEFAULT_TIMEOUT_S, Client
from rapidctl.commands import common
from support import samples
from support.command import Rapidctl
from support.peer import Peer
from support.process import WAIT_S

Changing = wire.SetPartition | wire.ReleasePartition | wire.UndoPartition | wire.SetPolicy


def test_status_has_the_documented_keys(peer: Peer, rapidctl: Rapidctl) -> None:
    (document,) = rapidctl("status", "--json").documents
    expected = {
        "state": "serving",
        "boot_id": "engine-1",
        "model": "SmolLM2-135M-Instruct",
        "device": "cpu",
        "uptime_s": 3725.0,
        "mode": "split",
        "policy": "auto",
    }
    assert document.items() >= expected.items()
    assert [document[name]["pid"] for name in ("supervisor", "front", "engine")] == [10, 11, 12]
    assert document["kv"].items() >= {"blocks_total": 1000, "blocks_used": 300, "blocks_cached": 100}.items()
    assert document["requests"].items() >= {"waiting": 1, "prefilling": 1, "decoding": 3}.items()


@pytest.mark.parametrize("state", ["starting", "draining", "drained", "engine_lost"])
def test_status_is_1_unless_serving_and_unknown_is_null(state: str, peer: Peer, rapidctl: Rapidctl) -> None:
    bare = replace(
        samples.STATUS,
        state=state,
        detail="loading weights 63 %",
        boot_id="",
        model=None,
        device=None,
        engine=wire.Process(pid=None),
        partition=None,
        kv=None,
        requests=wire.RequestCounts(waiting=0, prefilling=0, decoding=0),
        slo_met=None,
    )
    peer.script[wire.GetStatus] = lambda ask: [replace(bare, call=ask.call)]
    ran = rapidctl("status", "--json")
    assert ran.code == 1
    (document,) = ran.documents
    assert [document[name] for name in ("boot_id", "model", "device", "mode", "policy", "kv")] == [None] * 6
    assert document["engine"]["pid"] is None
    text = rapidctl("status")
    assert text.code == 1
    assert "loading weights 63 %" in text.stdout


def test_status_says_since_when_it_counts_once_the_front_was_restarted(peer: Peer, rapidctl: Rapidctl) -> None:
    assert "preempted\n" in rapidctl("status").stdout
    status = replace(samples.STATUS, front=wire.Process(pid=11, restarts=1), front_uptime_s=180.0)
    peer.script[wire.GetStatus] = lambda ask: [replace(status, call=ask.call)]
    said = rapidctl("status").stdout
    assert "up 1h02m" in said
    assert "preempted in the 3m00s since the front was restarted\n" in said


@pytest.mark.parametrize(
    ("causes", "said"),
    [
        ({"hang": 3}, "engine 12 (restarted 3×: hang)"),
        ({"hang": 2, "exit": 1}, "engine 12 (restarted 3×: 1 exit, 2 hang)"),
        ({}, "engine 12 (restarted 3×)"),
    ],
)
def test_status_says_why_a_process_was_restarted(
    causes: dict[str, int], said: str, peer: Peer, rapidctl: Rapidctl
) -> None:
    status = replace(samples.STATUS, engine=wire.Process(pid=12, restarts=3, causes=causes))
    peer.script[wire.GetStatus] = lambda ask: [replace(status, call=ask.call)]
    assert said in rapidctl("status").stdout


def test_status_and_partition_show_tell_of_memory_that_ran_out(peer: Peer, rapidctl: Rapidctl) -> None:
    limited = replace(samples.PARTITION, chunk_limit=512)
    peer.script[wire.GetStatus] = lambda ask: [replace(samples.STATUS, call=ask.call, partition=limited)]
    peer.script[wire.GetPartition] = lambda ask: [replace(limited, call=ask.call)]
    for command in (("status",), ("partition", "show")):
        assert rapidctl(*command, "--json").documents[0]["chunk_limit"] == 512
        assert "ran out: a batch holds at most 512 prompt tokens until a restart" in rapidctl(*command).stdout


def test_stats_tells_how_the_front_and_the_engine_get_along(peer: Peer, rapidctl: Rapidctl) -> None:
    (document,) = rapidctl("stats", "--json").documents
    assert (document["work"]["last_step_age_s"], document["work"]["front_loop_lag_s"]["n"]) == (0.25, 3)
    assert document["queue"]["failed_by"] == {"out_of_memory": 1}


def test_status_says_why_the_lanes_cannot_be_kept_apart(peer: Peer, rapidctl: Rapidctl) -> None:
    assert "splits" not in rapidctl("status").stdout
    why = "the driver refuses CU masks"
    partition = replace(samples.PARTITION, splits=[], unsupported=why)
    status = replace(samples.STATUS, partition=partition)
    peer.script[wire.GetStatus] = lambda ask: [replace(status, call=ask.call)]
    assert f"none: {why}" in rapidctl("status").stdout
    assert rapidctl("status", "--json").documents[0]["unsupported"] == why
    peer.script[wire.GetPartition] = lambda ask: [replace(partition, call=ask.call)]
    assert f"none: {why}" in rapidctl("partition", "show").stdout


def test_partition_show_can_have_the_placement_measured_now(peer: Peer, rapidctl: Rapidctl) -> None:
    rapidctl("partition", "show")
    assert not peer.hear(wire.GetPartition).probe
    rapidctl("partition", "show", "--probe")
    assert peer.hear(wire.GetPartition).probe


def test_partition_show_has_the_documented_keys(peer: Peer, rapidctl: Rapidctl) -> None:
    (document,) = rapidctl("partition", "show", "--json").documents
    expected = {
        "mode": "split",
        "policy": "auto",
        "units_total": 2,
        "decode_units": 1,
        "prefill_units": 1,
        "epoch": 5,
        "decision": 12,
        "reason": "override by ana",
        "source": "override",
    }
    assert document.items() >= expected.items()
    assert document["override"].items() >= {"ttl_s": 297.5, "reason": "stalls", "by": "ana"}.items()
    assert [lane["units"] for lane in document["measured"]["lanes"]] == [[0], [1]]
    info = replace(samples.PARTITION, override=None, measured=None, source="policy")
    peer.script[wire.GetPartition] = lambda ask: [replace(info, call=ask.call)]
    (document,) = rapidctl("partition", "show", "--json").documents
    assert (document["override"], document["measured"]) == (None, None)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("partition", "set", "--mode", "shared", "--yes"), wire.SetPartition),
        (("partition", "auto"), wire.ReleasePartition),
        (("partition", "undo"), wire.UndoPartition),
        (("policy", "set", "auto"), wire.SetPolicy),
    ],
    ids=str,
)
def test_a_change_goes_by_the_epoch_that_the_command_found_unless_told(
    words: tuple[str, ...], kind: type[Changing], peer: Peer, rapidctl: Rapidctl
) -> None:
    assert rapidctl(*words).code == 0
    assert peer.hear(kind).if_epoch == samples.PARTITION.epoch
    assert rapidctl(*words, "--if-epoch", "77").code == 0
    assert peer.hear(kind).if_epoch == 77


def test_partition_show_tells_the_bounds_of_an_override(peer: Peer, rapidctl: Rapidctl) -> None:
    words = " ".join(rapidctl("partition", "show").stdout.split())
    assert "at most 1h00m" in words
    assert "ITL p95 > 1.5x or TTFT p95 > 2x the SLO for 10 s" in words
    peer.script[wire.GetPartition] = lambda ask: [replace(samples.PARTITION, call=ask.call, bounds=None)]
    assert "limits" not in rapidctl("partition", "show").stdout


def test_partition_show_counts_phases_by_what_holds_the_units(peer: Peer, rapidctl: Rapidctl) -> None:
    def lines() -> list[str]:
        return [" ".join(line.split()) for line in rapidctl("partition", "show").stdout.splitlines()]

    assert "socket 0 1 decode, 1 prefill of 2" in lines()
    unmeasured = replace(samples.PARTITION, measured=None)
    peer.script[wire.GetPartition] = lambda ask: [replace(unmeasured, call=ask.call)]
    assert "socket 0 2 not measured of 2" in lines()
    peer.script[wire.GetPartition] = lambda ask: [replace(unmeasured, call=ask.call, groups=None)]
    assert not any(line.startswith("socket") for line in lines()), "the system does not tell"


def test_predict_answers_nulls_without_a_profile(peer: Peer, rapidctl: Rapidctl) -> None:
    (document,) = rapidctl("partition", "predict", "--mode", "serial", "--json").documents
    assert (document["note"], document["itl_p95_s"], document["ttft_p95_s"]) == ("no profile", None, None)
    peer.script[wire.PredictPartition] = lambda ask: [wire.Prediction(call=ask.call, legal=False, note="one core")]
    assert rapidctl("partition", "predict", "--mode", "split").code == 1


def test_profile_show_asks_for_the_objective_and_tells_error_corrections_and_knee(
    peer: Peer, rapidctl: Rapidctl
) -> None:
    ran = rapidctl("profile", "show", "--slo-itl", "25ms", "--context", "2048")
    asked = next(message for message in iter(peer.heard.get, None) if isinstance(message, wire.GetProfile))
    assert (asked.itl_s, asked.kv_per_row) == (0.025, 2048)
    lines = [" ".join(line.split()) for line in ran.stdout.splitlines()]
    for line in (
        "profile SmolLM2-135M-Instruct on Some CPU (measured here)",
        "error median 4.0%, p95 12.0%, on 90 held-back measurements",
        "contexts long ones were not measured, so attention is an estimate: decode on 1; prefill on 1 of 2 units",
        "margin gaps count 1.12 times as long as predicted, to keep late ones at 2%; 4096 seen",
        "hybrid median 5.0%, p95 20.0% 10",
        "hybrid mixed 1.07 2.0% 512",
        "fewest decode units for 25 ms a step, 2048 tokens a row:",
        "1 1 20 ms beside prompts",
        "32 2 24 ms alone: prompts must wait",
        "64 — 31 ms not met, even alone on all units",
    ):
        assert line in lines
    assert "note: the profile old.json is not used: the driver changed" in ran.stderr


def test_profile_show_is_silent_about_a_margin_without_gaps_and_contexts_that_were_all_measured(
    peer: Peer, rapidctl: Rapidctl
) -> None:
    idle = wire.GapMarginInfo(factor=1.0, late_share=0.02, n=0)
    whole = replace(samples.CALIBRATION, margin=idle, short_contexts={})
    peer.script[wire.GetProfile] = lambda ask: [
        wire.ProfileReply(call=ask.call, calibration=whole, notes=[], itl_s=0.05, kv_per_row=1024, knee=[])
    ]
    ran = rapidctl("profile", "show")
    assert ran.code == 0
    assert not any(line.startswith(("margin", "contexts")) for line in ran.stdout.splitlines())
    (document,) = rapidctl("profile", "show", "--json").documents
    assert document["profile"]["margin"] == {"factor": 1.0, "late_share": 0.02, "n": 0}


def test_profile_show_without_one_says_how_to_get_one(peer: Peer, rapidctl: Rapidctl) -> None:
    peer.script[wire.GetProfile] = lambda ask: [
        wire.ProfileReply(call=ask.call, calibration=None, notes=["corrupt"], itl_s=0.05, kv_per_row=1024, knee=[])
    ]
    ran = rapidctl("profile", "show")
    assert (ran.code, "rapidd calibrate" in ran.stdout, "corrupt" in ran.stderr) == (1, True, True)
    (document,) = rapidctl("profile", "show", "--json").documents
    assert (document["profile"], document["notes"], document["knee"]["rows"]) == (None, ["corrupt"], [])


def test_set_sends_what_was_asked_with_a_deadline(peer: Peer, rapidctl: Rapidctl) -> None:
    words = "partition set --mode split --decode-units 1 --chunk 64 --ttl 2m --no-guard --if-epoch 4 --yes --reason why"
    assert rapidctl(*words.split()).code == 0
    command = peer.hear(wire.SetPartition)
    assert command.plan == wire.PlanRequest(mode="split", decode_units=1, chunk=64)
    assert (command.ttl_s, command.guard, command.reason, command.if_epoch) == (120.0, False, "why", 4)
    assert command.by
    assert command.deadline_unix_s is not None
    rapidctl("partition", "set", "--mode", "shared", "--ttl", "0", "--yes")
    command = peer.hear(wire.SetPartition)
    assert (command.ttl_s, command.guard) == (None, True)
    ran = rapidctl("partition", "set", "--mode", "shared", "--ttl", "1000h", "--yes")
    assert ran.code == 2
    assert "an override lasts at most 7d00h\n  shorten --ttl, or give 0: until released" in ran.stderr


def test_set_with_wait_returns_when_the_lanes_run_it(peer: Peer, rapidctl: Rapidctl) -> None:
    asked: list[int] = []

    def events(ask: wire.GetEvents) -> list[wire.Reply]:
        asked.append(ask.from_seq)
        kept = [replace(samples.EVENT, seq=seq, epoch=epoch) for seq, epoch in ((8, 5), (9, 6))]
        return [wire.EventList(call=ask.call, oldest_seq=0, next_seq=8, events=kept if len(asked) > 3 else kept[:1])]

    peer.script[wire.GetEvents] = events
    (document,) = rapidctl("partition", "set", "--mode", "shared", "--yes", "--wait", "--json").documents
    assert document["applied"]["epoch"] == 6
    assert asked[1:] == [8, 8, 8]


def test_set_with_wait_does_not_call_an_unapplied_change_a_success(peer: Peer, rapidctl: Rapidctl) -> None:
    peer.script[wire.GetEvents] = lambda ask: [wire.EventList(call=ask.call, oldest_seq=0, next_seq=0, events=[])]
    ran = rapidctl("partition", "set", "--mode", "shared", "--yes", "--wait", "--timeout", "100ms")
    assert (ran.code, ran.stdout) == (4, "")


def test_an_idle_daemon_lists_no_requests(peer: Peer, rapidctl: Rapidctl) -> None:
    peer.script[wire.GetRequests] = lambda ask: [wire.RequestList(call=ask.call, rows=[])]
    assert rapidctl("requests", "ls", "--json").documents[0]["requests"] == []


def test_watch_repeats_so_many_times(peer: Peer, rapidctl: Rapidctl) -> None:
    ran = rapidctl("status", "--json", "--watch", "10ms", "-n", "3")
    assert [document["state"] for document in ran.documents] == ["serving"] * 3


@pytest.mark.parametrize("code", ["engine_lost", "starting"])
def test_a_watch_goes_on_when_the_engine_comes_back(code: wire.ErrorCode, peer: Peer, rapidctl: Rapidctl) -> None:
    """It ended with the first answer that there was no engine."""
    lost = wire.Failed(code=code, message="no engine")
    answers: Iterator[wire.PartitionInfo | wire.Failed] = iter([samples.PARTITION, lost, samples.PARTITION])
    peer.script[wire.GetPartition] = lambda ask: [replace(next(answers), call=ask.call)]
    ran = rapidctl("partition", "show", "--json", "--watch", "10ms", "-n", "3")
    assert (ran.code, len(ran.documents)) == (0, 2)
    assert ran.stderr == "rapidctl: no engine\n  still trying\n"


def wait_for_answers(monkeypatch: pytest.MonkeyPatch, *timeouts_s: float) -> None:
    """Each question in turn has so long: a short time is only for one that is not answered."""
    call, left = Client.call, iter(timeouts_s)
    monkeypatch.setattr(Client, "call", lambda client, ask: call(client, ask, next(left)))


def test_a_watch_goes_on_after_an_answer_that_did_not_come(
    peer: Peer, rapidctl: Rapidctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for_answers(monkeypatch, WAIT_S, 0.1, WAIT_S)
    answers = iter([[samples.STATUS], None, [samples.STATUS]])
    peer.script[wire.GetStatus] = lambda ask: (found := next(answers)) and [replace(found[0], call=ask.call)]
    ran = rapidctl("status", "--json", "--watch", "10ms", "-n", "3")
    assert (ran.code, len(ran.documents)) == (0, 2)
    assert "within 0.1 s\n  still trying" in ran.stderr


def test_a_watch_that_ends_while_nobody_answers_is_no_success(
    peer: Peer, rapidctl: Rapidctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for_answers(monkeypatch, WAIT_S, 0.1)
    answers = iter([[samples.STATUS]])
    peer.script[wire.GetStatus] = lambda ask: [replace(one, call=ask.call) for one in next(answers, [])]
    ran = rapidctl("status", "--json", "--watch", "10ms", "-n", "2")
    assert (ran.code, len(ran.documents)) == (4, 1)


def test_a_watch_ends_with_a_no_that_stays_one(peer: Peer, rapidctl: Rapidctl) -> None:
    gone = wire.Failed(code="not_found", message="no request r-1 is running")
    answers: Iterator[wire.RequestList | wire.Failed] = iter([wire.RequestList(call=0, rows=[samples.ROW]), gone])
    peer.script[wire.GetRequests] = lambda ask: [replace(next(answers), call=ask.call)]
    ran = rapidctl("requests", "ls", "--json", "--watch", "10ms", "-n", "5")
    assert (ran.code, len(ran.documents)) == (1, 1)
    assert "not_found" in ran.stderr


def test_wait_idle_waits_for_the_last_request(peer: Peer, rapidctl: Rapidctl) -> None:
    left = iter([2, 1])
    peer.script[wire.GetStatus] = lambda ask: [
        replace(
            samples.STATUS,
            call=ask.call,
            requests=wire.RequestCounts(waiting=0, prefilling=0, decoding=next(left, 0)),
        )
    ]
    assert rapidctl("wait", "idle").code == 0
    assert next(left, None) is None


def test_wait_gives_up_with_4(peer: Peer, rapidctl: Rapidctl) -> None:
    assert rapidctl("wait", "epoch=6", "--timeout", "50ms").code == 4


def test_no_answer_is_waited_for_longer_than_for_the_outcome() -> None:
    """A daemon that fell silent just before the time was over had as long again, twice `--timeout` in all."""
    left: list[float] = []

    def attempt(timeout_s: float) -> bool:
        left.append(timeout_s)
        return len(left) == 3

    now = time.monotonic()
    assert common.try_until(now + 3600, attempt)
    assert not common.try_until(now - 1, lambda timeout_s: timeout_s > common.LEAST_WAIT_S)
    assert not common.try_until(now + 0.2, lambda timeout_s: timeout_s > 0.2)
    assert left == [DEFAULT_TIMEOUT_S] * 3


@pytest.mark.parametrize(("level", "code"), [("info", 0), ("error", 1)])
def test_reload_with_wait_tells_what_became_of_it(
    peer: Peer, rapidctl: Rapidctl, level: Literal["info", "error"], code: int
) -> None:
    """By the first event about the configuration that is newer than the wish."""
    older = replace(samples.EVENT, seq=3, kind="config", text="an older one")
    outcome = replace(samples.EVENT, seq=4, kind="config", level=level, text="what became of it")
    events = [older]

    def reload(ask: wire.Reload) -> list[wire.ControlReply]:
        events.append(outcome)
        return [wire.ControlReply(call=ask.call, epoch=6, text="read again")]

    peer.script[wire.Reload] = reload
    peer.script[wire.GetEvents] = lambda ask: [
        wire.EventList(
            call=ask.call,
            oldest_seq=3,
            next_seq=events[-1].seq + 1,
            events=[event for event in events if event.seq >= ask.from_seq],
        )
    ]
    done = rapidctl("reload", "--wait")
    assert done.code == code
    assert "what became of it" in done.stdout + done.stderr


def test_a_reload_of_which_nothing_is_heard_times_out(peer: Peer, rapidctl: Rapidctl) -> None:
    assert rapidctl("reload", "--wait", "--timeout", "50ms").code == 4


def test_drain_with_wait(peer: Peer, rapidctl: Rapidctl) -> None:
    assert rapidctl("drain", "--wait", "--timeout", "50ms").code == 4
    idle = replace(samples.STATUS, requests=wire.RequestCounts(waiting=0, prefilling=0, decoding=0))
    peer.script[wire.GetStatus] = lambda ask: [replace(idle, call=ask.call)]
    assert rapidctl("drain", "--wait").code == 0
