"""A GGUF file's header, spec and tensors; the files are written by the `gguf` package, not by code of ours."""

import math
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as GgmlType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rapidd.errors import ModelError
from rapidd.model.config import LinearScaling, Llama3Scaling, ModelSpec, YarnScaling
from rapidd.model.gguf import parse_spec, read_header
from rapidd.model.gguf_weights import GgufWeights
from rapidd.model.llama import tensor_shapes
from rapidd.model.resolve import ModelFiles
from rapidd.model.weights import open_weights

HIDDEN, FEED, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 256, 512, 4, 2, 64, 40
QUANTISED = [GgmlType[name] for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "F16", "F32")]


def metadata(architecture: str = "llama", **changes: Any) -> dict[str, Any]:
    """Keys of a one-layer model; ``changes`` by the key's last part, None removes."""
    keys = {
        "general.architecture": architecture,
        f"{architecture}.block_count": 1,
        f"{architecture}.context_length": 128,
        f"{architecture}.embedding_length": HIDDEN,
        f"{architecture}.feed_forward_length": FEED,
        f"{architecture}.attention.head_count": HEADS,
        f"{architecture}.attention.head_count_kv": KV_HEADS,
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{architecture}.rope.freq_base": 5e5,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    for name, value in changes.items():
        keys[f"{architecture}.{name.replace('__', '.')}"] = value
    return {key: value for key, value in keys.items() if value is not None}


def matrices(rng: np.random.Generator, architecture: str = "llama", tied: bool = True) -> dict[str, np.ndarray]:
    """Random tensors of that model under GGUF names, query and key rows as they lie in the file."""
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (VOCAB, HIDDEN),
        "output_norm.weight": (HIDDEN,),
        "blk.0.attn_norm.weight": (HIDDEN,),
        "blk.0.ffn_norm.weight": (HIDDEN,),
        "blk.0.attn_q.weight": (HEADS * HEAD_DIM, HIDDEN),
        "blk.0.attn_k.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
        "blk.0.attn_v.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
        "blk.0.attn_output.weight": (HIDDEN, HEADS * HEAD_DIM),
        "blk.0.ffn_gate.weight": (FEED, HIDDEN),
        "blk.0.ffn_up.weight": (FEED, HIDDEN),
        "blk.0.ffn_down.weight": (HIDDEN, FEED),
    }
    if architecture == "qwen2":
        shapes |= {"blk.0.attn_q.bias": (HEADS * HEAD_DIM,)}
        shapes |= {f"blk.0.attn_{part}.bias": (KV_HEADS * HEAD_DIM,) for part in "kv"}
    if architecture == "qwen3":
        shapes |= {f"blk.0.attn_{part}_norm.weight": (HEAD_DIM,) for part in "qk"}
    if not tied:
        shapes["output.weight"] = (VOCAB, HIDDEN)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def spec_of(path: Path) -> ModelSpec:
    return parse_spec(read_header(path))


def weights_of(path: Path) -> GgufWeights:
    header = read_header(path)
    return GgufWeights(header, parse_spec(header))


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_spec_names_and_shapes_fit_together(write_gguf: Any, rng: Any, architecture: str, tied: bool) -> None:
    path = write_gguf(metadata(architecture), matrices(rng, architecture, tied))
    spec = spec_of(path)
    assert spec == ModelSpec(
        architecture=architecture,  # type: ignore[arg-type]
        name="model",
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=FEED,
        num_layers=1,
        num_heads=HEADS,
        num_kv_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        rms_norm_eps=struct.unpack("f", struct.pack("f", 1e-5))[0],
        rope_theta=5e5,
        max_position=128,
        tied_head=tied,
        qkv_bias=architecture == "qwen2",
        qk_norm=architecture == "qwen3",
        eos_token_ids=(2,),
        bos_token_id=1,
        file_dtype="F32",
    )
    weights = open_weights(ModelFiles("gguf", path), spec)
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == tensor_shapes(spec)


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
def test_every_type_comes_out_as_the_package_dequantises_it(write_gguf: Any, rng: Any, kind: GgmlType) -> None:
    """Against the package's dequantiser on the whole matrix; more blocks than one piece holds."""
    values = rng.standard_normal((300, HIDDEN)).astype(np.float32)
    path = write_gguf(metadata(), {**matrices(rng), "token_embd.weight": (values, kind)})
    tensor = weights_of(path)["model.embed_tokens.weight"]
    expected = gguf.quants.dequantize(gguf.quants.quantize(values, kind), kind)
    assert tensor.shape == (300, HIDDEN)
    assert torch.equal(tensor.float(), torch.from_numpy(expected.reshape(300, HIDDEN)))
    assert tensor.dtype == {"F16": torch.float16, "BF16": torch.bfloat16}.get(kind.name, torch.float32)


def interleaved(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """What llama.cpp's converter does to query and key rows, row by row: pair i of a head holds i and i + d/2."""
    half = len(rows) // num_heads // 2
    order = [
        head * 2 * half + part * half + pair for head in range(num_heads) for pair in range(half) for part in range(2)
    ]
    return rows[order]


def test_llama_query_and_key_rows_come_back_in_half_rotation_order(write_gguf: Any, rng: Any) -> None:
    """Left as they are they still run, with a worse loss."""
    tensors = matrices(rng)
    query, key = tensors["blk.0.attn_q.weight"], tensors["blk.0.attn_k.weight"]
    tensors["blk.0.attn_q.weight"] = interleaved(query, HEADS)
    tensors["blk.0.attn_k.weight"] = interleaved(key, KV_HEADS)
    weights = weights_of(write_gguf(metadata(), tensors))
    prefix = "model.layers.0.self_attn."
    assert np.array_equal(weights[prefix + "q_proj.weight"], query)
    assert np.array_equal(weights[prefix + "k_proj.weight"], key)
    assert np.array_equal(weights[prefix + "v_proj.weight"], tensors["blk.0.attn_v.weight"])


def test_qwen_rows_stay_as_they_are(write_gguf: Any, rng: Any) -> None:
    tensors = matrices(rng, "qwen2")
    weights = weights_of(write_gguf(metadata("qwen2"), tensors))
    for part in ("q", "k"):
        for kind in ("weight", "bias"):
            ours = weights[f"model.layers.0.self_attn.{part}_proj.{kind}"]
            assert np.array_equal(ours, tensors[f"blk.0.attn_{part}.{kind}"])


def llama3_freqs(factor: float, low: float = 1.0, high: float = 4.0, original: int = 8192) -> np.ndarray:
    """rope_freqs.weight as the formula of the Llama 3.1 release gives it for base 500,000 and 64 dimensions."""
    divisors = []
    for index in range(HEAD_DIM // 2):
        wavelength = 2 * math.pi * 5e5 ** (2 * index / HEAD_DIM)
        if wavelength < original / high:
            divisors.append(1.0)
        elif wavelength > original / low:
            divisors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_scaling_is_recovered_from_its_divisors(write_gguf: Any, rng: Any, factor: float) -> None:
    path = write_gguf(metadata(), {**matrices(rng), "rope_freqs.weight": llama3_freqs(factor)})
    assert spec_of(path).rope_scaling == Llama3Scaling(factor, 1.0, 4.0, 8192)
    assert "rope_freqs.weight" not in weights_of(path)


@pytest.mark.parametrize("freqs", [llama3_freqs(8.0, low=2.0), np.ones(8, np.float32)], ids=["other", "short"])
def test_other_divisors_are_refused(write_gguf: Any, rng: Any, freqs: np.ndarray) -> None:
    with pytest.raises(ModelError, match=r"rope_freqs\.weight"):
        spec_of(write_gguf(metadata(), {**matrices(rng), "rope_freqs.weight": freqs}))


def test_rope_scaling_in_metadata(write_gguf: Any, rng: Any) -> None:
    def scaling(**changes: Any) -> object:
        return spec_of(write_gguf(metadata(**changes), matrices(rng))).rope_scaling

    assert scaling(rope__scaling__type="none") is None
    assert scaling(rope__scaling__type="linear", rope__scaling__factor=4.0) == LinearScaling(4.0)
    yarn = scaling(rope__scaling__type="yarn", rope__scaling__factor=4.0, rope__scaling__original_context_length=4096)
    assert yarn == YarnScaling(4.0, 4096)
    with pytest.raises(ModelError, match="'longrope'"):
        scaling(rope__scaling__type="longrope", rope__scaling__factor=4.0)


def test_a_factor_alone_is_a_linear_one(write_gguf: Any, rng: Any) -> None:
    """So llama.cpp takes a file without a type; in older files `rope.scale_linear` stands for the factor, which the
    format wants read for ever. Both were overlooked, and the model ran on positions that it was not trained on."""

    def scaling(**changes: Any) -> object:
        return spec_of(write_gguf(metadata(**changes), matrices(rng))).rope_scaling

    assert scaling(rope__scaling__factor=4.0) == LinearScaling(4.0)
    assert scaling(rope__scale_linear=4.0) == LinearScaling(4.0)
    assert scaling(rope__scale_linear=4.0, rope__scaling__factor=2.0) == LinearScaling(2.0)
    assert scaling(rope__scale_linear=4.0, rope__scaling__type="none") is None
    assert scaling(rope__scale_linear=1.0) is None


def test_yarn_is_served_as_the_file_has_it(write_gguf: Any, rng: Any) -> None:
    """Of its parameters beside the factor only `attn_factor` was looked at: other ramps ran with the usual one."""

    def scaling(**changes: float) -> object:
        named: dict[str, Any] = {f"rope__scaling__{name}": value for name, value in changes.items()}
        named |= {"rope__scaling__type": "yarn", "rope__scaling__original_context_length": 4096}
        return spec_of(write_gguf(metadata(**named), matrices(rng))).rope_scaling

    assert scaling(factor=4.0, yarn_beta_fast=16.0, yarn_beta_slow=2.0) == YarnScaling(4.0, 4096, 16.0, 2.0)
    usual = {"attn_factor": 1.0, "yarn_attn_factor": 1.0, "yarn_ext_factor": 1.0, "yarn_log_multiplier": 0.0}
    assert scaling(factor=4.0, **usual) == YarnScaling(4.0, 4096)
    for name in usual:
        with pytest.raises(ModelError, match=rf"yarn with {name} 0\.5 is not supported"):
            scaling(factor=4.0, **{name: 0.5})


@pytest.mark.parametrize(("context", "expected"), [(64, 256), (256, 256), (320, 320)])
def test_yarn_stretches_the_context(write_gguf: Any, rng: Any, context: int, expected: int) -> None:
    """A model whose config names the trained length has it in its GGUF file too, which was served no further."""
    keys = metadata(
        context_length=context,
        rope__scaling__type="yarn",
        rope__scaling__factor=4.0,
        rope__scaling__original_context_length=64,
    )
    assert spec_of(write_gguf(keys, matrices(rng))).max_position == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expert_count": 8}, "mixtures of experts"),
        ({"attention__sliding_window": 4096}, "sliding windows"),
        ({"rope__dimension_count": 32}, "32 of 64 dimensions"),
        ({"block_count": None}, r"llama\.block_count is missing"),
        ({"block_count": 0}, "num_layers is 0"),
        ({"attention__head_count": [4, 4]}, "expected int"),
        ({"attention__head_count": 0}, "num_heads is 0"),
        ({"attention__head_count_kv": 3}, "do not divide"),
    ],
)
def test_refuses_by_name(write_gguf: Any, rng: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        spec_of(write_gguf(metadata(**changes), matrices(rng)))


def test_refuses_other_architectures_and_strange_tensors(write_gguf: Any, rng: Any) -> None:
    with pytest.raises(ModelError, match=r"gemma3 is not supported"):
        spec_of(write_gguf(metadata("gemma3"), matrices(rng)))
    with pytest.raises(ModelError, match="one file of a split model"):
        spec_of(write_gguf(metadata() | {"split.count": 3}, matrices(rng)))
    with pytest.raises(ModelError, match=r"token_embd\.weight is missing"):
        spec_of(write_gguf(metadata(), {"output_norm.weight": np.ones(4, np.float32)}))
    with pytest.raises(ModelError, match=r"blk\.0\.ssm_in\.weight has no place"):
        weights_of(write_gguf(metadata(), {**matrices(rng), "blk.0.ssm_in.weight": np.ones((4, 4), np.float32)}))


def test_unknown_tensor_types_are_named(write_gguf: Any, rng: Any) -> None:
    path = write_gguf(metadata(), matrices(rng))
    name = b"output_norm.weight"
    data = bytearray(path.read_bytes())
    at = data.index(name) + len(name) + 4 + 8  # after the name: dimension count, one dimension, then the type
    data[at : at + 4] = struct.pack("<I", 99)
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"output_norm\.weight has the unknown type 99"):
        weights_of(path)


def test_truncated_weights_name_the_tensor(write_gguf: Any, rng: Any) -> None:
    path = write_gguf(metadata(), matrices(rng))
    path.write_bytes(path.read_bytes()[:-4096])
    with pytest.raises(ModelError, match=r"truncated: tensor blk\.0\.ffn_down\.weight"):
        weights_of(path)


def test_no_gguf_file_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    for content in (b"", b"GG", b"PK\x03\x04 something else"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="no GGUF file"):
            read_header(path)
    path.write_bytes(b"GGUF" + struct.pack(">I", 3) + bytes(32))
    with pytest.raises(ModelError, match="version"):
        read_header(path)
    with pytest.raises(ModelError, match="cannot be read"):
        read_header(tmp_path / "absent.gguf")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_header_is_an_error_and_nothing_worse(write_gguf: Any, tmp_path: Path, data: st.DataObject) -> None:
    """Cut or overwritten anywhere: either it still reads, or it is a `ModelError`."""
    keys = metadata() | {"tokenizer.ggml.tokens": ["a", "b"], "tokenizer.ggml.scores": [0.5, 1.5]}
    good = write_gguf(keys, {"token_embd.weight": np.ones((4, 8), np.float32)}).read_bytes()
    damaged = bytearray(good[: data.draw(st.integers(4, len(good)))])
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(4, len(good)))
        damaged[at : at + 8] = data.draw(st.binary(min_size=1, max_size=8))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damaged)
    with suppress(ModelError):
        weights = weights_of(path)
        for name in weights:
            weights[name]
