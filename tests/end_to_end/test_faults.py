"""Every fault point and action, in every phase of a request where it can strike: what becomes of the request, and that
the daemon serves the next one. A few run always; all of them with ``make test-faults``.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rapidctl.errors import Refused
from rapidctl.wire import Failed, Finished
from rapidd.faults import POINTS
from support.daemon import MODEL, WAIT_S, Daemon, finish, pump, running, story

TOKENS = 24
PROMPT = " ".join(["Once upon a time there was a little dog who ran to the park."] * 4)
"""Several chunks of prompt: batch 2 computes part of it, batch 20 decodes."""
OPTIONS = ("--model", str(MODEL), "--dtype", "float32", "--compute-units", "1", "--policy", "hybrid:32")

MATRIX = {
    # The batch fails and its request with it; the engine lives.
    "engine.step:raise@2": "internal_error",
    "engine.step:raise@20": "internal_error",
    "engine.step:oom@2": "out_of_memory",
    "engine.step:oom@20": "out_of_memory",
    # The engine dies or hangs, is replaced, and the stream goes on.
    "engine.step:exit@2": "finished",
    "engine.step:exit@20": "finished",
    "engine.step:hang@2": "finished",
    "engine.step:hang@20": "finished",
    "engine.submit:raise@1": "finished",
    "engine.submit:exit@1": "finished",
    "engine.submit:hang@1": "finished",
    "engine.loop:raise@1": "finished",
    "engine.loop:raise@8": "finished",
    "engine.loop:exit@1": "finished",
    "engine.loop:exit@8": "finished",
    "engine.loop:hang@8": "finished",
    # A message: Hello is the first, the request the second.
    "front.receive:raise@1": "internal_error",
    "front.receive:raise@2": "internal_error",
    "front.receive:exit@2": "finished",
    "front.receive:hang@2": "finished",
    # A message to the client: Welcome, Accepted, then tokens.
    "front.send:stall@6": "slow_consumer",
    "front.send:exit@2": "finished",
    "front.send:exit@6": "finished",
    "front.send:hang@6": "finished",
    # Another process loads what the first one could not.
    "loader:raise@1": "finished",
    "loader:oom@1": "finished",
    "loader:exit@1": "finished",
    "loader:hang@1": "finished",
}
"""Fault -> how the request ends that meets it."""
ALWAYS = ("engine.step:oom@20", "engine.step:hang@20", "front.send:stall@6", "front.send:exit@6")
ELSEWHERE = {
    "loader:truncate": "the test of that name below",
}


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("f")


def faulty(folder: Path, points: str) -> Daemon:
    """A hang in a batch is found after a second; one while the engine loads after more than it takes to load.

    Only where something is to hang: an engine that got no processor for a second would be replaced as well.
    """
    limits = {"RAPIDD__SERVER__HANG_TIMEOUT_S": "1", "RAPIDD__SERVER__LOAD_TIMEOUT_S": "20"}
    return Daemon(folder, *OPTIONS, RAPIDD__FAULTS__POINTS=points, **(limits if ":hang" in points else {}))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[list[int]]]:
    with running(tmp_path_factory.mktemp("u"), *OPTIONS) as daemon, daemon.client() as client:
        finish(client, [stream := client.submit(story(PROMPT, TOKENS))])
        yield stream.output_ids


def outcome(daemon: Daemon, expected: list[list[int]]) -> str:
    """How a request ends. One that is finished has every token, and no other."""
    try:
        with daemon.client() as client:
            stream = client.submit(story(PROMPT, TOKENS), resume=True)
            pump(client, lambda: stream.ended is not None)
    except Refused as refused:  # of Hello
        return refused.code
    if isinstance(stream.ended, Finished):
        assert stream.output_ids == expected
        return "finished"
    assert isinstance(stream.ended, Failed)
    return stream.ended.code


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=[] if fault in ALWAYS else [pytest.mark.faults]) for fault in MATRIX]
)
def test_a_request_meets_a_fault(fault: str, folder: Path, undisturbed: list[list[int]]) -> None:
    daemon = faulty(folder, fault)
    try:
        daemon.start()
        ended = outcome(daemon, undisturbed)
        daemon.check_serves()
    finally:
        daemon.close()
    assert ended == MATRIX[fault], daemon.said()
    assert "failing on purpose" in daemon.said() or "stall" in fault


def test_the_matrix_has_every_point_and_action() -> None:
    tried = {fault.partition("@")[0] for fault in (*MATRIX, *ELSEWHERE)}
    assert tried == {f"{point}:{action}" for point, actions in POINTS.items() for action in actions}


def test_a_request_that_kills_every_engine_is_quarantined_and_others_are_served(
    folder: Path, undisturbed: list[list[int]]
) -> None:
    """Two engines die of it. The third one is not given it, nor its like."""
    daemon = faulty(folder, "engine.submit:exit")
    try:
        daemon.start()
        assert outcome(daemon, undisturbed) == "quarantined"
        before = daemon.until(lambda status: status.state == "serving")
        assert outcome(daemon, undisturbed) == "quarantined"
        assert daemon.status().engine == before.engine
        assert before.engine.restarts == 2
    finally:
        daemon.close()
    assert "killed the engine 2 times" in daemon.said()


def test_a_truncated_model_is_refused_by_name_and_not_tried_again(folder: Path) -> None:
    daemon = faulty(folder, "loader:truncate")
    with pytest.raises(AssertionError, match="not ready"):
        daemon.start()
    assert daemon.process is not None
    assert daemon.process.wait(WAIT_S) == 78
    assert "is truncated or no safetensors file" in daemon.said()
