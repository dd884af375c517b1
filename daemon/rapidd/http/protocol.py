"""The bodies that the two generating routes take: every field of the OpenAI API, and ours, as msgspec structs.

A field nobody knows is refused by name. A field that the API documents and this server does not have is refused too,
unless its value asks for nothing (null, an empty list, `{"type": "text"}`): see `UNSUPPORTED`. Bounds of sampling
values are those of `rapidctl.wire.Sampling`, checked where it is made.
"""

from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from rapidctl import wire
from rapidd.http.errors import from_validation, invalid, unsupported

MAX_PROMPTS: Final = 128
"""In one body; each is a request of its own to the daemon."""
MAX_BATCH: Final = 256
"""Choices of all prompts of a body together."""
MAX_PARTS: Final = 64
_MAX_HARMLESS_BYTES: Final = 64

TokenId = Annotated[int, Meta(ge=0, le=2**32 - 1)]
StopString = Annotated[str, Meta(min_length=1, max_length=wire.MAX_STOP_CHARS)]
_Unread = Raw | UnsetType
_Ignored = Raw | UnsetType  # with null in the union, msgspec would take nothing else


class StreamOptions(Struct, forbid_unknown_fields=True):
    """``include_usage``: one more chunk at the end, with the tokens. ``include_obfuscation`` false asks for nothing."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Body(Struct, kw_only=True, forbid_unknown_fields=True):
    """What both routes take."""

    model: Annotated[str, Meta(max_length=4096)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=wire.MAX_CHOICES)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_tokens: int | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=wire.MAX_STOP_STRINGS)] | None = None
    # Extensions: as other servers of the field name them.
    top_k: Annotated[int, Meta(ge=-1, le=1_000_000)] | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=wire.MAX_STOP_TOKENS)] | None = None
    ignore_eos: bool | None = None
    # Extensions of this server.
    priority: Annotated[int, Meta(ge=-100, le=100)] | None = None
    slo_class: wire.SloClass | None = None
    deadline_s: Annotated[float, Meta(gt=0, le=wire.MAX_DEADLINE_S)] | None = None
    # They change nothing about the answer.
    user: _Ignored = UNSET
    metadata: _Ignored = UNSET
    safety_identifier: _Ignored = UNSET
    prompt_cache_key: _Ignored = UNSET
    prompt_cache_options: _Ignored = UNSET
    prompt_cache_retention: _Ignored = UNSET
    service_tier: _Unread = UNSET
    store: _Unread = UNSET
    logit_bias: _Unread = UNSET


class CompletionBody(_Body):
    """`/v1/completions`. ``prompt``: a text, several, token ids, or several lists of token ids."""

    prompt: Annotated[str, Meta(max_length=wire.MAX_PROMPT_CHARS)] | list[str | TokenId | list[TokenId]]
    best_of: int | None = None
    logprobs: int | None = None
    echo: _Unread = UNSET
    suffix: _Unread = UNSET


class TextPart(Struct, kw_only=True, forbid_unknown_fields=True):
    """A part of a message."""

    type: str
    text: str | None = None
    prompt_cache_breakpoint: _Ignored = UNSET
    image_url: _Unread = UNSET
    input_audio: _Unread = UNSET
    video_url: _Unread = UNSET
    file: _Unread = UNSET
    refusal: _Unread = UNSET


class Message(Struct, kw_only=True, forbid_unknown_fields=True):
    """One turn. ``content``: a text, or text parts that are joined."""

    role: Annotated[str, Meta(min_length=1, max_length=32)]
    content: str | Annotated[list[TextPart], Meta(max_length=MAX_PARTS)] | None = None
    name: _Unread = UNSET
    refusal: _Unread = UNSET
    annotations: _Unread = UNSET
    audio: _Unread = UNSET
    tool_calls: _Unread = UNSET
    tool_call_id: _Unread = UNSET
    function_call: _Unread = UNSET


class ChatBody(_Body):
    """`/v1/chat/completions`. ``max_completion_tokens`` is the newer name of ``max_tokens``."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=wire.MAX_MESSAGES)]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    parallel_tool_calls: _Ignored = UNSET
    response_format: _Unread = UNSET
    tools: _Unread = UNSET
    tool_choice: _Unread = UNSET
    functions: _Unread = UNSET
    function_call: _Unread = UNSET
    modalities: _Unread = UNSET
    audio: _Unread = UNSET
    prediction: _Unread = UNSET
    reasoning_effort: _Unread = UNSET
    verbosity: _Unread = UNSET
    web_search_options: _Unread = UNSET
    moderation: _Unread = UNSET


UNSUPPORTED: Final[dict[str, tuple[str, tuple[object, ...]]]] = {
    "logit_bias": ("leave it out; min_p, top_k and the penalties shape the distribution", ({},)),
    "service_tier": ("leave it out; priority and slo_class say how urgent a request is", ("auto", "default")),
    "store": ("nothing is kept after the answer", (False,)),
    "echo": ("put the prompt before the answer yourself", (False,)),
    "suffix": ("only continuations are generated; leave it out", ("",)),
    "response_format": ("leave it out and parse the text, or end it with stop", ({"type": "text"},)),
    "tools": ("describe the tools in a system message and parse the text", ([],)),
    "tool_choice": ("leave it out", ("none", "auto")),
    "functions": ("describe the functions in a system message and parse the text", ([],)),
    "function_call": ("leave it out", ("none", "auto")),
    "modalities": ("the answer is text", (["text"],)),
    "audio": ("the answer is text", ()),
    "prediction": ("leave it out", ()),
    "reasoning_effort": ("leave it out; what the model's template makes of the messages is all there is", ()),
    "verbosity": ("leave it out; say it in the messages", ()),
    "web_search_options": ("put what the model should know into the messages", ()),
    "moderation": ("leave it out", ()),
    "name": ("put the name into the content", ()),
    "tool_calls": ("write the call into the content", ([],)),
    "tool_call_id": ("write the tool's result into a user message", ()),
    "annotations": ("leave it out", ([],)),
    "refusal": ("put the text into the content", ()),
    "image_url": ("this server takes text only", ()),
    "input_audio": ("this server takes text only", ()),
    "video_url": ("this server takes text only", ()),
    "file": ("this server takes text only", ()),
}
"""Documented field -> what to do instead, and the values beside null that ask for nothing."""

_completion_decoder = msgspec.json.Decoder(CompletionBody)
_chat_decoder = msgspec.json.Decoder(ChatBody)
_B = TypeVar("_B", CompletionBody, ChatBody)


def decode_completion(data: bytes) -> CompletionBody:
    """A body of `/v1/completions`. Raises `ApiError`."""
    return _decode(_completion_decoder, data)


def decode_chat(data: bytes) -> ChatBody:
    """A body of `/v1/chat/completions`. Raises `ApiError`."""
    body = _decode(_chat_decoder, data)
    for index, message in enumerate(body.messages):
        refuse_unsupported(message, f"messages[{index}].")
        for part in message.content if isinstance(message.content, list) else ():
            refuse_unsupported(part, f"messages[{index}].content.")
    return body


def _decode(decoder: "msgspec.json.Decoder[_B]", data: bytes) -> _B:
    if not data or data.isspace():
        raise invalid("the body is empty: send a JSON object")
    try:
        body = decoder.decode(data)
    except (ValueError, RecursionError) as error:
        raise from_validation(error) from error
    refuse_unsupported(body)
    return body


def refuse_unsupported(part: Struct, path: str = "") -> None:
    """Refuse a field that asks for what this server does not have. Raises `ApiError`."""
    for name in part.__struct_fields__:
        if name in UNSUPPORTED:
            value = getattr(part, name)
            instead, harmless = UNSUPPORTED[name]
            if value is not UNSET and not _asks_for_nothing(value, harmless):
                raise unsupported(f"{path}{name}", instead)


def _asks_for_nothing(value: Raw, harmless: tuple[object, ...]) -> bool:
    if len(value) > _MAX_HARMLESS_BYTES:
        return False
    try:
        found: object = msgspec.json.decode(value)  # for the first time
    except ValueError:
        return False
    return found is None or any(found == other and type(found) is type(other) for other in harmless)
