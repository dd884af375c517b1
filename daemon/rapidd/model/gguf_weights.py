"""The tensors of a GGUF file under Hugging Face names, dequantised by the `gguf` package.

The llama architecture's query and key rows are stored in interleaved order and come out in half-rotation order;
forgetting that still runs, only worse. The other architectures are stored as they are.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Final

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as GgmlType
from torch import Tensor

from rapidd.errors import ModelError
from rapidd.model.config import ModelSpec
from rapidd.model.gguf import GgufHeader, TensorInfo

_GLOBAL: Final = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NOT_WEIGHTS: Final = frozenset({"rope_freqs.weight"})
"""Read into `ModelSpec.rope_scaling`."""
_FLOATS: Final = {GgmlType.F32: torch.float32, GgmlType.F16: torch.float16, GgmlType.BF16: torch.bfloat16}
_PIECE_BLOCKS: Final = 2048
"""Quantised blocks handed to the package at once: enough to hide its overhead, few enough for a core's cache."""


class GgufWeights(Mapping[str, Tensor]):
    """Tensors by Hugging Face name; float32 where the file's are quantised."""

    def __init__(self, header: GgufHeader, spec: ModelSpec) -> None:
        self._path = header.path
        self._tensors: dict[str, tuple[str, TensorInfo]] = {}
        size = header.path.stat().st_size
        for name, info in header.tensors.items():
            if name in _NOT_WEIGHTS:
                continue
            if info.offset + self._num_bytes(name, info) > size:
                raise ModelError(f"{self._path} is truncated: tensor {name} ends after the file", "fetch it again")
            self._tensors[_hugging_face_name(name, header)] = name, info
        interleaved = header.metadata["general.architecture"] == "llama"
        self._heads = {"q_proj": spec.num_heads, "k_proj": spec.num_kv_heads} if interleaved else {}

    def __getitem__(self, name: str) -> Tensor:
        gguf_name, info = self._tensors[name]
        num_bytes = self._num_bytes(gguf_name, info)
        try:
            with self._path.open("rb") as file:
                file.seek(info.offset)
                raw = np.fromfile(file, np.uint8, num_bytes)
        except OSError as error:
            raise ModelError(f"{self._path}: tensor {gguf_name} cannot be read: {error}") from error
        if len(raw) != num_bytes:
            raise ModelError(f"{self._path} is truncated within tensor {gguf_name}", "fetch it again")
        kind = GgmlType(info.ggml_type)
        if kind in _FLOATS:
            tensor = torch.from_numpy(raw).view(_FLOATS[kind])
        else:
            try:
                tensor = torch.from_numpy(_dequantise(raw, kind))
            except NotImplementedError:
                raise ModelError(f"{self._path}: {kind.name} of tensor {gguf_name} cannot be dequantised") from None
        heads = self._heads.get(name.split(".")[-2])
        tensor = tensor.view(info.shape)
        return tensor if heads is None else half_rotation_order(tensor, heads)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def _num_bytes(self, name: str, info: TensorInfo) -> int:
        try:
            kind = GgmlType(info.ggml_type)
        except ValueError:
            raise ModelError(f"{self._path}: tensor {name} has the unknown type {info.ggml_type}") from None
        block_values, block_bytes = _block(kind)
        if not info.shape or info.shape[-1] % block_values:
            raise ModelError(
                f"{self._path}: tensor {name} of shape {info.shape} is no whole number of {kind.name} blocks"
            )
        return math.prod(info.shape) // block_values * block_bytes


def half_rotation_order(rows: Tensor, num_heads: int) -> Tensor:
    """Rows of each head from interleaved pairs (0, d/2, 1, d/2 + 1, ...) to the two halves; [heads x d, ...]."""
    if rows.shape[0] % (2 * num_heads):
        return rows  # of the wrong shape, which whoever knows the right one will say
    return rows.view(num_heads, -1, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def _hugging_face_name(name: str, header: GgufHeader) -> str:
    stem, _, kind = name.rpartition(".")
    if stem in _GLOBAL:
        return f"{_GLOBAL[stem]}.{kind}"
    block, _, rest = stem.removeprefix("blk.").partition(".")
    if stem.startswith("blk.") and block.isdecimal() and rest in _LAYER:
        return f"model.layers.{block}.{_LAYER[rest]}.{kind}"
    raise ModelError(f"{header.path}: tensor {name} has no place in a Llama-family model")


def _block(kind: GgmlType) -> tuple[int, int]:
    """Values and bytes of one block; a block of an unquantised type is one value."""
    num_values, num_bytes = gguf.GGML_QUANT_SIZES[kind]
    return num_values, num_bytes


def _dequantise(raw: np.ndarray, kind: GgmlType) -> np.ndarray:
    """float32 values of quantised blocks. The package loops over rows, so it is given few and long ones."""
    block_values, block_bytes = _block(kind)
    out = np.empty(len(raw) // block_bytes * block_values, np.float32)
    for start in range(0, len(raw), _PIECE_BLOCKS * block_bytes):
        piece = raw[start : start + _PIECE_BLOCKS * block_bytes]
        at = start // block_bytes * block_values
        out[at : at + len(piece) // block_bytes * block_values] = gguf.quants.dequantize(piece[None], kind)[0]
    return out
