"""The journal under random lives: counts add up, numbers are never reused, and no output id is lost."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from rapidctl import wire
from rapidd.front.admission import Capacity, admit
from rapidd.front.journal import Journal, Stream
from support.front import EOS, TEXT, VOCAB

CAPACITY = Capacity(max_model_len=64, kv_tokens=1000, vocab_size=VOCAB, eos_token_ids=(EOS,), max_output_tokens=None)


class JournalMachine(RuleBasedStateMachine):
    streams: Bundle[Stream] = Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        self.journal = Journal()
        self.given: set[int] = set()
        self.outputs: dict[tuple[str, int], list[int]] = {}
        self.names = 0

    @rule(target=streams, n=st.integers(1, 3), prompt=st.text("ab", min_size=1, max_size=9))
    def open(self, n: int, prompt: str) -> Stream:
        self.names += 1
        request = wire.Generate(id=str(self.names), prompt=prompt, n=n, stop=["!"])
        stream = admit(request, list(prompt.encode()), b"client", TEXT, CAPACITY, 0)
        self.journal.add(stream)
        for choice in stream.choices:
            self.outputs[stream.id, choice.index] = []
        return stream

    @rule(data=st.data())
    def engine_starts(self, data: st.DataObject) -> None:
        for choice in list(self.journal.live()):
            submit = self.journal.submit(choice)
            assert submit.rid not in self.given
            self.given.add(submit.rid)
            assert wire.unpack_ids(submit.output_ids) == self.outputs[choice.stream.id, choice.index]
            self.journal.set_phase(choice, data.draw(st.sampled_from(["waiting", "prefilling", "decoding"])))

    @rule(stream=streams, byte=st.sampled_from(b"xy!"), finish=st.sampled_from([None, None, "length"]))
    def token(self, stream: Stream, byte: int, finish: None) -> None:
        for choice in stream.live[:1]:
            if choice.submitted:
                choice.take(byte, finish)
                self.outputs[stream.id, choice.index].append(byte)
                if choice.finish_reason is not None:
                    self.journal.end(choice)

    @rule(stream=consumes(streams))
    def remove(self, stream: Stream) -> None:
        running = {choice.rid for choice in stream.live if choice.submitted}
        assert set(self.journal.remove(stream)) == running

    @invariant()
    def counts_add_up(self) -> None:
        live = list(self.journal.live())
        waiting = [choice for choice in live if choice.phase == "waiting"]
        assert self.journal.num_waiting == len(waiting)
        assert self.journal.waiting_tokens == sum(choice.stream.prompt_tokens for choice in waiting)
        assert set(self.journal.choices.values()) == set(live)
        assert all(self.journal.choices[choice.rid] is choice for choice in live)


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize(
    ("ids", "ended"),
    [
        ([97, 98], None),
        ([97, EOS], None),
        ([97, 98, EOS], "stop"),
        ([EOS, 98, 97], None),
        ([97, 98, 99, 100], "length"),
    ],
)
def test_ids_that_a_client_brings_back_end_the_output_where_the_engine_would_have(
    ids: list[int], ended: str | None
) -> None:
    """An end token at exactly ``min_tokens`` ended it; the engine takes none before it has given so many others."""
    request = wire.Generate(
        id="s", prompt="a", resume_ids=[wire.pack_ids(ids)], sampling=wire.Sampling(min_tokens=2, max_tokens=4)
    )
    (choice,) = admit(request, [97], b"client", TEXT, CAPACITY, 0).choices
    assert choice.finish_reason == ended
    assert list(choice.output_ids) == ids


def test_two_fronts_never_give_the_same_number() -> None:
    """An engine that outlives its front may still send a step of the old front's requests to the new one.

    Numbers used to start at 1 in every front, so such tokens would have gone to another client's stream.
    """
    numbers = []
    for _ in range(2):
        journal = Journal()
        stream = admit(wire.Generate(id="s", prompt="a", n=3), [97], b"client", TEXT, CAPACITY, 0)
        journal.add(stream)
        numbers.append({journal.submit(choice).rid for choice in stream.choices})
    assert numbers[0].isdisjoint(numbers[1])
