"""``python -m bench.peer DTYPE THREADS``: the same weights in `transformers`, in a process of its own.

Reads one JSON question a line and answers each with one line, until its input ends. Weights come through rapidd's
own loader, so both sides compute with the same numbers; attention is torch's fused one, the library's default.
"""

import json
import sys
import time
from typing import Any

import torch
import transformers

from rapidd.config import ModelConfig
from rapidd.model.config import ModelSpec
from rapidd.model.resolve import load_model
from rapidd.model.weights import open_weights


class _Stamps:
    """A streamer for `generate`: when each token was there. `generate` gives the prompt first, as one item."""

    def __init__(self) -> None:
        self.at_ns: list[int] = []

    def put(self, value: object) -> None:
        self.at_ns.append(time.monotonic_ns())

    def end(self) -> None:
        """Nothing is held back."""


def load(dtype: torch.dtype) -> Any:
    """The default model as a `transformers` one."""
    found = load_model(ModelConfig())
    assert found.weights is not None
    model = transformers.AutoModelForCausalLM.from_config(_config(found.spec), dtype=dtype).eval()
    state = dict(open_weights(found.weights, found.spec))
    if found.spec.tied_head:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    model.generation_config.eos_token_id = None  # an end may be chosen and ends nothing, as with `ignore_eos`
    return model


def _config(spec: ModelSpec) -> Any:
    return transformers.LlamaConfig(
        vocab_size=spec.vocab_size,
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size,
        num_hidden_layers=spec.num_layers,
        num_attention_heads=spec.num_heads,
        num_key_value_heads=spec.num_kv_heads,
        head_dim=spec.head_dim,
        rms_norm_eps=spec.rms_norm_eps,
        max_position_embeddings=spec.max_position,
        tie_word_embeddings=spec.tied_head,
        rope_parameters={"rope_type": "default", "rope_theta": spec.rope_theta},
        bos_token_id=spec.bos_token_id,
        eos_token_id=list(spec.eos_token_ids),
        attn_implementation="sdpa",
    )


@torch.inference_mode()
def generate(model: Any, prompt: list[int], max_tokens: int) -> dict[str, Any]:
    """Exactly ``max_tokens`` greedy tokens, with a KV cache."""
    stamps = _Stamps()
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        use_cache=True,
        max_new_tokens=max_tokens,
        pad_token_id=0,
        streamer=stamps,
    )
    return {"at_ns": stamps.at_ns[1:], "token_ids": out[0, len(prompt) :].tolist()}


@torch.inference_mode()
def prefill(model: Any, prompt: list[int]) -> dict[str, Any]:
    """One forward pass over the prompt that fills a cache and gives the last position's logits, as `generate` does."""
    begin = time.monotonic_ns()
    model(torch.tensor([prompt]), use_cache=True, logits_to_keep=1).logits.argmax(-1).item()
    return {"seconds": (time.monotonic_ns() - begin) / 1e9}


def main(dtype: str, threads: str) -> None:
    """Answer questions."""
    torch.set_num_threads(int(threads))
    transformers.logging.set_verbosity_error()
    model = load(getattr(torch, dtype))
    print(json.dumps({"ready": True, "transformers": transformers.__version__}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if question["do"] == "generate":
            answer = generate(model, question["prompt"], question["max_tokens"])
        else:
            answer = prefill(model, question["prompt"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
