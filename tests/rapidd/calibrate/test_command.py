"""`rapidd calibrate` on this machine's processor, with the 260K-parameter model: whatever its times are."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import msgspec
import pytest

from rapidctl.wire import DeviceInfo
from rapidd.calibrate import command
from rapidd.calibrate.command import (
    MARGIN_S,
    ProgressBar,
    calibrate,
    measure,
    refuse_beside_daemon,
    refuse_busy_device,
    summary,
)
from rapidd.cli import main
from rapidd.config import Config, EngineConfig, ModelConfig, ServerConfig
from rapidd.engine.build import Parts, assemble
from rapidd.engine.cpu import CpuBackend
from rapidd.engine.devices import open_backend
from rapidd.engine.openmp import SPINS
from rapidd.errors import DeviceError, ProfileError
from rapidd.paths import RuntimeDir, profile_dir
from rapidd.policy.cost import CostModel
from rapidd.policy.library import find_profile
from rapidd.policy.profile import Profile, PromptWave, load_profile
from support.process import WAIT_S, environment, python_module, run
from support.profiles import PROFILE
from support.tiny import MODEL

UNITS = min(2, len(os.sched_getaffinity(0)))


def config(folder: Path, kv_blocks: int = 64) -> Config:
    return Config(
        model=ModelConfig(path=str(MODEL), dtype="float32"),
        engine=EngineConfig(device="cpu", compute_units=UNITS, max_batch_requests=4, kv_blocks=kv_blocks),
        server=ServerConfig(listen=f"ipc://{folder}/request.sock"),
    )


def rapidd_calibrate(folder: Path, *options: str, **environ: str) -> subprocess.Popen[str]:
    command = python_module("rapidd.cli", "calibrate", "--model", str(MODEL), "--device", "cpu")
    command += ["--kv-blocks", "64", "--listen", f"ipc://{folder}/request.sock", *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment(**environ), stdout=pipe, stderr=pipe, text=True)


def test_the_summary_says_how_far_predictions_are_off_or_that_nobody_knows() -> None:
    assert any(line.startswith("error of predictions: median") for line in summary(PROFILE, Path("p.json")))
    few = msgspec.structs.replace(PROFILE, decode=PROFILE.decode[:1], prefill=PROFILE.prefill[:1], hybrid=())
    (line,) = (line for line in summary(few, Path("p.json")) if "predictions" in line)
    assert line == "too few to hold any back, so nobody knows how far predictions are off: give more --seconds"


def test_predictions_that_are_too_far_off_ask_for_more_time_too() -> None:
    """On two quiet cores 90 s were too few, and all that was said was to wait until the machine is quieter."""
    odd = [
        msgspec.structs.replace(one, seconds=one.seconds * (1 + 4 * (i % 2))) for i, one in enumerate(PROFILE.decode)
    ]
    said = summary(msgspec.structs.replace(PROFILE, decode=tuple(odd)), Path("p.json"))
    assert "that is more than 10% and 25%: calibrate again with more --seconds, while nothing else runs" in said


@pytest.mark.parametrize(("differ", "is_told"), [(None, False), (0.14, False), (0.31, True)])
def test_passes_that_differ_are_told_of(differ: float | None, is_told: bool) -> None:
    """Beside machines that share the host's memory a CPU's steps took half as long again for a second, then not; nobody
    had used its cores, and the error of predictions was all that was said."""
    said = "\n".join(summary(msgspec.structs.replace(PROFILE, passes_differ=differ), Path("p.json")))
    assert ("the same batch took 31% longer at one time than at another (median)" in said) == is_told


def test_the_state_directory_has_a_profile_that_the_next_engine_uses(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAPIDD_STATE_DIR", str(folder / "state"))
    profile, path = calibrate(config(folder), seconds=0.5, out=None, note="a test")
    assert path.parent == profile_dir()
    assert load_profile(path) == profile
    assert all(sample.seconds > 0 for sample in profile.decode)
    assert all(sample.seconds > 0 for sample in profile.prefill)
    assert any(sample.beside for sample in profile.decode), "both lanes at once"
    assert any(sample.beside for sample in profile.prefill)
    assert (profile.key.device_kind, profile.key.units_total, profile.key.dtype) == ("cpu", UNITS, "float32")
    assert profile.note == "a test"

    parts = assemble(config(folder), open_backend(config(folder).engine, lambda: None), lambda detail, percent: None)
    found = find_profile(parts.key, None, profile_dir())
    assert (found.source, found.warnings) == ("state", ())
    assert find_profile(msgspec.structs.replace(parts.key, dtype="bfloat16"), None, profile_dir()).profile is None


def test_every_kind_of_batch_runs_on_every_split(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow clock there is time for everything."""
    wake = threading.Event()
    small = config(folder, kv_blocks=16)
    backend = open_backend(small.engine, wake.set)
    parts = assemble(small, backend, lambda detail, percent: None)
    backend.fill_cache()
    monkeypatch.setattr(backend, "prompt_wave", PromptWave(2, 4))  # as if the kernels had any
    ticks = iter(range(1_000_000))  # a hundredth of a second each
    profile = measure(parts, small, wake, 100.0, "", lambda *_: None, clock=lambda: next(ticks) / 100)
    units = {*backend.table.splits, UNITS}
    assert {sample.units for sample in profile.decode} == units
    assert {sample.units for sample in profile.decode if sample.beside} == units
    assert {sample.units for sample in profile.prefill} == {UNITS - split for split in backend.table.splits} | {UNITS}
    assert profile.hybrid
    assert profile.prompt_wave == PromptWave(2, 4)
    assert CostModel(profile).fit.n > 10


def test_an_interrupted_calibration_writes_nothing(folder: Path) -> None:
    out = folder / "out" / "profile.json"
    process = rapidd_calibrate(folder, "--out", str(out), "--seconds", "600")
    assert process.stderr is not None
    for line in process.stderr:
        if "decode steps" in line:
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    assert "nothing was written" in said
    assert list(out.parent.iterdir()) == []


def test_the_time_counts_from_the_start_of_the_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--seconds 90` the command took 93 on an H200: what the interpreter took before was not counted."""
    budgets, spent = [], []

    def measured(parts: Parts, config: Config, wake: threading.Event, budget_s: float, *rest: object) -> Profile:
        budgets.append(budget_s)
        return PROFILE

    monkeypatch.setattr(command, "measure", measured)
    calibrate(config(folder), 90.0, folder / "profile.json", "", spent_s=20.0)
    assert 30 <= budgets[0] <= 90 - MARGIN_S - 20

    def calibrated(config: Config, seconds: float, out: Path | None, note: str, spent_s: float) -> tuple[Profile, Path]:
        spent.append(spent_s)
        return PROFILE, folder / "profile.json"

    monkeypatch.setattr(command, "calibrate", calibrated)
    assert main(["calibrate", "--config", os.devnull]) == 0
    assert spent[0] > 0.1


@pytest.mark.parametrize("where", ["state", "out"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_loaded(
    folder: Path, where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "file").touch()
    monkeypatch.setenv("RAPIDD_STATE_DIR", str(folder / "file"))
    out = folder / "file" / "profile.json" if where == "out" else None
    with pytest.raises(ProfileError, match="cannot write to") as caught:
        calibrate(config(folder), 1.0, out, "")
    assert "--out FILE" in caught.value.hint
    assert capsys.readouterr().err == ""


def test_beside_a_daemon_nothing_is_measured(folder: Path) -> None:
    directory = RuntimeDir(f"ipc://{folder}/request.sock")
    directory.prepare()
    lock = directory.lock(0.0)
    try:
        with pytest.raises(DeviceError, match=rf"rapidd \(pid {os.getpid()}\) serves at") as caught:
            refuse_beside_daemon(config(folder))
        assert "stop it first" in caught.value.hint
    finally:
        os.close(lock)
    refuse_beside_daemon(config(folder))


def test_a_gpu_on_which_others_work_is_refused() -> None:
    backend = CpuBackend(1, lambda: None)
    backend.info = DeviceInfo(kind="cuda", name="GPU", units=132, unit_name="SM", memory_total_bytes=80 << 30)
    for used_gib, refused in ((4, False), (30, True)):
        backend.memory_used = lambda used=used_gib << 30: used  # type: ignore[method-assign,misc]
        if refused:
            with pytest.raises(DeviceError, match="30 of 80 GiB"):
                refuse_busy_device(backend)
        else:
            refuse_busy_device(backend)


def test_a_cache_too_small_for_a_chunk_is_of_no_use(folder: Path) -> None:
    wake = threading.Event()
    least = config(folder, kv_blocks=2)
    parts = assemble(least, open_backend(least.engine, wake.set), lambda detail, percent: None)
    parts.backend.fill_cache()
    tiny = msgspec.structs.replace(parts.sizes, max_model_len=8)
    with pytest.raises(ProfileError, match="no prompt chunk"):
        measure(
            type(parts)(parts.backend, parts.loaded, parts.dtype, tiny, parts.model, 2, parts.lanes, parts.peaks),
            least, wake, 0.1, "", lambda *_: None,
        )  # fmt: skip


class Screen:
    """A stream that may be a terminal."""

    def __init__(self, is_terminal: bool) -> None:
        self.text = ""
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        return


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_a_bar_on_a_terminal_and_a_line_a_stage_elsewhere(is_terminal: bool) -> None:
    screen = Screen(is_terminal)
    bar = ProgressBar(screen)  # type: ignore[arg-type]
    bar.loading("loading weights", 50.0)
    for share in (0.1, 0.2, 0.3):
        bar.measuring(share, "decode steps", f"{share} of it")
    bar.measuring(0.5, "splits", "now")
    bar.end()
    if is_terminal:
        assert "[############............]  50%  splits  now" in screen.text
        assert "\n" not in screen.text
    else:
        assert screen.text.splitlines() == [
            "rapidd: loading weights",
            "rapidd:  10%  decode steps",
            "rapidd:  50%  splits",
        ]


def test_threads_wait_for_each_other_as_long_as_they_do_when_it_serves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only the engine's process bounded that: steps were measured that waited otherwise than those to be foretold."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    done = run(
        python_module("rapidd", "calibrate", "--model", "/nowhere"),
        OMP_DISPLAY_ENV="verbose",
        RAPIDD_STATE_DIR=str(tmp_path),
    )
    assert (done.returncode, f"GOMP_SPINCOUNT = '{SPINS}'" in done.stderr) == (78, True)
