"""How answers are put together: documents, chunks, metrics, keys, inboxes. No sockets."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from rapidctl import wire
from rapidctl.errors import Unreachable
from rapidctl.wire import ChoiceResult, Delta, Finished, FinishReason, TokenLogprob
from rapidd.http import keys, render
from rapidd.http.bridge import MAX_BACKLOG, Disconnected, Inbox
from rapidd.http.errors import ApiError, invalid
from rapidd.http.metrics import Metrics
from rapidd.http.probe import Probe
from rapidd.http.render import CHAT, COMPLETION, KEEP_ALIVE, Answer, Chunks, Document, Shape
from support import samples
from support.process import ROOT

SHAPES = pytest.mark.parametrize("shape", [COMPLETION, CHAT], ids=["completion", "chat"])


def answer(shape: Shape, n: int = 1) -> Answer:
    return Answer(shape=shape, id="a-1", model='the "model"', created=7, n=n)


def delta(text: str, choice: int = 0, reason: FinishReason | None = None, **more: Any) -> Delta:
    return Delta(id="a-1", choice=choice, index=0, token_ids=b"1234", text=text, finish_reason=reason, **more)


def finished(*texts: str, reason: FinishReason = "length") -> Finished:
    choices = [ChoiceResult(index=i, finish_reason=reason, text=text, token_ids=b"") for i, text in enumerate(texts)]
    return replace(samples.FINISHED, choices=choices, prompt_tokens=3, cached_tokens=2, output_tokens=4)


def documents(data: bytes) -> Iterator[dict[str, Any]]:
    *parts, rest = data.split(b"\n\n")
    assert rest == b""
    for part in parts:
        if part != b"data: [DONE]":
            yield json.loads(part.removeprefix(b"data: "))


def text_of(chunk: dict[str, Any]) -> str:
    choice = chunk["choices"][0]
    text = choice["text"] if "text" in choice else choice["delta"]["content"]
    assert isinstance(text, str)
    return text


@given(texts=st.lists(st.text(), min_size=1, max_size=5), shape=st.sampled_from([COMPLETION, CHAT]))
def test_chunks_made_of_bytes_are_the_json_that_was_meant(texts: list[str], shape: Shape) -> None:
    chunks = Chunks(answer(shape), 1, include_usage=True)
    data = b"".join(chunks.delta(0, delta(text)) for text in texts)
    data += chunks.delta(0, delta("", reason="stop")) + chunks.finished(0, finished("".join(texts)))
    assert data.endswith(b"data: [DONE]\n\n")
    assert chunks.complete
    *tokens, last = documents(data)
    assert [text_of(chunk) for chunk in tokens] == [*texts, ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in tokens] == [None] * len(texts) + ["stop"]
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 2},
    }  # fmt: skip
    for chunk in (*tokens, last):
        assert (chunk["id"], chunk["object"], chunk["model"]) == ("a-1", shape.chunk, 'the "model"')


@SHAPES
def test_an_end_that_no_delta_told_is_told_by_a_chunk_of_its_own(shape: Shape) -> None:
    chunks = Chunks(answer(shape, n=2), 2, include_usage=False)
    chunks.delta(1, delta("x", choice=1, reason="stop"))
    assert [chunk["choices"][0]["index"] for chunk in documents(chunks.finished(1, finished("", "x")))] == [2]
    assert not chunks.complete
    last = list(documents(chunks.finished(0, finished("", "", reason="cancelled"))))
    assert [chunk["choices"][0]["finish_reason"] for chunk in last] == ["cancelled"] * 2
    assert "usage" not in last[0]
    assert chunks.complete


@SHAPES
def test_an_error_within_a_stream_ends_it(shape: Shape) -> None:
    data = Chunks(answer(shape), 1, include_usage=False).failed(invalid("no", "n"))
    (error,) = documents(data)
    assert error["error"]["param"] == "n"
    assert data.endswith(render.DONE)


@SHAPES
def test_streamed_logprobs_are_those_of_the_document(shape: Shape) -> None:
    """The second token is half a character: its text is a replacement, its bytes are exact."""
    items = [
        TokenLogprob(5, -0.5, [(5, -0.5), (6, -1.5)], b" a", [b" a", b" b"]),
        TokenLogprob(7, -0.25, [(7, -0.25), (5, -3.0)], b"\xc3", [b"\xc3", b" a"]),
    ]
    chunks = Chunks(answer(shape), 1, include_usage=False)
    document = Document(answer(shape), 1)
    streamed = []
    for item in items:
        part = delta("", logprobs=[item])
        document.take_delta(0, part)
        (chunk,) = documents(chunks.delta(0, part))
        streamed.append(chunk["choices"][0]["logprobs"])
    document.take_finished(0, finished(" a\ufffd"))
    whole = json.loads(document.body())["choices"][0]["logprobs"]
    if shape is CHAT:
        assert whole["content"] == [part["content"][0] for part in streamed]
        assert whole["content"][1]["bytes"] == [0xC3]
        assert [entry["bytes"] for entry in whole["content"][0]["top_logprobs"]] == [list(b" a"), list(b" b")]
    else:
        assert whole == {name: [part[name][0] for part in streamed] for name in whole}
        assert (whole["tokens"], whole["text_offset"]) == ([" a", "\ufffd"], [0, 2])
        assert whole["top_logprobs"][0] == {" a": -0.5, " b": -1.5}


def test_the_best_tokens_of_a_completion_are_as_documented() -> None:
    """A token that was drawn beside them was left out of ``top_logprobs``, where the API promises it; and of two tokens
    that look the same, as halves of characters do, the less likely one stood for both."""
    items = [
        TokenLogprob(9, -4.0, [(5, -0.5), (6, -1.5)], b" z", [b" a", b" b"]),
        TokenLogprob(7, -0.25, [(7, -0.25), (8, -3.0)], b"\xc3", [b"\xc3", b"\xe2"]),
    ]
    document = Document(answer(COMPLETION), 1)
    document.take_delta(0, delta("", logprobs=items))
    document.take_finished(0, finished(" z\ufffd"))
    best = json.loads(document.body())["choices"][0]["logprobs"]["top_logprobs"]
    assert best == [{" a": -0.5, " b": -1.5, " z": -4.0}, {"\ufffd": -0.25}]


# --- the rest ------------------------------------------------------------------------------------------------------


def test_a_snapshot_becomes_metrics_that_prometheus_reads() -> None:
    metrics = Metrics(vllm_aliases=True)
    text = metrics.render(samples.SNAPSHOT).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert all(family.documentation for family in families.values())
    assert {name.partition("_")[0] for name in families} == {"rapidd", "vllm:num", "vllm:kv", "vllm:prefix"} | {
        f"vllm:{name}" for name in ("prompt", "generation", "time", "inter", "e2e", "request")
    }
    histogram = families["rapidd_inter_token_latency_seconds"].samples
    counts = [sample.value for sample in histogram if sample.name.endswith("_bucket")]
    assert counts == sorted(counts)
    assert (counts[0], counts[1], counts[-1]) == (0, 1, 3)
    assert [sample.value for sample in histogram if sample.name.endswith("_sum")] == [0.9]
    assert [sample.value for sample in families["rapidd_up"].samples] == [1]
    restarts = {
        (found.labels["process"], found.labels["cause"]): found.value for found in families["rapidd_restarts"].samples
    }
    assert (restarts["engine", "hang"], restarts["engine", "exit"], restarts["front", "hang"]) == (1, 0, 0)
    (unreadable,) = families["rapidd_decode_errors"].samples
    assert (unreadable.labels, unreadable.value) == ({"socket": "requests", "code": "malformed"}, 2)
    (margin,) = families["rapidd_gap_margin_ratio"].samples
    assert margin.value == 1.12
    (alias,) = families["vllm:num_requests_waiting"].samples
    assert (alias.labels, alias.value) == ({"model_name": samples.MODEL.path}, samples.COUNTS.waiting)

    assert b"vllm:" not in Metrics(vllm_aliases=False).render(samples.SNAPSHOT)
    starting = replace(
        samples.SNAPSHOT, state="starting", model=None, device=None, partition=None, lanes=[], kv=None,
        mode_seconds={}, latency_totals=None,
    )  # fmt: skip
    assert b"rapidd_ready 0.0" in metrics.render(starting)
    assert b"rapidd_up 0.0" in metrics.render(None)
    for calibration in (None, replace(samples.CALIBRATION, margin=None)):
        partition = replace(samples.PARTITION, calibration=calibration)
        assert b"rapidd_gap_margin" not in metrics.render(replace(samples.SNAPSHOT, partition=partition))


@pytest.mark.parametrize("name", ["stories", "label"])
def test_aliases_name_the_model_as_clients_do(name: str) -> None:
    """vLLM's ``model_name`` is the name that was chosen for the model; here it was the path all the same. Of a model
    called "label" there were no metrics at all."""
    text = Metrics(vllm_aliases=True, served_model_name=name).render(samples.SNAPSHOT).decode()
    assert set(re.findall('model_name="([^"]*)"', text)) == {name}


def names_in(text: str) -> set[str]:
    """Every metric that a text speaks of; what a histogram adds is left off."""
    return {re.sub("_bucket$", "", name) for name in re.findall(r"rapidd_[a-z_]*[a-z]", text)}


def test_documentation_and_dashboard_name_metrics_that_there_are() -> None:
    text = Metrics(vllm_aliases=False).render(samples.SNAPSHOT).decode()
    shown = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    documented = names_in((ROOT / "docs/http.md").read_text(encoding="utf-8").partition("## Metrics")[2])
    assert {name for name in documented if name != "rapidd_device"} <= shown
    assert {
        name for name in shown if not name.startswith("rapidd_device") and not name.endswith("_created")
    } <= documented
    dashboard = names_in((ROOT / "docs/grafana/rapidd.json").read_text(encoding="utf-8"))
    assert len(dashboard) > 20
    assert dashboard <= shown


def test_this_machine_is_known_by_its_names_in_either_case() -> None:
    """`curl http://LOCALHOST:8000` was refused as if it came by another machine's name: hosts have no case."""
    for name in ("localhost", "LocalHost", "127.0.0.1", "127.8.8.8", "[::1]", "::1"):
        assert keys.is_loopback(name)
    for name in ("", "localhost.example", "0.0.0.0", "192.168.0.1", "[::]"):
        assert not keys.is_loopback(name)


def test_a_key_is_let_in_by_its_hash_alone() -> None:
    first, line = keys.make()
    second, _ = keys.make()
    known = keys.Keys([line])
    assert first in known
    for wrong in (second, line, "", first[:-1], "\udcff"):
        assert wrong not in known
    assert first not in keys.Keys([])


@given(waits=st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_a_keep_alive_hides_no_event_from_a_client_that_strips_what_it_reads(waits: list[int]) -> None:
    """`vllm bench serve` took an answer for none when its first token came after a keep-alive: without the blank line,
    which it strips off every read, the comment went on in the event."""
    chunks = Chunks(answer(COMPLETION), 1, include_usage=False)
    sent: list[bytes] = []
    for number, quiet in enumerate(waits):
        sent += [chunks.body([KEEP_ALIVE]) for _ in range(quiet)]
        sent.append(chunks.body([chunks.delta(0, delta(f"{number} "))]))
    read, held = [], b""
    for part in sent:
        *whole, held = (held + part.strip()).split(b"\n\n")
        if held.startswith(b"data: "):  # it takes what is a whole document without waiting for the blank line
            whole, held = [*whole, held], b""
        read += [event for event in whole if not event.startswith(b":")]
    assert [text_of(json.loads(event.removeprefix(b"data: "))) for event in read] == [
        f"{n} " for n in range(len(waits))
    ]


async def test_an_inbox_wakes_its_reader_and_gives_up_one_that_never_comes() -> None:
    cut: list[bool] = []
    inbox = Inbox(lambda: cut.append(True))
    reader = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    inbox.put(0, samples.DELTA)
    inbox.put(1, None)
    assert await reader == [(0, samples.DELTA), (1, None)]
    for _ in range(MAX_BACKLOG):
        inbox.put(0, samples.DELTA)
    assert not cut
    inbox.put(0, samples.DELTA)
    assert cut == [True]
    with pytest.raises(Disconnected):
        await inbox.take()


async def test_an_inbox_of_many_choices_holds_as_much_of_each() -> None:
    """One of 256 choices was given up after four steps in which the event loop was busy."""
    cut: list[bool] = []
    inbox = Inbox(lambda: cut.append(True), choices=256)
    for _ in range(10):
        for index in range(256):
            inbox.put(index, samples.DELTA)
    assert not cut
    assert len(await inbox.take()) == 2560


async def test_whoever_waits_at_an_inbox_hears_that_the_client_left() -> None:
    inbox = Inbox(lambda: None)
    reader = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    inbox.hang_up()
    with pytest.raises(Disconnected):
        await reader


def test_the_document_counts_all_prompts() -> None:
    document = Document(answer(COMPLETION, n=2), 2)
    document.take_finished(1, finished("c", "d"))
    halfway = document.complete
    document.take_finished(0, finished("a", "b"))
    assert (halfway, document.complete) == (False, True)
    found = msgspec.json.decode(document.body())
    assert [(choice["index"], choice["text"]) for choice in found["choices"]] == list(enumerate("abcd"))
    assert found["usage"]["completion_tokens"] == 8


class Asked(Probe):
    """Counts the questions that reach the daemon, which is not there."""

    def __init__(self, answer: wire.Snapshot | Unreachable) -> None:
        super().__init__("ipc:///nowhere/request.sock")
        self.answer = answer
        self.count = 0

    def _ask(self) -> wire.Snapshot:
        self.count += 1
        if isinstance(self.answer, Unreachable):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("answer", [samples.SNAPSHOT, Unreachable("nobody")], ids=["there", "away"])
async def test_who_asks_at_once_shares_the_answer_and_who_asks_later_gets_a_new_one(
    answer: wire.Snapshot | Unreachable,
) -> None:
    probe = Asked(answer)
    for count in (1, 2):
        found = await asyncio.gather(*(probe.snapshot() for _ in range(20)), return_exceptions=True)
        assert probe.count == count
        if isinstance(answer, Unreachable):
            assert [error.status for error in found if isinstance(error, ApiError)] == [503] * 20
        else:
            assert found == [answer] * 20
    probe.close()


async def test_the_model_is_asked_for_once_a_boot_of_the_front() -> None:
    probe = Asked(samples.SNAPSHOT)
    for boot_id in ("front-1", "front-1", "front-1"):
        assert await probe.model(boot_id) == samples.MODEL
    assert probe.count == 1
    probe.answer = replace(samples.SNAPSHOT, front_boot_id="front-2", model=None, detail="loading weights 3 %")
    with pytest.raises(ApiError, match="loading weights 3 %") as refused:
        await probe.model("front-2")
    assert refused.value.code == "starting"
    probe.close()
