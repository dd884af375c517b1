"""Models: what their files say (`config`), their weights (`weights`, `gguf`), text (`tokenizer`, `chat`), the forward pass (`llama`).

`config`, `tokenizer` and `chat` import no torch: the front uses them.
"""
