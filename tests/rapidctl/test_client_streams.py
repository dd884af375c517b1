"""Streams of the client against a scripted daemon on real sockets: output, early ends, restarts of either side."""

import pytest
from msgspec.structs import replace

from rapidctl import client as client_module
from rapidctl import wire
from rapidctl.client import Client, new_id
from rapidctl.errors import Refused, TimedOut, Unreachable
from rapidctl.wire import Accepted, Delta, Deltas, Failed, Finished, Generate, GetStatus, pack_ids, unpack_ids
from support import samples
from support.peer import Peer


def delta(id_: str, index: int, *ids: int, choice: int = 0) -> Delta:
    return Delta(id=id_, choice=choice, index=index, token_ids=pack_ids(ids), text="".join(f"<{id_}>" for id_ in ids))


def accept(ask: Generate) -> list[wire.Reply]:
    return [Accepted(id=ask.id, prompt_tokens=3, seed=42)]


def finished(id_: str) -> Finished:
    return replace(samples.FINISHED, id=id_)


def poll_until_ended(client: Client, *streams: client_module.Stream) -> None:
    while any(stream.ended is None for stream in streams):
        client.poll(1.0)


# --- streams ------------------------------------------------------------------------------------------------------


def test_a_stream_yields_accepted_then_deltas_then_finished(peer: Peer, client: Client) -> None:
    events = list(client.generate(Generate(id="r-1", prompt="x")))
    assert [type(event) for event in events] == [Accepted, Delta, Finished]
    assert not client.streams


def test_streams_of_one_connection_do_not_mix(peer: Peer, client: Client) -> None:
    peer.script[Generate] = accept
    first, second = (client.submit(Generate(id=id_, prompt="x", n=2)) for id_ in ("a", "b"))
    peer.hear(Generate)
    peer.hear(Generate)
    peer.send(
        Deltas(items=[delta("a", 0, 1), delta("b", 0, 10, choice=1)]),
        Deltas(items=[delta("b", 1, 11, choice=1), delta("a", 1, 2, 3), delta("stranger", 0, 99)]),
        finished("b"),
        Deltas(items=[delta("a", 3, 4)]),
        finished("a"),
    )
    poll_until_ended(client, first, second)
    assert first.output_ids == [[1, 2, 3, 4], []]
    assert second.output_ids == [[], [10, 11]]
    assert all(isinstance(event, Accepted | Finished) or event.id == "b" for event in second.events)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (Generate(id="x" * 65, prompt="x"), "at most 64"),
        (Generate(id="r-1", prompt_ids=bytes(wire.MAX_FRAME_BYTES)), f"at most {wire.MAX_FRAME_BYTES}"),
    ],
    ids=["a long id", "a frame over the limit"],
)
def test_what_the_daemon_could_not_even_refuse_is_refused_unsent_and_the_next_is_served(
    peer: Peer, client: Client, request_: Generate, says: str
) -> None:
    with pytest.raises(Refused, match=says) as refused:
        list(client.generate(request_))
    assert refused.value.code == "invalid_request"
    assert refused.value.hint
    list(client.generate(Generate(id="r-2", prompt="x")))
    assert peer.hear(Generate).id == "r-2"


def test_the_refusal_of_a_stream_that_was_abandoned_is_no_answer_to_a_question(peer: Peer, client: Client) -> None:
    """It was taken for one: under overload `status` failed with "128 requests are waiting"."""
    peer.script[Generate] = lambda ask: []
    client.submit(Generate(id="a", prompt="x"))
    peer.hear(Generate)
    client.abandon("a")
    peer.script[GetStatus] = lambda ask: [Failed(code="queue_full", message="full", id="a", retry_after_s=1.0)]
    with pytest.raises(TimedOut):
        client.call(GetStatus(call=0), timeout_s=0.1)


def test_a_call_may_be_made_while_streams_run(peer: Peer, client: Client) -> None:
    peer.script[Generate] = accept
    stream = client.submit(Generate(id="a", prompt="x"))
    peer.script[GetStatus] = lambda ask: [
        Deltas(items=[delta("a", 0, 1)]),
        replace(samples.STATUS, call=ask.call),
        finished("a"),
    ]
    assert client.call(GetStatus(call=0)).state == "serving"
    poll_until_ended(client, stream)
    assert stream.output_ids == [[1]]


def test_a_failed_stream_raises_with_the_output_it_had(peer: Peer, client: Client) -> None:
    peer.script[Generate] = lambda ask: [
        *accept(ask),
        Deltas(items=[delta(ask.id, 0, 5, 6)]),
        Failed(code="deadline_exceeded", message="too late", id=ask.id),
    ]
    with pytest.raises(Refused) as caught:
        list(client.generate(Generate(id=new_id(), prompt="x")))
    assert caught.value.code == "deadline_exceeded"
    assert caught.value.output_ids == [[5, 6]]


def test_a_stream_that_is_never_accepted_times_out_and_is_cancelled(peer: Peer, client: Client) -> None:
    peer.script[Generate] = lambda ask: None
    client.timeout_s = 0.1
    with pytest.raises(TimedOut, match="accept"):
        list(client.generate(Generate(id="r-1", prompt="x")))
    assert peer.hear(wire.Cancel).id == "r-1"


def test_leaving_a_stream_early_cancels_it(peer: Peer, client: Client) -> None:
    peer.script[Generate] = accept
    stream = client.generate(Generate(id="r-1", prompt="x"))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert peer.hear(wire.Cancel).id == "r-1"
    assert not client.streams


def test_output_that_was_skipped_ends_the_stream(peer: Peer, client: Client) -> None:
    peer.script[Generate] = lambda ask: [*accept(ask), Deltas(items=[delta(ask.id, 1, 5)])]
    with pytest.raises(Refused, match="skipped") as caught:
        list(client.generate(Generate(id="r-1", prompt="x")))
    assert caught.value.code == "internal_error"


# --- restarts -----------------------------------------------------------------------------------------------------


def restart(peer: Peer, boot_id: str) -> None:
    peer.stop()
    peer.script[wire.Hello] = lambda hello: [replace(samples.WELCOME, front_boot_id=boot_id)]
    peer.start()


def begin(peer: Peer, client: Client, request: Generate, *, resume: bool) -> client_module.Stream:
    """A stream that has the output ids 1 and 2."""
    peer.script[Generate] = lambda ask: [*accept(ask), Deltas(items=[delta(ask.id, 0, 1, 2)])]
    stream = client.submit(request, resume=resume)
    while stream.output_tokens < 2:
        client.poll(1.0)
    peer.hear(Generate)
    return stream


def test_a_restarted_front_ends_streams_with_the_ids_received(peer: Peer, client: Client) -> None:
    stream = begin(peer, client, Generate(id="r-1", prompt="x"), resume=False)
    restart(peer, "front-2")
    poll_until_ended(client, stream)
    assert isinstance(stream.ended, Failed)
    assert (stream.ended.code, stream.ended.output_tokens, stream.output_ids) == ("front_restarted", 2, [[1, 2]])


def test_a_stream_that_resumes_loses_and_repeats_nothing(peer: Peer, client: Client) -> None:
    request = Generate(id="r-1", prompt="x", sampling=wire.Sampling(temperature=1.0))
    stream = begin(peer, client, request, resume=True)

    def go_on(ask: Generate) -> list[wire.Reply]:
        assert ask.resume_ids is not None
        return [*accept(ask), Deltas(items=[delta(ask.id, 2, 3)]), finished(ask.id)]

    peer.script[Generate] = go_on
    restart(peer, "front-2")
    poll_until_ended(client, stream)
    assert isinstance(stream.ended, Finished)
    assert stream.output_ids == [[1, 2, 3]]
    again = peer.hear(Generate)
    assert [unpack_ids(ids) for ids in again.resume_ids or []] == [[1, 2]]
    assert again.sampling == wire.Sampling(temperature=1.0, seed=42)
    assert (again.id, again.prompt) == ("r-1", "x")


@pytest.mark.parametrize("code", ["starting", "queue_full"])
def test_a_resumed_stream_waits_for_a_front_that_cannot_take_it_yet(
    code: wire.ErrorCode, peer: Peer, client: Client
) -> None:
    """One without a token yet was refused for good where many came back at once."""
    stream = begin(peer, client, Generate(id="r-1", prompt="x"), resume=True)
    refusals = iter([[Failed(code=code, message="not now", id="r-1", retry_after_s=0.01)]] * 2)
    peer.script[Generate] = lambda ask: (
        next(refusals, None)
        or [
            *accept(ask),
            Deltas(items=[delta(ask.id, 2, 3)]),
            finished(ask.id),
        ]
    )
    restart(peer, "front-2")
    poll_until_ended(client, stream)
    assert isinstance(stream.ended, Finished)
    assert stream.output_ids == [[1, 2, 3]]


def test_a_connection_lost_without_a_restart_goes_on_where_it_was(peer: Peer, client: Client) -> None:
    stream = begin(peer, client, Generate(id="r-1", prompt="x"), resume=False)
    peer.script[Generate] = lambda ask: [*accept(ask), Deltas(items=[delta(ask.id, 1, 2, 3)]), finished(ask.id)]
    restart(peer, samples.WELCOME.front_boot_id)
    poll_until_ended(client, stream)
    assert stream.output_ids == [[1, 2, 3]]
    again = replace(peer.hear(Generate), age_s=0.0)
    assert again == Generate(id="r-1", prompt="x", resume_ids=[pack_ids([1, 2])])


def test_streams_end_when_the_daemon_stays_away(peer: Peer) -> None:
    with Client(peer.endpoint, patience_s=0.05) as client:
        stream = begin(peer, client, Generate(id="r-1", prompt="x"), resume=True)
        peer.stop()
        poll_until_ended(client, stream)
        assert isinstance(stream.ended, Failed)
        assert stream.ended.code == "front_restarted"
        assert client.lost_s is not None
        with pytest.raises(Unreachable):
            client.submit(Generate(id="r-2", prompt="x"))


def test_a_fresh_resuming_request_waits_too_and_then_says_why_it_was_refused(peer: Peer, client: Client) -> None:
    """Right after a restart of the front a new request was refused although the daemon was as good as there."""
    refused = Failed(code="starting", message="no engine yet", id="r-1", retry_after_s=0.01)
    peer.script[Generate] = lambda ask: [refused]
    client.timeout_s = 1.0  # enough to ask twice, also for one that gets little of the processor
    with pytest.raises(Refused) as caught:
        list(client.generate(Generate(id="r-1", prompt="x"), resume=True))
    assert caught.value.code == "starting"
    assert peer.hear(Generate) == replace(peer.hear(Generate), age_s=0.0)  # it asked more than once
