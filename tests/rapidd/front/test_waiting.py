"""Sleeping on sockets whose descriptors tell of news once only."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from rapidd.front.waiting import Waiter, has_message

Pair = tuple["zmq.Socket[bytes]", "zmq.Socket[bytes]"]
LONG_MS = 10_000
"""Only a failing test ever waits so long."""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    ours, theirs = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    ours.bind(f"ipc://{tmp_path}/pair")
    theirs.connect(f"ipc://{tmp_path}/pair")
    yield ours, theirs
    ours.close(linger=0)
    theirs.close(linger=0)
    context.term()


def until_message(waiter: Waiter, socket: "zmq.Socket[bytes]") -> None:
    """Other news, such as a new connection, wake as well."""
    while not (socket in waiter.wait(LONG_MS) and has_message(socket)):
        pass


def test_a_message_wakes_and_an_empty_socket_does_not(pair: Pair) -> None:
    ours, theirs = pair
    waiter = Waiter([ours])
    theirs.send(b"1")
    until_message(waiter, ours)
    assert ours.recv() == b"1"
    waiter.used(ours)
    assert waiter.wait(0) == set()


def test_a_message_whose_news_was_taken_by_another_use_is_found_before_sleeping(pair: Pair) -> None:
    """A send takes the news from the descriptor: without `used` the message would wait for the next one."""
    ours, theirs = pair
    waiter = Waiter([ours])
    theirs.send(b"1")
    until_message(waiter, ours)
    assert waiter.wait(0) == set(), "its news is taken"
    waiter.used(ours)
    assert waiter.wait(LONG_MS) == {ours}


def test_the_first_wait_asks_every_socket(pair: Pair) -> None:
    ours, theirs = pair
    theirs.send(b"1")
    until_message(Waiter([ours]), ours)
    assert Waiter([ours]).wait(LONG_MS) == {ours}


def test_plain_descriptors_wake_too(pair: Pair) -> None:
    read, write = os.pipe()
    waiter = Waiter([pair[0], read])
    waiter.wait(0)
    os.write(write, b"x")
    assert read in waiter.wait(LONG_MS)
    os.close(read)
    os.close(write)
