"""What `rapidd doctor` concludes. What torch and the drivers see is the seam; everything else is really looked at."""

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from rapidd import doctor
from rapidd.config import Config, EngineConfig, ModelConfig, ServerConfig
from rapidd.doctor import Finding
from rapidd.partition.hip_runtime import HipRuntime
from rapidd.partition.look import GpuView, TorchView, look, look_at_gpu
from rapidd.paths import RuntimeDir
from support.cuda import FakeDriver
from support.hip import UNSUPPORTED, FakeHip
from support.nvml import Nvml

STORIES = Path(__file__).parents[1] / "data" / "stories260K_hf"
Examine = Callable[..., dict[str, Finding]]


@pytest.fixture
def examine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Examine:
    """Findings by check, for a device as torch describes it and a device as configured."""

    def run(
        torch: dict[str, object] | str = "broken", wanted: str = "auto", model: str = str(STORIES)
    ) -> dict[str, Finding]:
        seen = torch if isinstance(torch, str) else msgspec.convert(torch, TorchView)
        monkeypatch.setattr(doctor, "ask_torch", lambda compute_units: seen)
        config = Config(
            model=ModelConfig(path=model),
            engine=msgspec.convert({"device": wanted}, EngineConfig),
            server=ServerConfig(listen=f"ipc://{folder}/run/request.sock"),
        )
        return {finding.check: finding for finding in doctor.examine(config)}

    return run


CPU = TorchView("2.13.0", cuda=None, hip=None, devices=[])
NVIDIA = TorchView("2.13.0", cuda="13.0", hip=None, devices=["NVIDIA H100"])
BLIND = TorchView("2.13.0", cuda="13.0", hip=None, devices=[])
AMD = TorchView("2.13.0", cuda=None, hip="7.1", devices=["AMD Instinct MI300X"])


@pytest.mark.parametrize(
    ("torch", "wanted", "level"),
    [
        (CPU, "auto", "ok"),
        (CPU, "cpu", "ok"),
        (CPU, "cuda", "fail"),
        (NVIDIA, "auto", "ok"),
        (NVIDIA, "cuda", "ok"),
        (NVIDIA, "hip", "fail"),
        (BLIND, "auto", "warn"),
        (BLIND, "cuda", "fail"),
        (BLIND, "cpu", "ok"),
        (AMD, "hip", "ok"),
        (AMD, "cuda", "fail"),
        ("ImportError: libcudart", "cpu", "fail"),
    ],
)
def test_the_device_that_is_wanted_must_be_seen(
    examine: Examine, torch: TorchView | str, wanted: str, level: str
) -> None:
    finding = examine(torch, wanted)["device"]
    assert finding.level == level
    assert bool(finding.hint) == (level != "ok")


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_a_driver_that_is_too_old_is_named_and_no_other_torch_asked_for(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    """What torch said of it was lost, and for --device cuda the torch that is there was to be installed."""

    def is_available() -> bool:
        warnings.warn("CUDA initialization: the NVIDIA driver is too old", stacklevel=1)
        return False

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    finding = examine(look(None), wanted)["device"]
    assert "sees no accelerator (CUDA initialization: the NVIDIA driver is too old)" in finding.text
    assert finding.hint == "check the driver and the device's rights"


def on_gpu(gpu: GpuView) -> TorchView:
    return TorchView("2.13.0", cuda="13.0", hip=None, devices=["NVIDIA H100"], gpu=gpu)


def test_a_gpu_whose_units_can_be_divided_says_how(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    findings = examine(on_gpu(look_at_gpu("cuda", None, FakeDriver(132))))
    assert findings["partition"] == Finding("partition", "ok", "132 SMs; decode may get 16, 24, 32, 40, 48, 64")
    assert "sensors" not in findings


def test_a_gpu_without_the_right_to_divide_it_serves_shared_and_says_why(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    findings = examine(on_gpu(look_at_gpu("cuda", None, FakeDriver(132, may_partition=False))))
    partition = findings["partition"]
    assert (partition.level, doctor.healthy([partition])) == ("warn", True)
    assert "mode split is not available" in partition.text
    assert "cuGreenCtxCreate failed: 800" in partition.text
    assert partition.hint.startswith("shared, hybrid and serial work")
    assert "nvidia-ml-py is not installed" in findings["sensors"].text


def test_masks_that_are_refused_on_an_amd_gpu_leave_shared(examine: Examine) -> None:
    library = FakeHip()
    library.fail["hipExtStreamCreateWithCUMask"] = UNSUPPORTED
    gpu = look_at_gpu("hip", None, HipRuntime(library))
    findings = examine(TorchView("2.13.0", cuda=None, hip="7.1", devices=["AMD"], gpu=gpu))
    assert findings["partition"].level == "warn"
    assert "304 CUs, mode split is not available: the driver refuses CU masks" in findings["partition"].text


def test_a_gpu_on_which_the_daemon_would_not_start_is_a_failure(examine: Examine) -> None:
    partition = examine(on_gpu(look_at_gpu("cuda", 133, FakeDriver(132))))["partition"]
    assert partition.level == "fail"
    assert "133 compute units were asked for" in partition.text
    assert "lower --compute-units to at most 132" in partition.hint


def test_a_gpu_that_nobody_wants_is_not_examined(examine: Examine) -> None:
    assert "partition" not in examine(on_gpu(GpuView(problem="broken")), "cpu")


def test_this_machine_is_asked_in_a_process_of_its_own() -> None:
    view = doctor.ask_torch(None)
    assert isinstance(view, TorchView)
    assert view.version == torch.__version__
    assert (view.gpu is None) == (view.devices == [])


def test_a_machine_that_can_serve_is_healthy_and_left_as_it_was(examine: Examine, folder: Path) -> None:
    findings = examine(CPU)
    assert doctor.healthy(list(findings.values()))
    assert "stories260K" in findings["model"].text
    assert "is free" in findings["endpoint"].text
    assert list(folder.iterdir()) == []


def test_a_model_that_is_not_there_fails(examine: Examine) -> None:
    findings = examine(CPU, model="/nowhere")
    assert not doctor.healthy(list(findings.values()))
    assert findings["model"].level == "fail"


@pytest.mark.parametrize(
    ("tools", "header", "level", "said"),
    [
        (("gcc",), True, "ok", "triton 3.6.0, C compiler gcc"),
        (("clang",), True, "ok", "triton 3.6.0, C compiler clang"),
        (("cc",), True, "warn", "triton 3.6.0, but no C compiler"),
        (("gcc",), False, "warn", "triton 3.6.0, but no Python.h in "),
    ],
)
def test_what_triton_compiles_with_is_looked_for_as_triton_does(
    examine: Examine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tools: tuple[str, ...],
    header: bool,
    level: str,
    said: str,
) -> None:
    """It knows gcc and clang, no other cc, and includes Python.h: an image without these looked healthy."""
    (tmp_path / "bin").mkdir()
    for tool in tools:
        (tmp_path / "bin" / tool).touch(mode=0o755)
    if header:
        (tmp_path / "Python.h").touch()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "3.6.0")
    monkeypatch.setattr("sysconfig.get_path", lambda name, scheme: str(tmp_path))
    finding = examine(NVIDIA)["triton"]
    assert (finding.level, finding.text[: len(said)]) == (level, said)
    assert bool(finding.hint) == (level != "ok")


def test_an_endpoint_that_is_served_names_the_daemon(examine: Examine, folder: Path) -> None:
    directory = RuntimeDir(f"ipc://{folder}/run/request.sock")
    directory.prepare()
    lock = directory.lock(0.0)
    assert f"served by pid {os.getpid()}" in examine(CPU)["endpoint"].text
    os.close(lock)
    assert "is free" in examine(CPU)["endpoint"].text


def test_a_runtime_directory_that_cannot_be_made_fails(examine: Examine, folder: Path) -> None:
    (folder / "run").write_text("in the way")
    findings = examine(CPU)
    assert "fail" in {finding.level for name, finding in findings.items() if name in ("endpoint", "runtime dir")}


@pytest.mark.parametrize(
    ("content", "cores"), [("200000 100000\n", 2.0), ("50000 100000\n", 0.5), ("max 100000\n", None), ("", None)]
)
def test_the_control_groups_quota_counts_in_cores(tmp_path: Path, content: str, cores: float | None) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(content)
    assert doctor.cpu_quota(path) == cores
    assert doctor.cpu_quota(tmp_path / "absent") is None


def test_hints_stand_under_what_they_help_with() -> None:
    findings = [Finding("a", "ok", "fine"), Finding("long", "fail", "bad", "do this")]
    assert list(doctor.render(findings)) == ["ok    a     fine", "fail  long  bad", "            -> do this"]
