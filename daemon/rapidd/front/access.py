"""Who a connection is, what it may do, and how much of the daemon it may have. Knows no sockets and no streams.

A user is who the kernel says is at the other end of a local socket, or whose key it was over tcp, whatever the client
calls itself.
"""

import contextlib
import grp
import os
import pwd
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from rapidctl import wire
from rapidd import log
from rapidd.config import AccessConfig
from rapidd.errors import RequestError

RETRY_S: Final = 1.0
"""When a quota may have room again: requests end all the time."""
_ENVELOPE: Final = ("call", "by", "deadline_unix_s")


class Peer(Struct, frozen=True):
    """Who is at the other end: a process as the kernel knows it, or the owner of a key (``name``)."""

    uid: int | None = None
    gid: int | None = None
    pid: int | None = None
    name: str | None = None
    operator: bool = False
    """The key was authorized to command; nothing that a process could be."""

    @property
    def user(self) -> str:
        """For labels and quotas."""
        return str(self.uid) if self.name is None else f"key:{self.name}"


def is_same_user(peer: Peer | None, other: Peer | None) -> bool:
    """Whether two peers may know of each other whatever they know."""
    return (peer and peer.user) == (other and other.user)


def peer_of(address: str | None) -> Peer | None:
    """From libzmq's "Peer-Address" of an ipc connection, "localhost:uid:gid:pid"."""
    parts = (address or "").split(":")
    if len(parts) != 4 or not all(part.isdecimal() for part in parts[1:]):
        return None
    return Peer(uid=int(parts[1]), gid=int(parts[2]), pid=int(parts[3]))


def may_control(peer: Peer | None, operators: str | None) -> bool:
    """Whether a peer may send operator verbs: root, the daemon's own user, members of the operators' group."""
    if peer is None or peer.uid is None or peer.gid is None:
        return peer is not None and peer.operator
    if peer.uid in (0, os.geteuid()):
        return True
    if operators is None:
        return False
    try:
        wanted = grp.getgrnam(operators).gr_gid
        return peer.gid == wanted or wanted in os.getgrouplist(pwd.getpwuid(peer.uid).pw_name, peer.gid)
    except KeyError:  # the group or the user is gone
        return False


def is_command(request: wire.Request) -> bool:
    """Whether it changes the daemon for everybody: such messages, and only they, say who they are ``by``.

    So does a probe of the placement for a moment: the lanes wait for it.
    """
    return "by" in type(request).__struct_fields__ or (isinstance(request, wire.GetPartition) and request.probe)


def audit(peer: Peer | None, label: str, request: wire.Request, outcome: str) -> None:
    """One line for each operator's action and its outcome: who the kernel says, and who they say they are."""
    asked = {
        name: value
        for name in request.__struct_fields__
        if name not in _ENVELOPE and (value := getattr(request, name)) is not None
    }
    log.info(
        f"operator: {type(request).__name__} {outcome}",
        event="audit",
        client=label,
        by=getattr(request, "by", "") or None,
        uid=peer.uid if peer else None,
        gid=peer.gid if peer else None,
        pid=peer.pid if peer else None,
        key=peer.name if peer else None,
        asked=str(asked),
    )


@contextlib.contextmanager
def audited(peer: Peer | None, label: str, request: wire.Request, outcome: str) -> Iterator[None]:
    """Write down what became of the operator's action in this block: ``outcome``, or that it was refused."""
    try:
        yield
    except Exception as error:
        code = error.code if isinstance(error, RequestError) else "internal_error"
        audit(peer, label, request, f"refused: {code}")
        raise
    audit(peer, label, request, outcome)


class Usage(Struct, frozen=True):
    """What a user and a connection have now."""

    client_requests: int
    user_requests: int
    user_waiting: int


def check_client(config: AccessConfig, num_clients: int) -> None:
    """Raise ``quota_exceeded`` when no more connections are taken."""
    if num_clients >= config.max_clients:
        raise RequestError(
            "quota_exceeded",
            f"{num_clients} clients are connected",
            "close some, or raise access.max-clients",
            retry_after_s=RETRY_S,
        )


def check_request(config: AccessConfig, usage: Usage, num_choices: int, max_waiting: int) -> None:
    """Raise ``quota_exceeded`` when one more request, of ``num_choices`` choices, is more than its sender may have.

    What may never be had is ``invalid_request``: to try it again would be of no use.
    """
    share = max(1, int(config.max_queue_share * max_waiting)) if config.max_queue_share < 1 else None
    if share is not None and num_choices > share:
        raise RequestError(
            "invalid_request",
            f"n {num_choices} is more than the {share} requests of one user that may wait",
            "ask for fewer, or raise access.max-queue-share",
        )
    for used, bound, what, key in (
        (usage.client_requests + 1, config.max_requests_per_client, "live requests", "max-requests-per-client"),
        (usage.user_requests + 1, config.max_requests_per_user, "live requests of this user", "max-requests-per-user"),
        (usage.user_waiting + num_choices, share, "waiting requests of this user", "max-queue-share"),
    ):
        if bound is not None and used > bound:
            raise RequestError(
                "quota_exceeded",
                f"{used} {what} would be more than {bound}",
                f"wait for some of yours to end, or raise access.{key}",
                retry_after_s=RETRY_S,
            )
