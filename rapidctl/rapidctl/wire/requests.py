"""What a client may send on the request socket."""

from typing import Annotated, Final

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from rapidctl.wire.partition import PlanRequest
from rapidctl.wire.protocol import (
    MAX_CHOICES,
    MAX_DEADLINE_S,
    MAX_ID_CHARS,
    MAX_LOGPROBS,
    MAX_MESSAGES,
    MAX_PROMPT_CHARS,
    MAX_STOP_CHARS,
    MAX_STOP_STRINGS,
    MAX_STOP_TOKENS,
    MAX_TTL_S,
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    UnixTime,
)
from rapidctl.wire.terms import SloClass


class _Request(Struct, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag=str.lower):
    """A message to the daemon. Unknown fields are refused: silence would hide a misspelling."""


class Hello(_Request):
    """First message of a connection. ``control``: this connection may send operator verbs."""

    protocol_min: int = PROTOCOL_MIN
    protocol_max: int = PROTOCOL_MAX
    client: Annotated[str, Meta(max_length=64)] = ""
    control: bool = False


class Ping(_Request):
    """Renews the lease of this connection's streams; answered by `Pong`."""

    call: int = 0


class Sampling(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How tokens are chosen. Defaults are greedy-free plain sampling off: temperature 0 is greedy.

    Penalties follow the common definitions: repetition (CTRL, arXiv 1909.05858) over prompt and output,
    presence and frequency over output only. ``logprobs``: how many alternatives beside the chosen token,
    0 for the chosen one's alone, null for none.
    """

    temperature: Annotated[float, Meta(ge=0, le=100)] = 0.0
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] = 1.0
    presence_penalty: Annotated[float, Meta(ge=-100, le=100)] = 0.0
    frequency_penalty: Annotated[float, Meta(ge=-100, le=100)] = 0.0
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    stop_token_ids: Annotated[list[Annotated[int, Meta(ge=0, le=2**32 - 1)]], Meta(max_length=MAX_STOP_TOKENS)] = []
    ignore_eos: bool = False
    logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None


class ChatMessage(Struct, forbid_unknown_fields=True):
    """One turn of a conversation, as the model's chat template takes it."""

    role: Annotated[str, Meta(min_length=1, max_length=32)]
    content: Annotated[str, Meta(max_length=MAX_PROMPT_CHARS)]


class Generate(_Request, omit_defaults=True):
    """Open a stream: exactly one of ``prompt`` (raw text), ``messages`` (chat) and ``prompt_ids`` is set.

    ``id`` is the client's and idempotent: sending the same request again under a running id re-attaches, it
    never starts a second one. ``resume_ids`` holds, for each choice, the output ids the client already has
    (after a front restart); they count as output and are not sent again. Not null, it says that the request was
    accepted before: no drain and no full queue of a front that is new, for a minute, refuses it. ``age_s`` is how long
    ago it was sent first: it keeps its place in line and its deadline.
    The last five fields are known only so that they are refused as ``unsupported`` and not overlooked.
    """

    id: Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)]
    prompt: Annotated[str, Meta(max_length=MAX_PROMPT_CHARS)] | None = None
    messages: Annotated[list[ChatMessage], Meta(max_length=MAX_MESSAGES)] | None = None
    prompt_ids: bytes | None = None
    sampling: Sampling = Sampling()
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] = 1
    stop: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARS)]], Meta(max_length=MAX_STOP_STRINGS)
    ] = []
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    deadline_s: Annotated[float, Meta(gt=0, le=MAX_DEADLINE_S)] | None = None
    slo_class: SloClass = "interactive"
    resume_ids: Annotated[list[bytes], Meta(max_length=MAX_CHOICES)] | None = None
    age_s: Annotated[float, Meta(ge=0, le=MAX_DEADLINE_S)] = 0.0
    response_format: Raw | UnsetType = UNSET
    tools: Raw | UnsetType = UNSET
    tool_choice: Raw | UnsetType = UNSET
    logit_bias: Raw | UnsetType = UNSET
    lora: Raw | UnsetType = UNSET


UNSUPPORTED_FIELDS: Final = ("response_format", "tools", "tool_choice", "logit_bias", "lora")


class Cancel(_Request):
    """End a stream. An operator (``control``) may name any request, a client only its own."""

    call: int
    id: Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)]


class GetStatus(_Request):
    """Answered by `Status`."""

    call: int


class GetSnapshot(_Request):
    """Answered by `SnapshotReply`: the latest snapshot, for those who cannot wait for the next one."""

    call: int


class GetRequests(_Request):
    """Answered by `RequestList`: every live request, or the one named."""

    call: int
    id: Annotated[str, Meta(max_length=MAX_ID_CHARS)] | None = None


class GetEvents(_Request):
    """Replay events with ``seq >= from_seq`` that are still kept (the last thousand)."""

    call: int
    from_seq: Annotated[int, Meta(ge=0)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000


class GetPartition(_Request, omit_defaults=True):
    """Answered by `PartitionInfo`. ``probe``: measure first where the lanes run, which takes control rights."""

    call: int
    probe: bool = False


class PredictPartition(_Request):
    """Dry run of `SetPartition`; changes nothing. Answered by `Prediction`."""

    call: int
    plan: PlanRequest


class GetProfile(_Request):
    """The calibrated profile and its knee, for an ITL objective (null: the daemon's) and a context. Answered by
    `ProfileReply`."""

    call: int
    itl_s: Annotated[float, Meta(gt=0, le=3600)] | None = None
    kv_per_row: Annotated[int, Meta(ge=0, le=100_000_000)] = 1024


class SetPartition(_Request):
    """Pin a plan. Answered by `ControlReply` when accepted; an ``applied`` event follows when lanes run it.

    ``if_epoch``: refuse with ``epoch_conflict`` unless this is the current epoch. ``ttl_s`` null: until
    released. ``deadline_unix_s``: refuse when the command arrives later than this (it waited in a queue).
    ``guard``: release by itself when the SLO is breached, as `OverrideBounds` says.
    """

    call: int
    plan: PlanRequest
    ttl_s: Annotated[float, Meta(gt=0, le=MAX_TTL_S)] | None = 300.0
    guard: bool = True
    reason: Annotated[str, Meta(max_length=200)] = ""
    by: Annotated[str, Meta(max_length=64)] = ""
    if_epoch: Annotated[int, Meta(ge=0)] | None = None
    deadline_unix_s: UnixTime | None = None


class ReleasePartition(_Request):
    """End the override (``rapidctl partition auto``). Answered by `ControlReply`."""

    call: int
    by: Annotated[str, Meta(max_length=64)] = ""
    reason: Annotated[str, Meta(max_length=200)] = ""
    if_epoch: Annotated[int, Meta(ge=0)] | None = None
    deadline_unix_s: UnixTime | None = None


class UndoPartition(_Request):
    """Bring back what the last operator's change replaced, as a change of its own. Answered by `ControlReply`."""

    call: int
    by: Annotated[str, Meta(max_length=64)] = ""
    if_epoch: Annotated[int, Meta(ge=0)] | None = None
    deadline_unix_s: UnixTime | None = None


class SetPolicy(_Request):
    """Change the policy (``auto``, ``serial:256``, ``serial:all``, ``hybrid:512``, ``shared``, ``split:1``)."""

    call: int
    policy: Annotated[str, Meta(min_length=1, max_length=64)]
    by: Annotated[str, Meta(max_length=64)] = ""
    if_epoch: Annotated[int, Meta(ge=0)] | None = None
    deadline_unix_s: UnixTime | None = None


class Drain(_Request):
    """Stop admitting (``on``) or admit again. Running requests finish. Answered by `ControlReply`."""

    call: int
    on: bool = True
    by: Annotated[str, Meta(max_length=64)] = ""


class Reload(_Request):
    """Read the configuration again, as on SIGHUP. Answered by `ControlReply` at once; a ``config`` event follows that
    tells what became of it."""

    call: int
    by: Annotated[str, Meta(max_length=64)] = ""


Request = (
    Hello
    | Ping
    | Generate
    | Cancel
    | GetStatus
    | GetSnapshot
    | GetRequests
    | GetEvents
    | GetPartition
    | PredictPartition
    | GetProfile
    | SetPartition
    | ReleasePartition
    | SetPolicy
    | UndoPartition
    | Drain
    | Reload
)
