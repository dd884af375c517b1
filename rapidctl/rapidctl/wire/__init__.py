"""Every public message of rapid-serve, in one place; daemon and clients both import it.

Request socket (ROUTER): one msgpack frame a message, a map with the tag under ``kind``. A client says
`Hello` first and gets `Welcome`, then makes calls (each carries a ``call`` number that its reply repeats) and
streams (each carries a client-chosen ``id``). Every accepted stream ends in exactly one `Finished` or `Failed`.
Metrics socket (PUB): ``b"s"`` + `Snapshot` in one frame, and ``b"e"`` + `Event` in one frame.

Token ids travel as little-endian u32 bytes. Durations are seconds, stamps nanoseconds of the daemon's
monotonic clock unless the name says unix. Unknown numbers are null, never 0.
This package knows no sockets: `rapidctl.client` moves these messages. Import its names from here; where they are:

    protocol  terms  endpoints        numbers both ends agree on; closed sets of words; names of sockets
    requests  replies                 what a client sends, what the daemon answers
    snapshots  latency  partition     what is published, and the parts it shares with replies
    codec                             frames from messages and back; refusals of frames that are none
"""

from rapidctl.wire.codec import (
    WireError,
    decode_event,
    decode_reply,
    decode_request,
    decode_snapshot,
    encode,
    pack_ids,
    unpack_ids,
)
from rapidctl.wire.endpoints import (
    EndpointError,
    check_client_endpoint,
    check_endpoint,
    default_endpoint,
    metrics_endpoint,
)
from rapidctl.wire.latency import (
    GOODPUT_SHARE,
    LATENCY_EDGES_S,
    MIN_GAPS_FOR_P95,
    BucketCounts,
    LatencyTotals,
    LatencyWindow,
    Quantiles,
    Slo,
)
from rapidctl.wire.partition import (
    CalibrationInfo,
    CorrectionInfo,
    FitInfo,
    GapMarginInfo,
    LanePlacement,
    OverrideBounds,
    OverrideInfo,
    PartitionInfo,
    Placement,
    PlanInfo,
    PlanRequest,
    UnitGroup,
)
from rapidctl.wire.protocol import (
    EVENT_TOPIC,
    HEARTBEAT_MS,
    LEASE_INTERVAL_S,
    LEASE_MISSES,
    MAX_CHOICES,
    MAX_CHUNK_TOKENS,
    MAX_DEADLINE_S,
    MAX_DEPTH,
    MAX_ENDPOINT_BYTES,
    MAX_FRAME_BYTES,
    MAX_ID_CHARS,
    MAX_LOGPROBS,
    MAX_MESSAGES,
    MAX_PROMPT_CHARS,
    MAX_STOP_CHARS,
    MAX_STOP_STRINGS,
    MAX_STOP_TOKENS,
    MAX_TTL_S,
    MAX_UNITS,
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    SCHEMA_VERSION,
    SNAPSHOT_TOPIC,
    UnixTime,
)
from rapidctl.wire.replies import (
    Accepted,
    ChoiceResult,
    ControlReply,
    Delta,
    Deltas,
    EventList,
    Failed,
    Finished,
    KneeRow,
    Limits,
    Pong,
    Prediction,
    ProfileReply,
    Reply,
    RequestList,
    SnapshotReply,
    Status,
    Timing,
    TokenLogprob,
    Welcome,
)
from rapidctl.wire.requests import (
    UNSUPPORTED_FIELDS,
    Cancel,
    ChatMessage,
    Drain,
    Generate,
    GetEvents,
    GetPartition,
    GetProfile,
    GetRequests,
    GetSnapshot,
    GetStatus,
    Hello,
    Ping,
    PredictPartition,
    ReleasePartition,
    Reload,
    Request,
    Sampling,
    SetPartition,
    SetPolicy,
    UndoPartition,
)
from rapidctl.wire.snapshots import (
    Decision,
    DeviceInfo,
    DeviceProcess,
    Event,
    KvStats,
    LaneStats,
    ModelInfo,
    PhaseWork,
    Process,
    RequestCounts,
    RequestRow,
    Snapshot,
)
from rapidctl.wire.terms import DaemonState, ErrorCode, FinishReason, Mode, Phase, RestartCause, SloClass

__all__ = [
    "EVENT_TOPIC", "GOODPUT_SHARE", "HEARTBEAT_MS", "LATENCY_EDGES_S", "LEASE_INTERVAL_S", "LEASE_MISSES",
    "MAX_CHOICES",
    "MAX_CHUNK_TOKENS", "MAX_DEADLINE_S", "MAX_DEPTH", "MAX_ENDPOINT_BYTES", "MAX_FRAME_BYTES", "MAX_ID_CHARS",
    "MAX_LOGPROBS", "MAX_MESSAGES", "MAX_PROMPT_CHARS", "MAX_STOP_CHARS", "MAX_STOP_STRINGS", "MAX_STOP_TOKENS",
    "MAX_TTL_S", "MAX_UNITS", "MIN_GAPS_FOR_P95",
    "PROTOCOL_MAX", "PROTOCOL_MIN", "SCHEMA_VERSION", "SNAPSHOT_TOPIC", "UNSUPPORTED_FIELDS", "Accepted",
    "BucketCounts", "CalibrationInfo", "Cancel", "ChatMessage", "ChoiceResult", "ControlReply", "CorrectionInfo",
    "DaemonState", "Decision", "Delta", "Deltas", "DeviceInfo", "DeviceProcess", "Drain", "EndpointError", "ErrorCode",
    "Event", "EventList", "Failed", "FinishReason", "Finished", "FitInfo", "GapMarginInfo", "Generate",
    "GetEvents", "GetPartition",
    "GetProfile", "GetRequests", "GetSnapshot", "GetStatus", "Hello", "KneeRow", "KvStats", "LanePlacement",
    "LaneStats", "LatencyTotals", "LatencyWindow", "Limits", "Mode", "ModelInfo", "OverrideBounds", "OverrideInfo",
    "PartitionInfo", "Phase", "PhaseWork", "Ping", "Placement", "PlanInfo", "PlanRequest", "Pong", "PredictPartition",
    "Prediction", "Process", "ProfileReply", "Quantiles", "ReleasePartition", "Reload", "Reply", "Request",
    "RequestCounts", "RequestList", "RequestRow", "RestartCause", "Sampling", "SetPartition", "SetPolicy", "Slo",
    "SloClass", "Snapshot", "SnapshotReply", "Status", "Timing", "TokenLogprob", "UndoPartition", "UnitGroup",
    "UnixTime", "Welcome", "WireError", "check_client_endpoint", "check_endpoint", "decode_event", "decode_reply",
    "decode_request", "decode_snapshot", "default_endpoint", "encode", "metrics_endpoint", "pack_ids", "unpack_ids",
]  # fmt: skip
