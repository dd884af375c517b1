"""The kernels in plain torch as a GPU takes them; tensors without data stand for its own."""

import pytest
import torch

from rapid_kernels import reference


def test_torchs_fused_kernels_for_gpus_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 65 tokens behind 64 cached ones they computed the last wrongly."""
    monkeypatch.setattr(reference, "scaled_dot_product_attention", None)
    kv, q = torch.empty((129, 2, 4, 8), device="meta"), torch.empty((65, 8, 8), device="meta")
    for mask in (torch.empty((65, 129), device="meta"), None):
        call = reference._PromptCall(slice(0, 65), slice(0, 129), mask)
        assert call.run(q, kv, kv[:0]).shape == (65, 64)
    decode = reference._DecodeCall(slice(0, 1), slice(0, 129), None)
    assert decode.run(q[:1], kv, kv[:0]).shape == (1, 64)
