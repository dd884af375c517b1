"""Loads made of traces: which blocks prompts share."""

from rapidctl.bench.trace import Part
from rapidd.engine.observe import Limits
from rapidd.simulate.load import block_hashes, load_of, slice_of
from support.simulated import load, setup


def shared(a: list[Part], b: list[Part], block_tokens: int = 64) -> int:
    pairs = zip(block_hashes(a, block_tokens), block_hashes(b, block_tokens), strict=False)
    return sum(one == other for one, other in pairs)


def test_full_blocks_of_a_common_beginning_are_shared_and_no_others() -> None:
    head = [Part(7, 512), Part(8, 512)]
    assert shared([*head, Part(1, 100)], [*head, Part(2, 100)]) == 16
    assert shared([*head, Part(1, 100)], [*head, Part(1, 300)]) == 17
    assert shared([Part(7, 500), Part(1, 524)], [Part(7, 500), Part(2, 524)]) == 7
    assert shared([Part(7, 512)], [Part(7, 130)]) == 2


def test_equal_text_at_another_place_is_not_shared() -> None:
    assert shared([Part(1, 64), Part(7, 512)], [Part(2, 64), Part(7, 512)]) == 0


def test_only_full_blocks_have_a_hash() -> None:
    assert [len(block_hashes([Part(1, tokens)], 64)) for tokens in (63, 64, 127, 128)] == [0, 1, 1, 2]


def test_a_request_is_due_by_its_length() -> None:
    limits = Limits(slo=setup().slo, max_chunk_s=0.1, max_chunk_tokens=2048, give_way_s=30.0)
    item = load("4000/7@1", 2)[1]
    request = item.request(3, limits)
    assert request.due_ns - request.arrival_ns == 4_000_000_000
    assert (request.prompt_len, request.max_output, len(request.hashes)) == (4000, 7, 62)


def test_a_slice_is_cut_after_its_arrivals_were_scaled() -> None:
    items = load("100/5@10", 100)
    fast = slice_of(items, 2.0, 3.0)
    assert [item.arrival_s for item in fast] == [i.arrival_s / 2 for i in items if i.arrival_s / 2 < 3.0]


def test_an_empty_trace_is_an_empty_load() -> None:
    from rapidctl.bench.trace import Trace

    assert load_of(Trace("none", ()), 64) == []
