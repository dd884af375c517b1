"""Names of sockets: which one a client takes by default, and which can be bound or connected."""

import os
import re

from rapidctl.wire.protocol import MAX_ENDPOINT_BYTES


class EndpointError(ValueError):
    """An endpoint that cannot be used; the message says why and what to do."""


def default_endpoint() -> str:
    """RAPIDCTL_ENDPOINT, else the system daemon's socket if it exists, else the user's own. Raises `EndpointError`."""
    chosen = os.environ.get("RAPIDCTL_ENDPOINT")
    if chosen:
        return check_client_endpoint(chosen)
    system = "/run/rapidd/request.sock"
    if os.path.exists(system):  # noqa: PTH110 - loading pathlib takes longer than the rest of this module
        return f"ipc://{system}"
    runtime = os.environ.get("XDG_RUNTIME_DIR") or _own_folder(f"/tmp/rapidd-{os.getuid()}")
    return check_endpoint(f"ipc://{runtime}/rapidd/request.sock")


def _own_folder(path: str) -> str:
    """The folder, unless another user made it first, to listen there in our daemon's place: `EndpointError`."""
    try:
        owner = os.lstat(path).st_uid
    except FileNotFoundError:
        return path
    if owner not in (0, os.getuid()):
        raise EndpointError(f"{path} belongs to uid {owner}: set XDG_RUNTIME_DIR, or name another socket")
    return path


def check_endpoint(endpoint: str) -> str:
    """The endpoint itself, or `EndpointError` when no socket could be bound or connected there."""
    if not endpoint.startswith("ipc://") or len(endpoint) == len("ipc://"):
        raise EndpointError(
            f"{endpoint!r} is no ipc endpoint: use ipc:///path/request.sock "
            "(a daemon listens on tcp beside it: tcp.listen)"
        )
    try:
        endpoint.encode()
    except UnicodeEncodeError as error:
        raise EndpointError(f"{endpoint!r} is not valid UTF-8, which sockets' names have to be") from error
    length = len(os.fsencode(endpoint.removeprefix("ipc://")))
    if length > MAX_ENDPOINT_BYTES:
        raise EndpointError(
            f"the socket path is {length} bytes long and Linux allows {MAX_ENDPOINT_BYTES}: choose a shorter directory"
        )
    return endpoint


def check_client_endpoint(endpoint: str) -> str:
    """As `check_endpoint`, but tcp://HOST:PORT can be connected to as well; its metrics are on the next port."""
    if not endpoint.startswith("tcp://"):
        return check_endpoint(endpoint)
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    is_host = re.fullmatch(r"[\w.:%\[\]-]+", host, re.ASCII)
    if not is_host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65535:
        raise EndpointError(f"{endpoint!r} names no host and port: use tcp://HOST:PORT, with a port below 65535")
    return endpoint


def metrics_endpoint(endpoint: str) -> str:
    """Where the daemon behind ``endpoint`` publishes snapshots and events."""
    if endpoint.startswith("tcp://"):
        address, _, port = check_client_endpoint(endpoint).rpartition(":")
        return f"{address}:{int(port) + 1}"
    return check_endpoint(f"{endpoint.removesuffix('.sock')}-metrics.sock")
