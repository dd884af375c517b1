"""What the daemon may send on the request socket."""

from msgspec import Struct

from rapidctl.wire.latency import Quantiles, Slo
from rapidctl.wire.partition import CalibrationInfo, PartitionInfo
from rapidctl.wire.protocol import LEASE_INTERVAL_S, MAX_CHOICES, MAX_FRAME_BYTES, MAX_STOP_STRINGS
from rapidctl.wire.snapshots import DeviceInfo, Event, KvStats, ModelInfo, Process, RequestCounts, RequestRow, Snapshot
from rapidctl.wire.terms import DaemonState, ErrorCode, FinishReason, Mode


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
    front_uptime_s: float | None = None


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
