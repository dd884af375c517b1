"""The decoder against `transformers`, an independent implementation, on small random models; and against itself."""

import threading
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from rapid_kernels import KVCache, make_ragged
from rapidd.errors import ModelError
from rapidd.model.config import LinearScaling, Llama3Scaling, ModelSpec, YarnScaling
from rapidd.model.llama import Llama, random_weights, tensor_shapes
from rapidd.model.rope import inverse_frequencies

BLOCK_TOKENS = 4

LLAMA = ModelSpec(
    architecture="llama",
    name="tiny",
    vocab_size=96,
    hidden_size=48,
    intermediate_size=80,
    num_layers=3,
    num_heads=6,
    num_kv_heads=2,
    head_dim=8,
    rms_norm_eps=1e-5,
    rope_theta=10_000.0,
    max_position=256,
    tied_head=True,
)


def changed(**fields: Any) -> ModelSpec:
    return ModelSpec(**{name: getattr(LLAMA, name) for name in LLAMA.__struct_fields__} | fields)


SPECS = {
    "llama": LLAMA,
    "llama biases, untied": changed(tied_head=False, qkv_bias=True, o_bias=True, mlp_bias=True),
    "llama3 rope": changed(rope_scaling=Llama3Scaling(8.0, 1.0, 4.0, 32), rope_theta=500.0),
    "yarn rope": changed(rope_scaling=YarnScaling(4.0, 64), rope_theta=1000.0),
    "linear rope": changed(rope_scaling=LinearScaling(3.0)),
    "mistral": changed(architecture="mistral", windows=(7, 7, 7), tied_head=False),
    "qwen2": changed(architecture="qwen2", qkv_bias=True, rms_norm_eps=1e-6),
    "qwen3": changed(architecture="qwen3", qk_norm=True, head_dim=16, num_kv_heads=3),
}


def peer_config(spec: ModelSpec) -> Any:
    """The same model in the words of `transformers`."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": spec.rope_theta}
    match spec.rope_scaling:
        case Llama3Scaling(factor, low, high, original):
            rope |= {"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high}
            rope["original_max_position_embeddings"] = original
        case YarnScaling(factor, original):
            rope |= {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
        case LinearScaling(factor):
            rope |= {"rope_type": "linear", "factor": factor}
    fields: dict[str, Any] = {
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads,
        "head_dim": spec.head_dim,
        "rms_norm_eps": spec.rms_norm_eps,
        "max_position_embeddings": spec.max_position,
        "tie_word_embeddings": spec.tied_head,
        "rope_parameters": rope,
        "attn_implementation": "eager",
    }
    match spec.architecture:
        case "llama":
            return transformers.LlamaConfig(attention_bias=spec.o_bias, mlp_bias=spec.mlp_bias, **fields)
        case "mistral":
            return transformers.MistralConfig(sliding_window=spec.windows[0], **fields)
        case "qwen2":
            return transformers.Qwen2Config(**fields)
        case "qwen3":
            return transformers.Qwen3Config(**fields)


@cache
def peer(name: str) -> Any:
    """A random model of `transformers`. Norms and biases are random too, so that a forgotten one shows."""
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(peer_config(SPECS[name])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(0.5, 1.5) if parameter.dim() == 1 else parameter.normal_(0, 0.15)
    return model


@cache
def ours(name: str, dtype: torch.dtype = torch.float32) -> Llama:
    return Llama(SPECS[name], peer(name).state_dict(), dtype)


def new_cache(model: Llama, num_blocks: int = 64) -> KVCache:
    return model.kernels.allocate_cache(model.cache_layout(num_blocks, BLOCK_TOKENS))


def run(model: Llama, kv: KVCache, rows: list[tuple[list[int], int, list[int]]]) -> list[Tensor]:
    """rows: (the sequence's ids, how many are cached, block table). Logits of all new tokens, by row."""
    new = [ids[cached:] for ids, cached, _ in rows]
    ragged = make_ragged(
        [len(ids) for ids in new], [len(ids) for ids, _, _ in rows], [table for *_, table in rows], BLOCK_TOKENS, 2
    )
    flat = torch.tensor([token for ids in new for token in ids])
    logits = model.forward(flat, ragged, kv, torch.arange(len(flat)))
    return list(torch.split(logits, [len(ids) for ids in new]))


def random_ids(count: int, seed: int = 0) -> list[int]:
    return torch.randint(0, LLAMA.vocab_size, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def expected_logits(name: str, ids: list[int]) -> Tensor:
    with torch.no_grad():
        logits: Tensor = peer(name)(torch.tensor([ids])).logits[0]
    return logits


@pytest.mark.parametrize("name", SPECS)
def test_logits_equal_those_of_transformers(name: str) -> None:
    model, ids = ours(name), random_ids(50)
    (logits,) = run(model, new_cache(model), [(ids, 0, list(range(1, 14)))])
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected_logits(name, ids), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SPECS)
def test_chunks_mixed_batches_and_decode_equal_one_forward(name: str) -> None:
    """Three sequences over interleaved blocks: chunks of one share batches with decode steps of the others."""
    model = ours(name)
    kv = new_cache(model)
    for layer in kv.layers:
        layer.fill_(torch.nan)
    a, b, c = random_ids(30, 1), random_ids(21, 2), random_ids(9, 3)
    tables = [list(range(first, 40, 3)) for first in (3, 2, 1)]
    got: dict[int, list[Tensor]] = {0: [], 1: [], 2: []}

    def step(*rows: tuple[int, list[int], int, int]) -> None:
        outs = run(model, kv, [(ids[:end], begin, tables[which]) for which, ids, begin, end in rows])
        for (which, *_), logits in zip(rows, outs, strict=True):
            got[which].append(logits)

    step((0, a, 0, 11))
    step((0, a, 11, 12), (1, b, 0, 5))
    step((1, b, 5, 16), (0, a, 12, 13), (2, c, 0, 8))
    step((2, c, 8, 9), (1, b, 16, 17), (0, a, 13, 14))
    step((0, a, 14, 30), (1, b, 17, 21))
    for which, ids in enumerate((a, b, c)):
        (whole,) = run(model, new_cache(model), [(ids, 0, list(range(1, 10)))])
        torch.testing.assert_close(torch.cat(got[which]), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_bfloat16_stays_near_float32(name: str) -> None:
    ids = random_ids(40)
    exact, rounded = (
        run(model, new_cache(model), [(ids, 0, list(range(1, 12)))])[0]
        for model in (ours(name), ours(name, torch.bfloat16))
    )
    assert rounded.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(exact, rounded).min() > 0.995


def test_only_the_asked_rows_go_through_the_head() -> None:
    model, ids = ours("llama"), random_ids(10)
    (whole,) = run(model, new_cache(model), [(ids, 0, [1, 2, 3])])
    ragged = make_ragged([10], [10], [[1, 2, 3]], BLOCK_TOKENS, 2)
    some = model.forward(torch.tensor(ids), ragged, new_cache(model), torch.tensor([9, 4]))
    torch.testing.assert_close(some, whole[[9, 4]])
    none = model.forward(torch.tensor(ids), ragged, new_cache(model), torch.tensor([], dtype=torch.int64))
    assert none.shape == (0, LLAMA.vocab_size)


@pytest.mark.parametrize("name", SPECS)
def test_a_batch_whose_last_layer_knows_only_the_last_tokens_gives_the_same_logits_and_cache(name: str) -> None:
    """A prompt's last piece behind a cached one, a whole short prompt, and a row that decodes."""
    model = ours(name)
    rows = [
        (random_ids(26, 1), 9, [1, 4, 7, 10, 13, 16, 19]),
        (random_ids(5, 2), 0, [2, 5]),
        (random_ids(7, 3), 6, [3, 6]),
    ]
    caches = [new_cache(model) for _ in range(2)]
    for kv in caches:
        run(model, kv, [(ids[:cached], 0, table) for ids, cached, table in rows if cached])
    wanted = torch.stack([logits[-1] for logits in run(model, caches[0], rows)])

    lengths, tables = [len(ids) for ids, *_ in rows], [table for *_, table in rows]
    ragged = make_ragged([len(ids) - cached for ids, cached, _ in rows], lengths, tables, BLOCK_TOKENS, 2)
    ends = make_ragged([1] * 3, lengths, tables, BLOCK_TOKENS, 2)
    flat = torch.tensor([token for ids, cached, _ in rows for token in ids[cached:]])
    last = ragged.query_start[1:].long() - 1
    torch.testing.assert_close(model.forward(flat, ragged, caches[1], last, ends=ends), wanted, rtol=1e-4, atol=1e-5)
    for table, length in zip(tables, lengths, strict=True):
        slots = [block * BLOCK_TOKENS + offset for block in table for offset in range(BLOCK_TOKENS)][:length]
        for whole, short in zip(caches[0].layers, caches[1].layers, strict=True):
            assert torch.equal(whole[slots], short[slots])


def test_two_threads_share_weights_and_cache() -> None:
    """One decodes while the other prefills, over and over, each in its own blocks."""
    model = ours("llama")
    kv = new_cache(model)
    ids = random_ids(24)
    (whole,) = run(model, new_cache(model), [(ids, 0, list(range(1, 8)))])
    errors: list[str] = []

    def work(table: list[int], cuts: list[int]) -> None:
        for _ in range(20):
            parts = [run(model, kv, [(ids[:end], begin, table)])[0] for begin, end in pairwise(cuts)]
            if not torch.allclose(torch.cat(parts), whole, rtol=1e-4, atol=1e-5):
                errors.append(f"wrong logits in {table}")

    decode_cuts = [0, *range(16, 25)]
    threads = [
        threading.Thread(target=work, args=([1, 3, 5, 7, 9, 11], decode_cuts)),
        threading.Thread(target=work, args=([2, 4, 6, 8, 10, 12], [0, 24])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def without(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda weights: weights.__delitem__(name)


def added(name: str, *shape: int) -> Callable[[dict[str, Tensor]], None]:
    return lambda weights: weights.__setitem__(name, torch.zeros(shape))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (without("model.layers.1.mlp.up_proj.weight"), r"1 tensors.*missing: model\.layers\.1\.mlp\.up_proj"),
        (without("model.norm.weight"), r"missing: model\.norm\.weight"),
        (added("model.layers.0.self_attn.k_proj.weight", 16, 47), r"k_proj\.weight has shape \(16, 47\).*\(16, 48\)"),
        (added("model.embed_tokens.weight", 95, 48), r"embed_tokens\.weight has shape \(95, 48\).*\(96, 48\)"),
        (added("model.layers.0.self_attn.q_proj.bias", 48), r"no place in the model: .*q_proj\.bias"),
    ],
)
def test_wrong_weights_are_refused_by_name(spoil: Callable[[dict[str, Tensor]], None], says: str) -> None:
    weights = dict(random_weights(LLAMA, torch.float32, seed=0))
    spoil(weights)
    with pytest.raises(ModelError, match=says) as caught:
        Llama(LLAMA, weights, torch.float32)
    assert caught.value.hint


def test_a_stored_copy_of_a_tied_head_and_stored_frequencies_are_harmless() -> None:
    weights = dict(random_weights(LLAMA, torch.float32, seed=0))
    rows = [(random_ids(20), 0, list(range(1, 7)))]
    plain = Llama(LLAMA, dict(weights), torch.float32)
    added("lm_head.weight", 96, 48)(weights)
    added("model.layers.0.self_attn.rotary_emb.inv_freq", 4)(weights)
    more = Llama(LLAMA, weights, torch.float32)
    (wanted,), (logits,) = (run(model, new_cache(model), rows) for model in (plain, more))
    assert torch.equal(logits, wanted), "they change nothing"


def test_random_weights_count_repeat_and_give_sane_logits() -> None:
    weights = random_weights(LLAMA, torch.bfloat16, seed=7)
    assert set(weights) == set(tensor_shapes(LLAMA))
    assert sum(tensor.numel() for tensor in weights.values()) == LLAMA.num_parameters
    name = "model.layers.2.mlp.down_proj.weight"
    assert weights[name].dtype == torch.bfloat16
    assert torch.equal(weights[name], random_weights(LLAMA, torch.bfloat16, seed=7)[name])
    assert not torch.equal(weights[name], random_weights(LLAMA, torch.bfloat16, seed=8)[name])
    model = Llama(LLAMA, weights, torch.bfloat16)
    (logits,) = run(model, new_cache(model), [(random_ids(20), 0, list(range(1, 7)))])
    assert logits.isfinite().all()
    assert 0.1 < logits.std() < 30


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "llama biases, untied"])
def test_parameters_are_counted_as_they_are(name: str) -> None:
    assert sum(torch.Size(shape).numel() for shape in tensor_shapes(SPECS[name]).values()) == SPECS[name].num_parameters


def test_llama3_scaling_keeps_high_and_stretches_low_frequencies() -> None:
    plain = inverse_frequencies(LLAMA)
    scaled = inverse_frequencies(changed(rope_scaling=Llama3Scaling(8.0, 1.0, 4.0, 64)))
    assert scaled[0] == plain[0]
    assert scaled[-1] == pytest.approx(plain[-1] / 8)
