"""A client that a test kills: ``python victim.py ENDPOINT ID PROMPT_LEN MAX_TOKENS N`` streams until it is gone."""

import sys

from rapidctl.client import Client
from rapidctl.wire import Generate, Sampling, pack_ids

endpoint, name, prompt_len, max_tokens, n = sys.argv[1:]
prompt = pack_ids(3 + index * int(prompt_len) % 500 for index in range(int(prompt_len)))
with Client(endpoint, timeout_s=60.0) as client:
    stream = client.submit(
        Generate(id=name, prompt_ids=prompt, n=int(n), sampling=Sampling(max_tokens=int(max_tokens), ignore_eos=True))
    )
    while stream.ended is None:
        client.poll(1.0)
sys.exit(1)
