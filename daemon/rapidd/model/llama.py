"""The decoder of the Llama family: RMSNorm, RoPE, grouped-query attention, SwiGLU; biases, QK norm, sliding windows.

Built from a `ModelSpec` and tensors under their Hugging Face names. Query, key and value are one matrix, gate and
up another. Knows no files, requests or lanes. `Llama.forward` keeps nothing between calls, so two threads may run it
at once over the same weights and the same cache, each with its own blocks.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding

from rapid_kernels import CacheLayout, Kernels, KVCache, Matrix, Ragged, select
from rapidd.errors import ModelError
from rapidd.model.config import ModelSpec
from rapidd.model.rope import rope_table


@dataclass(frozen=True, slots=True)
class _Layer:
    """Weights of one decoder layer; matrices are [out, in]."""

    input_norm: Tensor
    qkv: Matrix
    qkv_bias: Tensor | None
    qk_norm: tuple[Tensor, Tensor, float] | None
    o: Matrix
    o_bias: Tensor | None
    post_norm: Tensor
    gate_up: Matrix
    gate_up_bias: Tensor | None
    down: Matrix
    down_bias: Tensor | None
    window: int | None


class Llama:
    """Weights on a device and the forward pass over them.

    ``weights`` maps Hugging Face names to tensors of any dtype; each is read once, so the mapping may make them on
    demand. They are cast to ``dtype``. Positions must stay below ``max_positions`` (default: the model's own).
    Raises `ModelError` for a tensor that is missing, misshapen or has no place in the model.
    """

    def __init__(
        self,
        spec: ModelSpec,
        weights: Mapping[str, Tensor],
        dtype: torch.dtype,
        *,
        device: torch.device | str = "cpu",
        max_positions: int | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        self.spec = spec
        self.dtype = dtype
        self.device = torch.device(device)
        self.kernels = kernels if kernels is not None else select(self.device, dtype)
        _check_names(spec, weights)
        load = _Loader(weights, tensor_shapes(spec), dtype, self.device, self.kernels)
        self._embedding = load.one("model.embed_tokens.weight")
        self._layers = [_load_layer(spec, load, index) for index in range(spec.num_layers)]
        self._norm = load.one("model.norm.weight")
        self._head = self.kernels.prepare(self._embedding) if spec.tied_head else load.matrix("lm_head.weight")
        self._rope = rope_table(spec, max_positions or spec.max_position, self.device)

    def cache_layout(self, num_blocks: int, block_tokens: int) -> CacheLayout:
        """Of a KV cache for this model."""
        spec = self.spec
        return CacheLayout(spec.num_layers, num_blocks, block_tokens, spec.num_kv_heads, spec.head_dim, self.dtype)

    @torch.inference_mode()
    def forward(
        self,
        token_ids: Tensor,
        ragged: Ragged,
        cache: KVCache,
        logits_rows: Tensor,
        ends: Ragged | None = None,
    ) -> Tensor:
        """Run the batch's new tokens, filling their cache slots; logits [S, vocab_size] float32.

        token_ids [T] int64; logits_rows [S] int64 are indices into the T tokens, S may be 0. ``ends`` describes these S
        tokens alone, each the last one of its row: what follows the last layer's keys and values is then computed for
        them only, which spares a prompt most of a layer.
        """
        if not len(logits_rows):
            self.hidden(token_ids, ragged, cache, (logits_rows, ragged))
            return torch.empty((0, self.spec.vocab_size), device=self.device)
        if ends is not None:
            x, residual = self.hidden(token_ids, ragged, cache, (logits_rows, ends))
            return self.logits(x, residual, ends)
        x, residual = (part[logits_rows] for part in self.hidden(token_ids, ragged, cache))
        return self.logits(x, residual, ragged)

    @torch.inference_mode()
    def hidden(
        self, token_ids: Tensor, ragged: Ragged, cache: KVCache, only: tuple[Tensor, Ragged] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run all layers: what the last one adds, and what it adds to, [T, hidden_size] each.

        ``only``: [S, hidden_size] of these tokens, [S] int64, and how they are described alone; S may be 0.
        """
        kernels, eps = self.kernels, self.spec.rms_norm_eps
        residual = embedding(token_ids, self._embedding)
        x = kernels.rms_norm(residual, self._layers[0].input_norm, eps, ragged)
        last = len(self._layers) - 1
        for index, layer in enumerate(self._layers):
            q = kernels.linear_rope_and_cache(
                x, layer.qkv, layer.qkv_bias, self._rope, layer.qk_norm, cache, index, ragged
            )
            if only is not None and index == last:
                tokens, ragged = only
                if not len(tokens):
                    return residual[:0], residual[:0]
                q, residual = q[tokens], residual[tokens]
            x = kernels.attention(q, cache, index, ragged, layer.window)
            x, residual = kernels.linear_add_rms_norm(x, layer.o, layer.o_bias, residual, layer.post_norm, eps, ragged)
            x = kernels.gated_linear(x, layer.gate_up, layer.gate_up_bias, ragged)
            if index == last:
                x = kernels.linear(x, layer.down, layer.down_bias, ragged)
            else:
                following = self._layers[index + 1].input_norm
                x, residual = kernels.linear_add_rms_norm(
                    x, layer.down, layer.down_bias, residual, following, eps, ragged
                )
        return x, residual

    @torch.inference_mode()
    def raw_logits(self, x: Tensor, residual: Tensor, ragged: Ragged) -> Tensor:
        """Of S rows of what `hidden` gave, [S, vocab_size] in the model's type, as the head computes them."""
        x, _ = self.kernels.add_rms_norm(x, residual, self._norm, self.spec.rms_norm_eps, ragged)
        return self.kernels.linear(x, self._head, None, ragged)

    @torch.inference_mode()
    def logits(self, x: Tensor, residual: Tensor, ragged: Ragged) -> Tensor:
        """The same in float32, contiguous."""
        raw = self.raw_logits(x, residual, ragged)
        return raw.to(torch.float32, memory_format=torch.contiguous_format).contiguous()  # float32 stays as it is


def tensor_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Every tensor the model is made of, by Hugging Face name."""
    h, d, m = spec.hidden_size, spec.head_dim, spec.intermediate_size
    q, kv = spec.num_heads * d, spec.num_kv_heads * d
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (spec.vocab_size, h)}
    for index in range(spec.num_layers):
        prefix = f"model.layers.{index}."
        attention = prefix + "self_attn."
        shapes[prefix + "input_layernorm.weight"] = (h,)
        shapes[prefix + "post_attention_layernorm.weight"] = (h,)
        matrices = [
            (attention + "q_proj", q, h, spec.qkv_bias),
            (attention + "k_proj", kv, h, spec.qkv_bias),
            (attention + "v_proj", kv, h, spec.qkv_bias),
            (attention + "o_proj", h, q, spec.o_bias),
            (prefix + "mlp.gate_proj", m, h, spec.mlp_bias),
            (prefix + "mlp.up_proj", m, h, spec.mlp_bias),
            (prefix + "mlp.down_proj", h, m, spec.mlp_bias),
        ]
        for name, rows, columns, bias in matrices:
            shapes[name + ".weight"] = (rows, columns)
            if bias:
                shapes[name + ".bias"] = (rows,)
        if spec.qk_norm:
            shapes[attention + "q_norm.weight"] = (d,)
            shapes[attention + "k_norm.weight"] = (d,)
    shapes["model.norm.weight"] = (h,)
    if not spec.tied_head:
        shapes["lm_head.weight"] = (spec.vocab_size, h)
    return shapes


def random_weights(
    spec: ModelSpec, dtype: torch.dtype, seed: int, device: torch.device | str = "cpu"
) -> Mapping[str, Tensor]:
    """Weights of the right shapes and a sensible scale, each tensor made when it is read, in ``dtype``, on ``device``.

    A tensor depends on the seed and its name alone.
    """
    return _RandomWeights(tensor_shapes(spec), dtype, seed, torch.device(device))


class _RandomWeights(Mapping[str, Tensor]):
    def __init__(self, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype, seed: int, device: torch.device) -> None:
        self._shapes, self._dtype, self._seed, self._device = shapes, dtype, seed, device

    def __getitem__(self, name: str) -> Tensor:
        shape = self._shapes[name]
        tensor = torch.empty(shape, dtype=self._dtype, device=self._device)
        if name.endswith("norm.weight"):
            return tensor.fill_(1.0)
        digest = hashlib.blake2b(f"{self._seed}:{name}".encode(), digest_size=8).digest()
        generator = torch.Generator(self._device).manual_seed(int.from_bytes(digest, "little") >> 1)
        # 1 / sqrt(fan in) keeps activations of order one; an embedding row is an activation itself.
        scale = 1.0 if name == "model.embed_tokens.weight" else 1 / math.sqrt(shape[-1])
        return tensor.normal_(0.0, scale, generator=generator)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


@dataclass(frozen=True, slots=True)
class _Loader:
    """Checked, cast and fused tensors out of a mapping."""

    weights: Mapping[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    dtype: torch.dtype
    device: torch.device
    kernels: Kernels

    def one(self, name: str) -> Tensor:
        return self._checked(name).to(self.device, self.dtype).contiguous()

    def matrix(self, *names: str) -> Matrix:
        """Fused, as the kernels want it."""
        return self.kernels.prepare(self.one(names[0]) if len(names) == 1 else self.fused(*names))

    def fused(self, *names: str) -> Tensor:
        """Stacked along the output dimension; one part in memory at a time beside the result."""
        rows = [self.shapes[name][0] for name in names]
        shape = (sum(rows), *self.shapes[names[0]][1:])
        out = torch.empty(shape, dtype=self.dtype, device=self.device)
        for part, name in zip(torch.split(out, rows), names, strict=True):
            part.copy_(self._checked(name))
        return out

    def _checked(self, name: str) -> Tensor:
        tensor, shape = self.weights[name], self.shapes[name]
        if tuple(tensor.shape) != shape:
            raise ModelError(
                f"tensor {name} has shape {tuple(tensor.shape)}, the model's config implies {shape}",
                "check that the weights and config.json belong to the same model",
            )
        return tensor


def _load_layer(spec: ModelSpec, load: _Loader, index: int) -> _Layer:
    prefix = f"model.layers.{index}."
    attention, mlp = prefix + "self_attn.", prefix + "mlp."
    qkv = [attention + f"{part}_proj" for part in "qkv"]
    gate_up = [mlp + "gate_proj", mlp + "up_proj"]

    def fused_bias(names: list[str], present: bool) -> Tensor | None:
        return load.fused(*(name + ".bias" for name in names)) if present else None

    qk_norm = None
    if spec.qk_norm:
        norms = load.one(attention + "q_norm.weight"), load.one(attention + "k_norm.weight")
        qk_norm = (*norms, spec.rms_norm_eps)
    return _Layer(
        input_norm=load.one(prefix + "input_layernorm.weight"),
        qkv=load.matrix(*(name + ".weight" for name in qkv)),
        qkv_bias=fused_bias(qkv, spec.qkv_bias),
        qk_norm=qk_norm,
        o=load.matrix(attention + "o_proj.weight"),
        o_bias=load.one(attention + "o_proj.bias") if spec.o_bias else None,
        post_norm=load.one(prefix + "post_attention_layernorm.weight"),
        gate_up=load.matrix(*(name + ".weight" for name in gate_up)),
        gate_up_bias=fused_bias(gate_up, spec.mlp_bias),
        down=load.matrix(mlp + "down_proj.weight"),
        down_bias=load.one(mlp + "down_proj.bias") if spec.mlp_bias else None,
        window=spec.windows[index] if spec.windows else None,
    )


def _check_names(spec: ModelSpec, weights: Mapping[str, Tensor]) -> None:
    """All names at once, before anything is read: a wrong bias or an extra norm would give wrong text, silently."""
    wanted = tensor_shapes(spec).keys()
    harmless = {name for name in weights if name.endswith("rotary_emb.inv_freq")}
    if spec.tied_head:
        harmless.add("lm_head.weight")
    missing, extra = wanted - weights.keys(), weights.keys() - wanted - harmless
    for problem, names in (("are missing", missing), ("have no place in the model", extra)):
        if names:
            shown = ", ".join(sorted(names)[:4]) + (", ..." if len(names) > 4 else "")
            raise ModelError(
                f"{len(names)} tensors of {spec.name} {problem}: {shown}",
                f"check that all weight files are there and that the model is a plain {spec.architecture}",
            )
