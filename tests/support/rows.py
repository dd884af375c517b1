"""Rows of batches that no scheduler made, in blocks one behind the other."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from rapidd.engine.batch import Row
from rapidd.engine.request import Request, SamplingParams


def decode_row(slot: int, block: int, start: int, block_tokens: int = 16) -> Row:
    """The token at ``start``, whose sequence begins in ``block``."""
    request = Request(slot, array("I", [1] * (start + 1)), array("I"), max_output=9, sampling=SamplingParams())
    blocks = _blocks(block, start + 1, block_tokens)
    return Row(request, 0, slot, start, 1, blocks, True, start, array("I"), start + 1, request.sampling)


def prompt_row(slot: int, tokens: Sequence[int], block: int, start: int = 0, block_tokens: int = 16) -> Row:
    """A prompt's last tokens, behind ``start`` cached ones."""
    request = Request(slot, array("I", tokens), array("I"), max_output=9, sampling=SamplingParams())
    end = start + len(tokens)
    blocks = _blocks(block, end, block_tokens)
    return Row(request, 0, slot, start, len(tokens), blocks, True, start, array("I", tokens), end, request.sampling)


def _blocks(first: int, tokens: int, block_tokens: int) -> list[int]:
    return [first + index for index in range(-(-tokens // block_tokens))]
