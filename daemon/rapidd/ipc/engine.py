"""Between the front and the engine: an ipc socket in the runtime directory's 0700 sub-directory.

The front binds a ROUTER, the engine connects a DEALER. Array-like msgspec structs, one frame each; no pickle.
"""

from typing import Final, Literal

import msgspec
from msgspec import Struct

from rapidctl import __version__
from rapidctl.wire import (
    CalibrationInfo,
    DeviceInfo,
    ErrorCode,
    KneeRow,
    KvStats,
    LaneStats,
    Mode,
    ModelInfo,
    OverrideInfo,
    PartitionInfo,
    Phase,
    Placement,
    PlanRequest,
    Quantiles,
    SloClass,
)

BUILD: Final = __version__
"""What both ends must have in common: `EngineHello.build`."""
ENGINE_IDENTITY: Final = b"engine"
"""Routing id of the engine's DEALER, so that a front that just started can ask for it (`Ping` 0)."""
PING_INTERVAL_S: Final = 2.0
"""The front pings the engine this often."""
FRONT_LOST_S: Final = 6.0
"""An engine that hears nothing from the front for so long drops its requests (a new front drops them at once)."""


class _Message(Struct, array_like=True, tag=True):
    pass


# --- front -> engine ---------------------------------------------------------------------------------------------


class FrontHello(_Message):
    """Answer to `EngineHello`. A boot id that is new to the engine makes it drop the requests it has.

    ``last_epoch``: the engine continues counting control epochs after it. ``policy``: the one in force
    before, which may have been chosen at run time; null when the front never heard of one. ``override``: the
    operator's one in force before, as it was at ``override_mono_ns``: an engine's death is no release.
    """

    front_boot_id: str
    last_epoch: int
    policy: str | None
    override: OverrideInfo | None = None
    override_mono_ns: int = 0


class Submit(_Message):
    """One choice of one request. ``rid`` is the front's number for it, never reused, nor by another front.

    ``output_ids`` are outputs it already has (resubmission): they are recomputed, not sent again, and count for
    penalties, ``max_tokens`` and positions of random numbers. ``eos_token_ids`` is empty under ignore_eos.
    All ids are u32 bytes.
    """

    rid: int
    choice: int
    prompt_ids: bytes
    output_ids: bytes
    max_tokens: int
    min_tokens: int
    eos_token_ids: list[int]
    stop_token_ids: list[int]
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int
    logprobs: int | None
    priority: int
    slo_class: SloClass
    arrival_mono_ns: int


class Abort(_Message):
    """Drop these choices; unknown numbers are ignored (they may have just finished)."""

    rids: list[int]


class Ping(_Message):
    """The front is there. Its answer is the next `EngineState`, which comes once a second unless a batch takes longer:
    liveness of the engine's loop, not of a thread, and no wake-up of the front's for a message that says nothing else.

    ``number`` 0 comes from a front that has not heard of this engine: the answer is `EngineHello`.
    ``watched``: somebody looks at snapshots or requests, and wants an `EngineState` four times a second.
    """

    number: int
    watched: bool = True


class SetPlan(_Message):
    """An operator's override (``plan`` set) or its release (``plan`` null). Answered by `ControlDone`."""

    token: int
    plan: PlanRequest | None
    ttl_s: float | None
    guard: bool
    reason: str
    by: str
    if_epoch: int | None


class SetPolicy(_Message):
    """Change the policy. Answered by `ControlDone`."""

    token: int
    policy: str
    by: str
    if_epoch: int | None


class Undo(_Message):
    """Bring back what the last operator's change replaced. Answered by `ControlDone`."""

    token: int
    by: str
    if_epoch: int | None


class Predict(_Message):
    """Dry run of a plan. Answered by `Predicted`."""

    token: int
    plan: PlanRequest


class AskProfile(_Message):
    """The profile in use and its knee. Answered by `ProfileAnswer`. ``itl_s`` null: the engine's own objective."""

    token: int
    itl_s: float | None
    kv_per_row: int


class ProbePlacement(_Message):
    """See anew where the lanes run. Answered by `ControlDone`, behind an `EngineState` that says where."""

    token: int


class SloReport(_Message):
    """Observed latency of the last 10 s, for the override's guard. Ratios to the SLO; null without samples.

    With what has lasted so far: waits of interactive requests for a first token, and of streams for the next one.
    """

    itl_p95_ratio: float | None
    ttft_p95_ratio: float | None


FrontMessage = (
    FrontHello | Submit | Abort | Ping | SetPlan | SetPolicy | Predict | AskProfile | SloReport | Undo | ProbePlacement
)

# --- engine -> front ---------------------------------------------------------------------------------------------


class EngineHello(_Message):
    """First message of an engine, and again whenever it does not know the front that pings it.

    Sent only when ready: weights loaded, KV sized, warm-up done.
    """

    build: str
    boot_id: str
    pid: int
    model: ModelInfo
    device: DeviceInfo
    max_model_len: int
    kv_block_tokens: int
    kv_blocks: int
    eos_token_ids: list[int]


class Token(Struct, array_like=True, gc=False):
    """One produced token. ``finish`` is set on a choice's last token: "stop" (eos or stop id) or "length".

    ``logprob`` and ``top`` are null unless the request asked for them. Given with the first token: ``cached``, the
    number of prompt tokens that came from the prefix cache, and ``prefill_start_mono_ns``, as in `RequestState`.
    """

    rid: int
    token_id: int
    finish: Literal["stop", "length"] | None = None
    logprob: float | None = None
    top: list[tuple[int, float]] | None = None
    cached: int | None = None
    prefill_start_mono_ns: int | None = None


class Dropped(_Message):
    """The engine ended this choice without a last token."""

    rid: int
    code: ErrorCode
    message: str


class RequestState(Struct, array_like=True):
    """Where one choice is; part of `EngineState`."""

    rid: int
    phase: Phase
    cached: int
    computed: int
    kv_blocks: int
    preemptions: int
    prefill_start_mono_ns: int | None


class EngineState(_Message):
    """The engine's share of a snapshot; at most 4 a second while working and watched, 1 a second otherwise.

    Part of a `Step`, if one comes in time. Sooner after a `Notice`.
    """

    at_mono_ns: int
    partition: PartitionInfo
    lanes: list[LaneStats]
    kv: KvStats
    preempted_total: int
    mode_seconds: dict[str, float]
    requests: list[RequestState]
    memory_used_bytes: int | None
    prefill_tokens_per_s: float | None = None
    """What the plan in force is predicted to compute; null without a profile."""
    by_deadline: bool = False
    """It computes prompts in order of their due times."""
    scheduling_s: Quantiles | None = None


class Step(_Message):
    """What one batch produced. ``at_mono_ns``: when its results were seen on the host.

    ``state`` is there when one is due: by itself it would wake the front up, which costs more than the tokens do.
    """

    at_mono_ns: int
    mode: Mode
    tokens: list[Token]
    state: EngineState | None = None


NoticeKind = Literal[
    "decision", "override", "release", "guard", "ttl", "policy", "applied", "preempted", "out_of_memory",
    "placement", "warning",
]  # fmt: skip
NoticeLevel = Literal["info", "warn", "error"]
NoticeSource = Literal["policy", "operator", "guard", "ttl", "engine"]


class Notice(_Message):
    """An event of the engine, to be numbered and published by the front."""

    kind: NoticeKind
    level: NoticeLevel
    text: str
    source: NoticeSource
    epoch: int
    decision: int
    rid: int | None
    placement: Placement | None


class ControlDone(_Message):
    """Outcome of what an operator asked for; ``code`` null when it was accepted."""

    token: int
    epoch: int
    text: str
    code: ErrorCode | None
    hint: str


class Predicted(_Message):
    """Outcome of `Predict`."""

    token: int
    legal: bool
    note: str
    prefill_units: int | None
    itl_p95_s: float | None
    ttft_p95_s: float | None
    prefill_tokens_per_s: float | None
    breaches_slo: bool | None


class ProfileAnswer(_Message):
    """Outcome of `AskProfile`; fields as in `rapidctl.wire.ProfileReply`."""

    token: int
    calibration: CalibrationInfo | None
    notes: list[str]
    itl_s: float
    kv_per_row: int
    knee: list[KneeRow]


EngineMessage = EngineHello | Step | Dropped | EngineState | Notice | ControlDone | Predicted | ProfileAnswer

encode = msgspec.msgpack.Encoder().encode
decode_front = msgspec.msgpack.Decoder(FrontMessage).decode
decode_engine = msgspec.msgpack.Decoder(EngineMessage).decode
