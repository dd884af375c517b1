"""The engine's socket to the front."""

from pathlib import Path

import zmq

from rapidd import ipc
from rapidd.engine.link import MOST_A_TURN, FrontLink
from support.process import WAIT_MS


def test_a_flood_of_messages_is_read_over_several_turns(tmp_path: Path) -> None:
    """A turn ended when the socket was empty, which it never was while others asked faster than the engine answered."""
    endpoint = f"ipc://{tmp_path}/front.sock"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as front:
        front.linger = 0
        front.bind(endpoint)
        link = FrontLink(endpoint)
        link.socket.send(b"hello")
        identity, _ = front.recv_multipart()
        for token in range(MOST_A_TURN + 5):
            front.send_multipart([identity, ipc.encode(ipc.AskProfile(token, 0.05, 1024))])
        read: list[int] = []
        turns = []
        while len(read) < MOST_A_TURN + 5:
            assert link.socket.poll(WAIT_MS)
            turn = [message.token for message in link.receive() if isinstance(message, ipc.AskProfile)]
            turns.append(len(turn))
            read += turn
        assert read == list(range(MOST_A_TURN + 5))
        assert max(turns) <= MOST_A_TURN
        link.close()
