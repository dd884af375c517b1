"""Logits whose highest is known by how they are made, and what a greedy choice makes of them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Choose = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]
"""`Kernels.choose` of a batch."""

NAN, INF = math.nan, math.inf
ANY = None
"""Random logits below -1."""
SHARING = 3
"""So many rows, the last ones, write to place 0 of the tokens, as padding does."""


def _kinds(vocab: int) -> list[tuple[float | None, dict[int, float], int | None]]:
    """What fills a row, what is then written where, and the id to choose; None: the row fails."""
    third, half, last = vocab // 3, vocab // 2, vocab - 1
    return [
        (ANY, {half: 3.0}, half),
        (ANY, {last: 3.0}, last),
        (ANY, {last: 3.0, half: 3.0, third: 3.0}, third),
        (ANY, {last: 0.0, third: -0.0}, third),
        (ANY, {last: -0.5, 0: -0.5}, 0),
        (0.5, {}, 0),
        (-INF, {last: -2.0}, last),
        (-INF, {}, None),
        (ANY, {half: INF}, None),
        (ANY, {half: 3.0, last: NAN}, None),
        (ANY, {last: 3.0, 0: NAN}, None),
        (ANY, {last: INF, half: NAN}, None),
        (NAN, {}, None),
    ]


NUM_KINDS = len(_kinds(1))


def wrong_choices(
    choose: Choose, rows: int, vocab: int, dtype: torch.dtype, *, first: int = 0, device: str = "cpu"
) -> list[str]:
    """What is wrong, in words: with one row of every kind in turn, from the ``first`` on, as many as there are rows."""
    kinds = _kinds(vocab)
    order = [kinds[(first + row) % len(kinds)] for row in range(rows)]
    logits = torch.rand((rows, vocab)).mul_(-8).sub_(1)
    for row, (fill, written, _) in zip(logits, order, strict=True):
        if fill is not ANY:
            row.fill_(fill)
        for column, value in written.items():
            row[column] = value
    logits = logits.to(device, dtype)
    wanted = [(0, 1) if token is None else (token, 0) for *_, token in order]
    out = torch.full((rows + 1, vocab), 9.0, device=device)
    chosen = torch.full((2 * rows + 1,), -1, dtype=torch.int32, device=device)
    tokens = torch.full((3 * rows + 1,), -1, dtype=torch.int32, device=device)
    places = [0 if row >= max(1, rows - SHARING) else 3 * row + 1 for row in range(rows)]

    choose(logits, out[:rows], chosen[:-1].view(2, rows), tokens, torch.tensor(places, device=device))

    ids, failed = chosen[:-1].view(2, rows).tolist()
    found = [
        f"row {row} {order[row]}: {got}, not {of_row}"
        for row, (got, of_row) in enumerate(zip(zip(ids, failed, strict=True), wanted, strict=True))
        if got != of_row
    ]
    if not torch.allclose(out[:rows], logits.float(), 0, 0, equal_nan=True):
        found.append("the logits in float32")
    if (out[rows] != 9).any() or chosen[-1] != -1:
        found.append("something is written behind the rows")
    table = tokens.tolist()
    sharing = {token for (token, _), place in zip(wanted, places, strict=True) if place == 0} or {-1}
    expected = dict.fromkeys(range(len(table)), -1) | dict(zip(places, ids, strict=True)) | {0: table[0]}
    if table != list(expected.values()) or table[0] not in sharing:
        found.append(f"tokens: {table}")
    return found
