"""A Hugging Face model folder: config.json to `ModelSpec`, its tokenizer, its chat template. No torch, no weights.

What cannot be served exactly as trained is refused by name, never approximated.
"""

from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import tokenizers
from msgspec import Struct

from rapidd.errors import ModelError
from rapidd.model.config import Architecture, LinearScaling, Llama3Scaling, ModelSpec, YarnScaling, check_spec

ARCHITECTURES: Final[dict[str, Architecture]] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
_ROPE_TYPES: Final = "default, linear, llama3, yarn"


class _Rope(Struct):
    """``rope_scaling`` (older files) or ``rope_parameters``."""

    rope_type: str | None = None
    type: str | None = None
    rope_theta: float | None = None
    factor: float | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_max_position_embeddings: int | None = None
    attention_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    partial_rotary_factor: float = 1.0


class _Config(Struct):
    """The keys of config.json that matter here; others are ignored."""

    architectures: list[str] | None = None
    model_type: str = ""
    vocab_size: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    num_hidden_layers: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int | None = None
    rms_norm_eps: float = 1e-6
    hidden_act: str = "silu"
    rope_theta: float | None = None
    rope_scaling: _Rope | None = None
    rope_parameters: _Rope | None = None
    rope_interleaved: bool = False
    partial_rotary_factor: float = 1.0
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    sliding_window: int | msgspec.UnsetType | None = msgspec.UNSET
    use_sliding_window: bool = False
    max_window_layers: int = 28
    layer_types: list[str] | None = None
    eos_token_id: int | list[int] | None = None
    bos_token_id: int | None = None
    torch_dtype: str | None = None
    dtype: str | None = None
    quantization_config: dict[str, Any] | None = None


class _GenerationConfig(Struct):
    eos_token_id: int | list[int] | None = None
    bos_token_id: int | None = None


class _TokenizerConfig(Struct):
    """Of tokenizer_config.json; special_tokens_map.json has some of it too."""

    chat_template: str | list[dict[str, str]] | None = None
    added_tokens_decoder: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    bos_token: str | dict[str, Any] | None = None
    eos_token: str | dict[str, Any] | None = None
    pad_token: str | dict[str, Any] | None = None
    unk_token: str | dict[str, Any] | None = None


S = TypeVar("S", bound=Struct)


def parse_hf_config(path: Path) -> ModelSpec:
    """The spec of the model in folder ``path`` (or of a config.json by itself). Raises `ModelError`."""
    file = path / "config.json" if path.is_dir() else path
    if (file.parent / "adapter_config.json").exists():
        raise ModelError(f"{file.parent} is a LoRA adapter folder", "merge the adapter into its base model first")
    config = _read(file, _Config)
    architecture = _architecture(config, file)
    if config.quantization_config is not None:
        method = config.quantization_config.get("quant_method", "unnamed")
        raise ModelError(
            f"{file}: the weights are quantised ({method})",
            "use the float16, bfloat16 or float32 model, or a GGUF file",
        )
    if config.hidden_act not in ("silu", "swish"):
        raise ModelError(f"{file}: activation {config.hidden_act!r} is not supported", "supported: silu")
    hidden_size = _need(config, "hidden_size", file)
    num_heads = _need(config, "num_attention_heads", file)
    num_layers = _need(config, "num_hidden_layers", file)
    max_position = _need(config, "max_position_embeddings", file)
    if config.num_key_value_heads is None and architecture == "llama":
        num_kv_heads = num_heads  # Llama 1 and 2 files from before grouped heads
    else:
        num_kv_heads = _need(config, "num_key_value_heads", file)
    head_dim = config.head_dim or (128 if architecture == "qwen3" else hidden_size // num_heads)
    rope = config.rope_parameters or config.rope_scaling or _Rope()
    scaling = _rope_scaling(rope, config, max_position, file)
    if isinstance(scaling, YarnScaling):
        max_position = max(max_position, int(scaling.factor * scaling.original_max_position))
    eos_token_ids, bos_token_id = _ids(file.parent, config)
    return check_spec(
        ModelSpec(
            architecture=architecture,
            name=file.resolve().parent.name,
            vocab_size=_need(config, "vocab_size", file),
            hidden_size=hidden_size,
            intermediate_size=_need(config, "intermediate_size", file),
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            rms_norm_eps=config.rms_norm_eps,
            rope_theta=rope.rope_theta or config.rope_theta or 10_000.0,
            rope_scaling=scaling,
            max_position=max_position,
            tied_head=config.tie_word_embeddings,
            qkv_bias=architecture == "qwen2" or config.attention_bias,
            o_bias=architecture != "qwen2" and config.attention_bias,
            mlp_bias=config.mlp_bias,
            qk_norm=architecture == "qwen3",
            windows=_windows(architecture, config, num_layers, max_position, file),
            eos_token_ids=eos_token_ids,
            bos_token_id=bos_token_id,
            file_dtype=config.dtype or config.torch_dtype,
        ),
        file,
    )


def read_special_ids(folder: Path) -> tuple[tuple[int, ...], int | None]:
    """End-of-output ids (all of them) and the start id, from generation_config.json and config.json."""
    config = _read(folder / "config.json", _Config) if (folder / "config.json").exists() else _Config()
    return _ids(folder, config)


def read_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """The folder's tokenizer.json. Raises `ModelError`."""
    file = folder / "tokenizer.json"
    if not file.exists():
        raise ModelError(
            f"{folder} has no tokenizer.json", "convert its tokenizer with transformers, or give --tokenizer DIR"
        )
    try:
        return tokenizers.Tokenizer.from_buffer(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error


def read_chat_template(folder: Path) -> tuple[str | None, dict[str, str]]:
    """The template's source (null: none) and the special tokens it may name. Raises `ModelError`."""
    config_file = folder / "tokenizer_config.json"
    config = _read(config_file, _TokenizerConfig) if config_file.exists() else _TokenizerConfig()
    tokens = _special_tokens(folder, config)
    template_file = folder / "chat_template.jinja"
    if template_file.exists():
        try:
            return template_file.read_text(encoding="utf-8"), tokens
        except (OSError, ValueError) as error:
            raise ModelError(f"{template_file} cannot be read: {error}") from error
    if isinstance(config.chat_template, list):
        named = {entry.get("name"): entry.get("template") for entry in config.chat_template}
        return named.get("default"), tokens
    return config.chat_template, tokens


def _special_tokens(folder: Path, config: _TokenizerConfig) -> dict[str, str]:
    """By the names that templates know. Where tokenizer_config.json is from before it listed the added tokens, what
    special_tokens_map.json says goes before it, as in transformers."""
    sources = [config]
    older = folder / "special_tokens_map.json"
    if config.added_tokens_decoder is msgspec.UNSET and older.exists():
        sources.append(_read(older, _TokenizerConfig))
    return {
        name: token if isinstance(token, str) else str(token.get("content", ""))
        for source in sources
        for name in ("bos_token", "eos_token", "pad_token", "unk_token")
        if (token := getattr(source, name)) is not None
    }


def _read(file: Path, kind: type[S]) -> S:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except FileNotFoundError:
        raise ModelError(f"{file} does not exist") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error


def _need(config: _Config, key: str, file: Path) -> int:
    value: int | None = getattr(config, key)
    if value is None:
        raise ModelError(f"{file}: {key} is missing")
    if value <= 0:
        raise ModelError(f"{file}: {key} is {value}")
    return value


def _architecture(config: _Config, file: Path) -> Architecture:
    names = config.architectures or []
    for name in names:
        if name in ARCHITECTURES:
            return ARCHITECTURES[name]
    if not names:
        for architecture in ARCHITECTURES.values():
            if config.model_type == architecture:
                return architecture
    named = ", ".join(names) or config.model_type or "none named"
    raise ModelError(f"{file}: architecture {named} is not supported", f"supported: {', '.join(ARCHITECTURES)}")


def _rope_scaling(
    rope: _Rope, config: _Config, max_position: int, file: Path
) -> Llama3Scaling | YarnScaling | LinearScaling | None:
    kind = rope.rope_type or rope.type or "default"
    if config.rope_interleaved or rope.partial_rotary_factor != 1.0 or config.partial_rotary_factor != 1.0:
        raise ModelError(f"{file}: interleaved or partial rotary embeddings are not supported")
    if kind == "default":
        return None
    if kind not in ("linear", "llama3", "yarn"):
        raise ModelError(f"{file}: rope type {kind!r} is not supported", f"supported: {_ROPE_TYPES}")
    if rope.factor is None or rope.factor < 1:
        raise ModelError(f"{file}: rope type {kind} needs a factor of at least 1, and it is {rope.factor}")
    if kind == "linear":
        return LinearScaling(rope.factor)
    original = rope.original_max_position_embeddings or max_position
    if kind == "yarn":
        if rope.mscale is not None or rope.mscale_all_dim is not None or not rope.truncate:
            raise ModelError(f"{file}: yarn with mscale, mscale_all_dim or truncate=false is not supported")
        return YarnScaling(rope.factor, original, rope.beta_fast or 32.0, rope.beta_slow or 1.0, rope.attention_factor)
    if rope.low_freq_factor is None or rope.high_freq_factor is None:
        raise ModelError(f"{file}: rope type llama3 needs low_freq_factor and high_freq_factor")
    return Llama3Scaling(rope.factor, rope.low_freq_factor, rope.high_freq_factor, original)


def _windows(
    architecture: Architecture, config: _Config, num_layers: int, max_position: int, file: Path
) -> tuple[int | None, ...]:
    """Each layer's sliding window, by the rules of each architecture; () when no layer has one that matters."""
    # transformers' default for both families, for files that leave it out
    window = 4096 if config.sliding_window is msgspec.UNSET else config.sliding_window
    if architecture == "llama":
        window = None
    if architecture in ("qwen2", "qwen3") and not config.use_sliding_window:
        window = None
    if window is None or window >= max_position:
        return ()
    if window <= 0:
        raise ModelError(f"{file}: sliding_window is {window}")
    if architecture == "mistral":
        return (window,) * num_layers
    kinds = config.layer_types or [
        "sliding_attention" if layer >= config.max_window_layers else "full_attention" for layer in range(num_layers)
    ]
    unknown = sorted(set(kinds) - {"full_attention", "sliding_attention"})
    if unknown or len(kinds) != num_layers:
        raise ModelError(f"{file}: layer_types does not describe {num_layers} full or sliding layers: {unknown}")
    windows = tuple(window if kind == "sliding_attention" else None for kind in kinds)
    return windows if any(windows) else ()


def _ids(folder: Path, config: _Config) -> tuple[tuple[int, ...], int | None]:
    file = folder / "generation_config.json"
    generation = _read(file, _GenerationConfig) if file.exists() else _GenerationConfig()
    eos = config.eos_token_id if generation.eos_token_id is None else generation.eos_token_id
    bos = config.bos_token_id if generation.bos_token_id is None else generation.bos_token_id
    if eos is None:
        return (), bos
    return (eos,) if isinstance(eos, int) else tuple(eos), bos
