"""Numbers of rows that decode steps are captured for, and the order in which one is captured."""

import pytest
import torch

from rapidd.engine.graphs import bucket_for, buckets, torch_capture


@pytest.mark.parametrize(
    ("max_rows", "wanted"),
    [
        (1, (1,)),
        (3, (1, 2, 3)),
        (64, (1, 2, 4, 8, 16, 24, 32, 48, 64)),
        (400, (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 320, 384, 400)),
    ],
)
def test_buckets_end_with_the_most_rows_there_can_be(max_rows: int, wanted: tuple[int, ...]) -> None:
    assert buckets(max_rows) == wanted


def test_a_batch_takes_the_smallest_bucket_that_holds_it() -> None:
    sizes = buckets(64)
    assert [bucket_for(rows, sizes) for rows in (1, 3, 4, 33, 64)] == [1, 4, 4, 48, 64]


def test_a_step_is_run_captured_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    done = _device(monkeypatch)
    torch_capture()(lambda: done.append("step"))
    assert done == ["step", "synchronize", "begin", "step", "end", "replay"]


def test_why_a_step_could_not_be_captured_is_not_hidden_by_what_ending_the_capture_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory that runs out in a capture may spoil it, and then this was told: a traceback, not a matter of settings."""
    done = _device(monkeypatch)

    def step() -> None:
        done.append("step")
        if "begin" in done:
            done.append("spoiled")
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        torch_capture()(step)
    assert done == ["step", "synchronize", "begin", "step", "spoiled", "end"]


def _device(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of a stand-in for it, in order."""
    done: list[str] = []

    class CUDAGraph:
        def capture_begin(self, pool: object, capture_error_mode: str) -> None:
            done.append("begin")

        def capture_end(self) -> None:
            spoiled = "spoiled" in done
            done.append("end")
            if spoiled:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

        def replay(self) -> None:
            done.append("replay")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", CUDAGraph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("synchronize"))
    return done
