"""Rotary position embedding tables: inverse frequencies with llama3, yarn or linear scaling, by position.

Computed in float64 and stored in float32. Knows no batches: the kernels look rows up by position.
"""

import math

import torch
from torch import Tensor

from rapid_kernels import RopeTable
from rapidd.model.config import LinearScaling, Llama3Scaling, ModelSpec, YarnScaling


def rope_table(spec: ModelSpec, max_positions: int, device: torch.device | str = "cpu") -> RopeTable:
    """Cosine and sine of positions 0 .. max_positions - 1, [max_positions, head_dim / 2] float32."""
    angles = torch.outer(torch.arange(max_positions, dtype=torch.float64), inverse_frequencies(spec))
    factor = _attention_factor(spec)
    return RopeTable(
        cos=(angles.cos() * factor).to(device, torch.float32), sin=(angles.sin() * factor).to(device, torch.float32)
    )


def inverse_frequencies(spec: ModelSpec) -> Tensor:
    """[head_dim / 2] float64, in radians a token."""
    exponents = torch.arange(0, spec.head_dim, 2, dtype=torch.float64) / spec.head_dim
    plain = spec.rope_theta**-exponents
    match spec.rope_scaling:
        case None:
            return plain
        case LinearScaling(factor):
            return plain / factor
        case Llama3Scaling() as scaling:
            return _llama3(plain, scaling)
        case YarnScaling() as scaling:
            return _yarn(plain, scaling, spec)


def _llama3(plain: Tensor, scaling: Llama3Scaling) -> Tensor:
    """Keep wavelengths that fit the original context often, stretch the long ones, blend between (arXiv 2407.21783)."""
    turns = scaling.original_max_position * plain / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return torch.lerp(plain / scaling.factor, plain, kept.clamp(0, 1))


def _yarn(plain: Tensor, scaling: YarnScaling, spec: ModelSpec) -> Tensor:
    """ "NTK by parts" (arXiv 2309.00071, section 3.2): a linear ramp over dimensions between two rotation counts."""

    def dimension(turns: float) -> float:
        """Dimension whose wavelength makes so many turns over the original context."""
        ratio = scaling.original_max_position / (turns * 2 * math.pi)
        return spec.head_dim * math.log(ratio) / (2 * math.log(spec.rope_theta))

    low = max(math.floor(dimension(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension(scaling.beta_slow)), spec.head_dim - 1)
    ramp = (torch.arange(len(plain), dtype=torch.float64) - low) / max(high - low, 0.001)
    return torch.lerp(plain, plain / scaling.factor, ramp.clamp(0, 1))


def _attention_factor(spec: ModelSpec) -> float:
    """What yarn multiplies cosine and sine by, so that logits grow by its square; 1 for the others."""
    if not isinstance(spec.rope_scaling, YarnScaling):
        return 1.0
    if spec.rope_scaling.attention_factor is not None:
        return spec.rope_scaling.attention_factor
    return 0.1 * math.log(spec.rope_scaling.factor) + 1.0 if spec.rope_scaling.factor > 1 else 1.0
