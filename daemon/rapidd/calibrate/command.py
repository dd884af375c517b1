"""`rapidd calibrate`: an engine without a front, measured, and the profile written.

Refuses beside a running daemon. Nothing is written unless the whole calibration succeeded; interrupted by SIGINT it
leaves nothing behind.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TextIO

from rapidctl import wire
from rapidd.calibrate.points import PROCESSOR, Grid, Limits
from rapidd.calibrate.probe import Manner, Probe
from rapidd.calibrate.session import Session
from rapidd.config import Config
from rapidd.engine.backend import Backend
from rapidd.engine.build import Parts, assemble
from rapidd.engine.devices import open_backend
from rapidd.errors import DeviceError, ProfileError
from rapidd.paths import RuntimeDir, profile_dir
from rapidd.policy.cost import CostModel
from rapidd.policy.profile import Profile, incomplete, save_profile
from rapidd.telemetry.cpu import others_cpu_s, waited_s

LEAST_SHARE: Final = 1 / 3
"""Of the time asked for that is measured, however long loading took."""
MARGIN_S: Final = 4.0
"""The last batches of a stage may overrun it, and a process that held a GPU's memory takes a moment to end."""
BUSY_SHARE: Final = 1 / 8
"""Of a GPU's memory in use before anything was loaded: somebody else works there."""
MEDIAN, P95 = 0.10, 0.25
"""Relative errors that a cost model should stay within."""
ON_CPU: Final = Manner(
    typical=min,
    waited=waited_s,
    first_counts=True,
    fewest=2,
    enough_s=0.08,
    long_s=0.2,
    patient_s=0.6,
    beside_s=0.5,
)
"""Little at a time, and that in several passes: what other machines of the host do lasts for seconds."""
ON_GPU: Final = Manner(settle_s=0.1, most=4, enough_s=0.1)
"""Within 0.1 s its clock falls to what its power limit allows for prompts, as it is while serving."""
PASS_S: Final = 27.0
"""On a CPU: of one pass over everything. What is left of the time repeats it."""
MOST_PASSES: Final = 10
QUIET_SHARE: Final = 0.05
"""Of the processor, which others may use before the calibration says so."""
UNSTEADY: Final = 0.15
"""By so much passes may differ before it does."""
BAR: Final = 24


class ProgressBar:
    """One line that changes on a terminal; elsewhere a line for each new stage."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._stage = ""

    def loading(self, detail: str, percent: float | None) -> None:
        """As the engine reports while it is built."""
        self._show(0.0, detail, "" if percent is None else f"{percent:.0f} %", detail)

    def measuring(self, share: float, stage: str, text: str) -> None:
        """As `Session` reports."""
        self._show(share, stage, text, f"{share:4.0%}  {stage}")

    def end(self) -> None:
        """Leave the line."""
        if self._is_terminal:
            print("\r\x1b[K", end="", file=self._stream, flush=True)

    def _show(self, share: float, stage: str, text: str, line: str) -> None:
        if self._is_terminal:
            bar = "#" * round(BAR * share) + "." * (BAR - round(BAR * share))
            print(f"\r\x1b[K[{bar}] {share:4.0%}  {stage}  {text}"[:118], end="", file=self._stream, flush=True)
        elif stage != self._stage:
            print(f"rapidd: {line}", file=self._stream, flush=True)
        self._stage = stage


def calibrate(
    config: Config, seconds: float, out: Path | None, note: str, spent_s: float = 0.0
) -> tuple[Profile, Path]:
    """Measure for ``seconds`` in all, loading included, and write; the profile and where it is.

    ``out`` null: the state directory. ``spent_s``: of the time, before the call. Raises `RapiddError`; on SIGINT
    KeyboardInterrupt.
    """
    started = time.monotonic() - spent_s
    refuse_beside_daemon(config)
    check_writable(out.parent if out else profile_dir())
    bar = ProgressBar(sys.stderr)
    wake = threading.Event()
    backend = open_backend(config.engine, wake.set)
    refuse_busy_device(backend)
    parts = assemble(config, backend, bar.loading)
    backend.fill_cache()
    budget_s = max(seconds - MARGIN_S - (time.monotonic() - started), LEAST_SHARE * seconds)
    try:
        profile = measure(parts, config, wake, budget_s, note, bar.measuring)
    finally:
        bar.end()
    path = out or profile_dir() / profile.key.file_name
    save_profile(profile, path)
    return profile, path


def measure(
    parts: Parts,
    config: Config,
    wake: threading.Event,
    budget_s: float,
    note: str,
    progress: Callable[[float, str, str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Profile:
    """The profile of assembled parts. Raises ProfileError when not even the least could be measured."""
    backend, table = parts.backend, parts.backend.table
    is_cpu = backend.info.kind == "cpu"
    limits = Limits(
        max_rows=parts.sizes.num_slots,
        max_model_len=parts.sizes.max_model_len,
        max_chunk_tokens=backend.defaults.max_chunk_tokens,
        kv_blocks=parts.kv_blocks,
        block_tokens=parts.sizes.block_tokens,
        grid=PROCESSOR if is_cpu else Grid(),
    )
    vocab_size, manner = parts.loaded.spec.vocab_size, ON_CPU if is_cpu else ON_GPU
    probe = Probe(parts.lanes, wake, limits, table.units_total, vocab_size, clock, manner)
    max_chunk_s = config.engine.max_chunk_s or backend.defaults.max_chunk_s
    passes = min(max(round(budget_s / PASS_S), 1), MOST_PASSES) if is_cpu else 1
    session = Session(
        probe,
        limits,
        table,
        max_chunk_s=max_chunk_s,
        budget_s=budget_s,
        progress=progress,
        clock=clock,
        passes=passes,
    )
    started, others_s = clock(), others_cpu_s()
    session.run()
    others = (others_cpu_s() - others_s) / max(clock() - started, 1e-9) / (os.cpu_count() or 1)
    for text in session.too_large:
        print(f"rapidd: not measured, too little memory: {text}", file=sys.stderr)
    if session.skipped:
        print(f"rapidd: {session.skipped} more batches were not measured: out of time", file=sys.stderr)
    profile = Profile(
        key=parts.key,
        made_unix_s=time.time(),
        seconds=clock() - started,
        note=note,
        others_cpu_share=min(max(others, 0.0), 1.0),
        passes_differ=session.passes_differ,
        splits=table.splits,
        row_buckets=backend.row_buckets,
        prompt_wave=backend.prompt_wave,
        decode=tuple(session.decode),
        prefill=tuple(session.prefill),
        hybrid=tuple(session.hybrid),
    )
    if missing := incomplete(profile):
        raise ProfileError(f"the calibration is of no use: {missing}", "give it more memory: a larger --kv-blocks")
    return profile


def refuse_beside_daemon(config: Config) -> None:
    """Raise DeviceError when a daemon serves at the configured endpoint."""
    endpoint = config.server.listen or wire.default_endpoint()
    pid = RuntimeDir(endpoint).owner()
    if pid is not None:
        raise DeviceError(
            f"rapidd (pid {pid}) serves at {endpoint}: it holds the device's memory and would disturb the measurement",
            "stop it first; the profile is used at its next start",
        )


def refuse_busy_device(backend: Backend) -> None:
    """Raise DeviceError when other processes hold much of a GPU's memory."""
    total, used = backend.info.memory_total_bytes, backend.memory_used()
    if backend.info.kind != "cpu" and total and used and used > BUSY_SHARE * total:
        raise DeviceError(
            f"{used / 2**30:.0f} of {total / 2**30:.0f} GiB of the device's memory are in use by other processes",
            "stop them first: a calibration needs the device for itself",
        )


def check_writable(folder: Path) -> None:
    """Before minutes are spent. Raises ProfileError."""
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ProfileError(
            f"cannot write to {folder}: {error.strerror or error}",
            "grant the right or free some space, or choose another place: rapidd calibrate --out FILE",
        ) from error


def summary(profile: Profile, path: Path) -> list[str]:
    """What came out, for people."""
    fit = CostModel(profile).fit
    counts = f"{len(profile.decode)} decode steps, {len(profile.prefill)} chunks, {len(profile.hybrid)} hybrid batches"
    lines = [f"{profile.name}: {counts} in {profile.seconds:.0f} s"]
    if fit.median is not None and fit.p95 is not None:
        lines.append(f"error of predictions: median {fit.median:.1%}, p95 {fit.p95:.1%} (n = {fit.n}, held back)")
        if fit.median > MEDIAN or fit.p95 > P95:
            bounds = f"{MEDIAN:.0%} and {P95:.0%}"
            lines.append(f"that is more than {bounds}: calibrate again with more --seconds, while nothing else runs")
    else:
        lines.append("too few to hold any back, so nobody knows how far predictions are off: give more --seconds")
    if profile.others_cpu_share is not None and profile.others_cpu_share > QUIET_SHARE:
        lines.append(
            f"others used {profile.others_cpu_share:.0%} of the processor meanwhile: "
            "more --seconds measure everything more often, and of each batch the least counts"
        )
    if profile.passes_differ is not None and profile.passes_differ > UNSTEADY:
        lines.append(
            f"the same batch took {profile.passes_differ:.0%} longer at one time than at another (median): "
            "something slows this machine that it cannot see, as others do that share its memory"
        )
    return [*lines, f"written to {path}"]
