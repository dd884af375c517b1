"""At start, what a GPU has no memory for, or its kernels no code for, is an error of a setting that says which.

A placement probe that does not work is a warning.
"""

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rapid_kernels import CacheLayout
from rapidd import ipc
from rapidd.config import Config, EngineConfig, ModelConfig
from rapidd.engine.batch import BatchResult
from rapidd.engine.build import build
from rapidd.engine.gpu import GpuBackend, _check_triton, _config_errors, _name, _numbered, _probe_of
from rapidd.engine.meter import Peaks
from rapidd.engine.peaks import _reads, gpu_peaks
from rapidd.engine.runner import Runner
from rapidd.errors import ConfigError, DeviceError, DeviceLost, is_out_of_memory
from rapidd.partition.table import PartitionTable
from rapidd.paths import RuntimeDir

STORIES = Path(__file__).parents[2] / "data" / "stories260K_hf"

NO_MEMORY = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 16.00 GiB. GPU 0 has a total capacity of 15.77 GiB of which 1 GiB is free."
)
DRIVERS_WORDS = {
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported": "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`": "CUBLAS_STATUS_ALLOC_FAILED",
    "Triton Error [CUDA]: out of memory": "Triton Error [CUDA]: out of memory",
    "HIP error: out of memory": "HIP error: out of memory",
}
"""Of memory that torch does not count, and what of it is told."""


def test_a_gpu_without_enough_memory_says_what_was_needed_and_what_to_do() -> None:
    with pytest.raises(ConfigError) as error, _config_errors("model.path: serve a smaller model"):
        raise NO_MEMORY
    assert error.value.problems == [
        "model.path: serve a smaller model (CUDA out of memory. Tried to allocate 16.00 GiB)"
    ]


@pytest.mark.parametrize(("text", "said"), DRIVERS_WORDS.items())
def test_memory_that_torch_does_not_count_runs_out_in_other_words(text: str, said: str) -> None:
    """Graphs, kernels and workspaces are the driver's: the engine used to end with a traceback, and to be restarted."""
    with pytest.raises(ConfigError) as error, _config_errors("engine.kv-blocks: lower --kv-blocks"):
        raise RuntimeError(text)
    (problem,) = error.value.problems
    assert problem.startswith("engine.kv-blocks: lower --kv-blocks (")
    assert said in problem
    assert "\n" not in problem


@pytest.mark.parametrize("error", [NO_MEMORY, *map(RuntimeError, DRIVERS_WORDS)], ids=str)
def test_memory_that_is_short_before_anything_is_loaded_costs_the_peaks_alone(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """In the driver's words it ended the engine with a traceback; what does not fit is then said by who loads it."""

    def refuse(*size: int, **options: object) -> torch.Tensor:
        raise error

    monkeypatch.setattr(torch, "randn", refuse)
    assert gpu_peaks(torch.bfloat16, 132) == Peaks()


def test_a_gpu_whose_kernels_are_plain_torch_is_read_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton is for compute capability 8 and newer: on an older GPU the engine would end with an error of its."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    data: Any = SimpleNamespace(device=torch.device("cuda"), view=lambda dtype: torch.ones(4))
    (read,) = _reads(data, 40)
    assert read() == 4


def test_an_error_of_the_device_while_peaks_are_measured_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*size: int, **options: object) -> torch.Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch, "randn", fail)
    with pytest.raises(RuntimeError, match="illegal"):
        gpu_peaks(torch.bfloat16, 132)


def test_a_device_that_fails_while_nothing_runs_on_it_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle engine asks it for its memory once a second: the failure was logged as a bug of the main loop."""

    def fail() -> tuple[int, int]:
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(torch.cuda, "mem_get_info", fail)
    with pytest.raises(DeviceLost) as error:
        GpuBackend.memory_used(object.__new__(GpuBackend))
    assert str(error.value) == "the device failed: CUDA error: unspecified launch failure"


def test_a_cpu_runs_out_of_memory_in_words_of_its_own() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60)
    assert is_out_of_memory(error.value)


def test_other_errors_of_the_device_are_no_matter_of_settings() -> None:
    with pytest.raises(RuntimeError, match="illegal"), _config_errors("engine.kv-blocks: lower it"):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_memory_that_runs_out_in_the_warm_up_is_a_matter_of_settings_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when --kv-blocks takes all there is."""
    monkeypatch.setattr(Runner, "run", lambda self, batch: BatchResult(error=NO_MEMORY))
    directory = RuntimeDir(f"ipc://{tmp_path}/request.sock")
    directory.prepare()
    config = Config(model=ModelConfig(path=str(STORIES)), engine=EngineConfig(device="cpu", kv_blocks=64))
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(ConfigError) as error:
        build(config, directory, ipc.Channel(theirs), lambda detail, percent: None)
    assert "engine.kv-blocks: the warm-up ran out of memory: lower --kv-blocks" in error.value.problems[0]


def test_a_cache_that_a_cpus_memory_does_not_hold_is_a_matter_of_settings_too(tmp_path: Path) -> None:
    """The engine loaded six times, each time with a traceback that named no setting."""
    directory = RuntimeDir(f"ipc://{tmp_path}/request.sock")
    directory.prepare()
    config = Config(model=ModelConfig(path=str(STORIES)), engine=EngineConfig(device="cpu", kv_blocks=1 << 40))
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(ConfigError) as error:
        build(config, directory, ipc.Channel(theirs), lambda detail, percent: None)
    (problem,) = error.value.problems
    assert problem.startswith(f"engine.kv-blocks: {1 << 40} blocks of KV cache take ")
    assert problem.endswith(" are free: lower --kv-blocks")


def test_a_head_size_that_the_kernels_do_not_have() -> None:
    kernels = pytest.importorskip("rapid_kernels.gpu.kernels", reason="triton is not installed")
    layout = CacheLayout(1, 4, 16, 1, 288, torch.bfloat16)
    with pytest.raises(ConfigError) as error, _config_errors("engine.kv-blocks: lower it"):
        kernels.GpuKernels(bulk=False, hopper=False).allocate_cache(layout, "cpu")
    (problem,) = error.value.problems
    assert problem.startswith("the GPU's kernels cannot serve this: ")
    assert "head sizes up to 256, not 288" in problem


def test_a_triton_that_cannot_compile_its_launcher_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an image without a C compiler: the engine was started six times, each time to end with a traceback."""
    pytest.importorskip("triton", reason="triton is not installed: there is nothing to compile")

    class Driver:
        @property
        def active(self) -> object:
            raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr("triton.runtime.driver", Driver())
    with pytest.raises(DeviceError, match="triton cannot be used on this device: Failed to find C compiler") as error:
        _check_triton()
    assert "gcc or clang" in error.value.hint


# --- the placement probe of an AMD GPU ----------------------------------------------------------------------------

TABLE = PartitionTable(units_total=304, unit_name="CU", splits=())


def amd(wave: int) -> Any:
    """What torch tells of a device."""
    return SimpleNamespace(warp_size=wave, gcnArchName="gfx942:sramecc+:xnack-")


def test_a_probe_that_fails_is_no_reason_not_to_serve(capsys: pytest.CaptureFixture[str]) -> None:
    """No such GPU has run it. Here the stream is none."""
    pytest.importorskip("triton", reason="triton is not installed: there is no probe")
    stream: Any = SimpleNamespace()
    assert _probe_of("hip", amd(64), stream, TABLE) is None
    assert "placement is not measured: " in capsys.readouterr().err


def test_rdna_keeps_its_place_in_other_registers() -> None:
    stream: Any = None
    assert _probe_of("hip", amd(32), stream, TABLE) is None


def test_amd_gpus_are_told_apart_on_a_host_that_does_not_know_their_names() -> None:
    properties = SimpleNamespace(name="AMD Radeon Graphics", gcnArchName="gfx942:sramecc+:xnack-")
    assert _name("hip", properties) == "AMD Radeon Graphics (gfx942)"
    assert _name("cuda", SimpleNamespace(name="NVIDIA H200")) == "NVIDIA H200"


def test_fewer_sms_than_the_device_has_are_known_by_their_own_numbers() -> None:
    """A lane on SM 130 of 64 was shown as running nowhere."""
    table = PartitionTable(units_total=3, unit_name="SM", splits=())
    assert _numbered(table, 3, list) is table
    (group,) = _numbered(table, 132, lambda: [0, 66, 130]).groups or ()
    assert group.units == (0, 66, 130)


def test_fewer_sms_whose_numbers_the_probe_cannot_tell_serve(capsys: pytest.CaptureFixture[str]) -> None:
    """With --compute-units a probe that did not compile ended the engine, which serves without one otherwise."""
    table = PartitionTable(units_total=64, unit_name="SM", splits=())

    def fail() -> list[int]:
        raise RuntimeError("no kernel image is available")

    assert _numbered(table, 132, fail) is table
    assert "the placement probe failed: no kernel image" in capsys.readouterr().err
