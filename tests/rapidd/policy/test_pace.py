"""Chunks are bounded by predicted time."""

from hypothesis import example, given
from hypothesis import strategies as st

from rapidd.policy.pace import TILE_TOKENS, Pace, even_share
from rapidd.policy.plan import Plan

HYBRID = Plan("hybrid", 2, 2, None)
SHARED = Plan("shared", 2, 2, None)


def pace() -> Pace:
    return Pace(max_chunk_s=0.5, itl_slo_s=0.3, block_tokens=16)


def test_an_unknown_speed_gives_one_block() -> None:
    assert pace().bound(SHARED, 2, 0) == 16


def test_a_chunk_fits_the_time_bound_and_is_at_least_a_block() -> None:
    speed = pace()
    speed.observe(units=2, num_decode=0, prefill_tokens=100, seconds=0.1)
    assert speed.bound(SHARED, 2, 0) == 448  # 500 would fit: whole tiles only
    assert speed.bound(Plan("shared", 2, 2, 64), 2, 0) == 64
    assert speed.bound(Plan("serial", 2, 2, "all"), 2, 0) == 448
    for _ in range(50):
        speed.observe(units=2, num_decode=0, prefill_tokens=1, seconds=10)
    assert speed.bound(SHARED, 2, 0) == 16


def test_speeds_are_kept_by_unit_count() -> None:
    speed = pace()
    speed.observe(units=2, num_decode=0, prefill_tokens=100, seconds=0.1)
    speed.observe(units=1, num_decode=0, prefill_tokens=100, seconds=0.2)
    assert (speed.bound(SHARED, 2, 0), speed.bound(SHARED, 1, 0)) == (448, 192)


def test_an_unseen_unit_count_is_taken_in_proportion_to_the_nearest_that_was_seen() -> None:
    speed = pace()
    speed.observe(units=2, num_decode=0, prefill_tokens=100, seconds=0.1)
    assert speed.bound(SHARED, 1, 0) == 192


def test_a_hybrid_step_that_nobody_sized_keeps_the_itl_objective() -> None:
    speed = pace()
    speed.observe(units=2, num_decode=0, prefill_tokens=100, seconds=0.1)
    speed.observe(units=2, num_decode=4, prefill_tokens=0, seconds=0.0399)
    assert speed.bound(HYBRID, 2, 4) == 192  # 200: 0.8 x 300 ms less a decode step of 40 ms, at 1 ms a token
    assert speed.bound(HYBRID, 2, 0) == 448
    assert speed.bound(Plan("hybrid", 2, 2, 400), 2, 4) == 400


def test_a_mixed_batch_is_charged_to_its_prompt_tokens() -> None:
    speed = pace()
    speed.observe(units=2, num_decode=4, prefill_tokens=0, seconds=0.1)
    speed.observe(units=2, num_decode=4, prefill_tokens=100, seconds=0.2)
    assert speed.bound(SHARED, 2, 0) == 448


@example(rest=1024, bound=960)
@given(rest=st.integers(1, 200_000), bound=st.integers(1, 5_000))
def test_a_prompt_goes_in_as_few_chunks_as_the_bound_allows_about_equally_long(rest: int, bound: int) -> None:
    chunks = []
    left = rest
    while left:
        chunks.append(min(even_share(left, bound), left))
        left -= chunks[-1]
    assert all(1 <= chunk <= bound for chunk in chunks)
    assert len(chunks) == -(-rest // bound)
    if bound >= TILE_TOKENS:
        assert max(chunks) - min(chunks) < len(chunks) * TILE_TOKENS, "the last one lacks what rounding gave the others"
        assert all(chunk % TILE_TOKENS == 0 or chunk in (bound, chunks[-1]) for chunk in chunks)
    else:
        assert max(chunks) - min(chunks) <= 1


def test_two_pieces_of_a_prompt_that_the_bound_just_cuts_are_halves() -> None:
    """They used to be 960 and 64 tokens, and a chunk of a few tokens reads all weights as well."""
    assert (even_share(1024, 960), even_share(512, 960)) == (512, 512)
