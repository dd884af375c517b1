"""``python -m bench.peer_gpu ROWS PROMPT OUTPUT``: transformers' continuous batching on this GPU, one JSON line.

A Llama of the 8B shape with random weights in bfloat16, random prompts, greedy, all requests at once; the second of two
equal rounds counts. ``tokens_per_s`` is over the time from the first request's arrival to the last token, by its own
time stamps, so that setting up its manager, and capturing its graphs, is not counted; ``wall_s`` has that too.
"""

import json
import random
import sys
import time

import torch
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from bench.load import FIRST_ID, LAST_ID

SHAPE = LlamaConfig(
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=128256,
    max_position_embeddings=16384,
    rope_theta=500000.0,
    tie_word_embeddings=False,
)


def main() -> int:
    """Two rounds."""
    rows, prompt, output = map(int, sys.argv[1:4])
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(SHAPE).eval()
    model.set_attn_implementation("paged|sdpa")
    config = GenerationConfig(max_new_tokens=output, do_sample=False, eos_token_id=-1, pad_token_id=0)
    draw = random.Random(0)
    best = None
    for _ in range(2):
        inputs = [[draw.randint(FIRST_ID, LAST_ID) for _ in range(prompt)] for _ in range(rows)]
        begin = time.monotonic()
        results = model.generate_batch(inputs, generation_config=config, record_timestamps=True).values()
        wall_s = time.monotonic() - begin
        stamps = [stamp for result in results for stamp in result.timestamps]
        tokens = sum(len(result.generated_tokens) for result in results)
        first = min(result.created_time for result in results)
        best = {"tokens": tokens, "wall_s": wall_s, "tokens_per_s": tokens / (max(stamps) - first)}
    print(json.dumps({"transformers": transformers.__version__, "rows": rows, "prompt": prompt, **(best or {})}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
