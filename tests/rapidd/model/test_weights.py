"""Weights of a Hugging Face folder: one file, shards, and every way they can be incomplete."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rapidd.errors import ModelError
from rapidd.model.hf import parse_hf_config
from rapidd.model.llama import tensor_shapes
from rapidd.model.resolve import ModelFiles
from rapidd.model.weights import SafetensorsWeights, open_weights

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16), "c": torch.zeros(2)}
INDEX = "model.safetensors.index.json"


def sharded(folder: Path, shards: dict[str, list[str]], index: dict[str, str] | None = None) -> Path:
    """Write each shard's tensors, and the index that goes with them or the one given."""
    for shard, names in shards.items():
        save_file({name: TENSORS[name] for name in names}, folder / shard)
    if index is None:
        index = {name: shard for shard, names in shards.items() for name in names}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": index}))
    return folder


def assert_same(weights: SafetensorsWeights, expected: dict[str, Tensor]) -> None:
    assert set(weights) == set(expected)
    assert len(weights) == len(expected)
    for name, tensor in expected.items():
        assert weights[name].dtype == tensor.dtype
        assert torch.equal(weights[name], tensor)


def test_one_file(stories: Path) -> None:
    spec = parse_hf_config(stories)
    weights = open_weights(ModelFiles("hf", stories), spec)
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == tensor_shapes(spec)
    assert isinstance(weights, SafetensorsWeights)
    assert_same(weights, load_file(stories / "model.safetensors"))


def test_shards(tmp_path: Path) -> None:
    assert_same(SafetensorsWeights(sharded(tmp_path, {"s1.safetensors": ["a"], "s2.safetensors": ["b", "c"]})), TENSORS)


def test_tensors_outlive_their_file(tmp_path: Path) -> None:
    """A folder updated in place must not change, or fault, the weights that are being served."""
    save_file(TENSORS, tmp_path / "model.safetensors")
    tensor = SafetensorsWeights(tmp_path)["a"]
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(0)
    assert torch.equal(tensor, TENSORS["a"])


def test_progress_ends_at_100_percent(stories: Path) -> None:
    seen: list[float] = []
    for tensor in open_weights(ModelFiles("hf", stories), parse_hf_config(stories), seen.append).values():
        assert tensor.numel()
    assert seen == sorted(seen)
    assert 0 < seen[0] < 50
    assert seen[-1] == pytest.approx(100)


def test_missing_shard(tmp_path: Path) -> None:
    sharded(tmp_path, {"s1.safetensors": ["a"], "s2.safetensors": ["b"]})
    (tmp_path / "s2.safetensors").unlink()
    with pytest.raises(ModelError, match=r"s2\.safetensors is missing \(tensor b"):
        SafetensorsWeights(tmp_path)


def test_index_naming_a_tensor_that_its_shard_lacks(tmp_path: Path) -> None:
    sharded(tmp_path, {"s1.safetensors": ["a"]}, {"a": "s1.safetensors", "b": "s1.safetensors"})
    with pytest.raises(ModelError, match=r"s1\.safetensors lacks tensor b"):
        SafetensorsWeights(tmp_path)


def test_an_index_may_not_leave_the_folder(tmp_path: Path) -> None:
    sharded(tmp_path, {"s1.safetensors": ["a"]}, {"a": "../s1.safetensors"})
    with pytest.raises(ModelError, match="no file name"):
        SafetensorsWeights(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b'{"weight_map": ["a"]}', b"\xff"])
def test_unreadable_index(tmp_path: Path, content: bytes) -> None:
    (tmp_path / INDEX).write_bytes(content)
    with pytest.raises(ModelError, match=r"index\.json cannot be read"):
        SafetensorsWeights(tmp_path)


def test_no_weights_at_all(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"neither model\.safetensors nor") as refused:
        SafetensorsWeights(tmp_path)
    assert "only safetensors and GGUF" in refused.value.hint


@pytest.mark.parametrize("length", [0, 4, 9, 60, -1])
def test_truncated_anywhere(tmp_path: Path, length: int) -> None:
    """In the header's length, in the header, in the data: all before any tensor is read."""
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelError, match=r"model\.safetensors is truncated"):
        SafetensorsWeights(tmp_path)


def test_quantised_tensors_are_named(tmp_path: Path) -> None:
    save_file({"q": torch.zeros(4, dtype=torch.int8)}, tmp_path / "model.safetensors")
    weights = SafetensorsWeights(tmp_path)
    with pytest.raises(ModelError, match=r"tensor q is torch\.int8"):
        weights["q"]
