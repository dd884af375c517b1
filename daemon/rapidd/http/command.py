"""`rapidd http` on the command line. Imports nothing of the extra `http` before it is needed."""

import argparse
from collections.abc import Callable
from typing import Final

from rapidctl import wire
from rapidd import log
from rapidd.config import Config
from rapidd.errors import ConfigError

OPTIONS: Final = {
    "--endpoint": ("server.listen", "ENDPOINT", "the daemon's request socket, ipc:///PATH/request.sock"),
    "--host": ("http.host", "HOST", "address to listen on; other than this machine's own only with API keys"),
    "--port": ("http.port", "N", "0 chooses a free one"),
    "--uds": ("http.uds", "PATH", "listen on a Unix socket instead"),
    "--served-model-name": ("http.served-model-name", "NAME", "what clients call the model; its path by default"),
    "--api-keys": ("http.api-keys", "FILE", "SHA-256 of the keys that are let in, one a line; see --make-key"),
    "--max-body-bytes": ("http.max-body-bytes", "N", "largest body that is taken"),
    "--log-format": ("log.format", "FORMAT", "of the lines on stderr: auto, text or json"),
    "--vllm-aliases": ("http.vllm-aliases", None, "show some metrics under vllm: names too"),
}
"""Option -> the key it sets, its metavar (null: a switch), and its help."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    for option, (key, metavar, text) in OPTIONS.items():
        if metavar is None:
            parser.add_argument(option, dest=key, action="store_true", default=None, help=text)
        else:
            kind = int if metavar == "N" else str
            parser.add_argument(option, dest=key, metavar=metavar, type=kind, help=text)
    parser.add_argument(
        "--make-key", action="store_true", help="print a new API key and its line of the file, and exit"
    )


def run(arguments: argparse.Namespace, load: Callable[[], Config]) -> int:
    """Serve; the exit status. Raises `ConfigError`."""
    if arguments.make_key:
        from rapidd.http import keys

        key, line = keys.make()
        print(f"key:  {key}\nline: {line}")
        return 0
    config = load()
    try:
        from rapidd.http.server import run as serve
    except ModuleNotFoundError as error:
        raise ConfigError(
            [f"the HTTP server needs the package {error.name}: install the extra http, rapid-serve[http]"]
        ) from error
    log.start(config.log, "http")
    log.adopt_libraries()
    return serve(config.http, config.server.listen or wire.default_endpoint())
