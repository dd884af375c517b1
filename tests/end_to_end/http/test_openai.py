"""The HTTP server in front of the real daemon: what clients of the OpenAI API get, and nothing is left behind."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rapidctl.wire import GetRequests
from support.daemon import PROMPTS, Daemon, finish, story
from support.http import NAME, HttpServer, events, http_server

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def client(server: HttpServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def greedy(daemon: Daemon, prompt: str, max_tokens: int) -> str:
    """The text that the daemon's own client gets."""
    with daemon.client() as client:
        return finish(client, [client.submit(story(prompt, max_tokens, ignore_eos=False))])[0].choices[0].text


# --- the openai client -------------------------------------------------------------------------------------------


def test_a_completion_is_what_the_daemon_says(chatty: Daemon, client: openai.OpenAI) -> None:
    answer = client.completions.create(model=NAME, prompt=PROMPTS[0], max_tokens=20, temperature=0)
    (choice,) = answer.choices
    assert (answer.object, answer.model, choice.index) == ("text_completion", NAME, 0)
    assert (choice.text, choice.finish_reason) == (greedy(chatty, PROMPTS[0], 20), "length")
    assert answer.usage.completion_tokens == 20
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 20
    assert client.completions.create(model=NAME, prompt=PROMPTS[0]).usage.completion_tokens == 16


def test_a_streamed_completion_has_one_chunk_a_token_and_then_the_usage(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": NAME, "prompt": PROMPTS[1], "max_tokens": 30, "temperature": 0}
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    *tokens, last = chunks
    assert "".join(chunk.choices[0].text for chunk in tokens) == whole.choices[0].text
    assert len(tokens) == 30
    assert [chunk.choices[0].finish_reason for chunk in tokens] == [None] * 29 + ["length"]
    assert (last.choices, last.usage.completion_tokens) == ([], 30)
    assert {chunk.id for chunk in chunks} == {last.id}
    assert len(list(client.completions.create(**asked, stream=True))) == 30


def test_a_chat_goes_through_the_template_and_streams(chatty: Daemon, client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": NAME, "max_completion_tokens": 12, "temperature": 0}
    asked["messages"] = [
        {"role": "developer", "content": "Once"},
        {"role": "user", "content": [{"type": "text", "text": "upon "}, {"type": "text", "text": "a time"}]},
    ]
    answer = client.chat.completions.create(**asked)
    (choice,) = answer.choices
    assert (choice.message.role, choice.finish_reason) == ("assistant", "length")
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == choice.message.content
    assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant"] + [None] * 11
    assert chunks[-1].choices[0].finish_reason == "length"
    assert choice.message.content


def test_choices_of_several_prompts_are_numbered_prompt_by_prompt(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": NAME, "max_tokens": 8, "temperature": 0.9, "seed": 5, "n": 3}
    answer = client.completions.create(prompt=list(PROMPTS[:2]), **asked)
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert len({choice.text for choice in answer.choices}) > 3
    alone = client.completions.create(prompt=PROMPTS[1], **asked)
    assert [choice.text for choice in alone.choices] == [choice.text for choice in answer.choices[3:]]
    texts = [""] * 6
    for chunk in client.completions.create(prompt=list(PROMPTS[:2]), stream=True, **asked):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in answer.choices]


def test_token_ids_are_a_prompt(client: openai.OpenAI) -> None:
    texts = [
        [choice.text for choice in client.completions.create(model=NAME, prompt=prompt, temperature=0).choices]
        for prompt in ([1, 400, 401], [[1, 400, 401], [1, 402]])
    ]
    assert len(texts[0]) == 1
    assert texts[1][0] == texts[0][0]
    assert texts[1][1] != texts[0][0]


def test_stop_strings_and_token_bounds(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": NAME, "prompt": PROMPTS[0], "temperature": 0, "max_tokens": 40}
    text = client.completions.create(**asked).choices[0].text
    stop = text[10:14]
    for stops in (stop, ["never seen", stop]):
        for stream in (False, True):
            answer = client.completions.create(**asked, stop=stops, stream=stream)
            chunks = list(answer) if stream else [answer]
            assert "".join(chunk.choices[0].text for chunk in chunks) == text[: text.index(stop)]
            assert chunks[-1].choices[0].finish_reason == "stop"
    longer = client.completions.create(**asked, stop=stop, extra_body={"min_tokens": 30})
    assert longer.usage.completion_tokens >= 30


def test_logprobs_of_both_routes(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": NAME, "max_tokens": 6, "temperature": 0}
    found = client.completions.create(prompt=PROMPTS[0], logprobs=2, **asked).choices[0]
    assert "".join(found.logprobs.tokens) == found.text
    assert found.logprobs.text_offset == [len("".join(found.logprobs.tokens[:count])) for count in range(6)]
    assert [max(best.values()) for best in found.logprobs.top_logprobs] == found.logprobs.token_logprobs
    streamed = list(client.completions.create(prompt=PROMPTS[0], logprobs=2, stream=True, **asked))
    assert [chunk.choices[0].logprobs.text_offset[0] for chunk in streamed] == found.logprobs.text_offset

    messages = [{"role": "user", "content": PROMPTS[0]}]
    chat = client.chat.completions.create(messages=messages, logprobs=True, top_logprobs=3, **asked).choices[0]
    entries = chat.logprobs.content
    assert "".join(entry.token for entry in entries) == chat.message.content
    assert bytes(byte for entry in entries for byte in entry.bytes).decode() == chat.message.content
    assert all(len(entry.top_logprobs) == 3 and entry.top_logprobs[0].token == entry.token for entry in entries)
    plain = client.chat.completions.create(messages=messages, logprobs=True, **asked).choices[0]
    assert [entry.top_logprobs for entry in plain.logprobs.content] == [[]] * 6


def test_refusals_are_the_exceptions_that_the_client_knows(chatty: Daemon, client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": NAME, "prompt": PROMPTS[0]}
    tools = [{"type": "function", "function": {"name": "f"}}]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "x"}], tools=tools)
    assert (refused.value.code, refused.value.param) == ("unsupported", "tools")
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**asked, extra_body={"temperture": 1})
    assert (refused.value.code, refused.value.param) == ("unknown_field", "temperture")
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**asked, temperature=-1)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=NAME, prompt=[5] * 512)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "prompt")
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(
                model=NAME, messages=[{"role": "user", "content": "x"}], max_completion_tokens=9000, stream=stream
            )
        assert refused.value.param == "max_completion_tokens", "as the body calls it"
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="gpt-5", prompt="x")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as never:
        client.completions.create(**asked, n=16)
    assert "12 requests that may wait" in str(never.value)
    with chatty.paused(), pytest.raises(openai.RateLimitError) as full:  # else the first eight may wait no more
        client.completions.create(model=NAME, prompt=list(PROMPTS[:2]), n=8, stream=True)
    assert full.value.code == "queue_full"
    assert int(full.value.response.headers["retry-after"]) >= 1
    with pytest.raises(openai.InternalServerError) as late:
        client.completions.create(**asked, n=8, max_tokens=490, extra_body={"deadline_s": 0.05, "ignore_eos": True})
    assert (late.value.code, late.value.status_code) == ("deadline_exceeded", 504)
    with pytest.raises(openai.APIError, match="after its arrival"):  # the status was sent before
        list(
            client.completions.create(
                **asked, n=8, max_tokens=490, stream=True, extra_body={"deadline_s": 0.1, "ignore_eos": True}
            )
        )


def test_the_models_of_the_server(client: openai.OpenAI, chatty: Daemon) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.max_model_len) == (NAME, 512)
    with http_server(chatty.endpoint) as other:  # without a name of its own: the path, or the folder's name
        (entry,) = other.get("/v1/models").json["data"]
        assert Path(entry["id"]).name == "model"
        for name in (entry["id"], "model"):
            assert other.post(COMPLETIONS, {"model": name, "prompt": "x"}).status == 200


# --- what load generators send -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
def test_the_bodies_of_common_load_generators(server: HttpServer, path: str) -> None:
    """One chunk with choices a token, also the first; the token counts in a chunk without choices; no error."""
    if path == COMPLETIONS:
        body: dict[str, Any] = {
            "prompt": PROMPTS[0], "repetition_penalty": 1.0, "max_tokens": 25, "logprobs": None,
        }  # fmt: skip
    else:
        content = [{"type": "text", "text": PROMPTS[0]}]
        body = {"messages": [{"role": "user", "content": content}], "max_completion_tokens": 25}
    body |= {"stream_options": {"include_usage": True}, "ignore_eos": True, "temperature": 0.0}
    with server.stream(path, **body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        *tokens, last = events(response)
    assert all(len(chunk["choices"]) == 1 for chunk in tokens)
    assert len(tokens) == 25
    text = [chunk["choices"][0].get("text") or chunk["choices"][0].get("delta", {}).get("content") for chunk in tokens]
    assert text[0]
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 25)
    assert last["usage"]["prompt_tokens"] > 0


# --- clients that go, or do not read ---------------------------------------------------------------------------


def test_a_request_carries_the_answers_id_in_the_daemon(chatty: Daemon, server: HttpServer) -> None:
    with server.stream(COMPLETIONS, prompt=PROMPTS[0], max_tokens=490, ignore_eos=True, slo_class="batch") as response:
        first = next(events(response))
        with chatty.paused(), chatty.client() as operator:
            (row,) = operator.call(GetRequests(call=0, id=first["id"])).rows
        assert (row.slo_class, response.headers["x-request-id"]) == ("batch", first["id"])


def test_whoever_leaves_is_noticed_and_its_blocks_are_free(chatty: Daemon, server: HttpServer) -> None:
    before = chatty.status().requests
    disconnects = value(server, "rapidd_http_disconnects_total")
    body = {"model": NAME, "prompt": list(PROMPTS[:2]), "n": 2, "max_tokens": 490, "ignore_eos": True}
    with ExitStack() as leaving:
        asked = server.stream(COMPLETIONS, prompt=PROMPTS[0], n=8, max_tokens=490, ignore_eos=True, logprobs=20)
        next(events(leaving.enter_context(asked)))
        with chatty.paused():  # at once, and with logprobs, which take long: it ended before others were accepted
            plain = leaving.enter_context(closing(server.connect()))  # one that does not stream
            plain.request("POST", COMPLETIONS, json.dumps(body), {"content-type": "application/json"})
            chatty.until(lambda status: status.requests.accepted_total == before.accepted_total + 3)
            leaving.close()
            chatty.until(lambda status: status.requests.cancelled_total == before.cancelled_total + 3)
    chatty.until_idle()
    assert value(server, "rapidd_http_disconnects_total") == disconnects + 2
    assert server.complete(prompt="x").status == 200


def test_whoever_does_not_read_is_cut_and_the_others_go_on(chatty: Daemon, server: HttpServer) -> None:
    body = {"model": NAME, "prompt": PROMPTS[0], "n": 8, "max_tokens": 490, "ignore_eos": True, "stream": True}
    data = json.dumps(body | {"logprobs": 20}).encode()  # megabytes, more than sockets hold
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    before = chatty.status().requests
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
        chatty.until(lambda status: status.requests.accepted_total > before.accepted_total)
        assert server.complete(prompt=PROMPTS[0], max_tokens=20).json["choices"][0]["text"]
        chatty.until_idle()
        found = b"".join(iter(lambda: sock.recv(1 << 20), b""))
    assert found.startswith(b"HTTP/1.1 200")
    assert b"[DONE]" not in found
    assert chatty.status().requests.cancelled_total == before.cancelled_total + 1
    assert server.complete(prompt="x").status == 200


def test_a_stream_outlives_the_engine_and_the_front(chatty: Daemon, server: HttpServer) -> None:
    asked: dict[str, Any] = {"prompt": PROMPTS[2], "max_tokens": 400, "ignore_eos": True}
    whole = server.complete(**asked).json["choices"][0]["text"]
    for process in ("engine", "front"):
        with server.stream(COMPLETIONS, **asked) as response:
            found = events(response)
            parts = [next(found) for _ in range(3)]
            chatty.kill(process)
            parts += found
        assert "".join(part["choices"][0]["text"] for part in parts) == whole
        assert parts[-1]["choices"][0]["finish_reason"] == "length"
    chatty.until_idle()


# --- looking -----------------------------------------------------------------------------------------------------


def samples(server: HttpServer) -> dict[str, float]:
    """All samples of `/metrics`, as name{labels}."""
    text = server.get("/metrics").body.decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for name, labels, amount, *_ in family.samples:
            label = ",".join(f"{key}={labels[key]}" for key in sorted(labels))
            found[f"{name}{{{label}}}" if label else name] = amount
    return found


def value(server: HttpServer, name: str) -> float:
    return samples(server)[name]


def test_metrics_count_what_was_done(server: HttpServer) -> None:
    before = samples(server)
    assert server.complete(prompt=PROMPTS[0], max_tokens=10).status == 200
    assert server.complete(prompt=PROMPTS[0], max_tokens=-1).status == 400

    def grew(name: str) -> float:
        return value(server, name) - before.get(name, 0)

    assert grew("rapidd_output_tokens_total") == 10
    assert grew("rapidd_time_to_first_token_seconds_count") == 1
    assert grew("rapidd_inter_token_latency_seconds_count") == 9
    assert grew("rapidd_inter_token_latency_seconds_bucket{le=+Inf}") == 9
    assert grew("rapidd_inter_token_latency_seconds_sum") > 0
    assert grew("rapidd_request_duration_seconds_count") == 1
    for code in ("200", "400"):
        assert grew(f"rapidd_http_requests_total{{code={code},method=POST,route=/v1/completions}}") == 1
    after = samples(server)
    assert (after["rapidd_up"], after["rapidd_ready"], after["rapidd_http_requests_in_progress"]) == (1, 1, 1)
    assert 0 <= after[f"vllm:kv_cache_usage_perc{{model_name={NAME}}}"] < 1
    buckets = [amount for name, amount in after.items() if name.startswith("rapidd_time_to_first_token_seconds_bucket")]
    assert buckets == sorted(buckets)


def test_health_of_a_daemon_that_serves(server: HttpServer) -> None:
    for path in ("/health", "/health/ready", "/health/live"):
        assert server.get(path).status == 200
    assert server.get("/health").json == {"status": "ready", "state": "serving", "detail": ""}
