"""What reaches the device in one copy, and where it lies there."""

from array import array
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rapidd.engine.batch import Row
from rapidd.engine.request import Request, SamplingParams
from rapidd.engine.staging import ALIGNMENT, BlockTables, download, upload


def request() -> Request:
    return Request(1, array("I", [1]), array("I"), max_output=9, sampling=SamplingParams())


def row(of: Request, slot: int, start: int, blocks: list[int]) -> Row:
    return Row(of, of.generation, slot, start, 1, blocks, True, start, array("I"), 1, of.sampling)


def test_parts_arrive_with_their_shapes_types_and_alignment() -> None:
    arrays: list[NDArray[Any]] = [np.arange(3), np.empty(0, np.int32), np.ones((2, 5)), np.array([[7]], np.int32)]
    there = upload(arrays, torch.device("cpu"))
    for part, array_ in zip(there, arrays, strict=True):
        assert torch.equal(part, torch.from_numpy(array_))
        assert (part.data_ptr() - there[0].data_ptr()) % ALIGNMENT == 0
    assert torch.equal(download(there[2]), there[2])


def test_the_mirror_follows_a_sequence_and_forgets_the_one_before() -> None:
    tables, first, second = BlockTables(2, width=4, block_tokens=4), request(), request()
    assert tables.rows([row(first, 1, 0, [5, 6, 7])]).tolist() == [[5, 6, 7]]
    assert tables.rows([row(first, 1, 0, [5, 6, 7, 8])]).tolist() == [[5, 6, 7, 8]]
    assert tables.rows([row(second, 1, 0, [3])]).tolist() == [[3]]
    assert tables.rows([row(second, 1, 0, [3]), row(first, 2, 0, [1, 2, 9])]).tolist() == [[3, 0, 0], [1, 2, 9]]


def test_a_preempted_sequence_comes_back_with_other_blocks() -> None:
    tables, it = BlockTables(2, width=4, block_tokens=4), request()
    tables.rows([row(it, 1, 0, [5, 6, 7])])
    it.generation += 1
    assert tables.rows([row(it, 1, 0, [8, 9])]).tolist() == [[8, 9]]
