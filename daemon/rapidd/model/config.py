"""What a model is, read from its files and independent of where they came from. No torch, no weights."""

from pathlib import Path
from typing import Literal

from msgspec import Struct

from rapidd.errors import ModelError

Architecture = Literal["llama", "mistral", "qwen2", "qwen3"]


class Llama3Scaling(Struct, frozen=True):
    """RoPE scaling "llama3" (Llama 3.1, arXiv 2407.21783): low frequencies are stretched by ``factor``."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int


class YarnScaling(Struct, frozen=True):
    """RoPE scaling "yarn" (arXiv 2309.00071). ``attention_factor`` null: 0.1 ln(factor) + 1."""

    factor: float
    original_max_position: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None


class LinearScaling(Struct, frozen=True):
    """Positions divided by ``factor`` (arXiv 2306.15595)."""

    factor: float


class ModelSpec(Struct, frozen=True, kw_only=True):
    """Shape and arithmetic of one Llama-family decoder.

    Query and key rows are always in half-rotation order (the Hugging Face convention): the GGUF loader
    un-permutes. ``windows[i]`` is layer i's sliding window in tokens, null for full attention.
    """

    architecture: Architecture
    name: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: Llama3Scaling | YarnScaling | LinearScaling | None = None
    max_position: int
    tied_head: bool
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    windows: tuple[int | None, ...] = ()
    eos_token_ids: tuple[int, ...] = ()
    bos_token_id: int | None = None
    file_dtype: str | None = None
    """dtype of the weights as stored ("bfloat16", "Q4_1", ...), for people."""

    @property
    def num_parameters(self) -> int:
        """Weights, tied ones counted once."""
        h, d = self.hidden_size, self.head_dim
        attention = h * d * (2 * self.num_heads + 2 * self.num_kv_heads)
        mlp = 3 * h * self.intermediate_size
        norms = 2 * h + (2 * d if self.qk_norm else 0)
        biases = (
            (d * (self.num_heads + 2 * self.num_kv_heads) if self.qkv_bias else 0)
            + (h if self.o_bias else 0)
            + (2 * self.intermediate_size + h if self.mlp_bias else 0)
        )
        head = self.vocab_size * h * (1 if self.tied_head else 2)
        return self.num_layers * (attention + mlp + norms + biases) + head + h


def check_spec(spec: ModelSpec, file: Path) -> ModelSpec:
    """The spec itself when its numbers fit together. Raises `ModelError`."""
    sizes = {
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_layers": spec.num_layers,
        "num_heads": spec.num_heads,
        "num_kv_heads": spec.num_kv_heads,
        "head_dim": spec.head_dim,
        "max_position": spec.max_position,
        "rms_norm_eps": spec.rms_norm_eps,
        "rope_theta": spec.rope_theta,
    }
    for name, value in sizes.items():
        if value <= 0:
            raise ModelError(f"{file}: {name} is {value}")
    if spec.num_heads % spec.num_kv_heads:
        raise ModelError(f"{file}: {spec.num_heads} query heads do not divide into {spec.num_kv_heads} KV heads")
    if spec.head_dim % 2:
        raise ModelError(f"{file}: head_dim {spec.head_dim} is odd, rotary embeddings need pairs")
    return spec
