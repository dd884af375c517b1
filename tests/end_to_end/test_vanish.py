"""Clients that vanish in every phase, and a KV cache too small: on a model slow enough to look at its phases."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.storm import gone
from rapidctl.client import new_id
from rapidctl.errors import Refused
from rapidctl.wire import Generate, GetEvents, Sampling, pack_ids
from support.daemon import Daemon, finish, pump, running

KV_TOKENS = gone.KV_BLOCKS * 16


@pytest.fixture(scope="module")
def slow(folder: Callable[[], Path]) -> Iterator[Daemon]:
    place = folder()
    with running(place, *gone.slow_options(place)) as daemon:
        yield daemon


def ids_request(prompt_len: int, max_tokens: int) -> Generate:
    prompt = pack_ids(3 + index * 7 % 500 for index in range(prompt_len))
    return Generate(id=new_id(), prompt_ids=prompt, sampling=Sampling(max_tokens=max_tokens, ignore_eos=True))


def test_a_request_that_can_never_fit_the_cache_is_refused_and_a_smaller_one_served(slow: Daemon) -> None:
    with slow.client() as client:
        with pytest.raises(Refused) as refused:
            list(client.generate(ids_request(KV_TOKENS - 8, 16)))
        assert refused.value.code == "kv_too_small"
        assert str(KV_TOKENS) in refused.value.message
        assert "--kv-blocks" in refused.value.hint
    slow.check_serves()


@pytest.mark.parametrize("phase", gone.phases())
def test_what_a_killed_client_asked_for_is_dropped_in_every_phase(slow: Daemon, phase: str) -> None:
    """Noticed at the next send, or when its ping is late; then its blocks are free."""
    with slow.client() as client:
        first = client.call(GetEvents(call=0)).next_seq
        problems = gone.vanish(client, slow.endpoint, gone.phases()[phase], signal.SIGKILL).problems
        assert problems == []
        events = client.call(GetEvents(call=0, from_seq=first)).events
    assert [event.kind for event in events if event.kind in ("client_lost", "engine_lost")] == ["client_lost"]
    slow.check_serves()


def test_a_client_that_closes_its_connection_cancels_its_streams(slow: Daemon) -> None:
    client = slow.client()
    client.connect()
    streams = [client.submit(replace(ids_request(8, 1000), n=2)), client.submit(ids_request(gone.BIG, 200))]
    pump(client, lambda: streams[0].output_tokens > 0)
    client.close()
    slow.check_serves()


def test_requests_that_fit_only_one_after_the_other_all_finish(slow: Daemon) -> None:
    with slow.client() as client:
        streams = [client.submit(ids_request(gone.BIG, 4)) for _ in range(2)]
        assert [last.output_tokens for last in finish(client, streams)] == [4, 4]
    slow.until_idle()
