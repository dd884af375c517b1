"""One child: when it is started again."""

import socket

from rapidd.ipc import Channel, ChildReport
from rapidd.supervisor.child import Child


def test_delays_grow_with_failures_in_a_row_and_a_healthy_minute_forgives_them() -> None:
    child = Child("engine", [], (0.5, 1.0, 2.0))
    ours, theirs = socket.socketpair()
    child.channel = Channel(ours)

    def ready(now_s: float) -> None:
        Channel(theirs).send(ChildReport("ready"))
        assert child.hear(now_s) == [ChildReport("ready")]

    assert [child.failed(now_s) for now_s in (0.0, 1.0, 2.0, 3.0)] == [0.5, 1.0, 2.0, 2.0]
    ready(10.0)
    assert child.failed(69.0) == 2.0
    ready(100.0)
    assert child.failed(160.0) == 0.5
    assert child.retry_at_s == 160.5
    child.channel.close()
    theirs.close()
