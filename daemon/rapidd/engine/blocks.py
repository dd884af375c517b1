"""Paged KV blocks: reference counts, prefix cache, and fences for two lanes that run at the same time.

A block is in exactly one place:

    live     held by at least one request
    fenced   released, but a batch enqueued before the release may still touch it; may be in the prefix table
    cached   in the prefix table, no holder; evicted least recently used first
    free     anything may be written to it

Block 0 is a dummy that padding rows write to; it is never handed out. Partial blocks are never shared, so
nothing is ever copied on write: at most the last ``block_tokens - 1`` prompt tokens of a choice are recomputed.
Knows nothing of requests, lanes' contents, or devices. `check` states the invariants.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b


class LaneClock:
    """Numbers of the last batch enqueued and done on each lane. Batches of one lane end in order."""

    def __init__(self, num_lanes: int) -> None:
        self.enqueued = [0] * num_lanes
        self.done = [0] * num_lanes

    def fence(self) -> tuple[int, ...]:
        """What must be done before anything released now may be reused."""
        return tuple(self.enqueued)

    def passed(self, fence: tuple[int, ...]) -> bool:
        """Whether every batch counted in the fence is done."""
        return all(done >= number for done, number in zip(self.done, fence, strict=True))


class BlockPool:
    """``num_blocks`` blocks of ``block_tokens`` tokens, block 0 included. Also hands out slots (1 token, no hashes).

    ``key``: secret of this boot, so that hashes cannot be made to collide by choice of prompt.
    """

    def __init__(self, num_blocks: int, block_tokens: int, clock: LaneClock, key: bytes = b"") -> None:
        assert num_blocks >= 2, "block 0 is the dummy: a pool needs at least one more"
        self.block_tokens = block_tokens
        self.total = num_blocks - 1
        self.evicted = 0
        self._clock = clock
        self._key = key
        self._refs = [0] * num_blocks
        self._free = list(range(num_blocks - 1, 0, -1))
        self._fenced: OrderedDict[int, tuple[int, ...]] = OrderedDict()
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._hash_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}

    # --- counts

    @property
    def available(self) -> int:
        """Blocks that `take` could hand out now."""
        self._settle()
        return len(self._free) + len(self._cached)

    @property
    def num_fenced(self) -> int:
        """Released blocks still waiting for batches in flight."""
        self._settle()
        return len(self._fenced)

    @property
    def num_cached(self) -> int:
        """Blocks that only the prefix table remembers."""
        self._settle()
        return len(self._cached)

    @property
    def num_used(self) -> int:
        """Blocks held by requests or fenced."""
        return self.total - self.available

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-num_tokens // self.block_tokens)

    # --- holding and releasing

    def take(self, count: int) -> list[int] | None:
        """``count`` blocks with one reference each, evicting cached ones if needed; None if there are too few."""
        if len(self._free) < count and self.available < count:
            return None
        taken = []
        for _ in range(count):
            if not self._free:
                block, _ = self._cached.popitem(last=False)
                self._forget(block)
                self.evicted += 1
                self._free.append(block)
            block = self._free.pop()
            self._refs[block] = 1
            taken.append(block)
        return taken

    def hold(self, blocks: Iterable[int]) -> None:
        """One more reference to blocks found by `match`."""
        for block in blocks:
            if self._refs[block] == 0:
                self._cached.pop(block, None)
                self._fenced.pop(block, None)
            self._refs[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """Give references back; the sequence's tail becomes evictable before its head."""
        fence = self._clock.fence()
        for block in reversed(blocks):
            assert self._refs[block] > 0, f"block {block} released twice"
            self._refs[block] -= 1
            if self._refs[block] == 0:
                self._fenced[block] = fence

    # --- prefix cache

    def extend_hashes(self, hashes: list[bytes], tokens: array[int], count: int) -> None:
        """Append to ``hashes`` until every full block of ``count`` tokens has one: blake2b over (parent, ids)."""
        size = self.block_tokens
        parent = hashes[-1] if hashes else b""
        for index in range(len(hashes), count // size):
            ids = tokens[index * size : (index + 1) * size].tobytes()
            parent = blake2b(parent + ids, digest_size=16, key=self._key).digest()
            hashes.append(parent)

    def match(self, hashes: Sequence[bytes]) -> list[int]:
        """Blocks of the longest cached prefix of ``hashes``; not yet held."""
        blocks = []
        for digest in hashes:
            block = self._block_of.get(digest)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def num_held(self, hashes: Iterable[bytes]) -> int:
        """Of blocks of this content, all in the prefix table, how many somebody holds: those are not available.

        Asked at each turn for the prompt that waits for blocks: no loop of our own.
        """
        holders = list(map(self._refs.__getitem__, map(self._block_of.__getitem__, hashes)))
        return len(holders) - holders.count(0)

    def knows(self, digest: bytes) -> bool:
        """Whether a block of this content is in the prefix table."""
        return digest in self._block_of

    def publish(self, block: int, digest: bytes) -> None:
        """Enter a full block whose writing batch is *done*. The first writer of equal content stays."""
        assert self._refs[block] > 0, f"block {block} published without a holder"
        if digest not in self._block_of:
            self._block_of[digest] = block
            self._hash_of[block] = digest

    def _forget(self, block: int) -> None:
        digest = self._hash_of.pop(block, None)
        if digest is not None:
            del self._block_of[digest]

    def _settle(self) -> None:
        """Move blocks whose fence has passed. Fences were taken in order, so the first closed one ends it."""
        while self._fenced:
            block, fence = next(iter(self._fenced.items()))
            if not self._clock.passed(fence):
                return
            del self._fenced[block]
            if block in self._hash_of:
                self._cached[block] = None
            else:
                self._free.append(block)

    # --- invariants

    def check(self, tables: Iterable[Sequence[int]]) -> None:
        """Raise AssertionError unless the pool agrees with ``tables``, the block lists of all live requests."""
        held = [0] * len(self._refs)
        for table in tables:
            assert len(set(table)) == len(table), "a request holds a block twice"
            for block in table:
                held[block] += 1
        assert held[0] == 0, "a request holds the dummy block"
        assert held == self._refs, "reference counts differ from the tables that hold the blocks"
        self._settle()
        live = sum(1 for count in self._refs if count)
        places = (*self._free, *self._cached, *self._fenced)
        assert len(set(places)) == len(places), "a block is in two places"
        assert all(self._refs[block] == 0 for block in places), "a free block has a holder"
        assert live + len(places) == self.total, "blocks were lost"
        assert self._hash_of == {block: digest for digest, block in self._block_of.items()}
        assert all(block in self._hash_of for block in self._cached), "a cached block has no hash"
        assert not any(block in self._hash_of for block in self._free), "a free block has a hash"
