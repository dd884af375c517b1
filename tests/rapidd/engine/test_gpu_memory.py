"""What is left of a GPU's memory for the KV cache."""

from rapidd.engine.gpu_memory import GRAPH_BYTES, MARGIN_BYTES, STREAM_BYTES, Needs, spare_bytes


def test_everything_that_serving_needs_is_taken_off() -> None:
    needs = Needs(place=100, batch=2000, step=30, tokens=7)
    spare = spare_bytes(1 << 34, needs, num_places=3, num_eager=8, num_captured=7, num_graphs=9)
    assert (1 << 34) - spare == 3 * 100 + 8 * (2000 + STREAM_BYTES) + 7 * (
        30 + STREAM_BYTES
    ) + 9 * GRAPH_BYTES + 7 + MARGIN_BYTES


def test_too_little_memory_is_less_than_nothing() -> None:
    needs = Needs(place=0, batch=1 << 30, step=0, tokens=0)
    assert spare_bytes(1 << 30, needs, num_places=3, num_eager=1, num_captured=1, num_graphs=1) < 0
