"""Deadlines under random lives of streams, against a plain list of them."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rapidctl import wire
from rapidd.front import deadlines
from rapidd.front.admission import Capacity, admit
from rapidd.front.deadlines import Deadlines, age
from rapidd.front.journal import Journal, Stream
from support.front import EOS, TEXT, VOCAB

CAPACITY = Capacity(max_model_len=64, kv_tokens=1000, vocab_size=VOCAB, eos_token_ids=(EOS,), max_output_tokens=None)
IDS = st.sampled_from("abcdef")
SLACK = 3


class DeadlinesMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(deadlines, "SLACK", SLACK)
        self.journal = Journal()
        self.deadlines = Deadlines(self.journal)
        self.pending: dict[str, int] = {}
        """Deadlines of live streams that have not passed, by id."""
        self.now_ns = 0

    @rule(stream_id=IDS, seconds=st.none() | st.integers(1, 9))
    def open(self, stream_id: str, seconds: int | None) -> None:
        """Under an id that is free; it may have been another stream's before."""
        if stream_id in self.journal.streams:
            return
        self.now_ns += 1  # no two streams have the same deadline
        request = wire.Generate(id=stream_id, prompt="x", deadline_s=seconds)
        stream = admit(request, [1], b"client", TEXT, CAPACITY, self.now_ns)
        self.journal.add(stream)
        self.deadlines.watch(stream)
        if seconds is not None:
            self.pending[stream_id] = self.now_ns + seconds * 10**9
        assert len(self.deadlines._heap) <= 2 * len(self.journal.streams) + SLACK, "what has ended is not kept for ever"

    @rule(stream_id=IDS)
    def end(self, stream_id: str) -> None:
        if stream_id in self.journal.streams:
            self.journal.remove(self.journal.streams[stream_id])
            self.pending.pop(stream_id, None)

    @rule(seconds=st.integers(0, 4))
    def time_passes(self, seconds: int) -> None:
        self.now_ns += seconds * 10**9
        passed = sorted((at, stream_id) for stream_id, at in self.pending.items() if at <= self.now_ns)
        assert [stream.id for stream in self.deadlines.due(self.now_ns)] == [stream_id for _, stream_id in passed]
        for _, stream_id in passed:
            del self.pending[stream_id]

    @invariant()
    def nobody_is_told_too_late(self) -> None:
        if self.pending:
            assert self.deadlines.next_ns is not None
            assert self.deadlines.next_ns <= min(self.pending.values())

    def teardown(self) -> None:
        self.patch.undo()


TestDeadlines = DeadlinesMachine.TestCase
TestDeadlines.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_who_is_left_when_ended_streams_are_thrown_out_is_still_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "SLACK", 0)
    journal = Journal()
    watched = Deadlines(journal)

    def begin(stream_id: str, deadline_s: int | None) -> Stream:
        request = wire.Generate(id=stream_id, prompt="x", deadline_s=deadline_s)
        stream = admit(request, [1], b"client", TEXT, CAPACITY, 0)
        journal.add(stream)
        watched.watch(stream)
        return stream

    for stream_id, deadline_s in (("late", 9), ("never", None), ("soon", 2)):
        begin(stream_id, deadline_s)
    for _ in range(10):
        journal.remove(begin("short", 5))
    assert [stream.id for stream in watched.due(3 * 10**9)] == ["soon"]


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (500_000, "0.5 ms"),
        (40_000_000, "40 ms"),
        (999_400_000, "999 ms"),
        (999_600_000, "1.0 s"),
        (1_500_000_000, "1.5 s"),
    ],
)
def test_ages_are_told_in_the_unit_that_fits(ns: int, text: str) -> None:
    arrival_ns = 10**12
    stream = admit(wire.Generate(id="a", prompt="x"), [1], b"client", TEXT, CAPACITY, arrival_ns)
    assert age(stream, arrival_ns + ns) == text
