"""The front process: ``python -P -m rapidd.front --config FILE --channel FD``, started by the supervisor."""

import argparse
import socket
import sys
from pathlib import Path
from typing import Final

from rapidctl import wire
from rapidd import faults, ipc, limits, log, stacks
from rapidd.config import Config, LogConfig, read_resolved
from rapidd.errors import EXIT_CONFIG, RapiddError
from rapidd.front.admission import TextModel
from rapidd.front.server import Server
from rapidd.model.resolve import load_chat_template, load_model, load_tokenizer
from rapidd.paths import RuntimeDir

MEMORY_BYTES: Final = 4 * 1024**3
"""Of its own, many times what it needs. ZeroMQ gathers messages of any number of parts: a client that sends one without
end is cut, or ends this process, and does not take the machine's memory.
"""


def load_text(config: Config) -> TextModel:
    """Tokenizer, chat template and longest context of the configured model. Raises `ModelError`."""
    model = load_model(config.model)
    return TextModel(load_tokenizer(model), load_chat_template(model), model.spec.max_position)


def main(arguments: list[str] | None = None) -> int:
    """Serve until drained. Returns the exit status: 0 drained, 1 the supervisor is gone, 78 bad configuration."""
    parser = argparse.ArgumentParser(prog="python -m rapidd.front")
    parser.add_argument("--config", type=Path, required=True, help="resolved configuration, JSON")
    parser.add_argument("--channel", type=int, required=True, help="descriptor of the socketpair to the supervisor")
    options = parser.parse_args(arguments)
    channel = ipc.Channel(socket.socket(fileno=options.channel))
    log.start(LogConfig(), "front")
    try:
        config = read_resolved(options.config)
        log.start(config.log, "front")
        log.adopt_crashes()
        limits.raise_descriptors()
        limits.bound_memory(MEMORY_BYTES)
        runtime = RuntimeDir(config.server.listen or wire.default_endpoint())
        runtime.prepare()
        stacks.catch(runtime.private, "front")
        faults.arm(config.faults.points, runtime.private, "front.")
        text = load_text(config)
        server = Server(config, runtime, text, channel)
    except (RapiddError, wire.EndpointError) as error:
        hint = getattr(error, "hint", "")
        log.error(f"{error}{f' ({hint})' if hint else ''}")
        return EXIT_CONFIG
    server.front.watch.start()
    try:
        return server.run()
    finally:
        server.front.watch.stop()
        server.close()


if __name__ == "__main__":
    sys.exit(main())
