"""What a request can ask for, end to end: through the client, the front, the engine and back."""

import math

import pytest
from msgspec.structs import replace

from rapidctl.client import Client, Stream, new_id
from rapidctl.errors import NotPermitted, Refused
from rapidctl.feed import Feed
from rapidctl.wire import (
    Cancel,
    Delta,
    Finished,
    Generate,
    GetEvents,
    GetRequests,
    GetSnapshot,
    GetStatus,
    Sampling,
    TokenLogprob,
    pack_ids,
)
from support.daemon import PROMPTS, WAIT_S, Daemon, finish, outputs, pump, story, until_running

EOS = 2
"""Of the test model."""


def play(daemon: Daemon, request: Generate) -> Finished:
    with daemon.client() as client:
        return finish(client, [client.submit(request)])[0]


def again(request: Generate) -> Generate:
    """The same request as another one."""
    return replace(request, id=new_id())


def test_choices_differ_and_are_drawn_again_with_the_same_seed(daemon: Daemon) -> None:
    request = replace(story(PROMPTS[0], 40, temperature=0.9, top_p=0.95, seed=11), n=3)
    first = play(daemon, request)
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    assert len({choice.token_ids for choice in first.choices}) == 3
    assert outputs(play(daemon, again(request))) == outputs(first)
    other = replace(request, id=new_id(), sampling=replace(request.sampling, seed=12))
    assert outputs(play(daemon, other)) != outputs(first)


def test_a_seed_that_was_drawn_is_told_and_gives_the_same_again(daemon: Daemon) -> None:
    request = story(PROMPTS[0], 30, temperature=1.0)
    with daemon.client() as client:
        stream = client.submit(request)
        (first,) = finish(client, [stream])
        assert stream.accepted is not None
        seed = stream.accepted.seed
    repeated = play(daemon, replace(request, id=new_id(), sampling=replace(request.sampling, seed=seed)))
    assert outputs(repeated) == outputs(first)


def test_a_stop_string_ends_the_output_and_is_not_shown(daemon: Daemon) -> None:
    whole = play(daemon, story(PROMPTS[0], 60)).choices[0]
    stop = whole.text[40:46]
    before = whole.text[: whole.text.index(stop)]
    found = play(daemon, replace(story(PROMPTS[0], 60), stop=["never seen", stop])).choices[0]
    assert (found.finish_reason, found.stop, found.text) == ("stop", stop, before)
    assert whole.token_ids.startswith(found.token_ids)


def test_a_stop_token_ends_the_output_unless_min_tokens_forbids_it(daemon: Daemon) -> None:
    ((*ids,),) = outputs(play(daemon, story(PROMPTS[0], 60)))
    token = ids[20]
    first = ids.index(token)
    last = play(daemon, story(PROMPTS[0], 60, stop_token_ids=[token])).choices[0]
    assert (last.finish_reason, last.stop) == ("stop", token)
    assert last.token_ids == pack_ids(ids[: first + 1])
    longer = play(daemon, story(PROMPTS[0], 60, stop_token_ids=[token], min_tokens=first + 2))
    assert longer.output_tokens >= first + 2


def test_the_end_of_the_sequence_ends_it_unless_ignored(daemon: Daemon) -> None:
    """Its training data had no end-of-sequence token: only a nearly uniform draw gives one."""
    request = story(PROMPTS[0], 60, temperature=50.0, seed=7)
    endless = play(daemon, request)
    ((*ids,),) = outputs(endless)
    assert endless.choices[0].finish_reason == "length"
    assert EOS in ids, "choose a seed that draws it"
    ended = play(daemon, replace(request, id=new_id(), sampling=replace(request.sampling, ignore_eos=False)))
    assert outputs(ended) == [ids[: ids.index(EOS) + 1]]
    assert (ended.choices[0].finish_reason, ended.choices[0].stop) == ("stop", None)


def test_logprobs_are_of_the_chosen_token_and_the_best_ones(daemon: Daemon) -> None:
    with daemon.client() as client:
        stream = client.submit(story(PROMPTS[0], 20, logprobs=3))
        (last,) = finish(client, [stream])
        found: list[TokenLogprob] = []
        for event in stream.events:
            if isinstance(event, Delta):
                assert event.logprobs is not None
                found += event.logprobs
    assert [item.token_id for item in found] == outputs(last)[0]
    for item in found:
        values = [value for _, value in item.top]
        assert len(item.top) == 3
        assert values == sorted(values, reverse=True)
        assert item.top[0] == (item.token_id, item.logprob)  # greedy
        assert sum(map(math.exp, values)) <= 1.0 + 1e-5


def test_a_repeated_prompt_comes_from_the_prefix_cache(daemon: Daemon) -> None:
    prompt = "Ben and Mia went to the old mill by the river to look for frogs. " * 3
    first, second = play(daemon, story(prompt, 8)), play(daemon, story(prompt, 8))
    assert first.cached_tokens == 0
    assert 0 < second.cached_tokens < second.prompt_tokens
    assert second.cached_tokens % 16 == 0
    assert outputs(second) == outputs(first)


def test_token_ids_are_a_prompt_as_they_are(daemon: Daemon) -> None:
    ids = Generate(id=new_id(), prompt_ids=pack_ids([1, 400, 401]), sampling=Sampling(max_tokens=5))
    found = play(daemon, ids)
    assert (found.prompt_tokens, found.output_tokens) == (3, 5)


def test_a_deadline_ends_a_request_that_takes_longer(daemon: Daemon) -> None:
    with daemon.client() as client, daemon.paused(), pytest.raises(Refused) as refused:
        list(client.generate(replace(story(PROMPTS[0], 490), n=16, deadline_s=0.25)))
    assert refused.value.code == "deadline_exceeded"
    assert "after its arrival" in refused.value.message


def test_a_higher_priority_goes_first(daemon: Daemon) -> None:
    """All rows of a step are taken, so those that wait are admitted by priority and not by arrival.

    The engine hears of them together: one that ran meanwhile could begin the others before the last was sent.
    """
    with daemon.client() as client:
        running = [client.submit(replace(story(prompt, 60), n=16)) for prompt in PROMPTS[:4]]
        until_running(client, running)
        with daemon.paused():
            waiting = [client.submit(replace(story(prompt, 60), n=16)) for prompt in PROMPTS[4:]]
            urgent = client.submit(replace(story("Late but urgent", 4), n=16, priority=5))
            pump(client, lambda: all(stream.accepted for stream in (*waiting, urgent)))
        pump(client, lambda: all(stream.output_tokens for stream in (*waiting, urgent)))
        others = [first_token_ns(stream) for stream in waiting]
        assert min(others) >= first_token_ns(urgent) < max(others)
        for stream in (*running, *waiting, urgent):
            client.abandon(stream.id)


def first_token_ns(stream: Stream) -> int:
    """When the engine had it, of the first choice that has one: who looks late sees the same."""
    return min(event.at_mono_ns[0] for event in stream.events if isinstance(event, Delta) and event.at_mono_ns)


def test_the_same_request_under_a_running_id_is_attached_and_never_run_twice(daemon: Daemon) -> None:
    """A client that lost its connection asks again; another request under that id is refused."""
    request = story(PROMPTS[0], 400)
    with daemon.client() as client, daemon.client() as other:
        stream = client.submit(request)
        until_running(client, [stream])
        with daemon.paused():
            started = client.call(GetStatus(call=0)).requests.accepted_total
            client._send(request)
            with pytest.raises(Refused) as refused:
                list(other.generate(replace(request, prompt="Something else")))
            assert refused.value.code == "duplicate_id"
        (last,) = finish(client, [stream])
        assert last.output_tokens == 400
        assert [event.resumed for event in stream.events if hasattr(event, "resumed")] == [False, True]
        assert client.call(GetStatus(call=0)).requests.accepted_total == started


def test_ids_that_a_client_already_has_are_not_sent_again(daemon: Daemon) -> None:
    request = story(PROMPTS[1], 50)
    ((*ids,),) = outputs(play(daemon, request))
    with daemon.client() as client:
        rest = client.submit(replace(request, id=new_id(), resume_ids=[pack_ids(ids[:20])]))
        (last,) = finish(client, [rest])
        sent = [event for event in rest.events if isinstance(event, Delta)]
        assert sent[0].index == 20
    assert outputs(last) == [ids]
    assert last.output_tokens == 50


def test_an_operator_may_cancel_what_another_connection_runs(daemon: Daemon) -> None:
    with daemon.client() as client, daemon.client() as other, daemon.client(control=True) as operator:
        stream = client.submit(story(PROMPTS[0], 490))
        until_running(client, [stream])
        with daemon.paused():
            with pytest.raises(NotPermitted):
                other.call(Cancel(call=0, id=stream.id))
            assert [row.id for row in operator.call(GetRequests(call=0, id=stream.id)).rows] == [stream.id]
            operator.call(Cancel(call=0, id=stream.id))
        (last,) = finish(client, [stream])
        assert last.choices[0].finish_reason == "cancelled"
        assert 0 < last.output_tokens < 490
    daemon.until_idle()


def test_an_idle_daemon_keeps_publishing_and_numbers_its_events_without_gaps(daemon: Daemon) -> None:
    daemon.until_idle()
    with daemon.client() as client, Feed(daemon.endpoint) as feed:
        answer = client.call(GetEvents(call=0))
        numbers = [event.seq for event in answer.events]
        assert numbers == list(range(answer.oldest_seq, answer.next_seq))
        seen = published(feed, client, 2)
        assert seen == sorted(set(seen))
        snapshot = client.call(GetSnapshot(call=0)).snapshot
        assert snapshot.kv is not None
        assert (snapshot.kv.blocks_used, snapshot.rows, snapshot.rows_total) == (0, [], 0)
        assert snapshot.kv.blocks_cached > 0


def published(feed: Feed, client: Client, count: int) -> list[int]:
    """Numbers of the next so many snapshots."""
    numbers: list[int] = []

    def look() -> bool:
        feed.poll(WAIT_S)
        if feed.snapshot is not None and feed.snapshot.seq not in numbers:
            numbers.append(feed.snapshot.seq)
        return len(numbers) >= count

    pump(client, look)
    return numbers
