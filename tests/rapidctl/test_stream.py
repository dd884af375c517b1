"""A stream's bookkeeping: whatever the daemon repeats after a re-attach, the caller sees each id once, in order."""

from hypothesis import given
from hypothesis import strategies as st

from rapidctl.stream import Stream
from rapidctl.wire import MAX_DEADLINE_S, Accepted, Delta, Failed, Generate, TokenLogprob, pack_ids, unpack_ids


@given(st.lists(st.integers(0, 99), max_size=30), st.data())
def test_repeated_output_is_dropped(output: list[int], data: st.DataObject) -> None:
    stream = Stream(Generate(id="r", prompt="x"), resume=True, sent_s=0.0)
    stamps = list(range(len(output)))
    while (have := len(stream.output_ids[0])) < len(output):
        begin = data.draw(st.integers(0, have))
        end = data.draw(st.integers(begin + 1, len(output)))
        ids = output[begin:end]
        logprobs = [TokenLogprob(id_, -1.0) for id_ in ids]
        delta = Delta(id="r", index=begin, token_ids=pack_ids(ids), at_mono_ns=stamps[begin:end], logprobs=logprobs)
        stream.extend(delta)
    deltas = [event for event in stream.events if isinstance(event, Delta)]
    assert stream.ended is None
    assert [id_ for delta in deltas for id_ in unpack_ids(delta.token_ids)] == output
    assert [stamp for delta in deltas for stamp in delta.at_mono_ns] == stamps
    assert [item.token_id for delta in deltas for item in delta.logprobs or []] == output


def test_text_without_ids_passes() -> None:
    stream = Stream(Generate(id="r", prompt="x"), resume=False, sent_s=0.0)
    stream.extend(Delta(id="r", index=0, token_ids=b"", text="held back until now"))
    assert [event.text for event in stream.events if isinstance(event, Delta)] == ["held back until now"]


def test_an_unknown_choice_ends_the_stream() -> None:
    stream = Stream(Generate(id="r", prompt="x", n=2), resume=False, sent_s=0.0)
    stream.extend(Delta(id="r", choice=2, index=0, token_ids=b""))
    assert isinstance(stream.ended, Failed)
    assert stream.ended.code == "internal_error"


def test_a_resubmission_asks_only_for_the_rest() -> None:
    request = Generate(id="r", prompt="x", n=2)
    stream = Stream(request, resume=True, sent_s=0.0)
    assert stream.resubmission(0.0) == request
    stream.accept(Accepted(id="r", prompt_tokens=1, seed=7))
    stream.extend(Delta(id="r", choice=1, index=0, token_ids=pack_ids([5])))
    again = stream.resubmission(0.0)
    assert again == Generate(id="r", prompt="x", n=2, resume_ids=[b"", pack_ids([5])])


def test_a_resubmission_says_how_old_the_request_is() -> None:
    """A deadline began anew when the front died, and the request went to the end of the line."""
    stream = Stream(Generate(id="r", prompt="x", age_s=1.0), resume=True, sent_s=5.0)
    assert stream.resubmission(7.5).age_s == 3.5
    assert stream.resubmission(1e7).age_s == MAX_DEADLINE_S


def test_only_another_front_is_told_the_seed() -> None:
    """The front that runs a request compares what it is sent again: a seed that was not there makes it another one."""
    stream = Stream(Generate(id="r", prompt="x"), resume=True, sent_s=0.0)
    stream.accept(Accepted(id="r", prompt_tokens=1, seed=7))
    assert stream.resubmission(0.0).sampling.seed is None
    stream.front_changed()
    assert stream.resubmission(0.0).sampling.seed == 7


def test_a_stream_that_begins_with_ids_counts_from_there() -> None:
    stream = Stream(Generate(id="r", prompt="x", resume_ids=[pack_ids([1, 2])]), resume=True, sent_s=0.0)
    stream.extend(Delta(id="r", index=2, token_ids=pack_ids([3])))
    assert stream.output_ids == [[1, 2, 3]]
