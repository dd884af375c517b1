"""The journal under random lives: counts add up, numbers are never reused, and no output id is lost."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from rapidctl import wire
from rapidd import ipc
from rapidd.front.admission import Capacity, admit
from rapidd.front.journal import Choice, Journal, Stream
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
            assert (choice.state, choice.phase) == (None, "waiting"), "what the last engine said of it is over"
            choice.state = ipc.RequestState(choice.rid, "decoding", 0, 0, 0, 0, None)
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


def opened(**fields: Any) -> Choice:
    """A choice whose prompt is "a"."""
    return admit(wire.Generate(id="s", prompt="a", **fields), [97], b"client", TEXT, CAPACITY, 0).choices[0]


@pytest.mark.parametrize("bring_back", [False, True])
def test_a_stop_token_is_named_and_not_shown_and_what_was_held_back_is(bring_back: bool) -> None:
    ids = [*b"ax", *b"!"]
    sampling = wire.Sampling(stop_token_ids=[33])
    if bring_back:
        choice = opened(stop=["xy"], sampling=sampling, resume_ids=[wire.pack_ids(ids)])
    else:
        choice = opened(stop=["xy"], sampling=sampling)
        assert [choice.take(ids[0], None), choice.take(ids[1], None), choice.take(ids[2], "stop")] == ["a", "", "x"]
    assert choice.result() == wire.ChoiceResult(
        index=0, finish_reason="stop", stop=33, text="ax", token_ids=wire.pack_ids(ids)
    )
    assert choice.replay(2).text == "x", "it came with the last id"


def test_a_client_that_says_it_has_more_than_there_is_gets_nothing_from_where_the_output_ends() -> None:
    choice = opened(resume_ids=[wire.pack_ids(list(b"abc"))])
    replay = choice.replay(9)
    assert (replay.index, replay.token_ids, replay.text) == (3, b"", "")


def test_probabilities_follow_the_ids_that_came_back_without_them() -> None:
    choice = opened(sampling=wire.Sampling(logprobs=0), resume_ids=[wire.pack_ids(list(b"abc"))])
    assert choice.logprobs is not None
    for token_id in b"de":
        choice.take(token_id, None)
        choice.logprobs.append(choice.text.logprob(token_id, -1.0, []))
    told = [[one.token_id for one in choice.replay(known).logprobs or ()] for known in range(6)]
    assert told == [[100, 101]] * 4 + [[101], []]


def test_a_gap_is_counted_once_however_often_somebody_looks() -> None:
    choice = opened()
    choice.gaps_ns.append(10**7)
    assert [choice.gaps.n for _ in range(3)] == [1, 1, 1]


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
