"""Every public message of rapid-serve, in one place; daemon and clients both import it.

Request socket (ROUTER): one msgpack frame a message, a map with the tag under ``kind``. A client says
`Hello` first and gets `Welcome`, then makes calls (each carries a ``call`` number that its reply repeats) and
streams (each carries a client-chosen ``id``). Every accepted stream ends in exactly one `Finished` or `Failed`.
Metrics socket (PUB): ``b"s"`` + `Snapshot` in one frame, and ``b"e"`` + `Event` in one frame.

Token ids travel as little-endian u32 bytes. Durations are seconds, stamps nanoseconds of the daemon's
monotonic clock unless the name says unix. Unknown numbers are null, never 0.
This module knows no sockets: `rapidctl.client` moves these messages.
"""

import os
import sys
from array import array
from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from rapidctl.framing import FramingError, check_frame

PROTOCOL_MIN: Final = 1
PROTOCOL_MAX: Final = 1
SCHEMA_VERSION: Final = 1
"""Of the JSON documents of the command line and of `Snapshot`."""

MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
"""MAXMSGSIZE of the request socket: a peer that sends more is cut by libzmq."""
MAX_DEPTH: Final = 32
"""Deepest nesting a frame may have; scanned on the raw bytes before decoding."""
MAX_CHOICES: Final = 16
MAX_STOP_STRINGS: Final = 16
MAX_STOP_CHARS: Final = 256
MAX_STOP_TOKENS: Final = 64
MAX_LOGPROBS: Final = 20
MAX_ID_CHARS: Final = 64
MAX_MESSAGES: Final = 1024
MAX_PROMPT_CHARS: Final = 4 * 1024 * 1024
MAX_ENDPOINT_BYTES: Final = 107
"""sizeof(sockaddr_un.sun_path) - 1 on Linux: an ipc path longer than this cannot be bound."""

LEASE_INTERVAL_S: Final = 2.0
"""A client with open streams sends `Ping` this often; three missed in a row abort its streams."""
LEASE_MISSES: Final = 3
HEARTBEAT_MS: Final = (2000, 6000, 6000)
"""ZMTP heartbeats of every public socket: interval, timeout, and the time to live told to the peer."""

LATENCY_EDGES_S: Final = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5,
    0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
"""Upper ends (inclusive) of the buckets of `BucketCounts`: finest where objectives are, 10 to 50 ms and 0.1 to 2 s."""

SNAPSHOT_TOPIC: Final = b"s"
EVENT_TOPIC: Final = b"e"

Mode = Literal["serial", "hybrid", "shared", "split"]
Phase = Literal["waiting", "prefilling", "decoding"]
SloClass = Literal["interactive", "batch"]
DaemonState = Literal["starting", "serving", "draining", "drained", "engine_lost"]
FinishReason = Literal["stop", "length", "cancelled"]
ErrorCode = Literal[
    "malformed",  # the frame is no message: truncated, invalid UTF-8, too deep, random bytes
    "unknown_kind",  # a well-formed frame of a kind this daemon does not know
    "hello_required",  # a message before Hello
    "protocol",  # no common protocol version
    "invalid_request",  # a field is missing, out of bounds or contradictory
    "unsupported",  # a feature this daemon does not have
    "empty_prompt",
    "prompt_too_long",  # longer than the context, or leaves no room for one token
    "kv_too_small",  # the request can never fit the KV cache
    "duplicate_id",  # another client's stream runs under this id
    "queue_full",
    "quota_exceeded",  # this connection's or this user's share is used up; others are served
    "starting",
    "draining",
    "engine_lost",  # the engine died more often than a request is resubmitted
    "quarantined",  # requests like this one killed the engine twice; refused until the front is started again
    "deadline_exceeded",
    "slow_consumer",
    "not_found",
    "not_permitted",
    "epoch_conflict",
    "too_soon",  # at most one change of the partition every 2 s
    "out_of_memory",  # this request's batch ran out of device memory
    "front_restarted",  # given by the client library, when the front's boot id changed under a stream
    "internal_error",
]


# --- requests: what a client may send ------------------------------------------------------------------------


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


class Generate(_Request):
    """Open a stream: exactly one of ``prompt`` (raw text), ``messages`` (chat) and ``prompt_ids`` is set.

    ``id`` is the client's and idempotent: sending the same request again under a running id re-attaches, it
    never starts a second one. ``resume_ids`` holds, for each choice, the output ids the client already has
    (after a front restart); they count as output and are not sent again.
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
    deadline_s: Annotated[float, Meta(gt=0, le=604_800)] | None = None
    slo_class: SloClass = "interactive"
    resume_ids: Annotated[list[bytes], Meta(max_length=MAX_CHOICES)] | None = None
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


class GetPartition(_Request):
    """Answered by `PartitionInfo`."""

    call: int


class PlanRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """A plan an operator asks for. ``chunk``: prompt tokens a batch, null for the time bound, "all" in serial."""

    mode: Mode
    decode_units: Annotated[int, Meta(ge=0, le=100_000)] | None = None
    chunk: Annotated[int, Meta(ge=1, le=1_000_000)] | Literal["all"] | None = None


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
    ``guard``: release by itself when the SLO is breached (ITL p95 > 1.5x or TTFT p95 > 2x for 10 s).
    """

    call: int
    plan: PlanRequest
    ttl_s: Annotated[float, Meta(gt=0, le=604_800)] | None = 300.0
    guard: bool = True
    reason: Annotated[str, Meta(max_length=200)] = ""
    by: Annotated[str, Meta(max_length=64)] = ""
    if_epoch: Annotated[int, Meta(ge=0)] | None = None
    deadline_unix_s: Annotated[float, Meta(ge=0, le=1e12)] | None = None


class ReleasePartition(_Request):
    """End the override (``rapidctl partition auto``). Answered by `ControlReply`."""

    call: int
    by: Annotated[str, Meta(max_length=64)] = ""
    reason: Annotated[str, Meta(max_length=200)] = ""
    if_epoch: Annotated[int, Meta(ge=0)] | None = None
    deadline_unix_s: Annotated[float, Meta(ge=0, le=1e12)] | None = None


class UndoPartition(_Request):
    """Bring back what the last operator's change replaced, as a change of its own. Answered by `ControlReply`."""

    call: int
    by: Annotated[str, Meta(max_length=64)] = ""
    if_epoch: Annotated[int, Meta(ge=0)] | None = None
    deadline_unix_s: Annotated[float, Meta(ge=0, le=1e12)] | None = None


class SetPolicy(_Request):
    """Change the policy (``auto``, ``serial:256``, ``serial:all``, ``hybrid:512``, ``shared``, ``split:1``)."""

    call: int
    policy: Annotated[str, Meta(min_length=1, max_length=64)]
    by: Annotated[str, Meta(max_length=64)] = ""
    if_epoch: Annotated[int, Meta(ge=0)] | None = None
    deadline_unix_s: Annotated[float, Meta(ge=0, le=1e12)] | None = None


class Drain(_Request):
    """Stop admitting (``on``) or admit again. Running requests finish. Answered by `ControlReply`."""

    call: int
    on: bool = True
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
)

# --- shared parts of replies and snapshots -----------------------------------------------------------------------


class Quantiles(Struct, kw_only=True):
    """Of one distribution over one window. All null when ``n`` is 0."""

    n: int
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


class LatencyWindow(Struct, kw_only=True):
    """Latency of the last ``window_s`` seconds. Met shares are of finished requests, null without any."""

    window_s: float
    ttft_s: Quantiles
    itl_s: Quantiles
    tpot_s: Quantiles
    e2e_s: Quantiles
    ttft_met: float | None = None
    itl_met: float | None = None
    both_met: float | None = None
    arrived_per_s: float = 0.0
    finished_per_s: float = 0.0
    output_tokens_per_s: float = 0.0
    prompt_tokens_per_s: float = 0.0


class BucketCounts(Struct, kw_only=True):
    """One distribution since the front's boot. ``counts[i]``: values in the i-th bucket of `LATENCY_EDGES_S` alone,
    not below; the last one counts what is beyond the last edge. ``total``: sum of the values."""

    n: int
    total: float
    counts: list[int]


class LatencyTotals(Struct, kw_only=True):
    """Latencies and tokens since the front's boot: what a collector needs that scrapes at its own pace."""

    ttft_s: BucketCounts
    itl_s: BucketCounts
    tpot_s: BucketCounts
    e2e_s: BucketCounts
    prompt_tokens: int
    output_tokens: int


class Slo(Struct, kw_only=True):
    """TTFT SLO of a request = max(``ttft_floor_s``, ``ttft_per_1k_s`` x prompt tokens / 1000)."""

    itl_s: float
    ttft_floor_s: float
    ttft_per_1k_s: float


class PlanInfo(Struct, kw_only=True):
    """The plan in force and why. ``decision`` counts the policy's choices; ``chunk`` null: bounded by time."""

    mode: Mode
    decode_units: int
    prefill_units: int
    chunk: int | Literal["all"] | None
    decision: int
    reason: str
    age_s: float


class OverrideInfo(Struct, kw_only=True):
    """A running override; ``ttl_s`` is what is left of it, null when it never ends by itself."""

    plan: PlanRequest
    ttl_s: float | None
    guard: bool
    reason: str
    by: str


class LanePlacement(Struct, kw_only=True):
    """Units on which a lane was seen to run. ``measured`` is false when the system tells no placement."""

    lane: Literal["decode", "prefill"]
    units: list[int]
    measured: bool


class Placement(Struct, kw_only=True):
    """Realised placement: by lane, units both lanes ran on, and whether an old chunk still holds old units."""

    lanes: list[LanePlacement]
    overlap: int
    transition: bool
    probed_unix_s: float | None


class FitInfo(Struct, kw_only=True):
    """Relative errors of predictions on held-back measurements; ``part`` "all", or what was predicted."""

    part: str
    n: int
    median: float | None
    p95: float | None


class CorrectionInfo(Struct, kw_only=True):
    """What batches took over what was predicted, a moving mean. ``error``: of the corrected predictions, relative."""

    mode: Mode
    kind: Literal["decode", "prefill", "mixed"]
    factor: float
    error: float
    n: int


class CalibrationInfo(Struct, kw_only=True):
    """The calibrated profile in use: what it was measured on, how well it fits, how it is corrected.

    ``source``: a file that was named, the state directory, or shipped with the daemon.
    """

    name: str
    source: Literal["file", "state", "shipped"]
    device: str
    units_total: int
    driver: str
    model: str
    dtype: str
    build: str
    made_unix_s: float
    note: str
    fit: FitInfo
    parts: list[FitInfo]
    corrections: list[CorrectionInfo]


class PartitionInfo(Struct, kw_only=True, tag_field="kind", tag="partition"):
    """Reply to `GetPartition`, and part of every snapshot. ``source``: policy, override or config."""

    call: int = 0
    policy: str
    units_total: int
    unit_name: Literal["CU", "SM", "core"]
    splits: list[int]
    """Legal values of ``decode_units`` in split mode; empty when this device cannot be partitioned."""
    unsupported: str | None
    """Why only `shared`, `serial` and `hybrid` are possible here; null when splits are."""
    epoch: int
    source: Literal["policy", "override"]
    plan: PlanInfo
    override: OverrideInfo | None
    measured: Placement | None
    profile: str | None
    """Name of the calibrated profile in use; null: none, and predictions answer null."""
    calibration: CalibrationInfo | None = None
    """More about that profile."""


class PhaseWork(Struct, kw_only=True):
    """What a lane's batches of one phase computed and moved, counted from their rows; totals since the engine's start.

    Rates are those of the ``n`` batches that ended in the lane's window, over the device time they took; null when
    ``n`` is 0. ``mfu``, ``mbu``: shares of `DeviceInfo.peak_flops_per_s` and ``peak_bytes_per_s``, which are the whole
    device's even where the lane has a part of it; null where these are not known.
    """

    phase: Literal["decode", "prefill", "mixed"]
    n: int
    flops_per_s: float | None = None
    bytes_per_s: float | None = None
    mfu: float | None = None
    mbu: float | None = None
    flops_total: float
    bytes_total: float
    batches_total: int = 0


class LaneStats(Struct, kw_only=True):
    """One lane over the last second. ``busy``: share of the window it ran (0-1 of its own units);
    ``occupancy``: busy x units held / units of the device. Totals count since the engine's start.
    """

    lane: Literal["decode", "prefill"]
    units: int
    busy: float | None
    occupancy: float | None
    window_s: float
    batches_total: int
    tokens_total: int
    busy_decode_s_total: float
    busy_prefill_s_total: float
    busy_mixed_s_total: float
    running: bool
    work: list[PhaseWork] = []
    """By phase; only phases that have run."""
    enqueue_s: Quantiles | None = None
    """Host time of handing one batch to the device, on the units of the lane's batch before; the last 256."""
    switch_s: Quantiles | None = None
    """The same where the units are others, so that the lane changes streams; the last 8."""


class KvStats(Struct, kw_only=True):
    """Blocks of the paged KV cache. ``blocks_used``: held by requests or fenced; neither cached nor block 0."""

    block_tokens: int
    blocks_total: int
    blocks_used: int
    blocks_cached: int
    bytes_total: int
    prefix_hit_tokens_total: int
    prefix_query_tokens_total: int
    evicted_blocks_total: int
    headroom_s: float | None = None
    """Seconds until the cache is full at the rate of the last 10 s; null when it is not filling."""


class RequestCounts(Struct, kw_only=True):
    """Live requests by phase (each choice of a request with ``n`` > 1 counts), and totals since boot."""

    waiting: int
    prefilling: int
    decoding: int
    waiting_tokens: int = 0
    accepted_total: int = 0
    finished_total: int = 0
    failed_total: int = 0
    cancelled_total: int = 0
    refused_total: int = 0
    preempted_total: int = 0
    hopeless_total: int = 0
    """Requests whose TTFT was predicted far beyond the objective when they came; refused only if configured so."""


class RequestRow(Struct, kw_only=True):
    """One live choice of one request, as an operator sees it. No prompt or output text, ever."""

    id: str
    choice: int
    client: str
    phase: Phase
    age_s: float
    prompt_tokens: int
    cached_tokens: int
    computed_tokens: int
    output_tokens: int
    max_tokens: int
    ttft_s: float | None
    itl_p95_s: float | None
    tokens_per_s: float | None
    kv_blocks: int
    priority: int
    slo_class: SloClass
    preemptions: int


class Decision(Struct, kw_only=True):
    """One choice of the policy, or one change of control state (then ``decision`` repeats the last one)."""

    at_unix_s: float
    decision: int
    epoch: int
    source: Literal["policy", "operator", "guard", "ttl", "engine"]
    text: str


class ModelInfo(Struct, kw_only=True):
    """What is served. ``path`` is as configured; ``parameters`` counts weights once (tied heads once)."""

    name: str
    path: str
    architecture: str
    dtype: str
    parameters: int
    vocab_size: int
    max_model_len: int
    weights: Literal["file", "random"]
    has_chat_template: bool | None = None
    """Whether `Generate.messages` can be rendered; null: an older daemon."""


class DeviceProcess(Struct, kw_only=True):
    """A process on the accelerator; ``pid`` as the driver counts, which in a container is not as the container does."""

    pid: int
    memory_bytes: int | None


class DeviceInfo(Struct, kw_only=True):
    """The accelerator. Sensors are null where the system has none, or while it does not answer."""

    kind: Literal["cpu", "cuda", "hip"]
    name: str
    units: int
    unit_name: Literal["CU", "SM", "core"]
    memory_total_bytes: int | None
    memory_used_bytes: int | None = None
    """Of a GPU by everybody; of a CPU's memory by the engine."""
    utilization: float | None = None
    """Share of the time: on a GPU in which some kernel ran, however few units it had; on a CPU over all cores."""
    power_w: float | None = None
    temperature_c: float | None = None
    clock_hz: float | None = None
    """Of the compute units."""
    pci_bus_id: str | None = None
    """Domain, bus, device and function in hex, ``0000:c1:00.0``: indices differ from tool to tool."""
    memory_utilization: float | None = None
    """Share of the time in which memory was read or written."""
    memory_clock_hz: float | None = None
    power_limit_w: float | None = None
    slowdowns: list[str] | None = None
    """What holds the clock back now, such as "power cap"; empty: nothing."""
    processes: list[DeviceProcess] | None = None
    peak_flops_per_s: float | None = None
    """Of a large matrix product in the model's type on all units, measured at the engine's start."""
    peak_bytes_per_s: float | None = None
    """Of a plain read of memory by all units, measured at the engine's start."""


class Process(Struct, kw_only=True):
    """A process of the daemon. ``restarts`` counts respawns since the supervisor's start."""

    pid: int | None
    restarts: int = 0


class Snapshot(Struct, kw_only=True):
    """Everything a console shows, self-contained: a late joiner heals in one period. One frame, 4 Hz."""

    schema_version: int = SCHEMA_VERSION
    seq: int
    boot_id: str
    """Of the engine; changes when weights and KV were lost. Empty while there is no engine."""
    front_boot_id: str
    at_unix_s: float
    at_mono_ns: int
    state: DaemonState
    detail: str
    """One line for people: "loading weights 63 %", "engine restarting", ""."""
    version: str
    uptime_s: float
    endpoint: str
    model: ModelInfo | None
    device: DeviceInfo | None
    supervisor: Process
    front: Process
    engine: Process
    clients: int
    slo: Slo
    partition: PartitionInfo | None
    lanes: list[LaneStats]
    kv: KvStats | None
    requests: RequestCounts
    latency: list[LatencyWindow]
    """Windows of 10 s, 60 s and 300 s, in this order."""
    mode_seconds: dict[str, float]
    """Realised time by mode since the engine's start: serial, hybrid, shared, split, transition, idle."""
    decisions: list[Decision]
    """The last eight, newest last; older ones by `GetEvents`."""
    rows: list[RequestRow]
    """The oldest 64 live requests; all of them by `GetRequests`."""
    rows_total: int
    front_cpu_s: float
    """CPU seconds the front process has used."""
    streamed_tokens_total: int
    scheduling_s: Quantiles | None = None
    """Host time of a pass of the engine's loop that launched batches, policy to last enqueue; the last 256."""
    latency_totals: LatencyTotals | None = None
    """Null from a daemon that does not count them."""


class Event(Struct, kw_only=True):
    """Something that happened, numbered without gaps since the front's boot."""

    schema_version: int = SCHEMA_VERSION
    seq: int
    front_boot_id: str
    at_unix_s: float
    kind: Literal[
        "decision", "override", "release", "guard", "ttl", "policy", "applied",
        "engine_lost", "engine_ready", "front_ready", "drain", "client_lost", "slow_consumer",
        "preempted", "out_of_memory", "resubmitted", "placement", "warning", "device_error", "config",
    ]  # fmt: skip
    level: Literal["info", "warn", "error"]
    text: str
    epoch: int | None = None
    decision: int | None = None
    request_id: str | None = None
    placement: Placement | None = None


# --- replies: what the daemon may send ---------------------------------------------------------------------------


class _Reply(Struct, kw_only=True, tag_field="kind", tag=str.lower):
    """A message to a client. New fields get defaults, so that older clients and daemons understand each other."""


class Limits(Struct, kw_only=True):
    """What a client can know before it asks."""

    max_model_len: int | None
    max_choices: int = MAX_CHOICES
    max_stop_strings: int = MAX_STOP_STRINGS
    max_frame_bytes: int = MAX_FRAME_BYTES
    lease_interval_s: float = LEASE_INTERVAL_S


class Welcome(_Reply):
    """Answer to `Hello`."""

    protocol: int
    version: str
    boot_id: str
    front_boot_id: str
    metrics_endpoint: str
    model: str | None
    control: bool
    limits: Limits
    has_chat_template: bool | None = None
    """False: the model takes ``prompt`` or ``prompt_ids`` only; null: an older daemon."""


class Pong(_Reply):
    """Answer to `Ping`; ``at_mono_ns`` lets a client relate the daemon's stamps to its own clock."""

    call: int
    at_mono_ns: int


class Accepted(_Reply):
    """The stream is queued (``resumed``: re-attached to a running one). ``seed``: the one in use."""

    id: str
    prompt_tokens: int
    seed: int
    resumed: bool = False


class TokenLogprob(Struct, array_like=True, gc=False):
    """Natural-log probability of a token under the model's distribution before temperature and filters.

    ``text`` and ``top_texts`` are the bytes that the token and the alternatives stand for: a client has no tokenizer.
    """

    token_id: int
    logprob: float
    top: list[tuple[int, float]] = []
    text: bytes = b""
    top_texts: list[bytes] = []


class Delta(Struct, kw_only=True, omit_defaults=True, gc=False):
    """New output of one choice: token ids and the text that is safe to show (stop strings are held back)."""

    id: str
    choice: int = 0
    index: int
    """Output position of the first id below."""
    token_ids: bytes
    text: str = ""
    at_mono_ns: list[int] = []
    """When the engine produced each id."""
    logprobs: list[TokenLogprob] | None = None
    finish_reason: FinishReason | None = None
    """Set on the last output of a choice; the others of the stream may go on. `Finished` repeats it."""


class Deltas(_Reply):
    """All new output of one engine step for one client."""

    items: list[Delta]


class ChoiceResult(Struct, kw_only=True):
    """How one choice ended. ``text`` is whole; ``token_ids`` are all output ids, resumed ones included."""

    index: int
    finish_reason: FinishReason
    stop: str | int | None = None
    text: str
    token_ids: bytes


class Timing(Struct, kw_only=True):
    """Times of a request, on the daemon's clock. ``itl_s`` is over the gaps of all its choices."""

    queued_s: float | None
    prefill_s: float | None
    ttft_s: float | None
    e2e_s: float
    itl_s: Quantiles
    itl_s_mean: float | None = None


class Finished(_Reply):
    """Last message of a stream."""

    id: str
    choices: list[ChoiceResult]
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    timing: Timing
    mode: Mode | None
    """Mode in force when it ended."""
    preemptions: int = 0
    resubmissions: int = 0
    slo_met: bool | None = None


class Failed(_Reply):
    """Last message of a stream, or the answer to a call that was refused. Says what to do about it."""

    code: ErrorCode
    message: str
    hint: str = ""
    id: str | None = None
    call: int | None = None
    retry_after_s: float | None = None
    output_tokens: int = 0


class Status(_Reply):
    """Answer to `GetStatus`: the head of a snapshot, without histograms."""

    call: int
    state: DaemonState
    detail: str
    boot_id: str
    front_boot_id: str
    version: str
    uptime_s: float
    endpoint: str
    model: ModelInfo | None
    device: DeviceInfo | None
    supervisor: Process
    front: Process
    engine: Process
    partition: PartitionInfo | None
    kv: KvStats | None
    requests: RequestCounts
    slo: Slo
    slo_met: bool | None


class SnapshotReply(_Reply):
    """Answer to `GetSnapshot`."""

    call: int
    snapshot: Snapshot


class RequestList(_Reply):
    """Answer to `GetRequests`."""

    call: int
    rows: list[RequestRow]


class EventList(_Reply):
    """Answer to `GetEvents`; ``oldest_seq`` shows whether some were lost."""

    call: int
    oldest_seq: int
    next_seq: int
    events: list[Event]


class Prediction(_Reply):
    """Answer to `PredictPartition`. Numbers are null and ``note`` says "no profile" until there is one."""

    call: int
    legal: bool
    note: str
    prefill_units: int | None = None
    itl_p95_s: float | None = None
    ttft_p95_s: float | None = None
    prefill_tokens_per_s: float | None = None
    breaches_slo: bool | None = None


class KneeRow(Struct, kw_only=True):
    """``decode_units``: the fewest that keep the objective for a decode step of so many rows, with prompts beside it;
    all units: only when prompts wait; null: not even then. ``step_s``: of that step, alone on all units if null."""

    rows: int
    decode_units: int | None
    step_s: float


class ProfileReply(_Reply):
    """Answer to `GetProfile`. Without a profile ``calibration`` is null and ``knee`` empty; ``notes`` say why."""

    call: int
    calibration: CalibrationInfo | None
    notes: list[str]
    itl_s: float
    kv_per_row: int
    knee: list[KneeRow]


class ControlReply(_Reply):
    """An operator's command was accepted; ``epoch`` is the one it made."""

    call: int
    epoch: int
    text: str


Reply = (
    Welcome
    | Pong
    | Accepted
    | Deltas
    | Finished
    | Failed
    | Status
    | SnapshotReply
    | RequestList
    | EventList
    | PartitionInfo
    | Prediction
    | ProfileReply
    | ControlReply
)

# --- encoding ----------------------------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()
_request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_reply_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_snapshot_decoder = msgspec.msgpack.Decoder(Snapshot)
_event_decoder = msgspec.msgpack.Decoder(Event)
_envelope_decoder: msgspec.msgpack.Decoder[dict[str, Raw]] = msgspec.msgpack.Decoder(dict[str, Raw])
_REQUEST_KINDS: Final = frozenset(kind.__struct_config__.tag for kind in Request.__args__)


class WireError(ValueError):
    """A frame that is not one of our messages; ``code`` says in which way.

    ``id`` and ``call`` are the frame's own where they can be read, so that the refusal can name them.
    """

    def __init__(self, code: ErrorCode, message: str, *, id: str | None = None, call: int | None = None) -> None:  # noqa: A002
        super().__init__(message)
        self.code: ErrorCode = code
        self.id = id
        self.call = call


def encode(message: Struct) -> bytes:
    """One message as one frame."""
    return _encoder.encode(message)


def decode_request(frame: bytes) -> Request:
    """A frame from a client. Raises `WireError` with ``malformed``, ``unknown_kind`` or ``invalid_request``."""
    try:
        check_frame(frame, max_depth=MAX_DEPTH)
        return _request_decoder.decode(frame)
    except FramingError as error:
        raise WireError("malformed", str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _classify(frame, error) from error


def _classify(frame: bytes, error: Exception) -> WireError:
    """Which refusal a well-formed frame deserves that does not decode as a `Request`."""
    try:
        fields = _envelope_decoder.decode(frame)
    except (ValueError, RecursionError):
        return WireError("malformed", "a message is a map with string keys")
    kind, id_, call = (_read(fields.get(name), expected) for name, expected in _ENVELOPE)
    if not isinstance(kind, str):
        code: ErrorCode = "malformed"
        message = 'a message names its kind as a string under "kind"'
    elif kind not in _REQUEST_KINDS:
        code = "unknown_kind"
        message = f"this daemon knows no message of kind {kind[:64]!r}"
    elif isinstance(error, msgspec.ValidationError):
        code = "invalid_request"
        message = _readable(str(error))
    else:  # UnicodeDecodeError, which names no field
        code = "malformed"
        message = f"a string in the message is not valid UTF-8 ({error})"
    return WireError(
        code, message, id=id_ if isinstance(id_, str) else None, call=call if isinstance(call, int) else None
    )


_ENVELOPE: Final = (
    ("kind", str),
    ("id", Annotated[str, Meta(max_length=MAX_ID_CHARS)]),
    ("call", Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]),
)


def _read(value: Raw | None, expected: object) -> object:
    """The value when it is of the expected type, else None."""
    if value is None:
        return None
    try:
        return msgspec.msgpack.decode(value, type=expected)
    except (ValueError, RecursionError):
        return None


def _readable(message: str) -> str:
    """msgspec's "Expected `int` - at `$.plan.chunk`" as "plan.chunk: expected int"."""
    problem, _, path = message.partition(" - at `$.")
    problem = f"{problem[0].lower()}{problem[1:]}".replace("`", "")
    return f"{path.removesuffix('`')}: {problem}" if path else problem


def decode_reply(frame: bytes) -> Reply:
    """A frame from the daemon. Raises `WireError`."""
    try:
        return _reply_decoder.decode(frame)
    except (ValueError, RecursionError) as error:
        raise WireError("malformed", f"the daemon sent a message this client cannot read: {error}") from error


def decode_snapshot(frame: bytes) -> Snapshot:
    """A frame of the snapshot topic, topic byte included. Raises `WireError`."""
    try:
        return _snapshot_decoder.decode(memoryview(frame)[len(SNAPSHOT_TOPIC) :])
    except (ValueError, RecursionError) as error:
        raise WireError("malformed", f"unreadable snapshot: {error}") from error


def decode_event(frame: bytes) -> Event:
    """A frame of the event topic, topic byte included. Raises `WireError`."""
    try:
        return _event_decoder.decode(memoryview(frame)[len(EVENT_TOPIC) :])
    except (ValueError, RecursionError) as error:
        raise WireError("malformed", f"unreadable event: {error}") from error


def pack_ids(ids: Iterable[int]) -> bytes:
    """Token ids as little-endian u32 bytes."""
    packed = array("I", ids)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_ids(data: bytes) -> list[int]:
    """Inverse of `pack_ids`. Raises `WireError` unless the length is a multiple of 4."""
    if len(data) % 4:
        raise WireError("invalid_request", f"token ids must be u32 bytes; {len(data)} bytes is no multiple of 4")
    unpacked = array("I", data)
    if sys.byteorder == "big":
        unpacked.byteswap()
    return unpacked.tolist()


# --- endpoints ----------------------------------------------------------------------------------------------------


class EndpointError(ValueError):
    """An endpoint that cannot be used; the message says why and what to do."""


def default_endpoint() -> str:
    """RAPIDCTL_ENDPOINT, else the system daemon's socket if it exists, else the user's own."""
    chosen = os.environ.get("RAPIDCTL_ENDPOINT")
    if chosen:
        return check_client_endpoint(chosen)
    system = "/run/rapidd/request.sock"
    if os.path.exists(system):  # noqa: PTH110 - loading pathlib takes longer than the rest of this module
        return f"ipc://{system}"
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/rapidd-{os.getuid()}"
    return check_endpoint(f"ipc://{runtime}/rapidd/request.sock")


def check_endpoint(endpoint: str) -> str:
    """The endpoint itself, or `EndpointError` when no socket could be bound or connected there."""
    if not endpoint.startswith("ipc://") or len(endpoint) == len("ipc://"):
        raise EndpointError(
            f"{endpoint!r} is no ipc endpoint: use ipc:///path/request.sock "
            "(a daemon listens on tcp beside it: tcp.listen)"
        )
    length = len(os.fsencode(endpoint.removeprefix("ipc://")))
    if length > MAX_ENDPOINT_BYTES:
        raise EndpointError(
            f"the socket path is {length} bytes long and Linux allows {MAX_ENDPOINT_BYTES}: choose a shorter directory"
        )
    return endpoint


def check_client_endpoint(endpoint: str) -> str:
    """As `check_endpoint`, but tcp://HOST:PORT can be connected to as well; its metrics are on the next port."""
    if not endpoint.startswith("tcp://"):
        return check_endpoint(endpoint)
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65535:
        raise EndpointError(f"{endpoint!r} names no host and port: use tcp://HOST:PORT, with a port below 65535")
    return endpoint


def metrics_endpoint(endpoint: str) -> str:
    """Where the daemon behind ``endpoint`` publishes snapshots and events."""
    if endpoint.startswith("tcp://"):
        address, _, port = check_client_endpoint(endpoint).rpartition(":")
        return f"{address}:{int(port) + 1}"
    return check_endpoint(f"{endpoint.removesuffix('.sock')}-metrics.sock")
