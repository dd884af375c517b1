"""At start, what a GPU has no memory for, or its kernels no code for, is an error of a setting that says which."""

import pytest
import torch

from rapid_kernels import CacheLayout
from rapidd.engine.gpu import _config_errors
from rapidd.errors import ConfigError

NO_MEMORY = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 16.00 GiB. GPU 0 has a total capacity of 15.77 GiB of which 1 GiB is free."
)


def test_a_gpu_without_enough_memory_says_what_was_needed_and_what_to_do() -> None:
    with pytest.raises(ConfigError) as error, _config_errors("model.path: serve a smaller model"):
        raise NO_MEMORY
    assert error.value.problems == [
        "model.path: serve a smaller model (CUDA out of memory. Tried to allocate 16.00 GiB)"
    ]


def test_a_head_size_that_the_kernels_do_not_have() -> None:
    kernels = pytest.importorskip("rapid_kernels.gpu.kernels", reason="triton is not installed")
    layout = CacheLayout(1, 4, 16, 1, 288, torch.bfloat16)
    with pytest.raises(ConfigError) as error, _config_errors("engine.kv-blocks: lower it"):
        kernels.GpuKernels(bulk=False, hopper=False).allocate_cache(layout, "cpu")
    (problem,) = error.value.problems
    assert problem.startswith("the GPU's kernels cannot serve this: ")
    assert "head sizes up to 256, not 288" in problem
