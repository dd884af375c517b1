"""What a soak run finds: each kind of fault, put into what a healthy daemon would have sent."""

from collections.abc import Sequence
from functools import cache

import pytest
import torch
from msgspec.structs import replace

from bench.soak import Found, check, default_device, table, with_noise
from bench.soak_checks import (
    TOLERANCE_FACTOR,
    TOLERANCE_FLOOR,
    Checked,
    Events,
    Record,
    coverage_problems,
    daemon_problems,
    find_suspects,
    mode_problems,
    tolerance,
)
from bench.soak_load import plans_of
from bench.teacher import Teacher
from rapidctl.wire import (
    ChoiceResult,
    Delta,
    Event,
    Failed,
    Finished,
    FinishReason,
    Generate,
    Sampling,
    Snapshot,
    pack_ids,
)
from rapidd.policy.policies import fixed
from support import samples
from support.tiny import MODEL, TinyEngine

PROMPT = [1, 403, 407, 261, 378]
CONTEXT = 64


def record(max_tokens: int = 3, n: int = 1, **sampling: float) -> Record:
    asked = Sampling(max_tokens=max_tokens, ignore_eos=True, **sampling)  # type: ignore[arg-type]
    return Record(Generate(id="r", prompt_ids=pack_ids(PROMPT), sampling=asked, n=n), "shared")


def delta(index: int, *ids: int, choice: int = 0) -> Delta:
    return Delta(id="r", choice=choice, index=index, token_ids=pack_ids(ids))


def finished(*outputs: list[int], reason: FinishReason = "length") -> Finished:
    choices = [
        ChoiceResult(index=index, finish_reason=reason, text="", token_ids=pack_ids(ids))
        for index, ids in enumerate(outputs)
    ]
    return replace(
        samples.FINISHED,
        id="r",
        choices=choices,
        prompt_tokens=len(PROMPT),
        output_tokens=sum(map(len, outputs)),
    )


def problems(of: Record, deltas: list[Delta], *endings: Finished | Failed) -> list[str]:
    """Without whose they are."""
    for one in deltas:
        of.take(one)
    of.endings += endings
    return [problem.removeprefix("r (sent under shared): ") for problem in of.problems()]


# --- requests


def test_a_whole_request_has_no_problems() -> None:
    assert problems(record(), [delta(0, 7), delta(1, 8, 9)], finished([7, 8, 9])) == []


def test_choices_are_counted_apart() -> None:
    deltas = [delta(0, 7), delta(0, 8, choice=1), delta(1, 9, choice=1), delta(1, 9)]
    assert problems(record(2, n=2), deltas, finished([7, 9], [8, 9])) == []


def test_a_cancelled_request_may_be_short() -> None:
    cut = record()
    cut.cancelled = True
    assert problems(cut, [delta(0, 7), delta(1)], finished([7], reason="cancelled")) == []


def test_a_request_whose_cancel_came_too_late_is_whole() -> None:
    late = record(1)
    late.cancelled = True
    assert problems(late, [delta(0, 7)], finished([7])) == []


def test_a_missing_token_is_found() -> None:
    assert problems(record(), [delta(0, 7), delta(2, 9)], finished([7, 9])) == [
        "choice 0: tokens lost: index 2 after 1 tokens",
        "choice 0 has 2 tokens of 3",
    ]


def test_a_repeated_index_is_found() -> None:
    assert problems(record(), [delta(0, 7), delta(1, 8), delta(1, 8), delta(2, 9)], finished([7, 8, 9]))[:1] == [
        "choice 0: tokens repeated: index 1 after 2 tokens"
    ]


def test_a_request_that_is_short_at_its_end_is_found() -> None:
    assert problems(record(), [delta(0, 7, 8)], finished([7, 8])) == ["choice 0 has 2 tokens of 3"]


def test_a_request_that_is_too_long_is_found() -> None:
    assert problems(record(1), [delta(0, 7, 8)], finished([7, 8])) == ["choice 0 has 2 tokens of 1"]


def test_a_last_message_that_disagrees_with_the_stream_is_found() -> None:
    assert problems(record(), [delta(0, 7, 8, 9)], replace(finished([7, 8, 8]), prompt_tokens=4, output_tokens=2)) == [
        "the last message holds other tokens than were streamed",
        "the last message counts 2 tokens, 3 were streamed",
        "the last message counts 4 prompt tokens, 5 were sent",
    ]


@pytest.mark.parametrize("times", [0, 2])
def test_a_request_ends_exactly_once(times: int) -> None:
    whole = [finished([7, 8, 9])] * times
    assert problems(record(), [delta(0, 7, 8, 9)], *whole) == [f"ended {times} times"]


def test_output_after_the_end_is_found() -> None:
    ended = record(1)
    ended.endings.append(finished([7]))
    assert "output came after the end" in problems(ended, [delta(0, 7)])


def test_a_failed_request_is_found() -> None:
    failed = Failed(code="internal_error", message="no finite logits", id="r")
    assert problems(record(), [], failed) == ["failed: internal_error: no finite logits"]


@pytest.mark.parametrize("reason", ["cancelled", "stop"])
def test_an_end_that_nobody_asked_for_is_found(reason: FinishReason) -> None:
    assert problems(record(), [delta(0, 7)], finished([7], reason=reason)) == [
        f"choice 0 ended by {reason!r}, which nobody asked for"
    ]


# --- tokens


@cache
def teacher() -> Teacher:
    return Teacher(str(MODEL), "cpu", CONTEXT)


@cache
def story() -> tuple[int, ...]:
    """What the engine says after `PROMPT`, undisturbed."""
    engine = TinyEngine()
    ((*outcomes,),) = engine.generate([PROMPT], engine.plans()["serial"], max_output=4)
    return tuple(outcome.token_id for outcome in outcomes)


def greedy(length: int) -> tuple[int, ...]:
    """Its first tokens."""
    return story()[:length]


def answered(*outputs: tuple[int, ...]) -> Record:
    whole = record(len(outputs[0]), n=len(outputs))
    for choice, ids in enumerate(outputs):
        whole.take(delta(0, *ids, choice=choice))
    return whole


def wrong(checked: Sequence[Checked], most: float) -> list[str]:
    return [str(suspect) for suspect in find_suspects(checked, most) if suspect.wrong]


def test_tokens_of_an_undisturbed_engine_fall_short_of_nothing() -> None:
    (checked,) = check(teacher(), [answered(greedy(4))])
    assert checked.shortfalls == pytest.approx([0.0] * 4, abs=1e-4)
    assert find_suspects([checked], TOLERANCE_FLOOR) == []


def test_a_wrong_token_is_found_wherever_it_is() -> None:
    right = greedy(4)
    for index in range(4):
        other = (*right[:index], right[index] + 1, *right[index + 1 :])
        checked = check(teacher(), [answered(right), answered(right, other)])
        found = wrong(checked, TOLERANCE_FLOOR)
        assert f"choice 1, token {index + 1} of 4 is {other[index]}" in found[0]
        assert not any("choice 0" in problem for problem in found)


def test_sequences_of_any_length_are_judged_as_each_alone() -> None:
    records = [answered(greedy(length)) for length in (1, 4, 2)]
    alone = [checked.shortfalls for one in records for checked in check(teacher(), [one])]
    together = [checked.shortfalls for checked in check(teacher(), records)]
    assert [len(shortfalls) for shortfalls in together] == [1, 4, 2]
    for one, other in zip(alone, together, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_a_token_is_excused_only_where_the_type_itself_is_as_far_off() -> None:
    noisy = Checked(answered((7, 8, 9)), 0, [0.5, 0.5, 0.0], noise=[0.26, 0.24, 0.0])
    found, excused = find_suspects([noisy], most=0.1)
    assert (excused.wrong, found.wrong) == (False, True)
    assert "token 2 of 3 is 8" in str(found)
    assert str(found).endswith("0.5 below the highest; 0.48 is allowed")


def test_a_suspect_can_be_looked_at_again() -> None:
    """One token of a soak in float16 was beyond what was allowed, and nothing was left of its request."""
    (suspect,) = find_suspects([Checked(answered((7, 8, 9)), 0, [0.0, 0.5, 0.0], noise=[0.0, 1.0, 0.0])], most=0.1)
    assert (suspect.prompt, suspect.output, suspect.length) == (PROMPT, [7, 8], 3)
    assert (suspect.shortfall, suspect.allowed, suspect.plan) == (0.5, 2.0, "shared")


def test_what_is_not_finite_is_excused_by_nothing() -> None:
    broken = Checked(answered((7,)), 0, [float("inf")], noise=[float("inf")])
    (suspect,) = find_suspects([broken], most=0.1)
    assert suspect.wrong
    assert (suspect.facts()["shortfall"], suspect.facts()["output"]) == (None, [7])


def plain(dtype: str, *nudges: int | None) -> list[Teacher]:
    return [Teacher(str(MODEL), "cpu", CONTEXT, dtype, nudge) for nudge in nudges]


def test_the_noise_is_that_of_each_place() -> None:
    """In float32 there is none; in bfloat16 some, and not enough to excuse a token that is simply wrong."""
    right = greedy(4)
    checked = check(teacher(), [answered((*right[:2], right[2] + 1, right[3]))])
    (exact,) = with_noise(teacher(), plain("float32", None, 0), checked)
    assert exact.noise == pytest.approx([0.0] * 4, abs=1e-4)
    (rounded,) = with_noise(teacher(), plain("bfloat16", 0, 1, 2), checked)
    assert rounded.noise is not None
    assert min(rounded.noise) > 1e-3
    assert "token 3 of 4" in wrong([rounded], TOLERANCE_FLOOR)[0]


def test_the_noise_is_the_worst_of_several_runs_that_round_otherwise() -> None:
    """One plain run allowed 0.089 of a logit in a soak in float16 where a token fell short by 0.099: no two roundings
    of a place are off by as much as each other."""
    checked = check(teacher(), [answered(greedy(4))])
    each = [with_noise(teacher(), plain("float16", nudge), checked)[0].noise for nudge in (0, 1, 2)]
    (of_all,) = with_noise(teacher(), plain("float16", 0, 1, 2), checked)
    assert each[0] != each[1] != each[2] != each[0]
    assert of_all.noise == [max(at) for at in zip(*(noise or [] for noise in each), strict=True)]


def test_sampled_requests_and_choices_without_output_are_not_judged() -> None:
    sampled = record(1, temperature=1.0)
    sampled.take(delta(0, 7))
    assert check(teacher(), [sampled, record()]) == []


def test_the_tolerance_follows_from_the_worst_token_of_the_serial_run() -> None:
    serial = [Checked(record(), 0, [0.0, 0.25]), Checked(record(), 0, [0.125])]
    assert tolerance(serial) == (0.25, 0.25 * TOLERANCE_FACTOR)
    assert tolerance([Checked(record(), 0, [0.0])]) == (0.0, TOLERANCE_FLOOR)


# --- the daemon

BEFORE = replace(samples.SNAPSHOT, state="serving")


def idle_again(requests: int) -> Snapshot:
    """After so many requests that all finished, with what a soak must see."""
    assert BEFORE.kv is not None
    counts, kv = BEFORE.requests, BEFORE.kv
    return replace(
        BEFORE,
        engine=replace(BEFORE.engine, restarts=0),
        front=replace(BEFORE.front, restarts=0),
        kv=replace(kv, blocks_used=0, prefix_hit_tokens_total=kv.prefix_hit_tokens_total + 1),
        requests=replace(
            counts,
            waiting=0,
            prefilling=0,
            decoding=0,
            accepted_total=counts.accepted_total + requests,
            finished_total=counts.finished_total + requests,
            preempted_total=counts.preempted_total + 1,
        ),
    )


def test_a_daemon_that_has_everything_back_has_no_problems() -> None:
    assert daemon_problems(BEFORE, idle_again(2), [record(), record()]) == []


def test_a_request_that_the_daemon_does_not_account_for_is_found() -> None:
    (found,) = daemon_problems(BEFORE, idle_again(1), [record(), record()])
    assert found.startswith("of 2 requests the daemon counts 1 accepted, 1 finished")


def test_what_an_idle_daemon_still_holds_is_found() -> None:
    after = idle_again(0)
    assert after.kv is not None
    after = replace(after, kv=replace(after.kv, blocks_used=3), requests=replace(after.requests, decoding=1))
    assert daemon_problems(BEFORE, after, []) == [
        "3 KV blocks are still held by an idle daemon",
        "1 requests are still running",
    ]


def test_a_restarted_engine_is_found() -> None:
    after = idle_again(0)
    after = replace(after, boot_id="another", engine=replace(after.engine, restarts=1))
    assert daemon_problems(BEFORE, after, []) == [
        "the engine or the front was restarted",
        "the engine was restarted 1 times, the front 0 times",
    ]


def test_an_engine_that_is_gone_at_the_end_is_found() -> None:
    (found,) = daemon_problems(BEFORE, replace(idle_again(0), state="engine_lost", kv=None, detail="restarting"), [])
    assert found == "at the end the daemon is engine_lost: restarting"


def test_a_load_that_preempted_nothing_and_hit_no_prefix_proves_little() -> None:
    after = replace(idle_again(0), kv=BEFORE.kv and replace(BEFORE.kv, blocks_used=0))
    after = replace(after, requests=replace(after.requests, preempted_total=BEFORE.requests.preempted_total))
    assert daemon_problems(BEFORE, after, []) == [
        "nothing was preempted: the load was too light",
        "the prefix cache was never hit",
    ]


def test_a_load_without_something_of_everything_is_found() -> None:
    assert coverage_problems([record()]) == [
        "no request was cancelled before its first token",
        "no request was cancelled while it decoded",
        "no request was with several choices",
        "no request was sampled",
    ]


def test_a_plan_that_never_ran_and_a_mode_without_time_are_found() -> None:
    tried = {"serial": "serial", "split 1/1": "split", "shared": "shared"}
    assert mode_problems({"serial": 2.0, "shared": 0.5}, tried, {"serial", "shared"}) == [
        "split 1/1 was pinned and never ran",
        "no time was spent in mode split",
    ]


def event(seq: int, kind: str, text: str, level: str = "info") -> Event:
    return replace(samples.EVENT, seq=seq, kind=kind, text=text, level=level)


def test_events_that_a_healthy_daemon_has_not_are_found() -> None:
    events = Events(5)
    events.take([event(5, "applied", "split 1/1 runs"), event(6, "preempted", "", "warn")], 0)
    events.take([event(7, "device_error", "Xid 31"), event(8, "warning", "odd", "error")], 0)
    assert events.problems() == ["event device_error: Xid 31", "event warning: odd"]
    assert (events.applied, events.kinds["preempted"], events.next_seq) == ({"split 1/1"}, 1, 9)


def test_events_that_were_dropped_unread_are_found() -> None:
    events = Events(5)
    events.take([event(9, "preempted", "")], 8)
    assert events.problems() == ["3 events were dropped before they were read"]


def test_every_split_and_mode_is_among_the_plans() -> None:
    named = {fixed(plan, 8, (2, 4), "").describe() for plan in plans_of((2, 4))}
    assert {"serial", "serial:all", "hybrid", "hybrid:48", "shared", "split 2/6", "split 4/4", "split 4/4:48"} <= named
    assert len(named) == len(plans_of((2, 4)))


def test_the_table_says_what_failed_and_is_not_swamped() -> None:
    lines = table(Found([f"problem {number}" for number in range(30)], {"requests": 3, "modes": {"split": 1.5}}))
    assert lines.splitlines()[:4] == ["requests  3", "modes     split 1.5", "checks    30 FAILED", "  - problem 0"]
    assert lines.splitlines()[-1] == "  - and 10 more"


@pytest.mark.parametrize(
    ("cuda", "there", "device"), [("13.0", True, "cuda"), ("13.0", False, "cpu"), (None, True, "cpu")]
)
def test_the_soak_takes_the_gpu_that_is_there(
    cuda: str | None, there: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took the CPU unless told otherwise, and eight minutes on a GPU's host showed nothing of the GPU."""
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert default_device() == device
