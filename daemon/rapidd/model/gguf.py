"""A GGUF file's header: metadata, tensor directory, `ModelSpec`. No torch, and no `gguf` package.

The package's own reader makes an array object of every vocabulary string (5 s for a 49K-token file on a laptop
core; this takes 0.1 s); its type tables and dequantisers are used where the weights are read (`weights`).
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian.
"""

import math
import mmap
import struct
from collections import Counter
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from rapidd.errors import ModelError
from rapidd.model.config import Architecture, LinearScaling, Llama3Scaling, ModelSpec, YarnScaling, check_spec

MAGIC: Final = b"GGUF"
_SCALARS: Final = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
"""GGUF value types as `struct` formats."""
_STRING: Final = 8
_ARRAY: Final = 9
_F32: Final = 0
_MAX_DIMS: Final = 4
"""ggml's own bound on a tensor's dimensions."""

_TYPE_NAMES: Final = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K",
    13: "Q5_K", 14: "Q6_K", 30: "BF16",
}  # fmt: skip
"""The usual ggml types, for people."""

ARCHITECTURES: Final[dict[str, Architecture]] = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""general.architecture to ours; Mistral files call themselves llama."""

_LLAMA3_SHAPE: Final = (1.0, 4.0, 8192)
"""low_freq_factor, high_freq_factor, original context of every released Llama 3.1, 3.2 and 3.3."""

_PLAIN_YARN: Final = {"attn_factor": 1.0, "yarn_attn_factor": 1.0, "yarn_ext_factor": 1.0, "yarn_log_multiplier": 0.0}
"""Keys of rope.scaling, and what they have to be for yarn as its paper has it."""


class TensorInfo(Struct, frozen=True):
    """One tensor's directory entry. ``shape`` is row-major (out, in); ``ggml_type`` as in the gguf package."""

    shape: tuple[int, ...]
    ggml_type: int
    offset: int
    """Bytes from the start of the file."""


class GgufHeader(Struct, frozen=True):
    """What a GGUF file says before its weights."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]


def read_header(path: Path) -> GgufHeader:
    """Parse the header. Raises `ModelError` for anything that is no complete GGUF header."""
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ModelError(f"{path} is no GGUF file", "--model takes a Hugging Face folder or a .gguf file")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Parser(data, path).header()
    except (struct.error, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: the GGUF header is truncated or corrupt: {error}", "fetch the file again") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error


class _Parser:
    """A cursor over the mapped file."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data = data
        self._path = path
        self._at = len(MAGIC)

    def header(self) -> GgufHeader:
        version = self._scalar("<I")
        if version not in (2, 3):
            raise ModelError(
                f"{self._path}: GGUF version {version} is not supported", "supported: 2 and 3, little endian"
            )
        num_tensors = self._scalar("<Q")
        num_keys = self._scalar("<Q")
        metadata: dict[str, Any] = {}
        for _ in range(num_keys):
            key = self._string()
            metadata[key] = self._value(self._scalar("<I"))
        directory = [self._tensor() for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0:
            raise ModelError(f"{self._path}: general.alignment is {alignment}")
        start = -(-self._at // alignment) * alignment
        tensors = {name: TensorInfo(shape, kind, start + offset) for name, shape, kind, offset in directory}
        return GgufHeader(self._path, metadata, tensors)

    def _scalar(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return value

    def _string(self) -> str:
        data = self._data
        (length,) = struct.unpack_from("<Q", data, self._at)
        start = self._at + 8
        self._at = start + length
        if self._at > len(data):
            raise struct.error(f"a string of {length} bytes at byte {start} ends after the file")
        return data[start : self._at].decode()

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._scalar(self._format(kind))
        item = self._scalar("<I")
        length = self._scalar("<Q")
        if item == _STRING:
            return [self._string() for _ in range(length)]
        form = self._format(item)
        end = self._at + length * struct.calcsize(form)
        if end > len(self._data):
            raise struct.error(f"an array of {length} values at byte {self._at} ends after the file")
        values = list(struct.unpack_from(f"<{length}{form[1]}", self._data, self._at))
        self._at = end
        return values

    def _format(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise struct.error(f"unknown value type {kind} at byte {self._at}")
        return _SCALARS[kind]

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        num_dims = self._scalar("<I")
        if num_dims > _MAX_DIMS:
            raise struct.error(f"tensor {name} has {num_dims} dimensions")
        dims = [self._scalar("<Q") for _ in range(num_dims)]
        return name, tuple(reversed(dims)), self._scalar("<I"), self._scalar("<Q")


def parse_spec(header: GgufHeader) -> ModelSpec:
    """The spec of the model in the file. Raises `ModelError`."""
    path = header.path
    named = _get(header, "general.architecture", str)
    if named not in ARCHITECTURES:
        raise ModelError(f"{path}: architecture {named} is not supported", f"supported: {', '.join(ARCHITECTURES)}")
    if header.metadata.get(f"{named}.expert_count"):
        raise ModelError(f"{path}: mixtures of experts are not supported")
    if header.metadata.get(f"{named}.attention.sliding_window"):
        raise ModelError(f"{path}: a GGUF file with sliding windows is not supported", "use the Hugging Face folder")
    if _get(header, "split.count", int, 1) > 1:
        raise ModelError(f"{path} is one file of a split model", "join them with llama-gguf-split --merge")
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise ModelError(f"{path}: tensor token_embd.weight is missing or no matrix")
    hidden_size = _get(header, f"{named}.embedding_length", int)
    num_heads = _get(header, f"{named}.attention.head_count", int)
    head_dim = _get(header, f"{named}.attention.key_length", int, hidden_size // max(num_heads, 1))
    rotary = _get(header, f"{named}.rope.dimension_count", int, head_dim)
    if rotary != head_dim:
        raise ModelError(f"{path}: rotary embeddings of {rotary} of {head_dim} dimensions are not supported")
    rope_theta = _get(header, f"{named}.rope.freq_base", float, 10_000.0)
    scaling = _rope_scaling(header, named, head_dim, rope_theta)
    max_position = _get(header, f"{named}.context_length", int)
    if isinstance(scaling, YarnScaling):  # the file may have the context from before it
        max_position = max(max_position, int(scaling.factor * scaling.original_max_position))
    eos_token_ids, bos_token_id = special_ids(header)
    spec = ModelSpec(
        architecture=ARCHITECTURES[named],
        name=path.stem,
        vocab_size=embedding.shape[0],
        hidden_size=hidden_size,
        intermediate_size=_get(header, f"{named}.feed_forward_length", int),
        num_layers=_get(header, f"{named}.block_count", int),
        num_heads=num_heads,
        num_kv_heads=_get(header, f"{named}.attention.head_count_kv", int, num_heads),
        head_dim=head_dim,
        rms_norm_eps=_get(header, f"{named}.attention.layer_norm_rms_epsilon", float),
        rope_theta=rope_theta,
        rope_scaling=scaling,
        max_position=max_position,
        tied_head="output.weight" not in header.tensors,
        qkv_bias="blk.0.attn_q.bias" in header.tensors,
        o_bias="blk.0.attn_output.bias" in header.tensors,
        mlp_bias="blk.0.ffn_down.bias" in header.tensors,
        qk_norm="blk.0.attn_q_norm.weight" in header.tensors,
        eos_token_ids=eos_token_ids,
        bos_token_id=bos_token_id,
        file_dtype=_file_dtype(header),
    )
    return check_spec(spec, path)


def special_ids(header: GgufHeader) -> tuple[tuple[int, ...], int | None]:
    """End-of-output ids (end of text, of turn, of message) and the start id."""
    names = ("eos_token_id", "eot_token_id", "eom_token_id")
    ids = [header.metadata.get(f"tokenizer.ggml.{name}") for name in names]
    eos = tuple(dict.fromkeys(token_id for token_id in ids if isinstance(token_id, int)))
    bos = header.metadata.get("tokenizer.ggml.bos_token_id")
    return eos, bos if isinstance(bos, int) else None


def _get(header: GgufHeader, key: str, kind: type[Any], default: Any = None) -> Any:
    value = header.metadata.get(key, default)
    if value is None:
        raise ModelError(f"{header.path}: metadata {key} is missing")
    if kind is float and isinstance(value, int):
        value = float(value)
    if not isinstance(value, kind):
        raise ModelError(f"{header.path}: metadata {key} is {value!r}, expected {kind.__name__}")
    return value


def _file_dtype(header: GgufHeader) -> str:
    """The type that most matrices have."""
    matrices = Counter(info.ggml_type for info in header.tensors.values() if len(info.shape) > 1)
    kind = matrices.most_common(1)[0][0]
    return _TYPE_NAMES.get(kind, f"ggml type {kind}")


def _rope_scaling(
    header: GgufHeader, named: str, head_dim: int, rope_theta: float
) -> Llama3Scaling | YarnScaling | LinearScaling | None:
    if "rope_freqs.weight" in header.tensors:
        return _llama3_scaling(header, head_dim, rope_theta)
    scaling = f"{named}.rope.scaling"
    kind = _get(header, f"{scaling}.type", str, "linear")  # as other programs take a file that names none
    if kind == "none":
        return None
    if kind == "linear":
        old = _get(header, f"{named}.rope.scale_linear", float, 1.0)
        factor = _get(header, f"{scaling}.factor", float, old)
        return None if factor == 1.0 else LinearScaling(factor)
    if kind == "yarn":
        return _yarn_scaling(header, scaling)
    raise ModelError(f"{header.path}: rope type {kind!r} is not supported", "supported: none, linear, yarn, llama3")


def _yarn_scaling(header: GgufHeader, scaling: str) -> YarnScaling:
    for name, usual in _PLAIN_YARN.items():
        if (value := _get(header, f"{scaling}.{name}", float, usual)) != usual:
            raise ModelError(
                f"{header.path}: yarn with {name} {value:g} is not supported", "use the Hugging Face folder"
            )
    return YarnScaling(
        _get(header, f"{scaling}.factor", float),
        _get(header, f"{scaling}.original_context_length", int),
        _get(header, f"{scaling}.yarn_beta_fast", float, 32.0),
        _get(header, f"{scaling}.yarn_beta_slow", float, 1.0),
    )


def _llama3_scaling(header: GgufHeader, head_dim: int, rope_theta: float) -> Llama3Scaling:
    """The scaling behind rope_freqs.weight, which stores each frequency's divisor and not the parameters."""
    divisors = _read_float32(header, "rope_freqs.weight")
    if len(divisors) == head_dim // 2:
        scaling = Llama3Scaling(max(divisors), *_LLAMA3_SHAPE)
        expected = llama3_divisors(scaling, head_dim, rope_theta)
        if all(math.isclose(ours, theirs, rel_tol=1e-4) for ours, theirs in zip(expected, divisors, strict=True)):
            return scaling
    raise ModelError(
        f"{header.path}: rope_freqs.weight is not Llama 3's scaling of an original context of 8192",
        "use the Hugging Face folder",
    )


def llama3_divisors(scaling: Llama3Scaling, head_dim: int, rope_theta: float) -> list[float]:
    """What Llama 3's scaling divides each of the head_dim / 2 rotary frequencies by (arXiv 2407.21783)."""
    divisors = []
    for pair in range(head_dim // 2):
        wavelength = 2 * math.pi * rope_theta ** (2 * pair / head_dim)
        turns = scaling.original_max_position / wavelength
        smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        smooth = min(1.0, max(0.0, smooth))
        divisors.append(1.0 / (smooth + (1.0 - smooth) / scaling.factor))
    return divisors


def _read_float32(header: GgufHeader, name: str) -> list[float]:
    """A small float32 vector from the file."""
    info = header.tensors[name]
    if info.ggml_type != _F32 or len(info.shape) != 1:
        raise ModelError(f"{header.path}: tensor {name} is not a float32 vector")
    with header.path.open("rb") as file:
        file.seek(info.offset)
        data = file.read(4 * info.shape[0])
    if len(data) != 4 * info.shape[0]:
        raise ModelError(f"{header.path}: truncated within tensor {name}")
    return list(struct.unpack(f"<{info.shape[0]}f", data))
