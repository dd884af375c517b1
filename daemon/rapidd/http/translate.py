"""From a decoded body to what the daemon is asked: one `wire.Generate` a prompt. Pure; raises `ApiError`."""

from typing import Any, Final

import msgspec

from rapidctl import wire
from rapidctl.wire import ChatMessage, Generate, Sampling, pack_ids
from rapidd.http.errors import ApiError, from_validation, invalid, unsupported
from rapidd.http.protocol import MAX_BATCH, MAX_PROMPTS, ChatBody, CompletionBody, Message

DEFAULT_COMPLETION_TOKENS: Final = 16
"""What the API promises for a completion; a chat answer has all that fits."""
_ROLES: Final = ("system", "user", "assistant")
_PLAIN: Final = (
    "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "min_tokens", "stop_token_ids",
    "ignore_eos",
)  # fmt: skip
"""Fields of a body that `wire.Sampling` has under the same name."""


def completion(body: CompletionBody, answer_id: str) -> list[Generate]:
    """One request a prompt, under ids that begin with ``answer_id``."""
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise unsupported("best_of", "choices are not ranked; leave it out, or give it the value of n")
    sampling = _sampling(body, body.max_tokens, body.logprobs, default=DEFAULT_COMPLETION_TOKENS)
    prompts = _prompts(body.prompt)
    if len(prompts) * (body.n or 1) > MAX_BATCH:
        raise invalid(f"{len(prompts)} prompts with n = {body.n} are more than {MAX_BATCH} choices", "n")
    return [
        Generate(
            id=answer_id if len(prompts) == 1 else f"{answer_id}-{index}",
            prompt=prompt if isinstance(prompt, str) else None,
            prompt_ids=prompt if isinstance(prompt, bytes) else None,
            sampling=sampling,
            **_common(body),
        )
        for index, prompt in enumerate(prompts)
    ]


def chat(body: ChatBody, answer_id: str) -> list[Generate]:
    """One request."""
    asked = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    if body.max_tokens is not None and asked != body.max_tokens:
        raise invalid("max_tokens and max_completion_tokens differ", "max_completion_tokens")
    if body.top_logprobs is not None and not body.logprobs:
        raise invalid("top_logprobs needs logprobs: true", "top_logprobs")
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    messages = [_message(message, index) for index, message in enumerate(body.messages)]
    sampling = _sampling(body, asked, logprobs, default=None)
    return [Generate(id=answer_id, messages=messages, sampling=sampling, **_common(body))]


def field_names(body: CompletionBody | ChatBody) -> dict[str, str]:
    """What the body calls fields that the daemon has under another name."""
    if isinstance(body, CompletionBody):
        return {"prompt_ids": "prompt"}
    names = {"prompt": "messages", "logprobs": "top_logprobs"}
    if body.max_completion_tokens is not None:
        names["max_tokens"] = "max_completion_tokens"
    return names


def check_size(requests: list[Generate]) -> None:
    """Refuse what the daemon's socket would cut the connection for."""
    for request in requests:
        if len(wire.encode(request)) > wire.MAX_FRAME_BYTES:
            raise ApiError(
                413, "request_too_large", f"the prompt is larger than the {wire.MAX_FRAME_BYTES} bytes that are taken"
            )


def _common(body: CompletionBody | ChatBody) -> dict[str, Any]:
    """Fields of a `Generate` beside the prompt and the sampling."""
    return {
        "n": body.n or 1,
        "stop": [body.stop] if isinstance(body.stop, str) else body.stop or [],
        "priority": body.priority or 0,
        "slo_class": body.slo_class or "interactive",
        "deadline_s": body.deadline_s,
    }


def _sampling(
    body: CompletionBody | ChatBody, max_tokens: int | None, logprobs: int | None, *, default: int | None
) -> Sampling:
    """`wire.Sampling` checks the bounds. Without a temperature it is 1, as the API says."""
    given = {name: value for name in _PLAIN if (value := getattr(body, name)) is not None}
    given["temperature"] = 1.0 if body.temperature is None else body.temperature
    given["max_tokens"] = default if max_tokens is None else max_tokens
    given["logprobs"] = logprobs
    given["top_k"] = max(body.top_k or 0, 0)  # -1 is the other way to say: all
    given["seed"] = None if body.seed is None else body.seed & (2**63 - 1)
    try:
        return msgspec.convert(given, Sampling)
    except msgspec.ValidationError as error:
        raise from_validation(error, field_names(body)) from error


def _prompts(prompt: str | list[str | int | list[int]]) -> list[str | bytes]:
    """Texts as they are, token ids as the wire takes them."""
    if isinstance(prompt, str):
        return [prompt]
    ids = [item for item in prompt if isinstance(item, int)]
    if ids and len(ids) == len(prompt):
        return [pack_ids(ids)]
    if len(prompt) > MAX_PROMPTS:
        raise invalid(f"{len(prompt)} prompts in one body; at most {MAX_PROMPTS}", "prompt")
    prompts: list[str | bytes] = []
    for item in prompt:
        if type(item) is not type(prompt[0]) or isinstance(item, int):
            raise invalid("prompt: texts, token ids or lists of token ids, and not a mixture", "prompt")
        prompts.append(item if isinstance(item, str) else pack_ids(item))
    if not prompts:
        raise ApiError(400, "empty_prompt", "prompt: the list is empty", param="prompt")
    return prompts


def _message(message: Message, index: int) -> ChatMessage:
    role = "system" if message.role == "developer" else message.role
    if role not in _ROLES:
        raise unsupported(f"messages[{index}].role", f"{role!r} is none of {', '.join(_ROLES)}")
    if message.content is None:
        raise invalid(f"messages[{index}].content: expected a text", f"messages[{index}].content")
    if isinstance(message.content, str):
        return ChatMessage(role, message.content)
    texts = []
    for part in message.content:
        if part.type != "text":
            raise unsupported(
                f"messages[{index}].content", f"a part of type {part.type!r}; this server takes text only"
            )
        if part.text is None:
            raise invalid(f"messages[{index}].content: a part of type text has a text", f"messages[{index}].content")
        texts.append(part.text)
    return ChatMessage(role, "".join(texts))
