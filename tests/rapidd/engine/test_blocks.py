"""Blocks: who may hold, reuse and find them, and when."""

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

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


@given(ids=st.lists(st.integers(0, 3), max_size=24), cuts=st.lists(st.integers(0, 24), max_size=4))
def test_hashes_made_as_tokens_come_are_those_made_at_once(ids: list[int], cuts: list[int]) -> None:
    """Else a block far into one sequence could be taken for the beginning of another."""
    blocks, _ = pool()
    chain: list[bytes] = []
    for count in (*sorted(cuts), len(ids)):
        blocks.extend_hashes(chain, array("I", ids), min(count, len(ids)))
    assert chain == hashes(blocks, ids)


def test_behind_a_block_that_is_not_there_nothing_is_found() -> None:
    blocks, _ = pool()
    chain = hashes(blocks, list(range(12)))
    taken = blocks.take(2)
    assert taken
    blocks.publish(taken[0], chain[0])
    blocks.publish(taken[1], chain[2])
    assert blocks.match(chain) == taken[:1]


def test_hashes_depend_on_every_earlier_token_and_on_the_key() -> None:
    blocks, _ = pool()
    other, _ = pool(key=b"another boot")
    plain = hashes(blocks, [1, 2, 3, 4, 5, 6, 7, 8])
    assert plain[1] != hashes(blocks, [9, 2, 3, 4, 5, 6, 7, 8])[1]
    assert plain != hashes(other, [1, 2, 3, 4, 5, 6, 7, 8])
    assert len(hashes(blocks, [1, 2, 3])) == 0


class AnyOrder(RuleBasedStateMachine):
    """Requests take, fill, share and give back blocks while batches begin and end on two lanes, in any order."""

    @initialize(num_blocks=st.integers(2, 12))
    def start(self, num_blocks: int) -> None:
        self.pool, self.clock = pool(num_blocks)
        self.tables: list[list[int]] = []
        self.forbidden: dict[int, tuple[int, ...]] = {}
        """Released blocks, and the batches that may still touch them."""

    @rule(count=st.integers(1, 4))
    def take(self, count: int) -> None:
        available = self.pool.available
        taken = self.pool.take(count)
        assert (taken is not None) == (count <= available)
        for block in taken or ():
            fence = self.forbidden.pop(block, (0, 0))
            assert all(done >= number for done, number in zip(self.clock.done, fence, strict=True))
        if taken:
            self.tables.append(taken)

    @rule(ids=st.sampled_from([[1] * 4, [1] * 8, [1] * 4 + [2] * 4, [3] * 12]))
    def share(self, ids: list[int]) -> None:
        found = self.pool.match(hashes(self.pool, ids))
        assert all(block not in self.pool._free for block in found)
        if found:
            self.pool.hold(found)
            self.tables.append(found)

    @precondition(lambda self: self.tables)
    @rule(pick=st.integers(0), ids=st.sampled_from([[1] * 8, [1] * 4 + [2] * 4, [3] * 12]))
    def publish(self, pick: int, ids: list[int]) -> None:
        table = self.tables[pick % len(self.tables)]
        for block, digest in zip(table, hashes(self.pool, ids), strict=False):
            self.pool.publish(block, digest)

    @precondition(lambda self: self.tables)
    @rule(pick=st.integers(0))
    def release(self, pick: int) -> None:
        table = self.tables.pop(pick % len(self.tables))
        self.pool.release(table)
        self.forbidden |= dict.fromkeys(table, self.clock.fence())

    @rule(lane=st.integers(0, 1))
    def begin_batch(self, lane: int) -> None:
        self.clock.enqueued[lane] += 1

    @rule(lane=st.integers(0, 1))
    def end_batch(self, lane: int) -> None:
        self.clock.done[lane] = min(self.clock.done[lane] + 1, self.clock.enqueued[lane])

    @invariant()
    def nothing_is_lost_or_owned_twice(self) -> None:
        if hasattr(self, "pool"):
            self.pool.check(self.tables)

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            for table in self.tables:
                self.pool.release(table)
            self.clock.done = list(self.clock.enqueued)
            assert self.pool.available == self.pool.total


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=50, deadline=None, derandomize=True)
