"""Clients that vanish in every phase, and a KV cache too small: on a model slow enough to look at its phases."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from rapidctl.client import Client, new_id
from rapidctl.errors import Refused
from rapidctl.wire import Generate, GetEvents, GetRequests, Phase, RequestRow, Sampling, pack_ids
from support.daemon import MODEL, Daemon, finish, pump, running
from support.process import ROOT, environment

KV_BLOCKS = 256
KV_TOKENS = KV_BLOCKS * 16
BIG = 3000
"""Prompt tokens: two such requests do not fit the cache, and one takes a while to prefill."""
SHAPE = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 6, "max_position_embeddings": 8192}


@pytest.fixture(scope="module")
def slow(folder: Callable[[], Path]) -> Iterator[Daemon]:
    place = folder()
    shape = place / "config.json"
    small = json.loads((MODEL / "config.json").read_text())
    shape.write_text(json.dumps(small | SHAPE | {"head_dim": SHAPE["hidden_size"] // small["num_attention_heads"]}))
    options = ("--weights", "random", "--shape", str(shape), "--tokenizer", str(MODEL), "--dtype", "float32")
    with running(place, *options, "--kv-blocks", str(KV_BLOCKS)) as daemon:
        yield daemon


def ids_request(prompt_len: int, max_tokens: int) -> Generate:
    prompt = pack_ids(3 + index * 7 % 500 for index in range(prompt_len))
    return Generate(id=new_id(), prompt_ids=prompt, sampling=Sampling(max_tokens=max_tokens, ignore_eos=True))


def rows(client: Client, name: str) -> list[RequestRow]:
    return [row for row in client.call(GetRequests(call=0)).rows if row.id == name]


def test_a_request_that_can_never_fit_the_cache_is_refused_and_a_smaller_one_served(slow: Daemon) -> None:
    with slow.client() as client:
        with pytest.raises(Refused) as refused:
            list(client.generate(ids_request(KV_TOKENS - 8, 16)))
        assert refused.value.code == "kv_too_small"
        assert str(KV_TOKENS) in refused.value.message
        assert "--kv-blocks" in refused.value.hint
    slow.check_serves()


@pytest.mark.parametrize(
    ("phase", "prompt_len", "n"),
    [("prefilling", BIG, 1), ("decoding", 8, 1), ("decoding", 8, 4), ("waiting", BIG, 1)],
    ids=["prefilling", "decoding", "several choices", "waiting"],
)
def test_what_a_killed_client_asked_for_is_dropped_in_every_phase(
    slow: Daemon, phase: Phase, prompt_len: int, n: int
) -> None:
    """Noticed at the next send, or when its lease was missed three times; then its blocks are free."""
    with slow.client() as client:
        first = client.call(GetEvents(call=0)).next_seq
        hog = client.submit(ids_request(BIG, 400)) if phase == "waiting" else None
        if hog is not None:
            pump(client, lambda: hog.accepted is not None)
        name = new_id()
        arguments = [slow.endpoint, name, str(prompt_len), "1000", str(n)]
        victim = subprocess.Popen(
            [sys.executable, "-P", str(ROOT / "tests/support/victim.py"), *arguments], env=environment()
        )
        pump(client, lambda: [row.phase for row in rows(client, name)] == [phase] * n)
        os.kill(victim.pid, signal.SIGKILL)
        assert victim.wait() == -signal.SIGKILL
        pump(client, lambda: not rows(client, name))
        events = client.call(GetEvents(call=0, from_seq=first)).events
        assert [event.kind for event in events if event.kind in ("client_lost", "engine_lost")] == ["client_lost"]
        if hog is not None:
            client.abandon(hog.id)
    slow.check_serves()


def test_a_client_that_closes_its_connection_cancels_its_streams(slow: Daemon) -> None:
    client = slow.client()
    client.connect()
    streams = [client.submit(replace(ids_request(8, 1000), n=2)), client.submit(ids_request(BIG, 500))]
    pump(client, lambda: streams[0].output_tokens > 0)
    client.close()
    slow.check_serves()


def test_requests_that_fit_only_one_after_the_other_all_finish(slow: Daemon) -> None:
    with slow.client() as client:
        streams = [client.submit(ids_request(BIG, 4)) for _ in range(2)]
        assert [last.output_tokens for last in finish(client, streams)] == [4, 4]
    slow.until_idle()
