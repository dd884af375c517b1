"""``kill -9`` of one process while streams run: none of their tokens is lost, repeated or changed."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from rapidctl.client import new_id
from rapidctl.errors import Refused
from rapidctl.wire import Failed, Generate
from support.daemon import PROMPTS, Daemon, finish, lengths, outputs, pump, story, until_running

TOKENS = 300
Answer = tuple[list[list[int]], list[str]]
"""Ids and text of each choice."""


def greedy() -> list[Generate]:
    return [story(prompt, TOKENS) for prompt in PROMPTS]


def drawn() -> Generate:
    return replace(story("Lily and Ben", TOKENS, temperature=0.8, seed=7), n=2)


def play(
    daemon: Daemon,
    requests: list[Generate],
    disturb: Callable[[], object] = lambda: None,
    *,
    times: int = 1,
    resume: bool = False,
) -> tuple[list[Answer], list[int]]:
    """Answers, and how often each request was resubmitted; ``disturb`` happens when every stream is under way."""
    with daemon.client() as client:
        streams = [client.submit(request, resume=resume) for request in requests]
        for _ in range(times):
            until_running(client, streams)
            disturb()
        finished = finish(client, streams)
        answers = [(outputs(last), [choice.text for choice in last.choices]) for last in finished]
        return answers, [last.resubmissions for last in finished]


@pytest.fixture(scope="module")
def undisturbed(own_daemon: Daemon) -> list[Answer]:
    answers, _ = play(own_daemon, [*greedy(), drawn()])
    own_daemon.until_idle()
    return answers


def test_streams_outlive_the_engine_and_end_with_the_same_tokens(
    own_daemon: Daemon, undisturbed: list[Answer]
) -> None:
    before = own_daemon.status()
    answers, resubmissions = play(own_daemon, [*greedy(), drawn()], lambda: own_daemon.kill("engine"))
    assert answers == undisturbed
    assert set(resubmissions) == {1}
    after = own_daemon.until_idle()
    assert after.engine.pid != before.engine.pid
    assert after.boot_id != before.boot_id
    assert after.engine.restarts == before.engine.restarts + 1
    assert after.front == before.front
    assert after.supervisor == before.supervisor
    kinds = [event.kind for event in own_daemon.events()]
    assert kinds.index("engine_lost") < kinds.index("resubmitted")
    assert kinds.count("resubmitted") == 1


def test_streams_outlive_the_front_when_their_client_asks_for_the_rest(
    own_daemon: Daemon, undisturbed: list[Answer]
) -> None:
    """The engine keeps its weights and drops what the old front asked for."""
    before = own_daemon.status()
    answers, _ = play(own_daemon, [*greedy(), drawn()], lambda: own_daemon.kill("front"), resume=True)
    assert answers == undisturbed
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
        own_daemon.kill("front")
        pump(client, lambda: not client.streams)
        for stream, (ids, _) in zip(streams, undisturbed[:2], strict=True):
            assert isinstance(stream.ended, Failed)
            assert stream.ended.code == "front_restarted"
            assert 0 < stream.ended.output_tokens == stream.output_tokens < TOKENS
            assert stream.output_ids[0] == ids[0][: stream.output_tokens]
        rest = finish(client, [client.submit(stream.resubmission(), resume=True) for stream in streams])
        assert [outputs(last) for last in rest] == [ids for ids, _ in undisturbed[:2]]
    own_daemon.check_serves()


def test_two_deaths_of_the_engine_are_survived_and_the_third_is_not(
    own_daemon: Daemon, undisturbed: list[Answer]
) -> None:
    """A request that was running at three deaths may be what kills the engine."""
    with own_daemon.client() as client:
        short = client.submit(story(PROMPTS[0], 150))
        long = client.submit(story(PROMPTS[1], 500))
        for _ in range(2):
            until_running(client, [short, long])
            own_daemon.kill("engine")
        pump(client, lambda: short.ended is not None)
        own_daemon.kill("engine")
        (survivor,) = finish(client, [short])
        ((expected,), _), *_ = undisturbed
        assert outputs(survivor) == [expected[:150]]
        assert survivor.resubmissions == 2

        pump(client, lambda: long.ended is not None)
        assert isinstance(long.ended, Failed)
        assert long.ended.code == "engine_lost"
        assert "3 times" in long.ended.message
        assert long.ended.output_tokens == lengths(long)[0]
    own_daemon.check_serves()


def test_the_same_id_is_free_again_after_its_end(own_daemon: Daemon) -> None:
    """Whatever happened to a stream, its id can be used for another."""
    name = new_id()
    with own_daemon.client() as client:
        for _ in range(2):
            finish(client, [client.submit(replace(story("Mom said", 5), id=name))])
        with pytest.raises(Refused, match="duplicate|another request"):
            taken = [replace(story("Mom said", 400), id=name), replace(story("Dad said", 5), id=name)]
            client.submit(taken[0])
            list(client.generate(taken[1]))
    own_daemon.until_idle()
