"""What a decode step reads on the device: whatever was staged before, as if everything had been copied now."""

from array import array
from dataclasses import dataclass

import torch
from hypothesis import given
from hypothesis import strategies as st

from rapidd.engine.batch import Row
from rapidd.engine.decode_stage import DecodeInputs, DecodeStage
from rapidd.engine.request import Request, SamplingParams
from rapidd.engine.staging import ALIGNMENT, BlockTables

SLOTS, WIDTH, BLOCK_TOKENS, STRIDE = 8, 6, 4, 100
BUCKETS = {rows: DecodeInputs(rows, WIDTH) for rows in (1, 2, 4, 8)}
UNTOUCHED = -7


@dataclass
class Sequence:
    """A request's row of the next step."""

    request: Request
    slot: int
    length: int
    blocks: list[int]

    def row(self) -> Row:
        of, start = self.request, self.length
        needed = start // BLOCK_TOKENS + 1
        return Row(
            of, of.generation, self.slot, start, 1, self.blocks[:needed], True, start, array("I"), 1, of.sampling
        )


class Setup:
    def __init__(self) -> None:
        self.tables = BlockTables(SLOTS, WIDTH, BLOCK_TOKENS)
        buffer = torch.full((BUCKETS[8].nbytes,), 255, dtype=torch.uint8)
        self.stage = DecodeStage(buffer, self.tables, STRIDE)
        self.made = 0

    def begin(self, slot: int, length: int) -> Sequence:
        request = Request(slot, array("I", [1]), array("I"), max_output=9, sampling=SamplingParams())
        return Sequence(request, slot, length, self.new_blocks())

    def new_blocks(self) -> list[int]:
        self.made += 10
        return list(range(self.made, self.made + WIDTH))

    def step(self, sequences: list[Sequence], bucket: int) -> None:
        """Stage a step of the sequences, see that all of it is there, and let them grow."""
        inputs = BUCKETS[bucket]
        self.stage.stage(inputs, [sequence.row() for sequence in sequences])
        positions, slot_mapping, source, kv_lens, tables = (part.tolist() for part in inputs.parts(self.stage.buffer))
        for at in range(bucket):
            if at < len(sequences):
                one = sequences[at]
                own = one.row().blocks
                slot = own[-1] * BLOCK_TOKENS + one.length % BLOCK_TOKENS
                wanted = (one.length, slot, one.slot * STRIDE + one.length, one.length + 1)
            else:
                own, wanted = [], (0, 0, 0, 1)  # padding: one token in block 0, and in row 0 of the token table
            assert (positions[at], slot_mapping[at], source[at], kv_lens[at]) == wanted
            assert tables[at] == own + [0] * (WIDTH - len(own))
        for sequence in sequences:
            sequence.length += 1


def test_parts_are_aligned() -> None:
    """So that no kernel is compiled anew for another number of rows."""
    for inputs in BUCKETS.values():
        buffer = torch.zeros(inputs.nbytes, dtype=torch.uint8)
        assert all((part.data_ptr() - buffer.data_ptr()) % ALIGNMENT == 0 for part in inputs.parts(buffer))


@given(st.data())
def test_whatever_was_staged_before_a_step_reads_its_own_rows(data: st.DataObject) -> None:
    """Requests come, end, are preempted and come back elsewhere, and have rows in other batches of the same place."""
    setup = Setup()
    live: list[Sequence] = []
    for _ in range(data.draw(st.integers(1, 12))):
        free = sorted(set(range(1, SLOTS + 1)) - {sequence.slot for sequence in live})
        match data.draw(st.sampled_from(["step", "step", "come", "end", "preempt", "chunk", "swap"])):
            case "come" if free:
                live.append(setup.begin(data.draw(st.sampled_from(free)), data.draw(st.integers(0, 10))))
            case "end" if live:
                live.pop(data.draw(st.integers(0, len(live) - 1)))
            case "preempt" if live and free:
                one = live[data.draw(st.integers(0, len(live) - 1))]
                one.request.generation += 1
                one.slot, one.blocks = data.draw(st.sampled_from(free)), setup.new_blocks()
            case "chunk" if live:
                setup.tables.rows([data.draw(st.sampled_from(live)).row()])
            case "swap" if len(live) > 1:
                live[0], live[-1] = live[-1], live[0]
            case _:
                pass
        live = [sequence for sequence in live if sequence.length < WIDTH * BLOCK_TOKENS]
        buckets = [rows for rows in BUCKETS if rows >= max(1, len(live))]
        setup.step(live, data.draw(st.sampled_from(buckets)))


def test_a_step_of_the_same_rows_leaves_their_tables_alone_but_for_new_blocks() -> None:
    """The second sequence gets a block at its next step, the others do not."""
    setup = Setup()
    live = [setup.begin(3, 4), setup.begin(1, 7), setup.begin(2, 8)]
    setup.step(live, 4)
    tables = BUCKETS[4].parts(setup.stage.buffer)[-1]
    tables.fill_(UNTOUCHED)
    setup.stage.stage(BUCKETS[4], [sequence.row() for sequence in live])
    assert [set(row) == {UNTOUCHED} for row in tables.tolist()] == [True, False, True, True]
    assert tables[1].tolist() == live[1].row().blocks + [0] * 3
    assert BUCKETS[4].parts(setup.stage.buffer)[0].tolist() == [5, 8, 9, 0]


def test_rows_that_went_away_become_padding_and_new_ones_do_not_touch_the_others() -> None:
    setup = Setup()
    live = [setup.begin(slot, 4) for slot in (1, 2, 3)]
    setup.step(live, 8)
    tables = BUCKETS[8].parts(setup.stage.buffer)[-1]
    tables.fill_(UNTOUCHED)
    setup.stage.stage(BUCKETS[8], [live[0].row(), live[1].row()])
    assert [set(row) for row in tables.tolist()] == [{UNTOUCHED}, {UNTOUCHED}, {0}, *[{UNTOUCHED}] * 5]
