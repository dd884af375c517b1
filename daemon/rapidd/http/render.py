"""From the daemon's messages to what the API answers: one JSON document, or a stream of chunks. Pure.

A stream's chunks differ in a text, a reason and perhaps logprobs; all that surrounds these is put together once an
answer, as bytes. A chunk for each choice and engine step, also when its text is held back: clients time them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from rapidctl.wire import Delta, Finished, TokenLogprob
from rapidd.http.errors import ApiError

DONE: Final = b"data: [DONE]\n\n"
KEEP_ALIVE: Final = b": keep-alive\n\n"
"""A comment of the event stream: clients skip it, and connections stay open while a prompt is computed."""
AFTER_KEEP_ALIVE: Final = b":\n\n"
"""An empty comment before the event that follows one: `vllm bench serve` strips the end off what it reads, so it would
take the event for a part of the comment, and the answer for none."""

_json: Final = msgspec.json.Encoder().encode


class Shape(Struct, frozen=True):
    """What one of the two routes calls things."""

    id_prefix: str
    document: str
    chunk: str
    text_first: bytes
    """Before the text of a choice's first chunk, and of the later ones; ``text_end`` is behind it."""
    text_later: bytes
    text_end: bytes
    choice: Callable[[str], dict[str, Any]]
    """The text of a whole choice, as a part of the document."""
    logprobs: Callable[[list[TokenLogprob], int], dict[str, Any]]
    """Of some tokens, the first of which stands at a character of the output."""


class Answer(Struct, frozen=True):
    """What all parts of one answer repeat. ``n``: choices a prompt; ``names``: see `translate.field_names`."""

    shape: Shape
    id: str
    model: str
    created: int
    n: int
    names: dict[str, str] = {}


class Usage:
    """Tokens of an answer, summed over its prompts as they finish."""

    def __init__(self) -> None:
        self.prompt = self.cached = self.output = 0

    def add(self, finished: Finished) -> None:
        """One prompt is done."""
        self.prompt += finished.prompt_tokens
        self.cached += finished.cached_tokens
        self.output += finished.output_tokens

    def document(self) -> dict[str, Any]:
        """As the API names them."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.output,
            "total_tokens": self.prompt + self.output,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


# --- one document ------------------------------------------------------------------------------------------------


class Document:
    """Collects the answer of a request that does not stream."""

    def __init__(self, answer: Answer, num_prompts: int) -> None:
        self._answer = answer
        self._left = num_prompts
        self._usage = Usage()
        self._logprobs: list[list[TokenLogprob]] = [[] for _ in range(num_prompts * answer.n)]
        self._choices: list[dict[str, Any]] = [{} for _ in self._logprobs]

    @property
    def complete(self) -> bool:
        """Every prompt is done."""
        return not self._left

    def take_delta(self, prompt: int, delta: Delta) -> None:
        """New output of a choice; its text comes again, whole, with the end."""
        if delta.logprobs is not None:
            self._logprobs[prompt * self._answer.n + delta.choice] += delta.logprobs

    def take_finished(self, prompt: int, finished: Finished) -> None:
        """A prompt is done."""
        self._left -= 1
        self._usage.add(finished)
        for choice in finished.choices:
            index = prompt * self._answer.n + choice.index
            logprobs = self._logprobs[index]
            self._choices[index] = {
                "index": index,
                **self._answer.shape.choice(choice.text),
                "logprobs": self._answer.shape.logprobs(logprobs, 0) if logprobs else None,
                "finish_reason": choice.finish_reason,
            }

    def body(self) -> bytes:
        """The JSON document."""
        answer = self._answer
        return _json(
            {
                "id": answer.id,
                "object": answer.shape.document,
                "created": answer.created,
                "model": answer.model,
                "choices": self._choices,
                "usage": self._usage.document(),
            }
        )


# --- a stream ----------------------------------------------------------------------------------------------------


class Chunks:
    """Makes the events of a streamed answer."""

    def __init__(self, answer: Answer, num_prompts: int, include_usage: bool) -> None:
        shape, count = answer.shape, num_prompts * answer.n
        head = {"id": answer.id, "object": shape.chunk, "created": answer.created, "model": answer.model}
        self._answer = answer
        self._head: Final = b"data: " + _json(head)[:-1] + b',"choices":['
        self._first: Final = [self._head + b'{"index":%d,' % index + shape.text_first for index in range(count)]
        self._later: Final = [self._head + b'{"index":%d,' % index + shape.text_later for index in range(count)]
        self._usage = Usage() if include_usage else None
        tail = b'}],"usage":null}\n\n' if include_usage else b"}]}\n\n"
        self._end: Final = {
            reason: shape.text_end + b',"logprobs":null,"finish_reason":' + _json(reason) + tail
            for reason in (None, "stop", "length", "cancelled")
        }
        self._tail: Final = tail
        self._leads = self._first.copy()
        self._reasons: list[str | None] = [None] * count
        self._offsets = [0] * count
        self._left = num_prompts
        self._before = b""

    @property
    def complete(self) -> bool:
        """Every prompt is done, and all was said."""
        return not self._left

    def body(self, parts: Sequence[bytes]) -> bytes:
        """Events, at least one, that are sent together."""
        before, self._before = self._before, AFTER_KEEP_ALIVE if parts[-1] is KEEP_ALIVE else b""
        return before + b"".join(parts)

    def delta(self, prompt: int, delta: Delta) -> bytes:
        """New output of a choice."""
        index = prompt * self._answer.n + delta.choice
        lead = self._leads[index]
        self._leads[index] = self._later[index]
        reason = self._reasons[index] = delta.finish_reason
        if delta.logprobs is None:
            return lead + _json(delta.text) + self._end[reason]
        logprobs = self._answer.shape.logprobs(delta.logprobs, self._offsets[index])
        self._offsets[index] += sum(len(_shown(item.text)) for item in delta.logprobs)
        text_end = self._answer.shape.text_end
        parts = (lead, _json(delta.text), text_end, b',"logprobs":', _json(logprobs))
        return b"".join((*parts, b',"finish_reason":', _json(reason), self._tail))

    def finished(self, prompt: int, finished: Finished) -> bytes:
        """A prompt is done: what its last outputs did not say yet; after the last prompt the usage and the end."""
        self._left -= 1
        parts = []
        for choice in finished.choices:
            index = prompt * self._answer.n + choice.index
            if self._reasons[index] is None:
                parts.append(self._leads[index] + b'""' + self._end[choice.finish_reason])
        if self._usage is not None:
            self._usage.add(finished)
        if self.complete:
            if self._usage is not None:
                parts.append(self._head + b'],"usage":' + _json(self._usage.document()) + b"}\n\n")
            parts.append(DONE)
        return b"".join(parts)

    @staticmethod
    def failed(error: ApiError) -> bytes:
        """The answer ends here, with an error that clients raise."""
        return b"data: " + error.body() + b"\n\n" + DONE


# --- logprobs ----------------------------------------------------------------------------------------------------


def _shown(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _completion_logprobs(items: list[TokenLogprob], offset: int) -> dict[str, Any]:
    """Four lists side by side. ``text_offset`` counts characters of the tokens, which near a split one may differ
    from those of the text. Without alternatives the best ones are null, else the chosen token is one of them."""
    tokens = [_shown(item.text) for item in items]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    best: list[dict[str, float]] = [{} for _ in items]
    for item, found in zip(items, best, strict=True):
        for (_, logprob), text in zip(item.top, item.top_texts, strict=True):
            found.setdefault(_shown(text), logprob)  # of several that look the same the likeliest, which comes first
        if found:
            found.setdefault(_shown(item.text), item.logprob)
    return {
        "text_offset": offsets,
        "token_logprobs": [item.logprob for item in items],
        "tokens": tokens,
        "top_logprobs": best if any(best) else None,
    }


def _chat_logprobs(items: list[TokenLogprob], _offset: int) -> dict[str, Any]:
    def entry(text: bytes, logprob: float) -> dict[str, Any]:
        return {"token": _shown(text), "logprob": logprob, "bytes": list(text)}

    content = [
        {
            **entry(item.text, item.logprob),
            "top_logprobs": [entry(text, logprob) for (_, logprob), text in zip(item.top, item.top_texts, strict=True)],
        }
        for item in items
    ]
    return {"content": content, "refusal": None}


COMPLETION: Final = Shape(
    id_prefix="cmpl-",
    document="text_completion",
    chunk="text_completion",
    text_first=b'"text":',
    text_later=b'"text":',
    text_end=b"",
    choice=lambda text: {"text": text},
    logprobs=_completion_logprobs,
)
CHAT: Final = Shape(
    id_prefix="chatcmpl-",
    document="chat.completion",
    chunk="chat.completion.chunk",
    text_first=b'"delta":{"role":"assistant","content":',
    text_later=b'"delta":{"content":',
    text_end=b"}",
    choice=lambda text: {"message": {"role": "assistant", "content": text, "refusal": None}},
    logprobs=_chat_logprobs,
)
