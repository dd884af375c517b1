"""Models: what their files say, their weights, their text, and the forward pass over them.

`resolve` turns settings into files; `hf` and `gguf` read them into a `config.ModelSpec`; `tokenizer`, `gguf_tokenizer`
and `chat` are the text side; `weights` and `gguf_weights` make the tensors that `llama` computes with. Only these last
three (and `rope`) import torch: the front uses the others.
"""
