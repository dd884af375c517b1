"""Weights from disk: tensors by Hugging Face name, each made when it is read. Knows no shapes: `llama` checks them.

Opening checks that every file is there and complete, before gigabytes are read. A tensor is a private copy, so the
files may be replaced while it is served.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from msgspec import Struct
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rapidd import faults
from rapidd.errors import ModelError
from rapidd.model.config import ModelSpec
from rapidd.model.gguf import read_header
from rapidd.model.gguf_weights import GgufWeights
from rapidd.model.resolve import ModelFiles

Progress = Callable[[float], None]
"""Called with the percentage of the parameters read so far."""

_SINGLE: Final = "model.safetensors"
_INDEX: Final = "model.safetensors.index.json"
_FLOATS: Final = (torch.float32, torch.float16, torch.bfloat16)


class _Index(Struct):
    """model.safetensors.index.json: tensor to shard."""

    weight_map: dict[str, str]


def open_weights(files: ModelFiles, spec: ModelSpec, progress: Progress | None = None) -> Mapping[str, Tensor]:
    """The model's tensors, on the CPU, in the file's dtype (float32 where that is quantised).

    Raises `ModelError`, now or when a tensor is read, naming the file and the tensor.
    """
    faults.hit("loader")
    if files.kind == "gguf":
        weights: Mapping[str, Tensor] = GgufWeights(read_header(faults.truncated("loader", files.path)), spec)
    else:
        weights = SafetensorsWeights(files.path)
    return weights if progress is None else _Reported(weights, spec, progress)


class SafetensorsWeights(Mapping[str, Tensor]):
    """The tensors of a Hugging Face folder, in one file or in shards."""

    def __init__(self, folder: Path) -> None:
        self._shard_of = _shards(folder)
        with ExitStack() as stack:
            self._files = {shard: _open(shard, stack) for shard in sorted(set(self._shard_of.values()))}
            names = {shard: frozenset(file.keys()) for shard, file in self._files.items()}
            for name, shard in self._shard_of.items():
                if name not in names[shard]:
                    raise ModelError(f"{shard} lacks tensor {name}, which {_INDEX} says it holds", "fetch it again")
            self._stack = stack.pop_all()

    def __getitem__(self, name: str) -> Tensor:
        shard = self._shard_of[name]
        try:
            tensor: Tensor = self._files[shard].get_tensor(name)
        except SafetensorError as error:
            raise ModelError(f"{shard}: tensor {name} cannot be read: {error}") from error
        if tensor.dtype not in _FLOATS:
            raise ModelError(
                f"{shard}: tensor {name} is {tensor.dtype}", "supported: float32, float16 and bfloat16, or a GGUF file"
            )
        return tensor.clone()

    def __iter__(self) -> Iterator[str]:
        return iter(self._shard_of)

    def __len__(self) -> int:
        return len(self._shard_of)


def _shards(folder: Path) -> dict[str, Path]:
    """Tensor to file; every file named exists."""
    index = folder / _INDEX
    if index.exists():
        try:
            weight_map = msgspec.json.decode(index.read_bytes(), type=_Index).weight_map
        except (OSError, ValueError) as error:
            raise ModelError(f"{index} cannot be read: {error}") from error
        for name, shard in weight_map.items():
            if Path(shard).name != shard:
                raise ModelError(f"{index}: {shard!r} is no file name")
            if not (folder / shard).is_file():
                raise ModelError(f"shard {folder / shard} is missing (tensor {name} is in it)", "fetch the model again")
        return {name: folder / shard for name, shard in weight_map.items()}
    single = folder / _SINGLE
    if not single.is_file():
        raise ModelError(f"{folder} has neither {_SINGLE} nor {_INDEX}", "only safetensors and GGUF weights are served")
    with ExitStack() as stack:
        return dict.fromkeys(_open(single, stack).keys(), single)


def _open(shard: Path, stack: ExitStack) -> Any:
    """A safetensors file whose header agrees with its length."""
    try:
        return stack.enter_context(safe_open(str(faults.truncated("loader", shard)), framework="pt"))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{shard} is truncated or no safetensors file: {error}", "fetch it again") from error


class _Reported(Mapping[str, Tensor]):
    """Another mapping, with progress by the share of the model's parameters that was read."""

    def __init__(self, weights: Mapping[str, Tensor], spec: ModelSpec, progress: Progress) -> None:
        self._weights = weights
        self._progress = progress
        self._total = max(spec.num_parameters, 1)
        self._read = 0

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._weights[name]
        self._read += tensor.numel()
        self._progress(min(100.0, 100.0 * self._read / self._total))
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)
