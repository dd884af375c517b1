"""``kill -9`` of one process while streams run: none of their tokens is lost, repeated or changed."""

import time

import pytest
from msgspec.structs import replace

from rapidctl.wire import Failed, Finished, Generate
from support.daemon import PROMPTS, Daemon, finish, outputs, pump, story, until_running

TOKENS = 300
Answer = tuple[list[list[int]], list[str]]
"""Ids and text of each choice."""


def greedy() -> list[Generate]:
    return [story(prompt, TOKENS) for prompt in PROMPTS]


def drawn() -> Generate:
    return replace(story("Lily and Ben", TOKENS, temperature=0.8, seed=7), n=2)


def answer(finished: Finished) -> Answer:
    return outputs(finished), [choice.text for choice in finished.choices]


@pytest.fixture(scope="module")
def undisturbed(own_daemon: Daemon) -> list[Answer]:
    with own_daemon.client() as client:
        return [answer(last) for last in finish(client, [client.submit(request) for request in (*greedy(), drawn())])]


def test_streams_outlive_two_deaths_of_the_engine_and_end_with_the_same_tokens(
    own_daemon: Daemon, undisturbed: list[Answer]
) -> None:
    """A third death ends those that are still running then: they may be what kills the engine."""
    before = own_daemon.status()
    with own_daemon.client() as client:
        streams = [client.submit(request) for request in (*greedy(), drawn())]
        long = client.submit(replace(story("Mom said", 500), n=16))  # many rows: it takes much longer than the others
        for _ in range(2):
            until_running(client, [*streams, long])
            own_daemon.kill("engine")
        pump(client, lambda: all(stream.ended is not None for stream in streams))
        own_daemon.kill("engine")
        finished = finish(client, streams)
        assert [answer(last) for last in finished] == undisturbed
        assert {last.resubmissions for last in finished} == {2}

        pump(client, lambda: long.ended is not None)
        assert isinstance(long.ended, Failed)
        assert long.ended.code == "engine_lost"
        assert "3 times" in long.ended.message
        assert long.ended.output_tokens == long.output_tokens

    own_daemon.check_serves()
    after = own_daemon.status()
    assert after.engine.pid != before.engine.pid
    assert after.boot_id != before.boot_id
    assert after.engine.restarts == before.engine.restarts + 3
    assert after.front == before.front
    assert after.supervisor == before.supervisor
    kinds = [event.kind for event in own_daemon.events()]
    assert (kinds.count("engine_lost"), kinds.count("engine_ready")) == (3, 4)


def test_streams_outlive_the_front_when_their_client_asks_for_the_rest(
    own_daemon: Daemon, undisturbed: list[Answer]
) -> None:
    """The engine keeps its weights and drops what the old front asked for."""
    before = own_daemon.status()
    with own_daemon.client() as client:
        streams = [client.submit(request, resume=True) for request in (*greedy(), drawn())]
        until_running(client, streams)
        own_daemon.kill("front")
        assert [answer(last) for last in finish(client, streams)] == undisturbed
    after = own_daemon.until_idle()
    assert after.engine == before.engine
    assert after.boot_id == before.boot_id
    assert after.front.pid != before.front.pid
    assert after.front.restarts == before.front.restarts + 1
    assert after.front_boot_id != before.front_boot_id


def test_a_front_that_dies_ends_the_streams_that_nobody_wants_resumed(
    own_daemon: Daemon, undisturbed: list[Answer]
) -> None:
    """What the client has can be sent as ``resume_ids`` under the same id, and the rest comes."""
    with own_daemon.client() as client:
        streams = [client.submit(request) for request in greedy()[:2]]
        until_running(client, streams)
        with own_daemon.paused():
            own_daemon.kill("front")
            pump(client, lambda: not client.streams)
        for stream, (ids, _) in zip(streams, undisturbed[:2], strict=True):
            assert isinstance(stream.ended, Failed)
            assert stream.ended.code == "front_restarted"
            assert 0 < stream.ended.output_tokens == stream.output_tokens < TOKENS
            assert stream.output_ids[0] == ids[0][: stream.output_tokens]
        own_daemon.until(lambda status: status.state == "serving")
        rest = finish(client, [client.submit(stream.resubmission(time.monotonic()), resume=True) for stream in streams])
        assert [outputs(last) for last in rest] == [ids for ids, _ in undisturbed[:2]]
    own_daemon.check_serves()
