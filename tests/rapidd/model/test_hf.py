"""config.json to `ModelSpec`: the transformers library's own configs are the reference."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from rapidd.errors import ModelError
from rapidd.model.config import LinearScaling, Llama3Scaling, YarnScaling
from rapidd.model.hf import parse_hf_config, read_chat_template, read_tokenizer

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **SIZES}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **SIZES}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def folder(path: Path, config: dict[str, Any], **files: Any) -> Path:
    """A model folder of JSON files; ``config`` without its None values."""
    (path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("llama", {}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 16}),
        ("mistral", {"sliding_window": None}),
        ("mistral", {"sliding_window": 64, "head_dim": 16}),
        ("qwen2", {}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 3}),
        ("qwen3", {"head_dim": 16, "attention_bias": True}),
        ("qwen3", {}),
        (
            "qwen3",
            {
                "use_sliding_window": True,
                "sliding_window": 64,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
            },
        ),
    ],
)
def test_reads_what_transformers_writes(tmp_path: Path, architecture: str, settings: dict[str, Any]) -> None:
    classes = {
        "llama": transformers.LlamaConfig,
        "mistral": transformers.MistralConfig,
        "qwen2": transformers.Qwen2Config,
        "qwen3": transformers.Qwen3Config,
    }
    theirs = classes[architecture](**SIZES, **settings)
    theirs.architectures = [f"{architecture.capitalize()}ForCausalLM"]
    theirs.save_pretrained(tmp_path)

    spec = parse_hf_config(tmp_path)

    assert spec.architecture == architecture
    assert (spec.vocab_size, spec.hidden_size, spec.intermediate_size) == (96, 32, 48)
    assert (spec.num_layers, spec.num_heads, spec.num_kv_heads, spec.max_position) == (4, 4, 2, 256)
    assert spec.head_dim == (8 if architecture == "qwen2" else theirs.head_dim)
    assert spec.rms_norm_eps == theirs.rms_norm_eps
    assert spec.rope_theta == theirs.rope_parameters["rope_theta"]
    assert spec.tied_head == theirs.tie_word_embeddings
    assert spec.qk_norm == (architecture == "qwen3")
    assert spec.qkv_bias == (architecture == "qwen2" or getattr(theirs, "attention_bias", False))
    assert spec.o_bias == (architecture != "qwen2" and getattr(theirs, "attention_bias", False))
    assert spec.mlp_bias == getattr(theirs, "mlp_bias", False)
    assert (spec.windows or (None,) * 4) == expected_windows(theirs)


def expected_windows(config: Any) -> tuple[int | None, ...]:
    """Each layer's window as transformers' own models take it from the config."""
    if config.model_type == "llama":
        return (None,) * 4
    if config.model_type == "mistral":
        return (config.sliding_window,) * 4
    return tuple(config.sliding_window if kind == "sliding_attention" else None for kind in config.layer_types)


def test_a_window_that_never_bites_is_full_attention(tmp_path: Path) -> None:
    spec = parse_hf_config(folder(tmp_path, {**SIZES, "architectures": ["MistralForCausalLM"], "sliding_window": 256}))
    assert spec.windows == ()


def test_grouped_heads_may_be_left_out_only_by_old_llamas(tmp_path: Path) -> None:
    assert parse_hf_config(folder(tmp_path, {**LLAMA, "num_key_value_heads": None})).num_kv_heads == 4
    with pytest.raises(ModelError, match="num_key_value_heads is missing"):
        parse_hf_config(folder(tmp_path, {**QWEN2, "num_key_value_heads": None}))


@pytest.mark.parametrize(
    ("rope", "scaling"),
    [
        ({"rope_scaling": None}, None),
        ({"rope_scaling": {"type": "default"}}, None),
        ({"rope_scaling": {"type": "linear", "factor": 4}}, LinearScaling(4.0)),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, LinearScaling(2.0)),
        ({"rope_scaling": LLAMA3}, Llama3Scaling(8.0, 1.0, 4.0, 8192)),
        ({"rope_parameters": {**LLAMA3, "rope_theta": 5e5}}, Llama3Scaling(8.0, 1.0, 4.0, 8192)),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}},
            YarnScaling(4.0, 128),
        ),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16, "attention_factor": 1.5}},
            YarnScaling(4.0, 256, beta_fast=16.0, attention_factor=1.5),
        ),
    ],
)
def test_rope_scaling_in_both_spellings(tmp_path: Path, rope: dict[str, Any], scaling: object) -> None:
    assert parse_hf_config(folder(tmp_path, {**LLAMA, **rope})).rope_scaling == scaling


def test_rope_theta_in_both_spellings(tmp_path: Path) -> None:
    assert parse_hf_config(folder(tmp_path, {**LLAMA, "rope_theta": 7e5})).rope_theta == 7e5
    nested = {**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 6e5}}
    assert parse_hf_config(folder(tmp_path, nested)).rope_theta == 6e5
    assert parse_hf_config(folder(tmp_path, LLAMA)).rope_theta == 1e4


def test_yarn_stretches_the_context(tmp_path: Path) -> None:
    """Qwen's files keep max_position_embeddings at the trained length and only name the factor."""
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    assert parse_hf_config(folder(tmp_path, {**QWEN2, "rope_scaling": yarn})).max_position == 1024


@pytest.mark.parametrize(
    ("config_eos", "generation", "expected"),
    [
        (2, None, (2,)),
        ([2, 3], None, (2, 3)),
        (2, {"eos_token_id": [5, 6]}, (5, 6)),
        (2, {"eos_token_id": 5}, (5,)),
        (2, {"temperature": 0.6}, (2,)),
        (None, None, ()),
    ],
)
def test_all_ends_of_output(
    tmp_path: Path, config_eos: Any, generation: dict[str, Any] | None, expected: tuple[int, ...]
) -> None:
    files = {} if generation is None else {"generation_config": generation}
    spec = parse_hf_config(folder(tmp_path, {**LLAMA, "eos_token_id": config_eos, "bos_token_id": 1}, **files))
    assert spec.eos_token_ids == expected
    assert spec.bos_token_id == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM is not supported"),
        ({"architectures": None, "model_type": "gpt2"}, "gpt2 is not supported"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, r"quantised \(awq\)"),
        ({"hidden_act": "gelu_new"}, "activation 'gelu_new'"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}, "rope type 'longrope'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "rope type 'dynamic'"),
        ({"rope_scaling": {"type": "linear"}}, "needs a factor"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ({"rope_scaling": {"type": "yarn", "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 1.0}}, "mscale"),
        ({"partial_rotary_factor": 0.5}, "partial rotary"),
        ({"vocab_size": None}, "vocab_size is missing"),
        ({"hidden_size": "32"}, "hidden_size"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_key_value_heads": 3}, "do not divide"),
        ({"head_dim": 7}, "head_dim 7 is odd"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
    ],
)
def test_refuses_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as refused:
        parse_hf_config(folder(tmp_path, {**LLAMA, **changes}))
    assert "config.json" in str(refused.value)


def test_refuses_layer_types_that_it_does_not_know(tmp_path: Path) -> None:
    config = {**QWEN2, "use_sliding_window": True, "sliding_window": 64, "layer_types": ["linear_attention"] * 4}
    with pytest.raises(ModelError, match="linear_attention"):
        parse_hf_config(folder(tmp_path, config))


def test_refuses_an_adapter_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="LoRA"):
        parse_hf_config(folder(tmp_path, LLAMA, adapter_config={"r": 8}))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"architectures": 5}'])
def test_an_unreadable_config_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        parse_hf_config(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json does not exist"):
        parse_hf_config(tmp_path)
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
        read_tokenizer(tmp_path)


def test_chat_template_is_found_where_folders_keep_it(tmp_path: Path) -> None:
    assert read_chat_template(tmp_path) == (None, {})
    tokens = {"bos_token": "<s>", "eos_token": {"content": "</s>", "special": True}, "pad_token": None}
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    folder(tmp_path, LLAMA, tokenizer_config={**tokens, "chat_template": named})
    assert read_chat_template(tmp_path) == ("D", {"bos_token": "<s>", "eos_token": "</s>"})
    folder(tmp_path, LLAMA, tokenizer_config={"chat_template": "inline"})
    assert read_chat_template(tmp_path) == ("inline", {})
    (tmp_path / "chat_template.jinja").write_text("file")
    assert read_chat_template(tmp_path)[0] == "file"
