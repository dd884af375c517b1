"""A calibration on a real GPU, with the 260K-parameter model in bfloat16, whose times mean little."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from rapidd.calibrate.command import measure
from rapidd.config import Config, EngineConfig, ModelConfig, ServerConfig
from rapidd.engine.build import assemble
from rapidd.engine.devices import open_backend
from rapidd.policy.cost import CostModel
from support.tiny import MODEL

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available() or torch.version.hip is not None, reason="no CUDA device"),
]


def test_every_kind_of_batch_is_timed_by_device_events_on_every_split(tmp_path: Path) -> None:
    config = Config(
        model=ModelConfig(path=str(MODEL), dtype="bfloat16"),
        engine=EngineConfig(device="cuda", kv_blocks=64, max_batch_requests=8),
        server=ServerConfig(listen=f"ipc://{tmp_path}/request.sock"),
    )
    wake = threading.Event()
    backend = open_backend(config.engine, wake.set)
    parts = assemble(config, backend, lambda detail, percent: None)
    backend.fill_cache()
    profile = measure(parts, config, wake, 30.0, "", lambda *_: None)
    total, splits = backend.table.units_total, backend.table.splits
    assert profile.row_buckets[-1] == 8
    assert profile.prompt_wave is not None
    assert {sample.units for sample in profile.decode} == {*splits, total}
    assert {sample.units for sample in profile.decode if sample.beside} == {*splits, total}
    assert {sample.units for sample in profile.prefill} == {*(total - units for units in splits), total}
    assert profile.hybrid
    assert all(sample.seconds < 1.0 for sample in profile.decode)
    assert (profile.key.device_kind, profile.key.dtype, bool(profile.key.triton)) == ("cuda", "bfloat16", True)
    assert CostModel(profile).fit.n > 50
