"""``python -m bench.served SERVE_OPTIONS ... -- CLIENT ...``: somebody else's client against `rapidd http`.

Starts a daemon with the options and its HTTP server on a free loopback port, runs the client's command with the words
{url} and {endpoint} replaced by the addresses of server and daemon, and stops everything. The exit status is the
client's. With the same command for another engine's server, one client measures both.
"""

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from bench.processes import daemon
from bench.progress import say

READY_S = 30.0


def main() -> int:
    """Run a client's command against a daemon made for it."""
    arguments = sys.argv[1:]
    if "--" not in arguments or arguments[-1] == "--":
        print(__doc__, file=sys.stderr)
        return 2
    at = arguments.index("--")
    with daemon(*arguments[:at]) as server:
        say(f"ready after {server.ready_s:.1f} s")
        with http_server(server.endpoint) as (url, _):
            places = {"{url}": url, "{endpoint}": server.endpoint}
            command = [places.get(word, word) for word in arguments[at + 1 :]]
            return subprocess.run(command, check=False).returncode


@contextlib.contextmanager
def http_server(endpoint: str, *options: str) -> Iterator[tuple[str, int]]:
    """`rapidd http` in front of a daemon: its address, once it answers, and pid. Raises RuntimeError if it does not."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-P", "-m", "rapidd", "http", "--endpoint", endpoint, "--port", str(port), *options]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline_s = time.monotonic() + READY_S
        while not _answers(f"{url}/health/ready"):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"rapidd http does not answer at {url}: its messages are above")
            time.sleep(0.1)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    sys.exit(main())
