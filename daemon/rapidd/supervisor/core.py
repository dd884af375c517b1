"""The supervisor: starts the front and the engine, watches them, starts them again, drains and ends them.

Each child holds one end of a socketpair; end of file there tells it that the supervisor is gone, so that no orphan
keeps device memory, however the supervisor ended. It sleeps in one `poll`, and wakes every two seconds to probe its
children's loops (`ladder`) and to tell systemd's watchdog that it did (`voice`). It knows nothing of requests, models
and ZeroMQ, and never imports torch.
"""

import math
import os
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from rapidctl import wire
from rapidd import log, stacks
from rapidd.config import Config
from rapidd.errors import EXIT_CONFIG, EXIT_DEVICE, EXIT_FAILED
from rapidd.ipc import (
    AdmissionStopped,
    AskReload,
    ChildReport,
    DeviceFault,
    NoEngine,
    Pulse,
    Reloaded,
    SupervisorNote,
)
from rapidd.paths import RuntimeDir
from rapidd.supervisor.child import Child, ChildName, describe_exit
from rapidd.supervisor.in_force import InForce, Load
from rapidd.supervisor.ladder import BEAT_S
from rapidd.supervisor.signals import Signals
from rapidd.supervisor.voice import Voice

FRONT_DELAYS_S: Final = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
ENGINE_DELAYS_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 10.0)
MAX_FIRST_FAILURES: Final = 5
"""A child that failed more often than this in a row and was never ready will not become so by itself."""

DRAIN_GRACE_S: Final = 5.0
"""What the front gets beyond its own drain timeout."""
ENGINE_STOP_S: Final = 5.0
LOCK_WAIT_S: Final = 30.0
"""For the children of a supervisor that was killed to end; a device's memory takes a while to be given back."""
PERCENT_STEP: Final = 10

Commands = Mapping[ChildName, Sequence[str]]


def child_commands() -> Commands:
    """How the children are started; ``--config FILE --channel FD`` is added. Tests pass other programs."""
    return {
        "front": [sys.executable, "-P", "-m", "rapidd.front"],
        "engine": [sys.executable, "-P", "-m", "rapidd.engine"],
    }


def serve(config: Config, commands: Commands | None = None, load: Load | None = None) -> int:
    """Serve until told to stop; the exit status. Raises `EndpointInUse`, `RuntimeDirError`, `wire.EndpointError`.

    ``load`` null: there is nothing to read again, and a reload changes nothing.
    """
    endpoint = config.server.listen or wire.default_endpoint()
    directory = RuntimeDir(endpoint)
    directory.prepare()
    lock = directory.lock(LOCK_WAIT_S)
    resolved = _at(endpoint, config)
    directory.write_config(msgspec.json.encode(resolved))
    load_again = load or (lambda: config)
    return Supervisor(
        resolved, directory, lock, commands or child_commands(), lambda: _at(endpoint, load_again())
    ).run()


def _at(endpoint: str, config: Config) -> Config:
    """The configuration with the endpoint that was found for it."""
    return msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, listen=endpoint))


class Supervisor:
    """One daemon. ``serving`` until a stop signal or a fatal failure; ``draining`` until the front has ended;
    ``ending`` until the engine has; then ``ended``.
    """

    def __init__(self, config: Config, directory: RuntimeDir, lock: int, commands: Commands, load: Load) -> None:
        self._directory = directory
        self._lock = lock
        self._front = Child("front", commands["front"], FRONT_DELAYS_S)
        self._engine = Child("engine", commands["engine"], ENGINE_DELAYS_S)
        self._children = (self._engine, self._front)
        self._signals = Signals()
        self._voice = Voice()
        self._in_force = InForce(config, load, directory, engine=self._engine, front=self._front, voice=self._voice)
        self._phase: Literal["serving", "draining", "ending", "ended"] = "serving"
        self._deadline_s = 0.0
        """Of the phase; only while draining or ending."""
        self._exit_status = 0
        self._admission_stopped = False
        self._beat_at_s = 0.0
        self._last_note: SupervisorNote | None = None
        self._started_s = time.monotonic()

    def run(self) -> int:
        """The whole life of the daemon; the exit status."""
        try:
            for child in self._children:
                self._start(child)
            while self._phase != "ended":
                self._sleep()
                self._step()
        finally:
            for child in self._children:
                child.kill()
        return self._exit_status

    def _sleep(self) -> None:
        """Until a signal, a child's line, or the next thing that is due."""
        poller = select.poll()
        poller.register(self._signals, select.POLLIN)
        due = [self._beat_at_s]
        if self._phase in ("draining", "ending"):
            due.append(self._deadline_s)
        for child in self._children:
            if child.channel is not None and not child.channel.closed:  # at end of file it is readable for ever
                poller.register(child.channel, select.POLLIN)
            if child.retry_at_s is not None:
                due.append(child.retry_at_s)
        poller.poll(math.ceil(max(0.0, min(due) - time.monotonic()) * 1000))

    def _step(self) -> None:
        now_s = time.monotonic()
        self._on_signals()
        for child in self._children:
            for message in child.hear(now_s):
                match message:
                    case ChildReport():
                        self._on_report(child, message, now_s)
                    case Pulse():
                        self._on_pulse(child, message)
                    case Reloaded(problem):
                        self._in_force.answered(problem)
                    case DeviceFault():
                        self._on_device_fault(message)
                    case AskReload():
                        self._in_force.reload(serves=self._phase == "serving")
                    case AdmissionStopped(on):
                        self._admission_stopped = on
            pid = child.pid
            if pid is not None and (status := child.reap()) is not None:
                self._on_exit(child, describe_exit(status), now_s, fatal=status == EXIT_CONFIG)
                if (kept := stacks.keep(self._directory.private, child.name, pid)) is not None:
                    self._voice.say(f"the {child.name}'s last stacks are in {kept}", log.warning)
        self._advance(now_s)
        if now_s >= self._beat_at_s:
            self._beat(now_s)
        for child in self._children:
            if child.retry_at_s is not None and child.retry_at_s <= now_s:
                child.count_restart()
                self._start(child)
        self._note()

    def _on_signals(self) -> None:
        for wish in self._signals.wishes():
            if wish == "reload":
                self._in_force.reload(serves=self._phase == "serving")
            elif self._phase == "serving":
                self._voice.say("draining: running requests finish, a second signal stops at once")
                self._stop(self._in_force.config.server.drain_timeout_s + DRAIN_GRACE_S)
            else:
                self._voice.say("stopping at once")
                self._phase = "ended"

    # --- the ladder

    def _beat(self, now_s: float) -> None:
        """Probe the children, abort and then kill those that hang, and tell the watchdog that this was done."""
        self._beat_at_s = now_s + BEAT_S
        for child in self._children:
            if (trouble := child.check(now_s)) is not None:
                self._voice.say(f"the {child.name} hangs: {trouble}; aborting it", log.warning)
            if child.kill_at_s is not None and now_s >= child.kill_at_s:
                child.signal(signal.SIGKILL)
        self._voice.beat()

    def _on_pulse(self, child: Child, pulse: Pulse) -> None:
        child.watch.heard(pulse)
        if child is self._front and self._voice.was_ready:
            engine = "" if self._engine.ready else ", no engine at the moment"
            self._voice.status(f"{self._phase}: {pulse.requests} requests{engine}")

    def _on_device_fault(self, fault: DeviceFault) -> None:
        """What the driver says of the device decides: an engine that still runs on it proves nothing.

        One that still loads is another than the fault's, which ended by itself, or ends so too.
        """
        if fault.remedy == "restart":
            if not self._engine.ready:
                return
            self._voice.say(f"device fault: {fault.text}; replacing the engine", log.error)
            self._engine.ended_by = "device"
            self._engine.signal(signal.SIGKILL)
        elif self._phase == "serving":
            self._fail(EXIT_DEVICE, f"device fault: {fault.text}; the device must be reset or replaced")

    # --- children

    def _start(self, child: Child) -> None:
        now_s = time.monotonic()
        try:
            child.start(self._directory.config_file, self._lock, now_s)
        except OSError as error:
            self._on_exit(child, f"could not be started: {error}", now_s, fatal=False)
            return
        if child is self._front:
            self._last_note = None  # the new process knows nothing yet

    def _on_report(self, child: Child, report: ChildReport, now_s: float) -> None:
        if child is self._engine and report.state == "loading":
            percent = "" if report.percent is None else f" {report.percent // PERCENT_STEP * PERCENT_STEP:.0f} %"
            self._voice.loading(f"{report.detail or 'loading'}{percent}")
            return
        if report.device is not None:
            self._in_force.settle(report.device)
        if report.state == "ready" and self._front.ready and self._engine.ready:
            detail = self._engine.report.detail if self._engine.report is not None else ""
            again = self._voice.was_ready
            since_s = child.started_s if again else self._started_s
            what = f"{child.name} ready again" if again else "ready"
            served = f" ({detail})" if detail else ""
            self._voice.ready(f"{what} on {self._directory.endpoint}{served} in {now_s - since_s:.1f} s")

    def _on_exit(self, child: Child, how: str, now_s: float, *, fatal: bool) -> None:
        who = f"the {child.name}"
        cannot = f"{who} cannot serve this configuration; the log has its message"
        if self._phase != "serving" and (child is self._front or fatal or self._exit_status != 0):
            if child is self._engine and fatal:
                self._front.tell(NoEngine(cannot))
            return  # the end that was asked for
        if self._phase == "ending":
            return
        if child is self._engine:
            self._in_force.engine_ended()
        delay_s = child.failed(now_s)
        if fatal:
            self._fail(EXIT_CONFIG, cannot)
        elif not child.ever_ready and child.failures > MAX_FIRST_FAILURES:
            self._fail(EXIT_FAILED, f"{who} ended {child.failures} times and was never ready (last: {how}); giving up")
        else:
            when = f"in {delay_s:g} s" if delay_s else "now"
            self._voice.say(f"{who} ended ({how}); starting another {when}", log.warning)

    def _fail(self, status: int, line: str) -> None:
        self._voice.say(line, log.error)
        self._exit_status = status
        self._front.tell(NoEngine(line))  # it tells whoever waits for one
        self._stop(DRAIN_GRACE_S)

    def _stop(self, front_s: float) -> None:
        """Begin the end: the front drains for at most ``front_s``, and needs the engine meanwhile."""
        self._phase = "draining"
        self._deadline_s = time.monotonic() + front_s
        self._front.retry_at_s = None
        self._front.signal(signal.SIGTERM)
        if self._exit_status:
            self._engine.retry_at_s = None
        self._voice.stopping(front_s + ENGINE_STOP_S + DRAIN_GRACE_S)

    def _advance(self, now_s: float) -> None:
        """From draining over ending to ended, as the children end or run out of time."""
        if self._phase == "draining" and (not self._front.running or now_s >= self._deadline_s):
            if self._front.running:
                self._voice.say("the front did not drain in time: stopping it", log.warning)
                self._front.kill()
            self._phase = "ending"
            self._deadline_s = now_s + ENGINE_STOP_S
            self._engine.retry_at_s = None
            self._engine.signal(signal.SIGTERM)
        if self._phase == "ending" and (not self._engine.running or now_s >= self._deadline_s):
            self._phase = "ended"

    def _note(self) -> None:
        """Tell the front how the others are, when that has changed."""
        report = self._engine.report
        state: Literal["starting", "ready", "restarting"] = "restarting" if self._engine.failures else "starting"
        note = SupervisorNote(
            supervisor_pid=os.getpid(),
            engine_pid=self._engine.pid,
            engine_state="ready" if self._engine.ready else state,
            detail=report.detail if report is not None else "",
            percent=report.percent if report is not None else None,
            started_mono_ns=int(self._started_s * 1e9),
            engine_causes=dict(self._engine.causes),
            front_causes=dict(self._front.causes),
            draining=self._admission_stopped,
        )
        if note != self._last_note:
            self._last_note = note
            self._front.tell(note)
