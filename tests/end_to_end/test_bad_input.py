"""Whatever a client sends gets one typed answer, and the daemon serves the next request."""

import random
from collections.abc import Callable, Iterator

import pytest
import zmq

from rapidctl import wire
from support.bad_frames import BAD_FRAMES, INFINITE, NAN, generate, sampling
from support.daemon import PROMPTS, WAIT_S, Daemon, finish, outputs, story


class RawClient:
    """A DEALER that sends what no client would."""

    def __init__(self, endpoint: str, max_unread: int = 1000) -> None:
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        for option in (zmq.RCVTIMEO, zmq.SNDTIMEO):
            self.socket.setsockopt(option, int(WAIT_S * 1000))
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVHWM, max_unread)
        self.socket.connect(endpoint)
        self.send(wire.Hello(client="raw"))
        assert isinstance(self.receive(), wire.Welcome)

    def send(self, message: wire.Request) -> None:
        self.socket.send(wire.encode(message))

    def receive(self) -> wire.Reply:
        return wire.decode_reply(self.socket.recv())


@pytest.fixture
def raw(daemon: Daemon) -> Iterator[RawClient]:
    client = RawClient(daemon.endpoint)
    yield client
    client.socket.close()


FRAMES: dict[str, tuple[bytes, wire.ErrorCode]] = {
    **BAD_FRAMES,
    "an unknown sampling field": (sampling(temprature=1), "invalid_request"),
    "an infinite temperature": (sampling(temperature=INFINITE), "invalid_request"),
    "a negative top_k": (sampling(top_k=-1), "invalid_request"),
    "a NaN penalty": (sampling(repetition_penalty=NAN), "invalid_request"),
    "a negative seed": (sampling(seed=-1), "invalid_request"),
    "a negative max_tokens": (sampling(max_tokens=-5), "invalid_request"),
    "n of a million": (generate(n=1_000_000), "invalid_request"),
    "a prompt longer than the context": (generate(prompt="Tom ran. " * 400), "prompt_too_long"),
    "max_tokens beyond the context": (sampling(max_tokens=512), "invalid_request"),
    "a token beyond the vocabulary": (generate(prompt=None, prompt_ids=wire.pack_ids([512])), "invalid_request"),
}


@pytest.mark.parametrize("case", FRAMES)
def test_a_bad_frame_gets_its_code_and_the_next_request_is_served(daemon: Daemon, raw: RawClient, case: str) -> None:
    frame, code = FRAMES[case]
    raw.socket.send(frame)
    failed = raw.receive()
    assert isinstance(failed, wire.Failed)
    assert (failed.code, bool(failed.message)) == (code, True)
    raw.send(story(PROMPTS[0], 2))
    while not isinstance(last := raw.receive(), wire.Finished):
        assert not isinstance(last, wire.Failed)
    assert last.output_tokens == 2


def test_a_frame_over_the_limit_only_costs_its_sender_the_connection(daemon: Daemon, raw: RawClient) -> None:
    monitor = raw.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    raw.socket.send(b"\x00" * (wire.MAX_FRAME_BYTES + 1))
    assert monitor.poll(int(WAIT_S * 1000)), "the connection was not cut"
    raw.socket.disable_monitor()
    monitor.close()
    daemon.check_serves()


def test_a_thousand_random_frames(daemon: Daemon, raw: RawClient) -> None:
    """Mutations of a real request: each is answered, and none of them hurts a stream beside it."""
    rng = random.Random(8)
    good = wire.encode(story(PROMPTS[0], 1))
    with daemon.client() as client:
        stream = client.submit(story(PROMPTS[1], 100))
        for _ in range(1000):
            frame = bytearray(good)
            for _ in range(rng.randint(1, 6)):
                frame[rng.randrange(len(frame))] = rng.randrange(256)
            raw.socket.send(bytes(frame[: rng.randint(1, len(frame))]))
            raw.receive()
        assert finish(client, [stream])[0].output_tokens == 100
    daemon.until_idle()


def test_a_client_that_never_reads_loses_its_streams_and_nobody_else_waits(daemon: Daemon) -> None:
    """What it is sent is bounded: then its streams end as ``slow_consumer`` and their blocks are free."""
    with daemon.client() as client:
        (expected,) = finish(client, [client.submit(story(PROMPTS[0], 200))])
        deaf = RawClient(daemon.endpoint, max_unread=1)
        deaf.send(story(PROMPTS[2], 490))
        beside = client.submit(story(PROMPTS[0], 200))
        flood(deaf, lambda: client.call(wire.GetEvents(call=0)).events)
        (found,) = finish(client, [beside])
        assert outputs(found) == outputs(expected)
    daemon.until_idle()
    deaf.socket.close()
    daemon.check_serves()


def flood(deaf: RawClient, events: Callable[[], list[wire.Event]]) -> None:
    """Ask for long answers until the daemon has had enough."""
    for _ in range(100):
        for call in range(500):
            deaf.send(wire.GetSnapshot(call=call))
        if any(event.kind == "slow_consumer" for event in events()):
            return
    raise AssertionError("the daemon would queue without end")
