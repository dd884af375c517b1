"""The supervisor: starts the front and the engine, watches them, starts them again, reloads, drains and ends them.

Each child holds one end of a socketpair; end of file there tells it that the supervisor is gone, so that no orphan
keeps device memory, however the supervisor ended. It sleeps in one `poll`, and wakes every two seconds to probe its
children's loops (`ladder`) and to tell systemd's watchdog that it did. It knows nothing of requests, models and ZeroMQ,
and never imports torch.
"""

import contextlib
import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from rapidctl import wire
from rapidd import log, reload, stacks
from rapidd.child import Child, ChildName, describe_exit
from rapidd.config import Config
from rapidd.errors import EXIT_CONFIG, EXIT_DEVICE, EXIT_FAILED, ConfigError, RuntimeDirError
from rapidd.ipc import (
    AdmissionStopped,
    AskReload,
    ChildReport,
    DeviceFault,
    NoEngine,
    Pulse,
    Reload,
    ReloadDone,
    Reloaded,
    SupervisorNote,
)
from rapidd.ladder import BEAT_S
from rapidd.paths import RuntimeDir
from rapidd.sdnotify import notify, settle

FRONT_DELAYS_S: Final = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
ENGINE_DELAYS_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 10.0)
MAX_FIRST_FAILURES: Final = 5
"""A child that failed more often than this in a row and was never ready will not become so by itself."""

DRAIN_GRACE_S: Final = 5.0
"""What the front gets beyond its own drain timeout."""
ENGINE_STOP_S: Final = 5.0
LOCK_WAIT_S: Final = 30.0
"""For the children of a supervisor that was killed to end; a device's memory takes a while to be given back."""
LOAD_EXTENSION_S: Final = 120.0
"""systemd's start timeout moves by this at each report of progress."""
PERCENT_STEP: Final = 10

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

Commands = Mapping[ChildName, Sequence[str]]
Load = Callable[[], Config]
"""Reads the configuration again, from where it came from. Raises `ConfigError`."""


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


def _on(device: Literal["auto", "cpu", "cuda", "hip"], config: Config) -> Config:
    """The configuration with the device that "auto" has found, if it has."""
    if config.engine.device != "auto":
        return config
    return msgspec.structs.replace(config, engine=msgspec.structs.replace(config.engine, device=device))


class Supervisor:
    """One daemon. ``serving`` until a stop signal or a fatal failure; ``draining`` until the front has ended;
    ``ending`` until the engine has; then ``ended``.
    """

    def __init__(self, config: Config, directory: RuntimeDir, lock: int, commands: Commands, load: Load) -> None:
        self._directory = directory
        self._lock = lock
        self._load = load
        self._front = Child("front", commands["front"], FRONT_DELAYS_S)
        self._engine = Child("engine", commands["engine"], ENGINE_DELAYS_S)
        self._children = (self._engine, self._front)
        self._phase: Literal["serving", "draining", "ending", "ended"] = "serving"
        self._deadline_s = 0.0
        """Of the phase; only while draining or ending."""
        self._exit_status = 0
        self._was_ready = False
        self._has_terminal = _has_terminal()
        self._reloading: Config | None = None
        """Given to the engine, which has not answered yet."""
        self._draining = False
        """An operator stopped admission."""
        self._beat_at_s = 0.0
        self._status = ""
        self._last_note: SupervisorNote | None = None
        self._last_line = ""
        self._started_s = time.monotonic()
        self._wakeup, self._signals = socket.socketpair()
        self._take(config)

    def _take(self, config: Config) -> None:
        """Make a configuration the one in force."""
        self._config = config
        log.start(config.log, "supervisor")
        self._drain_s = config.server.drain_timeout_s + DRAIN_GRACE_S
        for child in self._children:
            child.watch.limit_s = config.server.hang_timeout_s
            child.load_limit_s = config.server.load_timeout_s

    def run(self) -> int:
        """The whole life of the daemon; the exit status. Only in a process's main thread (signals)."""
        self._listen_to_signals()
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

    def _listen_to_signals(self) -> None:
        for sock in (self._wakeup, self._signals):
            sock.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        for number in (*STOP_SIGNALS, signal.SIGHUP, signal.SIGCHLD):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, lambda *_: None)  # what counts is the byte in the pipe

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
                        self._on_reloaded(problem)
                    case DeviceFault():
                        self._on_device_fault(message)
                    case AskReload():
                        self._reload()
                    case AdmissionStopped(on):
                        self._draining = on
            pid = child.pid
            if pid is not None and (status := child.reap()) is not None:
                self._on_exit(child, describe_exit(status), now_s, fatal=status == EXIT_CONFIG)
                if (kept := stacks.keep(self._directory.private, child.name, pid)) is not None:
                    self._say(f"the {child.name}'s last stacks are in {kept}", log.warning)
        self._advance(now_s)
        if now_s >= self._beat_at_s:
            self._beat(now_s)
        for child in self._children:
            if child.retry_at_s is not None and child.retry_at_s <= now_s:
                child.count_restart()
                self._start(child)
        self._note()

    def _on_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in self._signals.recv(4096):
                if number == signal.SIGHUP and not (self._has_terminal and not _has_terminal()):
                    self._reload()
                elif number not in (*STOP_SIGNALS, signal.SIGHUP):
                    continue
                elif self._phase == "serving":
                    self._say("draining: running requests finish, a second signal stops at once")
                    self._stop(self._drain_s)
                else:
                    self._say("stopping at once")
                    self._phase = "ended"

    # --- the ladder

    def _beat(self, now_s: float) -> None:
        """Probe the children, abort and then kill those that hang, and tell the watchdog that this was done."""
        self._beat_at_s = now_s + BEAT_S
        for child in self._children:
            if (trouble := child.check(now_s)) is not None:
                self._say(f"the {child.name} hangs: {trouble}; aborting it", log.warning)
            if child.kill_at_s is not None and now_s >= child.kill_at_s:
                child.signal(signal.SIGKILL)
        settle()
        if "WATCHDOG_USEC" in os.environ:
            notify("WATCHDOG=1")

    def _on_pulse(self, child: Child, pulse: Pulse) -> None:
        child.watch.heard(pulse)
        if child is self._front and self._was_ready:
            engine = "" if self._engine.ready else ", no engine at the moment"
            status = f"{self._phase}: {pulse.requests} requests{engine}"
            if status != self._status:
                self._status = status
                notify(f"STATUS={status}")

    def _on_device_fault(self, fault: DeviceFault) -> None:
        """What the driver says of the device decides: an engine that still runs on it proves nothing.

        One that still loads is another than the fault's, which ended by itself, or ends so too.
        """
        if fault.remedy == "restart":
            if not self._engine.ready:
                return
            self._say(f"device fault: {fault.text}; replacing the engine", log.error)
            self._engine.ended_by = "device"
            self._engine.signal(signal.SIGKILL)
        elif self._phase == "serving":
            self._fail(EXIT_DEVICE, f"device fault: {fault.text}; the device must be reset or replaced")

    # --- reloading

    def _reload(self) -> None:
        """Read the configuration again. The engine is asked first: it alone can find a policy illegal."""
        if self._is_up:
            notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            if self._phase != "serving" or self._reloading is not None or not self._engine.ready:
                raise ConfigError(["not now: the daemon starts, stops or reloads already; try again when it serves"])
            config = _on(self._config.engine.device, self._load())
            keys = reload.check(self._config, config)
        except ConfigError as error:
            self._end_reload(error.problems)
            return
        if not keys:
            self._end_reload([])
            return
        self._reloading = config
        self._engine.tell(Reload(config))

    def _on_reloaded(self, problem: str) -> None:
        """The engine took the configuration over, or found out why nobody can."""
        config, self._reloading = self._reloading, None
        if config is None:
            return
        if problem:
            self._end_reload([problem])
            return
        keys = reload.changed(self._config, config)
        self._take(config)
        self._write_config()
        self._front.tell(Reload(config))
        self._end_reload([], f"reloaded: {', '.join(keys)}")

    def _end_reload(self, problems: Sequence[str], done: str = "reloaded: nothing has changed") -> None:
        self._last_line = ""  # the same outcome twice is news twice
        for problem in problems:
            self._say(f"reload refused, the old configuration stays: {problem}", log.error)
        if not problems:
            self._say(done)
        text = f"reload refused, the old configuration stays: {'; '.join(problems)}" if problems else done
        self._front.tell(ReloadDone(text, bool(problems)))
        if self._is_up:
            notify("READY=1")

    @property
    def _is_up(self) -> bool:
        """Whether systemd was told that the daemon is ready, and not that it stops; else no reload may say so."""
        return self._was_ready and self._phase == "serving"

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
            self._say(f"{report.detail or 'loading'}{percent}")
            notify(f"EXTEND_TIMEOUT_USEC={LOAD_EXTENSION_S * 1e6:.0f}")
            return
        if report.device is not None:
            self._settle(report.device)
        if report.state == "ready" and self._front.ready and self._engine.ready:
            detail = self._engine.report.detail if self._engine.report is not None else ""
            since_s = child.started_s if self._was_ready else self._started_s
            what = f"{child.name} ready again" if self._was_ready else "ready"
            served = f" ({detail})" if detail else ""
            self._say(f"{what} on {self._directory.endpoint}{served} in {now_s - since_s:.1f} s")
            self._was_ready = True
            if self._is_up:
                notify("READY=1")

    def _settle(self, device: Literal["cpu", "cuda", "hip"]) -> None:
        """What "auto" has found stays: a later engine that does not find its GPU is no slower one, but none."""
        if self._config.engine.device == "auto":
            self._config = _on(device, self._config)
            self._write_config()

    def _write_config(self) -> None:
        """For children that start from now on. Those that run need no file."""
        try:
            self._directory.write_config(msgspec.json.encode(self._config))
        except RuntimeDirError as error:
            self._say(f"processes that start from now on have the configuration before: {error}", log.warning)

    def _on_exit(self, child: Child, how: str, now_s: float, *, fatal: bool) -> None:
        who = f"the {child.name}"
        cannot = f"{who} cannot serve this configuration; the log has its message"
        if self._phase != "serving" and (child is self._front or fatal or self._exit_status != 0):
            if child is self._engine and fatal:
                self._front.tell(NoEngine(cannot))
            return  # the end that was asked for
        if self._phase == "ending":
            return
        if child is self._engine and self._reloading is not None:
            self._reloading = None
            self._end_reload(["the engine ended before it answered"])
        delay_s = child.failed(now_s)
        if fatal:
            self._fail(EXIT_CONFIG, cannot)
        elif not child.ever_ready and child.failures > MAX_FIRST_FAILURES:
            self._fail(EXIT_FAILED, f"{who} ended {child.failures} times and was never ready (last: {how}); giving up")
        else:
            when = f"in {delay_s:g} s" if delay_s else "now"
            self._say(f"{who} ended ({how}); starting another {when}", log.warning)

    def _fail(self, status: int, line: str) -> None:
        self._say(line, log.error)
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
        notify("STOPPING=1", f"EXTEND_TIMEOUT_USEC={(front_s + ENGINE_STOP_S + DRAIN_GRACE_S) * 1e6:.0f}")

    def _advance(self, now_s: float) -> None:
        """From draining over ending to ended, as the children end or run out of time."""
        if self._phase == "draining" and (not self._front.running or now_s >= self._deadline_s):
            if self._front.running:
                self._say("the front did not drain in time: stopping it", log.warning)
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
            engine_restarts=self._engine.restarts,
            front_restarts=self._front.restarts,
            started_mono_ns=int(self._started_s * 1e9),
            engine_causes=dict(self._engine.causes),
            front_causes=dict(self._front.causes),
            draining=self._draining,
        )
        if note != self._last_note:
            self._last_note = note
            self._front.tell(note)

    def _say(self, line: str, tell: Callable[[str], None] = log.info) -> None:
        """A line for people, at the level of ``tell``, and for ``systemctl status``."""
        if line == self._last_line:
            return
        self._last_line = line
        notify(f"STATUS={line}")
        tell(line)


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal that is still there: its end is a SIGHUP too."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
