"""What bodies are taken, what they become, and what is refused by name. No sockets."""

from typing import Any, get_args

import msgspec
import pytest

from rapidctl import wire
from rapidctl.errors import Unreachable
from rapidctl.wire import Failed, Generate
from rapidd.http import errors, protocol, translate
from rapidd.http.errors import ApiError
from rapidd.http.protocol import MAX_BATCH, MAX_PROMPTS, UNSUPPORTED, ChatBody, CompletionBody

USER = {"role": "user", "content": "x"}


def completion(**fields: Any) -> list[Generate]:
    data = msgspec.json.encode({"model": "m", "prompt": "x"} | fields)
    return translate.completion(protocol.decode_completion(data), "cmpl-1")


def chat(**fields: Any) -> Generate:
    data = msgspec.json.encode({"model": "m", "messages": [USER]} | fields)
    (request,) = translate.chat(protocol.decode_chat(data), "chatcmpl-1")
    return request


def refusal(ask: Any, **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        ask(**fields)
    return caught.value


# --- what fields become ------------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_api() -> None:
    (request,) = completion()
    assert request == Generate(id="cmpl-1", prompt="x", sampling=wire.Sampling(temperature=1.0, max_tokens=16))
    request = chat()
    assert request.messages == [wire.ChatMessage("user", "x")]
    assert request.sampling == wire.Sampling(temperature=1.0)


def test_every_sampling_field_reaches_the_daemon() -> None:
    sampling = {
        "temperature": 0, "top_p": 0.5, "top_k": 7, "min_p": 0.1, "repetition_penalty": 1.1, "presence_penalty": 0.2,
        "frequency_penalty": -0.3, "seed": 9, "max_tokens": 5, "min_tokens": 2, "stop_token_ids": [3, 4],
        "ignore_eos": True, "logprobs": 2,
    }  # fmt: skip
    assert set(sampling) == set(wire.Sampling.__struct_fields__)
    (request,) = completion(**sampling)
    assert msgspec.structs.asdict(request.sampling) == sampling
    (request,) = completion(stop="a", n=2, priority=-3, slo_class="batch", deadline_s=1.5)
    assert (request.stop, request.n, request.priority, request.slo_class, request.deadline_s) == (
        ["a"], 2, -3, "batch", 1.5,
    )  # fmt: skip


def test_null_is_the_same_as_nothing() -> None:
    required = {"model", "prompt", "messages"}
    nulls = {name: None for name in CompletionBody.__struct_fields__ if name not in required}
    assert completion(**nulls) == completion()
    nulls = {name: None for name in ChatBody.__struct_fields__ if name not in required}
    assert chat(**nulls) == chat()


def test_fields_that_change_nothing_are_taken_whatever_they_hold() -> None:
    """OpenAI's clients send them; every value but null was refused."""
    labels = {"user": "u-1", "metadata": {"run": "7"}, "safety_identifier": "s", "prompt_cache_key": "k"}
    assert completion(**labels) == completion()
    assert chat(**labels, parallel_tool_calls=True, prompt_cache_retention="24h") == chat()


def test_how_a_prompt_is_to_be_cached_changes_nothing() -> None:
    """The newer ways of the API to say it were refused as fields that nobody knows."""
    part = {"type": "text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}}
    messages = [{"role": "user", "content": [part]}]
    assert chat(messages=messages, prompt_cache_options={"mode": "explicit", "ttl": "30m"}) == chat()


def test_other_spellings_of_the_same_wish() -> None:
    assert completion(top_k=-1) == completion(top_k=0) == completion()
    assert completion(best_of=2, n=2) == completion(n=2)
    assert chat(max_completion_tokens=5) == chat(max_tokens=5) == chat(max_tokens=5, max_completion_tokens=5)
    assert chat(logprobs=True).sampling.logprobs == 0
    assert chat(logprobs=True, top_logprobs=4).sampling.logprobs == 4
    assert chat(logprobs=False).sampling.logprobs is None
    assert completion(seed=-1)[0].sampling.seed == 2**63 - 1
    assert chat(messages=[{"role": "developer", "content": "x"}]).messages == [wire.ChatMessage("system", "x")]


def test_prompts_are_texts_or_token_ids() -> None:
    assert [request.prompt for request in completion(prompt=["a", "b"])] == ["a", "b"]
    assert [request.id for request in completion(prompt=["a", "b"])] == ["cmpl-1-0", "cmpl-1-1"]
    assert completion(prompt=[1, 2])[0].prompt_ids == wire.pack_ids([1, 2])
    assert [request.prompt_ids for request in completion(prompt=[[1], [2, 3]])] == [
        wire.pack_ids([1]), wire.pack_ids([2, 3]),
    ]  # fmt: skip


# --- what is refused -----------------------------------------------------------------------------------------------


def test_a_field_of_few_words_is_refused_with_those_it_takes() -> None:
    error = refusal(completion, slo_class="lazy")
    assert (error.status, error.param) == (400, "slo_class")
    assert error.message == "slo_class: invalid enum value 'lazy'; use interactive or batch"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": wire.MAX_CHOICES + 1}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"stop": [""]}, "stop[0]"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"stream_options": {"include_usge": True}}, "stream_options.include_usge"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [2**32]}, "prompt[0]"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [1, [2]]}, "prompt"),
        ({"prompt": ["x"] * (MAX_PROMPTS + 1)}, "prompt"),
        ({"prompt": ["x"] * 20, "n": MAX_BATCH // 16}, "n"),
        ({"model": 1}, "model"),
    ],
)
def test_a_bad_field_of_a_completion_is_named(fields: dict[str, Any], param: str) -> None:
    error = refusal(completion, **fields)
    assert (error.status, error.param) == (400, param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [USER, {"role": "user", "content": [{"type": "text"}]}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
         "messages[0].content.image_url"),
        ({"messages": [{"role": "user", "content": [{"type": "sound", "text": "x"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "user", "content": "x", "color": "red"}]}, "messages[0].color"),
    ],
)  # fmt: skip
def test_a_bad_field_of_a_chat_is_named(fields: dict[str, Any], param: str) -> None:
    error = refusal(chat, **fields)
    assert (error.status, error.param) == (400, param)


def known(struct: type[msgspec.Struct]) -> list[str]:
    return [name for name in struct.__struct_fields__ if name in UNSUPPORTED]


@pytest.mark.parametrize("name", known(CompletionBody))
def test_what_a_completion_cannot_have_is_refused_unless_it_asks_for_nothing(name: str) -> None:
    check_unsupported(completion, name)


@pytest.mark.parametrize("name", known(ChatBody))
def test_what_a_chat_cannot_have_is_refused_unless_it_asks_for_nothing(name: str) -> None:
    check_unsupported(chat, name)


def check_unsupported(ask: Any, name: str) -> None:
    instead, harmless = UNSUPPORTED[name]
    for value in (True, 1, "yes", {"a": "b" * 100}, ["c"]):
        error = refusal(ask, **{name: value})
        assert (error.status, error.code, error.param) == (400, "unsupported", name)
        assert instead in error.message
    for nothing in harmless:
        assert ask(**{name: nothing}) == ask()


@pytest.mark.parametrize("value", [b"1e999", b"[-1e999]", b'"\xff"'])
def test_what_a_field_that_is_not_had_holds_is_read_with_care(value: bytes) -> None:
    """Such a value is decoded only to see whether it asks for nothing. One that cannot be was answered with 500, as a
    bug of the server."""
    error = refusal(protocol.decode_completion, data=b'{"model": "m", "prompt": "x", "suffix": %s}' % value)
    assert (error.status, error.code, error.param) == (400, "unsupported", "suffix")


def test_a_frame_that_would_cut_the_connection_is_never_sent() -> None:
    small, large = completion(prompt=[1] * 1000), completion(prompt=[1] * (wire.MAX_FRAME_BYTES // 4))
    translate.check_size(small)
    assert refusal(translate.check_size, requests=large).status == 413


# --- errors --------------------------------------------------------------------------------------------------------


def test_every_code_of_the_daemon_has_a_status() -> None:
    bugs = set()
    for code in get_args(wire.ErrorCode):
        error = errors.from_failed(Failed(code=code, message="m", hint="do this"))
        assert error.message == "m (do this)"
        assert set(msgspec.json.decode(error.body())["error"]) == {"message", "type", "param", "code"}
        assert (error.retry_after_s is None) == (error.status != 503)
        if error.status == 500:
            bugs.add(code)
    assert bugs == {
        "unknown_kind", "hello_required", "protocol", "duplicate_id", "not_found", "not_permitted", "epoch_conflict",
        "too_soon", "internal_error",
    }  # fmt: skip


def test_when_to_ask_again_is_said_in_whole_seconds() -> None:
    full = errors.from_failed(Failed(code="queue_full", message="m", retry_after_s=2.2))
    assert (full.status, full.kind, full.headers()) == (429, "rate_limit_error", [(b"retry-after", b"3")])
    gone = errors.from_client(Unreachable("nobody", "start one"))
    assert (gone.status, gone.headers(), gone.message) == (503, [(b"retry-after", b"1")], "nobody (start one)")


def test_the_field_that_the_daemon_blames_is_the_param() -> None:
    blamed = errors.from_failed(Failed(code="invalid_request", message="min_tokens: not so"))
    assert (blamed.param, blamed.message) == ("min_tokens", "min_tokens: not so")
    assert errors.from_failed(Failed(code="invalid_request", message="that is: not so")).param is None
    assert errors.from_failed(Failed(code="queue_full", message="n 4 is too much now")).param is None


_COMPLETION = CompletionBody(model="m", prompt="x")
_CHAT = ChatBody(model="m", messages=[])


@pytest.mark.parametrize(
    ("body", "code", "message", "param"),
    [
        (_COMPLETION, "invalid_request", "max_tokens 9000 and a prompt do not fit", "max_tokens"),
        (_CHAT, "invalid_request", "max_tokens 9000 and a prompt do not fit", "max_tokens"),
        (msgspec.structs.replace(_CHAT, max_completion_tokens=9000), "invalid_request",
         "max_tokens 9000 and a prompt do not fit", "max_completion_tokens"),
        (_COMPLETION, "invalid_request", "min_tokens 2 is more than max_tokens 1", "min_tokens"),
        (_COMPLETION, "invalid_request", "prompt_ids holds token 900", "prompt"),
        (_COMPLETION, "empty_prompt", "the prompt has no tokens", "prompt"),
        (_CHAT, "empty_prompt", "the prompt has no tokens", "messages"),
        (_COMPLETION, "prompt_too_long", "the prompt has 70 tokens", "prompt"),
        (_CHAT, "prompt_too_long", "the prompt has 70 tokens", "messages"),
        (_CHAT, "invalid_request", "messages[0].content: expected str of length <= 3", "messages[0].content"),
    ],
)  # fmt: skip
def test_the_field_that_the_daemon_blames_is_named_as_the_body_does(
    body: CompletionBody | ChatBody, code: wire.ErrorCode, message: str, param: str
) -> None:
    """``param`` was null for all but the messages with a colon."""
    error = errors.from_failed(Failed(code=code, message=message, hint="do this"), translate.field_names(body))
    assert (error.status, error.param) == (400, param)
    assert error.message.endswith(f"{message.partition(' ')[2]} (do this)")
    assert error.message.startswith((param, "the prompt"))


@pytest.mark.parametrize("name", ["model", "prompt"])
def test_a_field_that_is_missing_is_named(name: str) -> None:
    """It was in the message alone."""
    body = {"model": "m", "prompt": "x"}
    del body[name]
    error = refusal(protocol.decode_completion, data=msgspec.json.encode(body))
    assert (error.status, error.param, error.message) == (400, name, f"missing field: {name}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the body is empty: send a JSON object"),
        (b" \n", "the body is empty: send a JSON object"),
        (b"{", "input data was truncated"),
        (b"{]", "JSON is malformed: object keys must be strings (byte 1)"),
        (b"[]", "expected object, got array"),
    ],
)
def test_what_is_no_json_object_is_told_in_words(data: bytes, message: str) -> None:
    """It was "jSON is malformed", and an empty body was one that "was truncated"."""
    error = refusal(protocol.decode_completion, data=data)
    assert (error.status, error.code, error.param, error.message) == (400, "invalid_request", None, message)


def test_text_that_is_no_utf_8_is_told_so() -> None:
    error = refusal(protocol.decode_completion, data=b'{"model": "\xff"}')
    assert (error.status, error.code) == (400, "invalid_request")
    assert error.message.startswith("a string in the body is not valid UTF-8")
