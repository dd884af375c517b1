"""Modes, policies and overrides, changed by the command line while six streams run: no stream can tell."""

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rapidctl.client import Client
from rapidctl.errors import Refused
from rapidctl.wire import Event, GetPartition, Mode, PlanRequest, SetPartition, Status
from support.daemon import ON_ALL_CORES, PROMPTS, Daemon, finish, outputs, rapidctl, rapidctl_json, running, story

TOKENS = 60
LONG_PROMPTS = tuple(" ".join(f"{PROMPTS[(start + step) % 8]}." for step in range(25)) for start in range(3))
"""About 250 tokens each: several chunks of prefill."""
ALL_PROMPTS = (*PROMPTS[:3], *LONG_PROMPTS)
Ids = list[list[int]]


class Load:
    """Six streams at a time in a thread of its own, sent again as soon as all have ended."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._stop = threading.Event()
        self.answers: list[list[Ids]] = []
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="load")

    def _run(self) -> None:
        try:
            with self._daemon.client() as client:
                while not self._stop.is_set():
                    streams = [client.submit(story(prompt, TOKENS)) for prompt in ALL_PROMPTS]
                    finished = finish(client, streams)
                    self.answers.append([outputs(last) for last in finished])
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self._stop.set()
        self.thread.join()
        if self.error is not None:
            raise self.error


@contextmanager
def load(daemon: Daemon) -> Iterator[Load]:
    """Streams run during the block; afterwards ``answers`` has every round's ids."""
    found = Load(daemon)
    found.thread.start()
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def daemon(folder: Callable[[], Path]) -> Iterator[Daemon]:
    """One that can be split."""
    with running(folder(), *ON_ALL_CORES) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def undisturbed(daemon: Daemon) -> list[Ids]:
    with daemon.client() as client:
        return [
            outputs(last) for prompt in ALL_PROMPTS for last in finish(client, [client.submit(story(prompt, TOKENS))])
        ]


@pytest.fixture(autouse=True)
def released(daemon: Daemon) -> Iterator[None]:
    """Each test leaves the policy in charge, and the next one may pin a plan at once."""
    yield
    assert rapidctl(daemon, "partition", "auto").returncode == 0
    assert rapidctl(daemon, "policy", "set", "auto").returncode == 0
    daemon.until_idle()


def set_plan(daemon: Daemon, *arguments: str) -> dict[str, Any]:
    """``partition set``, tried again while the last change is too recent."""
    while True:
        done = rapidctl(daemon, "partition", "set", *arguments, "--yes", "--json")
        if done.returncode == 0:
            document: dict[str, Any] = json.loads(done.stdout)
            return document
        assert done.returncode == 1
        assert "too_soon: " in done.stderr


def shown(daemon: Daemon) -> dict[str, Any]:
    return rapidctl_json(daemon, "partition", "show")


def splits(daemon: Daemon) -> list[int]:
    with daemon.client() as client:
        return client.call(GetPartition(call=0)).splits


def override_in(status: Status) -> bool:
    return status.partition is not None and status.partition.override is not None


def test_every_mode_at_run_time_gives_the_same_tokens(daemon: Daemon, undisturbed: list[Ids]) -> None:
    modes: list[tuple[str, ...]] = [("serial", "--chunk", "all"), ("hybrid", "--chunk", "32"), ("shared",)]
    if units := splits(daemon):
        modes.insert(1, ("split", "--decode-units", str(units[0])))
    preempted = daemon.status().requests.preempted_total
    with load(daemon) as streams:
        for mode, *rest in modes:
            done = set_plan(daemon, "--mode", mode, *rest, "--no-guard", "--wait", "--reason", "look", "--ttl", "5m")
            assert done["applied"]["kind"] == "applied"
            assert done["applied"]["text"].startswith(mode)
            now = shown(daemon)
            assert next(iter(now)) == "schema_version"
            assert (now["mode"], now["source"], now["epoch"]) == (mode, "override", done["epoch"])
            assert now["override"]["reason"] == "look"
            assert 0 < now["override"]["ttl_s"] <= 300
            assert now["override"]["by"]
            total, decode, prefill = (now[key] for key in ("units_total", "decode_units", "prefill_units"))
            assert decode + prefill == (total if mode == "split" else 2 * total)
            assert {"policy", "decision", "reason", "measured"} <= now.keys()
    assert streams.answers
    assert [answers for answers in streams.answers if answers != undisturbed] == []
    assert daemon.until_idle().requests.preempted_total == preempted


def test_a_second_change_within_two_seconds_is_refused_and_changes_nothing(daemon: Daemon) -> None:
    epoch = set_plan(daemon, "--mode", "shared")["epoch"]
    with daemon.client(control=True) as client:
        taken, code = change_until_refused(client)
    assert code == "too_soon"
    assert shown(daemon)["epoch"] == (taken or epoch)


def change_until_refused(client: Client) -> tuple[int | None, str]:
    """One change after the other: a busy machine may make one late enough. The last epoch, and why there is no next."""
    epoch = None
    modes: Iterator[Mode] = itertools.cycle(("hybrid", "serial"))
    while True:
        try:
            epoch = client.call(SetPartition(call=0, plan=PlanRequest(mode=next(modes)))).epoch
        except Refused as error:
            return epoch, error.code


def test_a_command_for_another_epoch_is_refused(daemon: Daemon) -> None:
    epoch = shown(daemon)["epoch"]
    done = rapidctl(daemon, "partition", "auto", "--if-epoch", str(epoch + 1))
    assert done.returncode == 1
    assert "epoch_conflict: " in done.stderr
    done = rapidctl(daemon, "policy", "set", "shared", "--if-epoch", str(epoch + 1))
    assert done.returncode == 1
    assert "epoch_conflict: " in done.stderr
    assert shown(daemon)["epoch"] == epoch


def test_an_override_ends_when_its_time_is_over(daemon: Daemon) -> None:
    epoch = set_plan(daemon, "--mode", "serial", "--chunk", "64", "--ttl", "500ms")["epoch"]
    status = daemon.until(lambda status: not override_in(status))
    assert status.partition is not None
    assert (status.partition.epoch, status.partition.source) == (epoch + 1, "policy")
    assert [event.text for event in since(daemon, epoch) if event.kind == "ttl"] == ["override serial:64 expired"]


def since(daemon: Daemon, epoch: int) -> list[Event]:
    return [event for event in daemon.events() if (event.epoch or 0) >= epoch]


def test_the_policy_changes_at_run_time_and_outlives_the_engine_s_next_decision(
    daemon: Daemon, undisturbed: list[Ids]
) -> None:
    with load(daemon) as streams:
        epoch = rapidctl_json(daemon, "policy", "set", "serial:64")["epoch"]
        now = shown(daemon)
        assert (now["policy"], now["mode"], now["epoch"], now["override"]) == ("serial:64", "serial", epoch, None)
    assert [answers for answers in streams.answers if answers != undisturbed] == []
    refused = rapidctl(daemon, "policy", "set", "fastest")
    assert refused.returncode == 1
    assert "invalid_request: " in refused.stderr
    assert "fastest" in refused.stderr
    assert shown(daemon)["policy"] == "serial:64"


def test_a_dry_run_has_no_numbers_without_a_profile_and_changes_nothing(daemon: Daemon) -> None:
    epoch = shown(daemon)["epoch"]
    found = rapidctl_json(daemon, "partition", "predict", "--mode", "shared")
    assert found["legal"] is True
    assert "no profile" in found["note"]
    numbers = ("itl_p95_s", "ttft_p95_s", "prefill_tokens_per_s", "breaches_slo")
    assert {found[key] for key in numbers} == {None}
    illegal = rapidctl(daemon, "partition", "predict", "--mode", "split", "--decode-units", "999", "--json")
    assert illegal.returncode == 1
    assert json.loads(illegal.stdout)["legal"] is False
    assert shown(daemon)["epoch"] == epoch


@pytest.mark.parametrize("command", [("partition", "set", "--mode", "shared"), ("partition", "set", "--mode", "fast")])
def test_a_change_that_nobody_confirms_is_a_usage_error(daemon: Daemon, command: tuple[str, ...]) -> None:
    assert rapidctl(daemon, *command).returncode == 2
