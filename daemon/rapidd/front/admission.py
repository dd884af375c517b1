"""From a decoded `wire.Generate` to what the engine is asked: validation, tokenising, defaults. Pure.

Raises `RequestError` for every refusal, with what to do. Bounds of single fields were checked while decoding; here
are the rules between fields, the model's and the engine's limits, and the queue's. A message that blames one field
begins with its name, by which the HTTP server knows it.
"""

import hashlib
import secrets
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import UNSET, Struct

from rapidctl import wire
from rapidd import ipc
from rapidd.errors import RequestError
from rapidd.front.journal import Choice, Journal, Stream
from rapidd.front.streams import OutputText
from rapidd.model.chat import ChatTemplate
from rapidd.model.tokenizer import Tokenizer

_INSTEAD: Final = {
    "response_format": "leave it out and parse the text, or stop the output with `stop`",
    "tools": "describe the tools in a system message and parse the text",
    "tool_choice": "leave it out",
    "logit_bias": "leave it out; min_p, top_k and the penalties shape the distribution",
    "lora": "leave it out, or serve a model that has the adapter merged",
}
"""What to do without each field of `wire.UNSUPPORTED_FIELDS`."""

LONG_CHARS: Final = 4096
"""Encoding this much takes a few milliseconds, which running streams do not feel."""
CHARS_A_TOKEN: Final = 8
"""More than nearly all text has: one with so many for each token that fits is judged by its beginning."""
EDGE_TOKENS: Final = 64
"""More than a beginning, which may end within a word, can have too many."""
MIN_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 60.0


class TextModel(Struct, frozen=True):
    """The text side of the model that is served."""

    tokenizer: Tokenizer
    template: ChatTemplate
    max_positions: int
    """Longest context that the model itself has; what is served may be shorter."""


class Capacity(Struct, frozen=True):
    """What one request may need: the engine's context and KV cache, and the operator's bound."""

    max_model_len: int
    kv_tokens: int
    """Tokens that the whole KV cache holds."""
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    max_output_tokens: int | None

    @classmethod
    def of(cls, hello: ipc.EngineHello, max_output_tokens: int | None) -> "Capacity":
        """From what the engine says about itself; ``kv_blocks`` counts usable blocks, not the dummy."""
        return cls(
            max_model_len=hello.max_model_len,
            kv_tokens=hello.kv_blocks * hello.kv_block_tokens,
            vocab_size=hello.model.vocab_size,
            eos_token_ids=tuple(hello.eos_token_ids),
            max_output_tokens=max_output_tokens,
        )


def digest(request: wire.Generate) -> bytes:
    """Identity of what is asked; what the client already has, and since when, is no part of it."""
    content = wire.encode(msgspec.structs.replace(request, resume_ids=None, age_s=0.0))
    return hashlib.blake2b(content, digest_size=16).digest()


def check_queue(
    journal: Journal,
    num_choices: int,
    encoding: Sequence[wire.Generate],
    max_requests: int,
    max_tokens: int,
    finished_per_s: float,
) -> None:
    """Refuse with ``queue_full`` when ``num_choices`` more would outgrow the queue, or its tokens already have.

    ``encoding``: what was accepted and is being encoded, of which only characters are known. What can never be accepted
    is ``invalid_request``: to try it again would be of no use.
    """
    if num_choices > max_requests:
        raise RequestError(
            "invalid_request",
            f"n {num_choices} is more than the {max_requests} requests that may wait",
            "ask for fewer, or raise server.max-waiting-requests",
        )
    waiting = journal.num_waiting + sum(request.n for request in encoding)
    tokens = journal.waiting_tokens + sum(request.n * num_chars(request) for request in encoding) // CHARS_A_TOKEN
    if waiting + num_choices <= max_requests and tokens < max_tokens:
        return
    raise RequestError(
        "queue_full",
        f"{waiting} requests with {tokens} prompt tokens are waiting; the bounds are {max_requests} and {max_tokens}",
        "try again later, or raise server.max-waiting-requests and server.max-waiting-tokens",
        retry_after_s=retry_after_s(waiting / finished_per_s if finished_per_s else MAX_RETRY_S),
    )


def retry_after_s(wait_s: float) -> float:
    """What a client is told that should come again in ``wait_s``, by prediction."""
    return min(max(wait_s, MIN_RETRY_S), MAX_RETRY_S)


def num_chars(request: wire.Generate) -> int:
    """Of the text that `encode` encodes, without what a template adds; 0 for a prompt that is given in ids."""
    if request.messages is not None:
        return sum(len(message.content) for message in request.messages)
    return len(request.prompt or "")


def is_long(request: wire.Generate) -> bool:
    """Whether `encode` takes so long that streams would feel it."""
    return num_chars(request) > LONG_CHARS


def encode(request: wire.Generate, text: TextModel, capacity: Capacity) -> list[int]:
    """Prompt ids of ``request``; may run in another thread. Raises `RequestError`.

    Takes no longer than the context is long: of a text that is far too long, the beginning is enough to refuse it.
    """
    _check_fields(request)
    if request.prompt_ids is not None:
        return _unpack(request.prompt_ids, "prompt_ids")
    prompt = text.template.render(request.messages) if request.messages else request.prompt or ""
    if len(prompt) > (most := CHARS_A_TOKEN * capacity.max_model_len):
        at_least = len(text.tokenizer.encode(prompt[:most], add_special=False)) - EDGE_TOKENS
        _check_length(at_least, f"more than {at_least}", text, capacity)
    return text.tokenizer.encode(prompt, add_special=request.messages is None) if prompt else []


def admit(
    request: wire.Generate, prompt_ids: list[int], client: bytes, text: TextModel, capacity: Capacity, now_ns: int
) -> Stream:
    """The stream that ``request`` opens, with every choice ready to be submitted. Raises `RequestError`.

    ``prompt_ids`` is what `encode` gave; ``now_ns`` is when the request came, which may have been sent before.
    """
    arrival_ns = now_ns - int(request.age_s * 1e9)
    _check_prompt(request, prompt_ids, text, capacity)
    max_tokens = _max_tokens(request, len(prompt_ids), capacity)
    resume = _resume_ids(request, max_tokens, capacity)
    sampling = request.sampling
    template = ipc.Submit(
        rid=0,
        choice=0,
        prompt_ids=wire.pack_ids(prompt_ids),
        output_ids=b"",
        max_tokens=max_tokens,
        min_tokens=sampling.min_tokens,
        eos_token_ids=[] if sampling.ignore_eos else list(capacity.eos_token_ids),
        stop_token_ids=sampling.stop_token_ids,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        seed=secrets.randbits(63) if sampling.seed is None else sampling.seed,
        logprobs=sampling.logprobs,
        priority=request.priority,
        slo_class=request.slo_class,
        arrival_mono_ns=arrival_ns,
    )
    deadline_ns = None if request.deadline_s is None else arrival_ns + int(request.deadline_s * 1e9)
    stream = Stream(request.id, client, digest(request), template, len(prompt_ids), deadline_ns)
    for index in range(request.n):
        choice = Choice(stream, index, OutputText(text.tokenizer.detokenizer(), request.stop, sampling.min_tokens))
        stream.choices.append(choice)
        if resume and resume[index]:
            stream.resumed = True
            choice.restore(resume[index])
    return stream


def _check_fields(request: wire.Generate) -> None:
    for field in wire.UNSUPPORTED_FIELDS:
        if getattr(request, field) is not UNSET:
            raise RequestError("unsupported", f"{field} is not supported", _INSTEAD[field])
    given = [name for name in ("prompt", "messages", "prompt_ids") if getattr(request, name) is not None]
    if len(given) != 1:
        raise RequestError(
            "invalid_request",
            f"give exactly one of prompt, messages and prompt_ids; got {' and '.join(given) or 'none'}",
        )
    sampling = request.sampling
    if sampling.max_tokens is not None and sampling.min_tokens > sampling.max_tokens:
        raise RequestError(
            "invalid_request", f"min_tokens {sampling.min_tokens} is more than max_tokens {sampling.max_tokens}"
        )


def _check_prompt(request: wire.Generate, ids: list[int], text: TextModel, capacity: Capacity) -> None:
    if not ids:
        raise RequestError("empty_prompt", "the prompt has no tokens", "give at least one character, message or id")
    _check_length(len(ids), f"{len(ids)}", text, capacity)
    _check_vocabulary(ids, "the prompt" if request.prompt_ids is None else "prompt_ids", capacity)


def _check_length(num_tokens: int, told: str, text: TextModel, capacity: Capacity) -> None:
    longest = capacity.max_model_len - 1
    if num_tokens > longest:
        could_fit = num_tokens < text.max_positions
        raise RequestError(
            "prompt_too_long",
            f"the prompt has {told} tokens; the context of {capacity.max_model_len} takes at most {longest} "
            "and one of output",
            f"shorten the prompt{', or serve with a larger --max-model-len' if could_fit else ''}",
        )


def _max_tokens(request: wire.Generate, prompt_len: int, capacity: Capacity) -> int:
    """Output bound: what was asked if it fits, else a refusal; by default all that fits."""
    asked = request.sampling.max_tokens
    bounds = {
        f"the context of {capacity.max_model_len}": capacity.max_model_len - prompt_len,
        "server.max-output-tokens": capacity.max_output_tokens,
    }
    # Over HTTP only a chat gets all that fits without it, a completion 16 tokens.
    or_all = ", or leave it out to get all that fits" if request.messages else ""
    for name, bound in bounds.items():
        if asked is not None and bound is not None and asked > bound:
            raise RequestError(
                "invalid_request",
                f"max_tokens {asked} and a prompt of {prompt_len} tokens do not fit {name}",
                f"ask for at most {bound}{or_all}",
            )
    fitting = min(bound for bound in (*bounds.values(), capacity.kv_tokens - prompt_len) if bound is not None)
    if fitting < (asked or 1):
        raise RequestError(
            "kv_too_small",
            f"the KV cache holds {capacity.kv_tokens} tokens, too few for a prompt of {prompt_len} and "
            f"{asked or 1} of output",
            "shorten the request, or serve with more --kv-blocks",
        )
    if request.sampling.min_tokens > fitting:
        raise RequestError(
            "invalid_request", f"min_tokens {request.sampling.min_tokens} is more than the {fitting} that fit"
        )
    return asked or fitting


def _resume_ids(request: wire.Generate, max_tokens: int, capacity: Capacity) -> list[list[int]] | None:
    if request.resume_ids is None:
        return None
    if len(request.resume_ids) != request.n:
        raise RequestError(
            "invalid_request", f"resume_ids has {len(request.resume_ids)} entries for {request.n} choices"
        )
    resumed = [_unpack(ids, "resume_ids") for ids in request.resume_ids]
    for ids in resumed:
        _check_vocabulary(ids, "resume_ids", capacity)
    longest = max(map(len, resumed))
    if longest > max_tokens:
        raise RequestError("invalid_request", f"resume_ids holds {longest} ids, more than max_tokens {max_tokens}")
    return resumed


def _unpack(data: bytes, name: str) -> list[int]:
    try:
        return wire.unpack_ids(data)
    except wire.WireError as error:
        raise RequestError("invalid_request", f"{name}: {error}") from error


def _check_vocabulary(ids: list[int], name: str, capacity: Capacity) -> None:
    if ids and max(ids) >= capacity.vocab_size:
        raise RequestError(
            "invalid_request", f"{name} holds token {max(ids)}; the model knows 0 to {capacity.vocab_size - 1}"
        )
