"""Blocks: who may hold, reuse and find them, and when."""

from array import array

from rapidd.engine.blocks import BlockPool, LaneClock


def pool(num_blocks: int = 5, key: bytes = b"") -> tuple[BlockPool, LaneClock]:
    clock = LaneClock(2)
    return BlockPool(num_blocks, 4, clock, key), clock


def hashes(blocks: BlockPool, ids: list[int]) -> list[bytes]:
    chain: list[bytes] = []
    blocks.extend_hashes(chain, array("I", ids), len(ids))
    return chain


def test_block_0_is_never_handed_out() -> None:
    blocks, _ = pool()
    assert sorted(blocks.take(4) or []) == [1, 2, 3, 4]
    assert blocks.take(1) is None


def test_a_released_block_waits_for_both_lanes() -> None:
    blocks, clock = pool()
    taken = blocks.take(4)
    assert taken
    clock.enqueued = [3, 7]
    blocks.release(taken)
    clock.done = [3, 6]
    assert (blocks.available, blocks.num_fenced, blocks.num_used) == (0, 4, 4)
    clock.done = [3, 7]
    assert (blocks.available, blocks.num_fenced, blocks.num_used) == (4, 0, 0)


def test_a_published_block_is_found_again_and_evicted_last_used_first() -> None:
    blocks, _ = pool()
    chain = hashes(blocks, list(range(12)))
    taken = blocks.take(3)
    assert taken
    for block, digest in zip(taken, chain, strict=True):
        blocks.publish(block, digest)
    blocks.release(taken)
    assert blocks.num_cached == 3
    assert blocks.match(chain) == taken
    assert blocks.take(2)  # one free block, then the tail of the cached prefix
    assert blocks.match(chain) == taken[:2]
    assert blocks.evicted == 1


def test_a_fenced_block_can_be_held_again_by_a_prefix_hit() -> None:
    blocks, clock = pool()
    chain = hashes(blocks, list(range(4)))
    taken = blocks.take(1)
    assert taken
    blocks.publish(taken[0], chain[0])
    clock.enqueued = [1, 0]
    blocks.release(taken)
    blocks.hold(blocks.match(chain))
    assert (blocks.num_fenced, blocks.num_used) == (0, 1)
    clock.done = [1, 0]
    blocks.check([taken])


def test_hashes_depend_on_every_earlier_token_and_on_the_key() -> None:
    blocks, _ = pool()
    other, _ = pool(key=b"another boot")
    plain = hashes(blocks, [1, 2, 3, 4, 5, 6, 7, 8])
    assert plain[1] != hashes(blocks, [9, 2, 3, 4, 5, 6, 7, 8])[1]
    assert plain != hashes(other, [1, 2, 3, 4, 5, 6, 7, 8])
    assert len(hashes(blocks, [1, 2, 3])) == 0
