"""`/metrics`: the daemon's latest snapshot and this process's own counts, in Prometheus' text format.

Names are ``rapidd_*`` with units; counters of the front and the engine begin anew with their process, which is what
Prometheus expects. ``vllm:`` names are given to a few of them on demand, for dashboards that know only these.
"""

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from rapidctl import wire

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
STATES: Final = ("starting", "serving", "draining", "drained", "engine_lost")


class Metrics:
    """Everything that `/metrics` shows. ``served_model_name``: the model's in ``vllm:`` names; null: its path."""

    def __init__(self, *, vllm_aliases: bool, served_model_name: str | None = None) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._daemon = _DaemonCollector(vllm_aliases, served_model_name)
        self._registry.register(self._daemon)
        self.requests = Counter(
            "rapidd_http_requests", "HTTP requests answered.", ("route", "method", "code"), registry=self._registry
        )
        self.in_progress = Gauge(
            "rapidd_http_requests_in_progress", "HTTP requests being answered.", registry=self._registry
        )
        self.disconnects = Counter(
            "rapidd_http_disconnects", "Answers that their client did not wait for.", registry=self._registry
        )

    def render(self, snapshot: wire.Snapshot | None) -> bytes:
        """The text; null: the daemon does not answer, and only ``rapidd_up 0`` is known of it."""
        self._daemon.snapshot = snapshot
        return generate_latest(self._registry)


class _DaemonCollector(Collector):
    """Turns a snapshot into metrics, anew at each scrape."""

    def __init__(self, vllm_aliases: bool, served_model_name: str | None) -> None:
        self.snapshot: wire.Snapshot | None = None
        self._vllm_aliases = vllm_aliases
        self._served_model_name = served_model_name

    def collect(self) -> Iterator[Metric]:
        """All metrics of the daemon."""
        snapshot = self.snapshot
        yield _gauge("rapidd_up", "Whether the daemon answers.", snapshot is not None)
        if snapshot is None:
            return
        yield from _life(snapshot)
        yield from _requests(snapshot)
        if snapshot.latency_totals is not None:
            yield from _latencies(snapshot.latency_totals, snapshot.slo)
        if snapshot.kv is not None:
            yield from _cache(snapshot.kv)
        yield from _lanes(snapshot)
        if snapshot.device is not None:
            yield from _device(snapshot.device)
        if self._vllm_aliases and snapshot.model is not None:
            yield from _vllm(snapshot, self._served_model_name or snapshot.model.path)


def _life(snapshot: wire.Snapshot) -> Iterator[Metric]:
    yield _gauge("rapidd_ready", "Whether new requests are served.", snapshot.state == "serving")
    yield _gauge("rapidd_state", "1 for the state the daemon is in.", **{
        state: state == snapshot.state for state in STATES
    }, label="state")  # fmt: skip
    info = GaugeMetricFamily(
        "rapidd_build_info", "Version, model and device.", labels=("version", "model", "dtype", "device")
    )
    model, device = snapshot.model, snapshot.device
    labels = (
        snapshot.version,
        model.path if model else "",
        model.dtype if model else "",
        device.name if device else "",
    )
    info.add_metric(labels, 1)
    yield info
    yield _gauge("rapidd_uptime_seconds", "Since the daemon's start.", snapshot.uptime_s)
    yield _counter("rapidd_front_cpu_seconds", "Processor time of the front.", snapshot.front_cpu_s)
    yield _gauge("rapidd_clients", "Connections on the request socket.", snapshot.clients)
    yield from _troubles(snapshot)


def _troubles(snapshot: wire.Snapshot) -> Iterator[Metric]:
    """What an operator is woken by."""
    restarts = {
        (process, cause): running.causes.get(cause, 0)
        for process, running in (("front", snapshot.front), ("engine", snapshot.engine))
        for cause in get_args(wire.RestartCause)
    }
    yield _table("rapidd_restarts", "Processes that were started again.", ("process", "cause"), restarts.items())
    unreadable = {(socket, code): n for socket, codes in snapshot.unreadable.items() for code, n in codes.items()}
    yield _table("rapidd_decode_errors", "Messages that could not be read.", ("socket", "code"), unreadable.items())
    if snapshot.loop_lag_s is not None:
        yield _histogram("rapidd_front_loop_lag_seconds", "What a message waits for the front.", snapshot.loop_lag_s)
    if snapshot.last_step_age_s is not None:
        yield _gauge("rapidd_last_step_age_seconds", "Since the last batch that ended.", snapshot.last_step_age_s)


def _requests(snapshot: wire.Snapshot) -> Iterator[Metric]:
    counts = snapshot.requests
    yield _gauge(
        "rapidd_requests", "Live choices of requests, by phase.", label="phase",
        waiting=counts.waiting, prefilling=counts.prefilling, decoding=counts.decoding,
    )  # fmt: skip
    yield _gauge("rapidd_waiting_tokens", "Prompt tokens of the requests that wait.", counts.waiting_tokens)
    yield _counter("rapidd_requests_accepted", "Requests that were queued.", counts.accepted_total)
    yield _counter(
        "rapidd_requests_ended", "Requests by how they ended.", label="outcome",
        finished=counts.finished_total, failed=counts.failed_total,
        cancelled=counts.cancelled_total, refused=counts.refused_total,
    )  # fmt: skip
    yield _counter("rapidd_requests_failed", "Requests that ended with an error.", label="code", **counts.failed_by)
    yield _counter("rapidd_requests_refused", "Requests that were not accepted.", label="code", **counts.refused_by)
    yield _counter(
        "rapidd_requests_hopeless", "Requests predicted to miss their first token by far, refused or not.",
        counts.hopeless_total,
    )  # fmt: skip
    yield _counter("rapidd_outputs", "Choices that ended without an error.", label="reason", **counts.outputs_by)
    yield _counter("rapidd_preemptions", "Choices that were taken off the device.", counts.preempted_total)
    yield _counter("rapidd_streamed_tokens", "Output tokens sent to clients.", snapshot.streamed_tokens_total)


def _latencies(totals: wire.LatencyTotals, slo: wire.Slo) -> Iterator[Metric]:
    yield _counter("rapidd_prompt_tokens", "Prompt tokens computed or found in the cache.", totals.prompt_tokens)
    yield _counter("rapidd_output_tokens", "Output tokens.", totals.output_tokens)
    yield _histogram("rapidd_time_to_first_token_seconds", "From arrival to the first output token.", totals.ttft_s)
    yield _histogram("rapidd_inter_token_latency_seconds", "Between two output tokens of a choice.", totals.itl_s)
    yield _histogram("rapidd_time_per_output_token_seconds", "Mean of a choice's gaps, once a choice.", totals.tpot_s)
    yield _histogram("rapidd_request_duration_seconds", "From arrival to the end of a request.", totals.e2e_s)
    if totals.queued_s is not None and totals.prefill_s is not None:
        yield _histogram("rapidd_request_queue_seconds", "From arrival to the prompt's first chunk.", totals.queued_s)
        yield _histogram("rapidd_request_prefill_seconds", "From there to the first output token.", totals.prefill_s)
    yield _gauge("rapidd_slo_inter_token_latency_seconds", "Objective for the p95 of a request's gaps.", slo.itl_s)
    yield _gauge(
        "rapidd_slo_time_to_first_token_seconds", "Objective for the first token of a short prompt.", slo.ttft_floor_s
    )


def _cache(kv: wire.KvStats) -> Iterator[Metric]:
    free = kv.blocks_total - kv.blocks_used - kv.blocks_cached
    yield _gauge(
        "rapidd_kv_blocks", "Blocks of the KV cache.", label="use",
        used=kv.blocks_used, cached=kv.blocks_cached, free=free,
    )  # fmt: skip
    yield _gauge("rapidd_kv_usage_ratio", "Share of the KV cache that requests hold.", kv.blocks_used / kv.blocks_total)
    yield _gauge("rapidd_kv_block_tokens", "Tokens a block holds.", kv.block_tokens)
    yield _gauge("rapidd_kv_bytes", "Size of the KV cache.", kv.bytes_total)
    yield _counter("rapidd_prefix_hit_tokens", "Prompt tokens found in the cache.", kv.prefix_hit_tokens_total)
    yield _counter("rapidd_prefix_query_tokens", "Prompt tokens looked up there.", kv.prefix_query_tokens_total)
    yield _counter("rapidd_kv_evicted_blocks", "Cached blocks that made room.", kv.evicted_blocks_total)


def _lanes(snapshot: wire.Snapshot) -> Iterator[Metric]:
    lanes = snapshot.lanes
    yield _gauge("rapidd_lane_units", "Compute units a lane holds.", label="lane", **{x.lane: x.units for x in lanes})
    yield _gauge(
        "rapidd_lane_busy_ratio", "Share of the last second in which a lane ran.", label="lane",
        **{lane.lane: lane.busy for lane in lanes if lane.busy is not None},
    )  # fmt: skip
    yield _counter(
        "rapidd_lane_batches", "Batches a lane ran.", label="lane", **{lane.lane: lane.batches_total for lane in lanes}
    )
    yield _counter(
        "rapidd_lane_tokens",
        "Tokens a lane computed.",
        label="lane",
        **{lane.lane: lane.tokens_total for lane in lanes},
    )
    busy = {
        (lane.lane, phase): seconds
        for lane in lanes
        for phase, seconds in (
            ("decode", lane.busy_decode_s_total),
            ("prefill", lane.busy_prefill_s_total),
            ("mixed", lane.busy_mixed_s_total),
        )
    }
    yield _table(
        "rapidd_lane_busy_seconds", "Time a lane ran, by what was in the batch.", ("lane", "phase"), busy.items()
    )
    yield _counter(
        "rapidd_mode_seconds",
        "Time by what ran, a mode only where both phases had work.",
        label="mode",
        **snapshot.mode_seconds,
    )
    partition = snapshot.partition
    if partition is not None:
        yield _gauge("rapidd_units", "Compute units of the device.", partition.units_total)
        yield _gauge("rapidd_override", "Whether an operator's override is in force.", partition.override is not None)
        if partition.chunk_limit is not None:
            yield _gauge(
                "rapidd_chunk_limit_tokens", "Prompt tokens of a batch since memory ran out.", partition.chunk_limit
            )
        margin = partition.calibration.margin if partition.calibration else None
        if margin is not None:
            yield _gauge(
                "rapidd_gap_margin_ratio",
                f"What predicted gaps are multiplied by, to keep late ones at {margin.late_share:.0%}.",
                margin.factor,
            )
        yield _gauge("rapidd_control_epoch", "Counts changes of policy and override.", partition.epoch)


def _device(device: wire.DeviceInfo) -> Iterator[Metric]:
    readings = {
        "rapidd_device_memory_used_bytes": ("Device memory in use.", device.memory_used_bytes),
        "rapidd_device_memory_bytes": ("Device memory.", device.memory_total_bytes),
        "rapidd_device_utilization_ratio": ("Share of the time in which something ran.", device.utilization),
        "rapidd_device_power_watts": ("Power drawn.", device.power_w),
        "rapidd_device_temperature_celsius": ("Temperature.", device.temperature_c),
        "rapidd_device_clock_hertz": ("Clock of the compute units.", device.clock_hz),
    }
    for name, (text, value) in readings.items():
        if value is not None:
            yield _gauge(name, text, value)


def _vllm(snapshot: wire.Snapshot, model: str) -> Iterator[Metric]:
    """The names that other servers' dashboards and load balancers look for."""
    counts, kv, totals = snapshot.requests, snapshot.kv, snapshot.latency_totals
    gauges: dict[str, float] = {
        "vllm:num_requests_running": counts.prefilling + counts.decoding,
        "vllm:num_requests_waiting": counts.waiting,
    }
    counters: dict[str, float] = {"vllm:num_preemptions": counts.preempted_total}
    if kv is not None:
        gauges["vllm:kv_cache_usage_perc"] = kv.blocks_used / kv.blocks_total
        counters["vllm:prefix_cache_queries"] = kv.prefix_query_tokens_total
        counters["vllm:prefix_cache_hits"] = kv.prefix_hit_tokens_total
    if totals is not None:
        counters["vllm:prompt_tokens"] = totals.prompt_tokens
        counters["vllm:generation_tokens"] = totals.output_tokens
        success = {(reason, model): count for reason, count in counts.outputs_by.items()}
        yield _table(
            "vllm:request_success", "Alias of a rapidd metric.", ("finished_reason", "model_name"), success.items()
        )
        for name, counts_ in {
            "vllm:time_to_first_token_seconds": totals.ttft_s,
            "vllm:inter_token_latency_seconds": totals.itl_s,
            "vllm:request_time_per_output_token_seconds": totals.tpot_s,
            "vllm:e2e_request_latency_seconds": totals.e2e_s,
            "vllm:request_queue_time_seconds": totals.queued_s,
            "vllm:request_prefill_time_seconds": totals.prefill_s,
        }.items():
            if counts_ is not None:
                yield _histogram(name, "Alias of a rapidd metric.", counts_, model_name=model)
    for name, value in gauges.items():
        gauge = GaugeMetricFamily(name, "Alias of a rapidd metric.", labels=("model_name",))
        gauge.add_metric((model,), value)
        yield gauge
    for name, value in counters.items():
        yield _table(name, "Alias of a rapidd metric.", ("model_name",), [((model,), value)])


# --- families ----------------------------------------------------------------------------------------------------


def _gauge(name: str, text: str, value: float | None = None, /, label: str | None = None, **values: float) -> Metric:
    """One value, or one for each value of a label."""
    return _fill(GaugeMetricFamily(name, text, labels=(label,) if label else None), value, values)


def _counter(name: str, text: str, value: float | None = None, /, label: str | None = None, **values: float) -> Metric:
    """As `_gauge`; ``_total`` is added to the name."""
    return _fill(CounterMetricFamily(name, text, labels=(label,) if label else None), value, values)


def _table(name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    """A counter with several labels."""
    family = CounterMetricFamily(name, text, labels=labels)
    for each, value in values:
        family.add_metric(each, float(value))
    return family


def _fill(
    family: GaugeMetricFamily | CounterMetricFamily, value: float | None, values: dict[str, float]
) -> GaugeMetricFamily | CounterMetricFamily:
    if value is not None:
        family.add_metric((), float(value))
    for name, each in values.items():
        family.add_metric((name,), float(each))
    return family


def _histogram(name: str, text: str, counts: wire.BucketCounts, **labels: str) -> Metric:
    """Prometheus' buckets are cumulative, ours are not."""
    family = HistogramMetricFamily(name, text, labels=tuple(labels) or None)
    edges = (*map(repr, wire.LATENCY_EDGES_S), "+Inf")
    buckets: Iterable[tuple[str, float]] = zip(edges, accumulate(counts.counts), strict=True)
    family.add_metric(tuple(labels.values()), list(buckets), counts.total)
    return family
