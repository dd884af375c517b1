"""What reaches the device in one copy, and where it lies there."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rapidd.engine.staging import ALIGNMENT, download, upload


def test_parts_arrive_with_their_shapes_types_and_alignment() -> None:
    arrays: list[NDArray[Any]] = [np.arange(3), np.empty(0, np.int32), np.ones((2, 5)), np.array([[7]], np.int32)]
    there = upload(arrays, torch.device("cpu"))
    for part, array_ in zip(there, arrays, strict=True):
        assert torch.equal(part, torch.from_numpy(array_))
        assert (part.data_ptr() - there[0].data_ptr()) % ALIGNMENT == 0
    assert torch.equal(download(there[2]), there[2])
