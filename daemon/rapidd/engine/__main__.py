"""The engine process: ``python -P -m rapidd.engine --config FILE --channel FD``, started by the supervisor."""

import argparse
import os
import signal
import socket
import sys
from pathlib import Path

from rapidd import faults, log, stacks
from rapidd.config import LogConfig, read_resolved
from rapidd.engine.openmp import bound_spinning
from rapidd.errors import EXIT_CONFIG, EXIT_FAILED, DeviceLost, RapiddError
from rapidd.ipc import Channel, ChildReport, exit_with_supervisor
from rapidd.paths import RuntimeDir


def main() -> int:
    """Build, serve, and say why not."""
    parser = argparse.ArgumentParser(prog="rapidd.engine")
    parser.add_argument("--config", required=True, type=Path)
    parser.add_argument("--channel", required=True, type=int)
    arguments = parser.parse_args()
    channel = Channel(socket.socket(fileno=arguments.channel))
    exit_with_supervisor(channel)
    log.start(LogConfig(), "engine")

    def report(detail: str, percent: float | None) -> None:
        channel.send(ChildReport("loading", detail, percent))

    try:
        config = read_resolved(arguments.config)
        assert config.server.listen is not None, "the supervisor resolves the endpoint"
        directory = RuntimeDir(config.server.listen)
        stacks.catch(directory.private, "engine")
        log.start(config.log, "engine")
        log.adopt_crashes()
        faults.arm(config.faults.points, directory.private, "loader")
        report("starting the engine", None)
        bound_spinning()
        from rapidd.engine.build import build  # imports torch: after the first report

        engine = build(config, directory, channel, report)
    except RapiddError as error:
        _say(error)
        if isinstance(error, DeviceLost):
            os._exit(EXIT_FAILED)  # as below
        return EXIT_CONFIG
    faults.arm(config.faults.points, directory.private, "engine.")  # the warm-up counts for nothing
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: engine.stop())
    status = 0
    try:
        engine.run()
    except RapiddError as error:
        _say(error)
        status = EXIT_FAILED
    except Exception as error:  # told here, because the interpreter may not come to its end
        log.bug("the main loop failed", error)
        status = EXIT_FAILED
    if engine.busy or status:
        # A batch still runs, and threads that outlive the interpreter crash it; or the device is lost, and torch aborts
        # the process when it frees what was there.
        os._exit(status)
    return 0


def _say(error: RapiddError) -> None:
    hint = f" ({error.hint})" if error.hint else ""
    log.error(f"{error}{hint}")


if __name__ == "__main__":
    sys.exit(main())
