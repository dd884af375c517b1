"""What a captured batch reads on the device: whatever was staged before, as if everything had been copied now."""

from array import array
from dataclasses import dataclass

import torch
from hypothesis import given
from hypothesis import strategies as st

from rapidd.engine.batch import Row
from rapidd.engine.block_tables import BlockTables
from rapidd.engine.chunk_inputs import ChunkInputs
from rapidd.engine.decode_inputs import DecodeInputs
from rapidd.engine.request import Request, SamplingParams
from rapidd.engine.staging import ALIGNMENT, Stage
from rapidd.policy.tiles import CHUNK_ROWS

SLOTS, WIDTH, BLOCK_TOKENS, STRIDE = 8, 6, 4, 100
LIMIT = WIDTH * BLOCK_TOKENS
BUCKETS = {rows: DecodeInputs(rows, STRIDE) for rows in (1, 2, 4, 8)}
MIXED = ChunkInputs((SLOTS, 40), STRIDE)
UNTOUCHED = -7


@dataclass
class Sequence:
    """A request whose first ``length`` tokens were in batches; its list of blocks grows in place."""

    request: Request
    slot: int
    length: int
    first_block: int
    blocks: list[int]

    def grow(self, count: int) -> None:
        """Have blocks for ``count`` more tokens."""
        needed = -(-(self.length + count) // BLOCK_TOKENS)
        self.blocks.extend(range(self.first_block + len(self.blocks), self.first_block + needed))

    def row(self, count: int = 1) -> Row:
        of = self.request
        self.grow(count)
        return Row(
            of, of.generation, self.slot, self.length, count, self.blocks, True, self.length, array("I"), 1, of.sampling
        )


class Setup:
    def __init__(self) -> None:
        self.tables = BlockTables(SLOTS, WIDTH, BLOCK_TOKENS, torch.device("cpu"))
        self.stage = Stage(self.tables, MIXED.nbytes)
        self.gathered = torch.full((SLOTS + CHUNK_ROWS, WIDTH), UNTOUCHED, dtype=torch.int32)
        self.made = 0

    def begin(self, slot: int, length: int) -> Sequence:
        request = Request(slot, array("I", [1]), array("I"), max_output=9, sampling=SamplingParams())
        return Sequence(request, slot, length, self.new_blocks(), [])

    def new_blocks(self) -> int:
        self.made += 10
        return self.made

    def preempt(self, one: Sequence, slot: int) -> None:
        one.request.generation += 1
        one.slot, one.first_block, one.blocks = slot, self.new_blocks(), []

    def step(self, sequences: list[Sequence], bucket: int) -> None:
        """A decode step of the sequences reads what it should, and they grow."""
        inputs, rows = BUCKETS[bucket], [sequence.row() for sequence in sequences]
        self.stage.bring(inputs, rows, len(rows))
        positions, slot_mapping, source, kv_lens, cells = inputs.parts(self.stage.buffer)
        self.tables.gather(cells, self.gathered[:bucket])
        for at in range(bucket):
            if at < len(rows):
                row = rows[at]
                written = row.blocks[row.start // BLOCK_TOKENS] * BLOCK_TOKENS + row.start % BLOCK_TOKENS
                wanted = [row.start, written, row.slot * STRIDE + row.start, row.start + 1]
            else:
                wanted = [0, 0, 0, 1]  # padding: one token in block 0, and in row 0 of the token table
            assert [int(part[at]) for part in (positions, slot_mapping, source, kv_lens)] == wanted
        self.assert_gathered(rows, range(len(rows)), bucket)
        for sequence in sequences:
            sequence.length += 1

    def mixed(self, sequences: list[Sequence], counts: list[int]) -> None:
        """A batch in which the last sequences have ``counts`` prompt tokens, the others one token each."""
        num_decode = len(sequences) - len(counts)
        rows = [sequence.row(count) for sequence, count in zip(sequences, [1] * num_decode + counts, strict=True)]
        self.stage.bring(MIXED, rows, num_decode)
        self.tables.gather(MIXED.parts(self.stage.buffer).cells, self.gathered)
        self.assert_gathered(rows, [*range(num_decode), *range(SLOTS, SLOTS + len(counts))], MIXED.rows)
        for row, sequence in zip(rows, sequences, strict=True):
            sequence.length += row.count

    def assert_gathered(self, rows: list[Row], places: "range | list[int]", num_rows: int) -> None:
        """At ``places`` the rows' own tables, elsewhere padding's."""
        wanted = [[0] * WIDTH for _ in range(num_rows)]
        for row, place in zip(rows, places, strict=True):
            own = row.blocks[: -(-(row.start + row.count) // BLOCK_TOKENS)]
            wanted[place][: len(own)] = own
        assert self.gathered[:num_rows].tolist() == wanted


def test_parts_are_aligned() -> None:
    """So that no kernel is compiled anew for another number of rows."""
    for inputs in BUCKETS.values():
        buffer = torch.zeros(inputs.nbytes, dtype=torch.uint8)
        *parts, cells = inputs.parts(buffer)
        parts += [cells.at, cells.blocks, cells.slots]
        assert all((part.data_ptr() - buffer.data_ptr()) % ALIGNMENT == 0 for part in parts)


@given(st.data())
def test_whatever_was_staged_before_a_batch_reads_its_own_rows(data: st.DataObject) -> None:
    """Requests come, end, are preempted and come back elsewhere, are computed elsewhere, and grow by many tokens."""
    setup = Setup()
    live: list[Sequence] = []
    for _ in range(data.draw(st.integers(1, 15))):
        free = sorted(set(range(1, SLOTS + 1)) - {sequence.slot for sequence in live})
        match data.draw(
            st.sampled_from(["step", "step", "come", "end", "preempt", "elsewhere", "ahead", "swap", "mixed", "fail"])
        ):
            case "come" if free:
                live.append(setup.begin(data.draw(st.sampled_from(free)), data.draw(st.integers(0, 10))))
            case "end" if live:
                live.pop(data.draw(st.integers(0, len(live) - 1)))
            case "preempt" if live and free:
                setup.preempt(data.draw(st.sampled_from(live)), data.draw(st.sampled_from(free)))
            case "elsewhere" if live:
                one = data.draw(st.sampled_from(live))
                one.length = data.draw(st.integers(one.length, LIMIT - 1))
            case "ahead" if live:  # the loop forms the next batch while this one is launched
                one = data.draw(st.sampled_from(live))
                one.grow(data.draw(st.integers(1, LIMIT - one.length)))
            case "swap" if len(live) > 1:
                live[0], live[-1] = live[-1], live[0]
            case "mixed" if live:
                chunks = live[-data.draw(st.integers(1, 2)) :]
                setup.mixed(live, [data.draw(st.integers(1, LIMIT - one.length)) for one in chunks])
            case "fail" if live:
                setup.tables.sync([one.row() for one in live])
                setup.tables.forget()
        live = [sequence for sequence in live if sequence.length < LIMIT]
        setup.step(live, data.draw(st.sampled_from([rows for rows in BUCKETS if rows >= len(live)])))
        live = [sequence for sequence in live if sequence.length < LIMIT]


def test_sequences_that_only_grow_bring_no_table_whatever_row_and_bucket_they_are_in() -> None:
    setup = Setup()
    live = [setup.begin(3, 0), setup.begin(1, 7), setup.begin(2, 8)]
    setup.step(live, 4)
    for bucket in (4, 8, 4, 4, 8):
        live = live[1:] + live[:1]
        assert setup.tables.sync([sequence.row() for sequence in live]) == []
        setup.step(live, bucket)


def test_only_who_is_new_brings_a_table() -> None:
    setup = Setup()
    live = [setup.begin(slot, 4) for slot in (1, 2, 3)]
    setup.step(live, 4)
    live[1] = setup.begin(2, 9)
    assert setup.tables.sync([sequence.row() for sequence in live]) == [2]


def test_who_was_computed_elsewhere_for_more_than_a_block_brings_a_table() -> None:
    setup = Setup()
    one, other = setup.begin(1, 3), setup.begin(2, 3)
    setup.step([one, other], 2)
    one.length, other.length = 2 * BLOCK_TOKENS, 2 * BLOCK_TOKENS - 1
    assert setup.tables.sync([one.row(), other.row()]) == [1]
