"""What an engine is made with, by its device's defaults."""

import socket
from pathlib import Path

import pytest
from msgspec.structs import replace

from rapidd import ipc
from rapidd.config import Config, EngineConfig, ModelConfig
from rapidd.engine.build import build
from rapidd.engine.cpu import CpuBackend
from rapidd.engine.defaults import CPU_DEFAULTS, GPU_DEFAULTS
from rapidd.paths import RuntimeDir
from rapidd.policy.tiles import CHUNK_ROWS
from support.tiny import MODEL


def test_a_gpus_batches_hold_as_many_prompts_as_its_graphs() -> None:
    assert GPU_DEFAULTS.max_prompts == CHUNK_ROWS


def test_the_schedulers_batches_hold_as_many_prompts_as_the_device_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAPIDD_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(CpuBackend, "defaults", replace(CPU_DEFAULTS, max_prompts=3))
    directory = RuntimeDir(f"ipc://{tmp_path}/request.sock")
    directory.prepare()
    config = Config(model=ModelConfig(path=str(MODEL)), engine=EngineConfig(device="cpu", kv_blocks=64))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = ipc.Channel(theirs)
        engine = build(config, directory, channel, lambda detail, percent: None)
        engine._link.close()
        channel.close()
    assert engine._scheduler._max_prompts == 3
