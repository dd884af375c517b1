"""A program that stands in for the front or the engine: keeps the supervisor's contract and tells a test about it.

    python stand_in.py NAME FOLDER BEHAVIOUR[,BEHAVIOUR...] --config FILE --channel FD

The i-th start in FOLDER follows the i-th behaviour (the last one repeats): ``serve`` reports ready, ends at SIGTERM
and at end of file; ``stubborn`` does too but ignores SIGTERM; ``noisy`` sends garbage first; ``busy`` never looks
at its channel; ``deaf`` does not either and ignores SIGABRT; ``loading`` is never ready; ``stuck`` answers probes but
never ends a batch; ``picky`` refuses reloads, ``mute`` never answers one; ``sick`` tells of a device that must be
reset, ``faulty`` of one whose engine must be replaced, once that is ready, ``hasty`` at once; a number exits with it.
SIGUSR1 makes it ask for a reload, SIGUSR2 say that admission was stopped, or, ``ill``, that the device must be reset.
Every event goes as one JSON datagram to FOLDER/events.
"""

import json
import os
import select
import signal
import socket
import sys
from pathlib import Path

from rapidd import stacks
from rapidd.ipc import (
    AdmissionStopped,
    AskReload,
    Channel,
    ChildReport,
    DeviceFault,
    NoEngine,
    Probe,
    Pulse,
    Reload,
    ReloadDone,
    Reloaded,
    SupervisorNote,
    decode_supervisor,
    exit_with_supervisor,
)
from rapidd.paths import RuntimeDir


def _next(behaviours: list[str], starts: Path) -> str:
    """The behaviour of this start; counts it in a file."""
    with starts.open("a") as file:
        file.write("x")
    return behaviours[min(len(starts.read_text()), len(behaviours)) - 1]


def main() -> int:
    name, folder, behaviours, _, config_file, _, channel_fd = sys.argv[1:]
    events = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    events.connect(f"{folder}/events")

    def tell(event: str, **details: object) -> None:
        events.send(json.dumps({"child": name, "pid": os.getpid(), "event": event, **details}).encode())

    behaviour = _next(behaviours.split(","), Path(folder) / f"{name}.starts")
    config = json.loads(Path(config_file).read_bytes())
    where = {"listen": config["server"]["listen"], "device": config["engine"]["device"]}
    tell("started", **where, group=os.getpgid(0), notify="NOTIFY_SOCKET" in os.environ)
    if behaviour.isdigit():
        return int(behaviour)

    wakeup, signals = socket.socketpair()
    wakeup.setblocking(False)
    signal.set_wakeup_fd(wakeup.fileno())
    for heard in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(heard, lambda *_: None)
    sock = socket.socket(fileno=int(channel_fd))
    channel = Channel(sock)
    if behaviour == "noisy":
        sock.send(b'\xff\n{"kind":"other"}\nnull\n' + b"[" * 2000 + b"\n")
    stacks.catch(RuntimeDir(config["server"]["listen"]).private, name)
    if behaviour == "deaf":
        signal.signal(signal.SIGABRT, signal.SIG_IGN)
    if behaviour in ("busy", "deaf", "loading"):
        exit_with_supervisor(channel)
        channel.send(ChildReport("loading" if behaviour == "loading" else "ready", f"{name} detail"))
        tell("loading" if behaviour == "loading" else "ready")
        while True:
            signal.pause()
    channel.send(ChildReport("loading", "loading weights", 63.0))
    channel.send(ChildReport("ready", f"{name} detail", device="cuda" if name == "engine" else None))
    if behaviour in ("sick", "hasty"):
        channel.send(DeviceFault("stop" if behaviour == "sick" else "restart", "Xid 1"))
    while True:
        readable, _, _ = select.select([channel.fileno(), signals.fileno()], [], [])
        if signals.fileno() in readable:
            if (number := signals.recv(1)[0]) != signal.SIGTERM:
                told = DeviceFault("stop", "Xid 1") if behaviour == "ill" else AdmissionStopped(True)
                channel.send(AskReload() if number == signal.SIGUSR1 else told)
                continue
            tell("told to stop")
            if behaviour != "stubborn":
                return 0
        if channel.fileno() in readable:
            for line in channel.lines():
                match decode_supervisor(line):
                    case Probe():
                        channel.send(Pulse(requests=3 if behaviour == "stuck" else 0, finished=0))
                    case Reload(new):
                        tell("reload", snapshot_hz=new.server.snapshot_hz)
                        if name == "engine" and behaviour != "mute":
                            channel.send(Reloaded("engine.policy: not here" if behaviour == "picky" else ""))
                    case NoEngine(reason):
                        tell("no engine", reason=reason)
                    case ReloadDone(text, refused):
                        tell("reload done", text=text, refused=refused)
                    case SupervisorNote(engine_state=state):
                        if behaviour == "faulty" and state == "ready":
                            behaviour = "serve"
                            channel.send(DeviceFault("restart", "Xid 1"))
                        tell("note", note=json.loads(line))
            if channel.closed:
                tell("end of file")
                return 0


if __name__ == "__main__":
    sys.exit(main())
