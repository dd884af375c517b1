"""One sample of everything that public messages hold, with every field away from its default where that is possible.

Whole requests and replies are in `messages.py`. Golden frames, the scripted daemon and the command line's tests are
made from these.
"""

from msgspec.structs import replace

from rapidctl import wire
from rapidctl.wire import PlanRequest, Quantiles, pack_ids

QUANTILES = Quantiles(n=40, p50=0.0101, p95=0.0202, p99=0.0303, max=0.0404)
PLAN = PlanRequest(mode="split", decode_units=1, chunk=256)
PLACEMENT = wire.Placement(
    lanes=[
        wire.LanePlacement(lane="decode", units=[0], measured=True),
        wire.LanePlacement(lane="prefill", units=[1], measured=True),
    ],
    overlap=0,
    transition=False,
    probed_unix_s=1_700_000_000.5,
)
CALIBRATION = wire.CalibrationInfo(
    name="SmolLM2-135M-Instruct on Some CPU",
    source="state",
    device="Some CPU",
    units_total=2,
    driver="1.2",
    model="SmolLM2-135M-Instruct",
    dtype="float32",
    build="0.1.0",
    made_unix_s=1_700_000_000.5,
    note="a quiet afternoon",
    fit=wire.FitInfo(part="all", n=90, median=0.04, p95=0.12),
    parts=[
        wire.FitInfo(part="decode", n=80, median=0.03, p95=0.1),
        wire.FitInfo(part="hybrid", n=10, median=0.05, p95=0.2),
    ],
    corrections=[wire.CorrectionInfo(mode="hybrid", kind="mixed", factor=1.07, error=0.02, n=512)],
    margin=wire.GapMarginInfo(factor=1.12, late_share=0.02, n=4096),
    short_contexts={"decode": [1], "prefill": [1]},
)
PARTITION = wire.PartitionInfo(
    call=7,
    policy="auto",
    units_total=2,
    unit_name="core",
    splits=[1],
    unsupported=None,
    epoch=5,
    source="override",
    plan=wire.PlanInfo(
        mode="split", decode_units=1, prefill_units=1, chunk=256, decision=12, reason="override by ana", age_s=3.5
    ),
    override=wire.OverrideInfo(plan=PLAN, ttl_s=297.5, guard=True, reason="stalls", by="ana"),
    measured=PLACEMENT,
    profile="cpu-2-smollm2",
    calibration=CALIBRATION,
    groups=[wire.UnitGroup(name=f"core {core}", within="socket 0", units=(core,)) for core in range(2)],
    bounds=wire.OverrideBounds(
        ttl_max_s=3600.0, chunk_max=4096, change_every_s=2.0, guard_itl=1.5, guard_ttft=2.0, guard_after_s=10.0
    ),
    chunk_limit=1024,
)
MODEL = wire.ModelInfo(
    name="SmolLM2-135M-Instruct",
    path="default",
    architecture="llama",
    dtype="float32",
    parameters=134_515_008,
    vocab_size=49_152,
    max_model_len=2048,
    weights="file",
    has_chat_template=True,
)
DEVICE = wire.DeviceInfo(
    kind="cpu",
    name="Some CPU",
    units=2,
    unit_name="core",
    memory_total_bytes=8_000_000_000,
    memory_used_bytes=2_000_000_000,
    utilization=0.5,
    power_w=15.0,
    temperature_c=50.0,
    clock_hz=3.0e9,
    pci_bus_id="0000:c1:00.0",
    memory_utilization=0.25,
    memory_clock_hz=2.6e9,
    power_limit_w=65.0,
    slowdowns=["power cap"],
    processes=[wire.DeviceProcess(pid=12, memory_bytes=1_500_000_000), wire.DeviceProcess(pid=99, memory_bytes=None)],
    peak_flops_per_s=8.0e14,
    peak_bytes_per_s=3.2e12,
)
LANES = [
    wire.LaneStats(
        lane=lane,
        units=1,
        busy=0.75,
        occupancy=0.375,
        window_s=1.0,
        batches_total=1000,
        tokens_total=4000,
        busy_decode_s_total=10.0,
        busy_prefill_s_total=5.0,
        busy_mixed_s_total=1.0,
        running=True,
        work=[
            wire.PhaseWork(
                phase="decode",
                n=50,
                flops_per_s=2.0e12,
                bytes_per_s=2.4e12,
                mfu=0.0025,
                mbu=0.75,
                flops_total=9.0e15,
                bytes_total=8.0e14,
                batches_total=900,
            ),
            wire.PhaseWork(phase="mixed", n=0, flops_total=1.0e15, bytes_total=1.0e14),
        ],
        enqueue_s=wire.Quantiles(n=256, p50=1.1e-4, p95=1.4e-4, p99=2.0e-4, max=3.0e-4),
        switch_s=wire.Quantiles(n=1, p50=1.3e-4, p95=1.3e-4, p99=1.3e-4, max=1.3e-4),
    )
    for lane in ("decode", "prefill")
]
KV = wire.KvStats(
    block_tokens=16,
    blocks_total=1000,
    blocks_used=300,
    blocks_cached=100,
    bytes_total=1_000_000,
    prefix_hit_tokens_total=320,
    prefix_query_tokens_total=640,
    evicted_blocks_total=3,
    headroom_s=22.0,
)
COUNTS = wire.RequestCounts(
    waiting=1,
    prefilling=1,
    decoding=3,
    waiting_tokens=100,
    accepted_total=20,
    finished_total=12,
    failed_total=1,
    cancelled_total=2,
    refused_total=4,
    preempted_total=1,
    failed_by={"out_of_memory": 1},
    refused_by={"queue_full": 3, "prompt_too_long": 1},
    outputs_by={"stop": 10, "length": 2, "cancelled": 2},
)
ROW = wire.RequestRow(
    id="r-1",
    choice=0,
    client="rapidctl",
    phase="decoding",
    age_s=1.5,
    prompt_tokens=14,
    cached_tokens=0,
    computed_tokens=20,
    output_tokens=7,
    max_tokens=64,
    ttft_s=0.2,
    itl_p95_s=0.03,
    tokens_per_s=30.5,
    kv_blocks=2,
    priority=0,
    slo_class="interactive",
    preemptions=0,
)
SLO = wire.Slo(itl_s=0.3, ttft_floor_s=2.0, ttft_per_1k_s=10.0)
LATENCY = wire.LatencyWindow(
    window_s=60.0,
    ttft_s=QUANTILES,
    itl_s=QUANTILES,
    tpot_s=QUANTILES,
    e2e_s=QUANTILES,
    ttft_met=0.98,
    itl_met=0.99,
    both_met=0.97,
    arrived_per_s=1.5,
    finished_per_s=1.4,
    output_tokens_per_s=60.0,
    prompt_tokens_per_s=120.0,
)
DECISION = wire.Decision(
    at_unix_s=1_700_000_001.0, decision=12, epoch=5, source="operator", text="override by ana: split 1"
)
BUCKETS = wire.BucketCounts(n=3, total=0.9, counts=[0, 1, *[0] * 12, 2, *[0] * 18])
SNAPSHOT = wire.Snapshot(
    seq=9,
    boot_id="engine-1",
    front_boot_id="front-1",
    at_unix_s=1_700_000_002.0,
    at_mono_ns=123_456_789,
    state="serving",
    detail="",
    version="0.1.0",
    uptime_s=3725.0,
    front_uptime_s=3725.0,
    endpoint="ipc:///run/rapidd/request.sock",
    model=MODEL,
    device=DEVICE,
    supervisor=wire.Process(pid=10),
    front=wire.Process(pid=11),
    engine=wire.Process(pid=12, restarts=1, causes={"hang": 1}),
    clients=2,
    slo=SLO,
    partition=PARTITION,
    lanes=LANES,
    kv=KV,
    requests=COUNTS,
    latency=[replace(LATENCY, window_s=window_s) for window_s in (10.0, 60.0, 300.0)],
    mode_seconds={"serial": 0.0, "hybrid": 10.0, "shared": 0.0, "split": 20.0, "transition": 0.5, "idle": 3600.0},
    decisions=[DECISION],
    rows=[ROW],
    rows_total=1,
    front_cpu_s=1.25,
    streamed_tokens_total=4000,
    scheduling_s=wire.Quantiles(n=256, p50=1.2e-4, p95=1.5e-4, p99=2.1e-4, max=3.2e-4),
    latency_totals=wire.LatencyTotals(
        ttft_s=BUCKETS,
        itl_s=BUCKETS,
        tpot_s=BUCKETS,
        e2e_s=BUCKETS,
        prompt_tokens=140,
        output_tokens=4000,
        queued_s=BUCKETS,
        prefill_s=BUCKETS,
    ),
    loop_lag_s=BUCKETS,
    last_step_age_s=0.25,
    unreadable={"requests": {"malformed": 2}},
)
EVENT = wire.Event(
    seq=3,
    front_boot_id="front-1",
    at_unix_s=1_700_000_003.0,
    kind="applied",
    level="info",
    text="split 1 applied",
    epoch=5,
    decision=12,
    request_id="r-1",
    placement=PLACEMENT,
)
WELCOME = wire.Welcome(
    protocol=1,
    version="0.1.0",
    boot_id="engine-1",
    front_boot_id="front-1",
    metrics_endpoint="ipc:///run/rapidd/request-metrics.sock",
    model="SmolLM2-135M-Instruct",
    control=True,
    limits=wire.Limits(max_model_len=2048),
    has_chat_template=True,
)
STATUS = wire.Status(
    call=2,
    state="serving",
    detail="",
    boot_id="engine-1",
    front_boot_id="front-1",
    version="0.1.0",
    uptime_s=3725.0,
    front_uptime_s=3725.0,
    endpoint="ipc:///run/rapidd/request.sock",
    model=MODEL,
    device=DEVICE,
    supervisor=wire.Process(pid=10),
    front=wire.Process(pid=11),
    engine=wire.Process(pid=12, restarts=1, causes={"hang": 1}),
    partition=PARTITION,
    kv=KV,
    requests=COUNTS,
    slo=SLO,
    slo_met=True,
)
DELTA = wire.Delta(
    id="r-1",
    choice=0,
    index=0,
    token_ids=pack_ids([504, 2]),
    text="The",
    at_mono_ns=[1_000_000, 2_000_000],
    logprobs=[
        wire.TokenLogprob(504, -0.25, [(504, -0.25), (9, -2.5)], b"The", [b"The", b"\xc3"]),
        wire.TokenLogprob(2, -0.5),
    ],
    finish_reason="stop",
)
FINISHED = wire.Finished(
    id="r-1",
    choices=[
        wire.ChoiceResult(index=0, finish_reason="stop", stop="\n\n", text="The", token_ids=pack_ids([504, 2])),
    ],
    prompt_tokens=14,
    cached_tokens=0,
    output_tokens=2,
    timing=wire.Timing(
        queued_s=0.001,
        prefill_s=0.1,
        ttft_s=0.12,
        e2e_s=0.5,
        itl_s=QUANTILES,
    ),
    mode="split",
    preemptions=1,
    resubmissions=1,
    slo_met=True,
)
