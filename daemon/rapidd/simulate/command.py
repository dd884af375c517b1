"""The command `rapidd simulate`: one run a policy, or the search for goodput, or the sweep over every arm. No torch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from rapidctl.bench.trace import SHAPE_REQUESTS, Trace, TraceError, read_trace, shape_trace
from rapidctl.errors import RapidctlError
from rapidctl.wire import SCHEMA_VERSION, Slo
from rapidd.config import SloConfig
from rapidd.engine.defaults import CPU_DEFAULTS, GPU_DEFAULTS
from rapidd.errors import ConfigError, ProfileError
from rapidd.partition.table import PartitionTable
from rapidd.paths import profile_dir
from rapidd.policy.calibration import Calibration
from rapidd.policy.library import SHIPPED, Found
from rapidd.policy.profile import RECALIBRATE, Profile, load_profile
from rapidd.simulate.arguments import CONTEXT, KV_TOKENS, REQUESTS
from rapidd.simulate.errors import MOST, Errors, read_errors
from rapidd.simulate.load import load_of, slice_of
from rapidd.simulate.machine import Machine, Setup
from rapidd.simulate.metrics import Summary, summarize
from rapidd.simulate.sweep import Goodput, Job, all_arms, markdown, rate_text, sweep, verdicts
from rapidd.telemetry.latency import resolve_slo

HOST_S: Final = 0.001
"""What the host needs before a batch starts on an idle lane; host CPU of a decode step was 0.9 to 2.4 ms on an H100."""


def run(arguments: argparse.Namespace) -> int:
    """Print tables, and one JSON line last. Raises ConfigError and ProfileError."""
    if problems := _without_effect(arguments) or _not_writable(arguments):
        raise ConfigError(problems)
    profile = load_profile(arguments.profile) if arguments.profile else _newest()
    setups = _setups(arguments, profile)
    traces = _traces(arguments, setups[0].max_model_len)
    if empty := [trace.name for trace in traces if not trace.requests]:
        fits = f"no request fits the context of {setups[0].max_model_len} tokens: give a larger --max-model-len"
        raise ConfigError([f"{name}: {fits}" for name in empty])
    calibration = Calibration(Found(profile, "file"))
    policies = arguments.policy or (all_arms(profile.splits) if arguments.sweep else ["auto"])
    for policy in policies:
        try:
            Machine(calibration, policy, setups[0])
        except ValueError as error:
            raise ConfigError([f"--policy: {error}"]) from error
    if arguments.goodput or arguments.sweep:
        document = _search(arguments, profile, setups, traces, policies)
    else:
        document = _runs(arguments, calibration, setups, traces, policies)
    document = {"schema_version": SCHEMA_VERSION, "profile": profile.name, "profile_note": profile.note, **document}
    if arguments.json:
        arguments.json.write_text(json.dumps(document) + "\n")
    print(json.dumps(document))
    return 0


def _without_effect(arguments: argparse.Namespace) -> list[str]:
    """Options that would change nothing, as sentences."""
    searches = arguments.goodput or arguments.sweep
    rules = (
        (searches and arguments.warmup, "--warmup: a search for goodput judges every request; leave it out"),
        (searches and arguments.rate, "--rate: a search for goodput chooses the rate; leave it out"),
        (not searches and arguments.markdown, "--markdown: the tables are those of --goodput or --sweep"),
        (not searches and arguments.workers, "--workers: only --goodput and --sweep run in several processes"),
        (
            not searches and arguments.requests and not arguments.shape,
            "--requests: counts those of a --shape, or of a slice for --goodput; cut a trace by --seconds",
        ),
        (not arguments.jitter and arguments.jitter_run != 1, "--jitter-run: nothing errs without --jitter"),
        (not arguments.jitter and not arguments.shape and arguments.seed, "--seed: of --jitter and --shape only"),
    )
    return [sentence for broken, sentence in rules if broken]


def _not_writable(arguments: argparse.Namespace) -> list[str]:
    """A place that cannot be written is told now, not after an hour."""
    problems = []
    for option, path in (("--json", arguments.json), ("--markdown", arguments.markdown)):
        try:
            if path:
                path.open("a").close()
        except OSError as error:
            problems.append(f"{option}: {path} cannot be written: {error.strerror}")
    return problems


def _runs(
    arguments: argparse.Namespace,
    calibration: Calibration,
    setups: Sequence[Setup],
    traces: Sequence[Trace],
    policies: Sequence[str],
) -> dict[str, object]:
    rows = []
    for trace in traces:
        items = load_of(trace, setups[0].block_tokens)
        rate = arguments.rate or 1.0
        load = slice_of(items, rate, arguments.seconds or float("inf"))
        if not load or load[-1].arrival_s < arguments.warmup:
            raise ConfigError([f"{trace.name}: no request is left to judge: more --seconds, or less --warmup"])
        for setup in setups:
            for policy in policies:
                done = Machine(calibration, policy, setup).run(load)
                summary = summarize(done, setup.slo, arguments.warmup)
                print(_line(trace, policy, setup.slo, summary))
                told = {
                    "trace": trace.name,
                    "policy": policy,
                    "itl_slo_s": setup.slo.itl_s,
                    "ttft_per_1k_s": setup.slo.ttft_per_1k_s,
                    "rate": rate,
                    "cut": trace.cut,
                    "dropped": trace.dropped,
                    "seed": arguments.seed,
                }
                rows.append(told | msgspec.to_builtins(summary))
    return {"runs": rows}


def _lost(trace: Trace) -> str:
    """What became of the whole trace's requests that do not fit the context."""
    if not trace.cut and not trace.dropped:
        return ""
    return f"; of the trace {trace.cut} prompts were cut to the context, {trace.dropped} requests dropped"


def _line(trace: Trace, policy: str, slo: Slo, summary: Summary) -> str:
    def ms(seconds: float | None) -> str:
        return "-" if seconds is None else f"{1e3 * seconds:.1f}"

    itl, ttft = summary.itl_s, summary.ttft_s
    places = ", ".join(f"{place} {share:.0%}" for place, share in summary.places.items() if share >= 0.005)
    return "\n".join(
        (
            f"{trace.name}  {policy}  ITL objective {ms(slo.itl_s)} ms, "
            f"{summary.requests} requests in {summary.seconds:.0f} s{_lost(trace)}",
            f"  met {summary.met:.1%} (TTFT {summary.ttft_met:.1%}, ITL {summary.itl_met:.1%}), "
            f"{summary.refused} refused",
            f"  TTFT p50/p95/p99/max {ms(ttft.p50)}/{ms(ttft.p95)}/{ms(ttft.p99)}/{ms(ttft.max)} ms",
            f"  ITL p50/p95/p99/max {ms(itl.p50)}/{ms(itl.p95)}/{ms(itl.p99)}/{ms(itl.max)} ms",
            f"  {summary.prompt_tokens_per_s:,.0f} prompt and {summary.output_tokens_per_s:,.0f} output tokens/s, "
            f"{summary.preempted} preempted, {summary.prefix_hit_tokens:,} tokens from the prefix cache",
            f"  {summary.changes_per_s:.2f} changes of mode or units a second, {summary.decisions_per_s:.0f} decisions",
            f"  {places}",
        )
    )


def _search(
    arguments: argparse.Namespace,
    profile: Profile,
    setups: Sequence[Setup],
    traces: list[Trace],
    policies: Sequence[str],
) -> dict[str, object]:
    job = Job(
        profile=profile,
        setup=setups[0],
        traces=traces,
        itl_s=[setup.slo.itl_s for setup in setups],
        requests=arguments.requests or REQUESTS,
        seconds=arguments.seconds,
    )
    found: list[Goodput] = []
    for part in sweep(job, policies, arguments.workers or 1):
        found += part
        rates = "/".join(map(rate_text, part))
        first = part[0]
        print(f"{first.trace}  {first.arm}  {rates} requests/s  ({part[-1].wall_s:.1f} s)", flush=True)
    order = {arm: index for index, arm in enumerate(policies)}
    found.sort(key=lambda one: (one.trace, one.itl_s, order[one.arm]))
    table = markdown(found)
    print(f"\n{table}\n")
    if arguments.markdown:
        arguments.markdown.write_text(table + "\n")
    return {"goodput": msgspec.to_builtins(found), "verdicts": msgspec.to_builtins(verdicts(found))}


# --- what is asked -----------------------------------------------------------------------------------------------


def _newest() -> Profile:
    """The profile measured last on this machine, or one that is shipped."""
    own = sorted(profile_dir().glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    candidates = [*own, *sorted(SHIPPED.glob("*.json"))]
    if not candidates:
        raise ProfileError("there is no profile on this machine", f"{RECALIBRATE}, or name one: --profile FILE")
    return load_profile(candidates[0])


def _setups(arguments: argparse.Namespace, profile: Profile) -> list[Setup]:
    """One for each ITL objective."""
    setup = setup_of(arguments, profile, arguments.max_model_len)
    objectives = arguments.slo_itl or [setup.slo.itl_s]
    per_1k_s = arguments.slo_ttft_per_1k or setup.slo.ttft_per_1k_s
    return [replace(setup, slo=replace(setup.slo, itl_s=itl_s, ttft_per_1k_s=per_1k_s)) for itl_s in objectives]


def setup_of(arguments: argparse.Namespace, profile: Profile, max_model_len: int | None) -> Setup:
    """The device of a profile with its default SLO; ``arguments``: of `add_device_arguments`. Raises ConfigError."""
    kind = profile.key.device_kind
    defaults = CPU_DEFAULTS if kind == "cpu" else GPU_DEFAULTS
    block_tokens = profile.key.block_tokens
    return Setup(
        table=PartitionTable(
            units_total=profile.key.units_total,
            unit_name="core" if kind == "cpu" else "SM" if kind == "cuda" else "CU",
            splits=profile.splits,
        ),
        slo=resolve_slo(SloConfig(), kind),
        kv_blocks=arguments.kv_blocks or KV_TOKENS // block_tokens,
        block_tokens=block_tokens,
        max_running=arguments.max_batch_requests or defaults.max_batch_requests,
        max_model_len=max_model_len or min(CONTEXT, defaults.max_context),
        max_chunk_s=defaults.max_chunk_s,
        lone_chunk_s=defaults.lone_chunk_s,
        max_chunk_tokens=defaults.max_chunk_tokens,
        max_prompts=defaults.max_prompts,
        prefill_depth=defaults.prefill_depth,
        give_way_s=arguments.give_way,
        host_s=HOST_S,
        errors=_errors(arguments),
    )


def _errors(arguments: argparse.Namespace) -> Errors:
    found: dict[str, dict[str, float]] = {}
    problems: list[str] = []
    for option, words, least in (("jitter", arguments.jitter, 0.0), ("bias", arguments.bias, -MOST)):
        try:
            found[option] = read_errors(words, least)
        except ValueError as error:
            problems.append(f"--{option}: {error}")
    if problems:
        raise ConfigError(problems)
    return Errors(jitter=found["jitter"], bias=found["bias"], run=arguments.jitter_run, seed=arguments.seed)


def _traces(arguments: argparse.Namespace, max_model_len: int) -> list[Trace]:
    """Files first. Raises ConfigError."""
    if not arguments.trace and not arguments.shape:
        raise ConfigError(["--trace: name a file, or a --shape IN/OUT@RATE"])
    # A search replays slices, up to the highest of rates: a shape must not be over before they are.
    count = SHAPE_REQUESTS if arguments.goodput or arguments.sweep else arguments.requests or REQUESTS
    found: list[Trace] = []
    option = "--trace"
    try:
        found += _files(arguments.trace, arguments.request_rate)
        option = "--shape"
        found += (shape_trace(shape, seed=arguments.seed, count=count) for shape in arguments.shape)
    except RapidctlError as error:
        raise ConfigError([f"{option}: {error} ({error.hint})" if error.hint else f"{option}: {error}"]) from error
    return [trace.limited(max_model_len) for trace in found]


def _files(paths: Sequence[str], request_rate: float | None) -> list[Trace]:
    """``request_rate`` is for traces without arrival times. Raises TraceError, or ConfigError when there is none."""
    found: list[Trace] = []
    lacking = False
    for path in paths:
        try:
            found.append(read_trace(path))
        except TraceError:
            if request_rate is None:
                raise
            found.append(read_trace(path, request_rate=request_rate))
            lacking = True
    if request_rate is not None and not lacking:
        raise ConfigError(["--request-rate: every trace has arrival times; --rate replays them faster or slower"])
    return found
