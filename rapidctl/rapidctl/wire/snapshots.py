"""What the metrics socket publishes: the state of the whole daemon four times a second, and single events."""

from typing import Literal

from msgspec import Struct

from rapidctl.wire.latency import BucketCounts, LatencyTotals, LatencyWindow, Quantiles, Slo
from rapidctl.wire.partition import PartitionInfo, Placement
from rapidctl.wire.protocol import SCHEMA_VERSION, UnixTime
from rapidctl.wire.terms import DaemonState, Phase, SloClass


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
    failed_by: dict[str, int] = {}
    """``failed_total`` by error code; ``client_lost``: nobody was there to be told."""
    refused_by: dict[str, int] = {}
    """``refused_total`` by error code."""
    outputs_by: dict[str, int] = {}
    """Choices that ended well or were cancelled, by finish reason."""


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

    at_unix_s: UnixTime
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
    causes: dict[str, int] = {}
    """``restarts`` by `RestartCause`; empty: none, or an older daemon."""


class Snapshot(Struct, kw_only=True):
    """Everything a console shows, self-contained: a late joiner heals in one period. One frame, 4 Hz."""

    schema_version: int = SCHEMA_VERSION
    seq: int
    boot_id: str
    """Of the engine; changes when weights and KV were lost. Empty while there is no engine."""
    front_boot_id: str
    at_unix_s: UnixTime
    at_mono_ns: int
    state: DaemonState
    detail: str
    """One line for people: "loading weights 63 %", "engine restarting", ""."""
    version: str
    uptime_s: float
    """Since the daemon's start, whichever of its processes were started again since."""
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
    """Time since the engine's start by what ran, whatever was planned: serial, hybrid, shared, split while both phases
    had work, else "decode alone" or "prefill alone"; transition: both lanes under two plans; idle."""
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
    front_uptime_s: float | None = None
    """Since the front's start, from which requests are counted; null: an older daemon."""
    loop_lag_s: BucketCounts | None = None
    """How long a message waited until the front's loop came to it, asked every 2 s; null without a supervisor."""
    last_step_age_s: float | None = None
    """Since the last batch that ended, to the grain of the engine's reports; null before the first one."""
    unreadable: dict[str, dict[str, int]] = {}
    """Messages that could not be read, by socket (requests, engine) and error code, since the front's start."""


class Event(Struct, kw_only=True):
    """Something that happened, numbered without gaps since the front's boot."""

    schema_version: int = SCHEMA_VERSION
    seq: int
    front_boot_id: str
    at_unix_s: UnixTime
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
