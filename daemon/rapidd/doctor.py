"""`rapidd doctor`: what this machine can serve with, and what to do about what is missing.

Looks without changing anything: makes no directory, binds no socket, loads no weights. torch and the GPU's driver are
asked in a process of their own (`partition.look`).
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from rapidctl import wire
from rapidd.config import Config
from rapidd.errors import RapiddError
from rapidd.partition.look import GpuView, TorchView
from rapidd.paths import RuntimeDir

PACKAGES: Final = (
    *("rapid-serve", "torch", "numpy", "pyzmq", "msgspec"),
    *("tokenizers", "safetensors", "gguf", "jinja2", "psutil"),
)
MIN_FREE_BYTES: Final = 1024 * 1024
"""Of the runtime directory: sockets, a lock and a small file."""
PROBE_TIMEOUT_S: Final = 120.0
"""A first import of torch from a cold disk takes tens of seconds."""
INSTALL_HINT: Final = "pip install 'rapid-serve[daemon]'"

Level = Literal["ok", "warn", "fail"]


class Finding(Struct, frozen=True):
    """One line of the report. ``hint``: what to do, empty when there is nothing to do."""

    check: str
    level: Level
    text: str
    hint: str = ""


def examine(config: Config) -> list[Finding]:
    """Everything that `rapidd serve` with this configuration would need, in the order it would need it."""
    return [
        *_packages(),
        _cores(),
        *_device(config),
        _model(config),
        *_endpoint(config),
        _compiler(config),
    ]


def healthy(findings: list[Finding]) -> bool:
    """Whether `rapidd serve` should work."""
    return all(finding.level != "fail" for finding in findings)


def render(findings: list[Finding]) -> Iterator[str]:
    """Lines for people."""
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        yield f"{finding.level:4}  {finding.check:{width}}  {finding.text}"
        if finding.hint:
            yield f"{'':4}  {'':{width}}  -> {finding.hint}"


def _packages() -> Iterator[Finding]:
    found, missing = [f"Python {platform.python_version()}"], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    yield Finding("versions", "ok", ", ".join(found))
    if missing:
        yield Finding("packages", "fail", f"not installed: {', '.join(missing)}", INSTALL_HINT)


def _cores() -> Finding:
    total = os.cpu_count() or 1
    try:
        usable = len(os.sched_getaffinity(0))
    except OSError as error:
        return Finding(
            "cores", "warn", f"{total} cores, no affinity here ({error.strerror}): mode split is not available"
        )
    text = f"{usable} of {total} cores usable"
    quota = cpu_quota()
    if quota is not None and quota < usable:
        return Finding(
            "cores",
            "warn",
            f"{text}, but the control group allows {quota:g} cores' time",
            f"rapidd serve --compute-units {max(1, int(quota))}, or raise the limit",
        )
    if usable == 1:
        return Finding("cores", "warn", f"{text}: on a CPU, mode split needs 2")
    return Finding("cores", "ok", text)


def cpu_quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    """Cores' worth of time that the control group may use (cgroup v2), null without a limit."""
    try:
        quota, period = path.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return None


def _device(config: Config) -> Iterator[Finding]:
    wanted = config.engine.device
    torch = ask_torch(config.engine.compute_units)
    if isinstance(torch, str):
        yield Finding("device", "fail", f"torch does not work: {torch}", INSTALL_HINT)
        return
    kind = "hip" if torch.hip else "cuda" if torch.cuda else "cpu"
    build = {"hip": f"ROCm {torch.hip}", "cuda": f"CUDA {torch.cuda}", "cpu": "CPU only"}[kind]
    seen = ", ".join(torch.devices) or "no accelerator" + (f" ({torch.why_not})" if torch.why_not else "")
    check = "check the driver and the device's rights"
    text = f"torch {torch.version} ({build}) sees {seen}"
    if wanted in ("cuda", "hip") and (wanted != kind or not torch.devices):
        hint = check if wanted == kind else "install the torch build for this device"
        yield Finding("device", "fail", f"--device {wanted}: {text}", hint)
    elif wanted == "auto" and kind != "cpu" and not torch.devices:
        yield Finding("device", "warn", f"{text}: the CPU will serve", check)
    else:
        yield Finding("device", "ok", text)
        if wanted != "cpu" and torch.gpu is not None:
            yield from _gpu(torch.gpu)


def _gpu(gpu: GpuView) -> Iterator[Finding]:
    """Whether its units can be divided, and whether it can be watched."""
    if gpu.table is None:
        yield Finding("partition", "fail", gpu.problem or "the GPU cannot be opened", gpu.hint or "see dmesg")
        return
    units = f"{gpu.table.units_total} {gpu.table.unit_name}s"
    if gpu.table.unsupported is not None:
        yield Finding(
            "partition",
            "warn",
            f"{units}, mode split is not available: {gpu.table.unsupported}",
            "shared, hybrid and serial work; for split update the driver, or give this process the right",
        )
    else:
        yield Finding("partition", "ok", f"{units}; decode may get {', '.join(map(str, gpu.table.splits))}")
    if gpu.no_sensors is not None:
        yield Finding("sensors", "warn", gpu.no_sensors, "the daemon serves without, and does not hear of faults")


def ask_torch(compute_units: int | None) -> TorchView | str:
    """What torch sees, or why it cannot be asked."""
    units = [] if compute_units is None else [str(compute_units)]
    try:
        answer = subprocess.run(
            [sys.executable, "-P", "-m", "rapidd.partition.look", *units],
            capture_output=True,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PROBE_TIMEOUT_S:g} s"
    try:
        return msgspec.json.decode(answer.stdout, type=TorchView)
    except ValueError:
        lines = answer.stderr.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit status {answer.returncode}"


def _model(config: Config) -> Finding:
    try:
        from rapidd.model import resolve
    except ImportError as error:
        return Finding("model", "fail", f"cannot read models: {error}", INSTALL_HINT)
    try:
        model = resolve.load_model(config.model)
    except RapiddError as error:
        return Finding("model", "fail", str(error), error.hint)
    source = "random weights" if model.weights is None else str(model.weights.path)
    return Finding("model", "ok", f"{model.spec.name}, {model.spec.num_parameters / 1e6:.1f} M parameters, {source}")


def _endpoint(config: Config) -> Iterator[Finding]:
    try:
        directory = RuntimeDir(config.server.listen or wire.default_endpoint())
    except wire.EndpointError as error:
        yield Finding("endpoint", "fail", str(error))
        return
    try:
        owner = directory.owner()
    except RapiddError as error:
        yield Finding("endpoint", "fail", str(error), error.hint)
        return
    if owner is None:
        yield Finding("endpoint", "ok", f"{directory.endpoint} is free")
    else:
        hint = "fine if that is the daemon you mean; another one needs --listen"
        yield Finding("endpoint", "warn", f"{directory.endpoint} is served by pid {owner}", hint)
    yield _directory(directory.root)


def _directory(root: Path) -> Finding:
    existing = next(path for path in (root, *root.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding("runtime dir", "fail", f"{existing} cannot be written", "--listen ipc:///PATH/request.sock")
    room = os.statvfs(existing)
    if room.f_bavail * room.f_frsize < MIN_FREE_BYTES:
        return Finding("runtime dir", "fail", f"{existing} has no space left", "free some, or --listen elsewhere")
    return Finding("runtime dir", "ok", str(root) if existing == root else f"{root} can be made in {existing}")


def _compiler(config: Config) -> Finding:
    """Triton compiles its launchers with a C compiler, for this Python; a CPU needs neither."""
    try:
        triton = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        level: Level = "fail" if config.engine.device in ("cuda", "hip") else "ok"
        return Finding("triton", level, "not installed: only a CPU can serve", INSTALL_HINT if level == "fail" else "")
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("gcc", "clang")), None)
    if compiler is None:
        return Finding("triton", "warn", f"triton {triton}, but no C compiler", "install gcc or clang, or set CC")
    headers = Path(sysconfig.get_path("include", "posix_prefix"))
    if not (headers / "Python.h").exists():
        hint = "install Python's headers (python3-dev)"
        return Finding("triton", "warn", f"triton {triton}, but no Python.h in {headers}", hint)
    return Finding("triton", "ok", f"triton {triton}, C compiler {compiler}")
