"""Operator verbs and questions. Those about the partition and the policy are the engine's to answer.

Each forwarded call is remembered under a token until the engine answers, dies, or stays silent too long; it always
gets one answer. Knows no streams.
"""

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from rapidctl import wire
from rapidd import ipc
from rapidd.errors import RequestError
from rapidd.front.access import Peer
from rapidd.front.clients import Client, Clients, Clock, refusal
from rapidd.front.engine_link import EngineLink
from rapidd.policy.override import CHANGE_SPACING_NS, LEGAL_HINT
from rapidd.policy.policies import fixed

ANSWER_NS: Final = 5_000_000_000
"""The engine answers between two batches; a caller does not wait longer than this."""
MAX_ASKED: Final = 16
"""Calls of one connection that the engine has to answer."""

Question = ipc.SetPlan | ipc.SetPolicy | ipc.Undo | ipc.Predict | ipc.AskProfile | ipc.ProbePlacement


class _Pending(Struct):
    """A call that the engine has to answer."""

    client: bytes
    call: int
    asked_ns: int
    question: Question


class Control:
    """Calls in flight to the engine. ``wall``: seconds of the unix clock, which deadlines are given in."""

    def __init__(self, clients: Clients, link: EngineLink, clock: Clock, wall: Callable[[], float]) -> None:
        self._clients = clients
        self._link = link
        self._clock = clock
        self._wall = wall
        self._pending: dict[int, _Pending] = {}
        self._next_token = 1
        self._changed_ns = -CHANGE_SPACING_NS

    def partition(self, client: Client, request: wire.GetPartition) -> None:
        """Answer from the engine's last report, or from one behind a new probe. Raises `RequestError`."""
        if not request.probe:
            self._tell_partition(client.identity, request.call)
            return
        self.check_control(client)
        self._ask(client, request.call, ipc.ProbePlacement(self._next_token))

    def _tell_partition(self, client: bytes, call: int) -> None:
        if self._link.state is None:
            raise self._link.no_engine()
        self._clients.reply(client, msgspec.structs.replace(self._link.state.partition, call=call))

    def predict(self, client: Client, request: wire.PredictPartition) -> None:
        """Ask the engine for a dry run. Raises `RequestError`."""
        self._ask(client, request.call, ipc.Predict(self._next_token, request.plan))

    def profile(self, client: Client, request: wire.GetProfile) -> None:
        """Ask the engine for its profile. Raises `RequestError`."""
        self._ask(client, request.call, ipc.AskProfile(self._next_token, request.itl_s, request.kv_per_row))

    def set_plan(self, client: Client, request: wire.SetPartition) -> None:
        """Pin a plan. Raises `RequestError`."""
        self._check_rights(client, request.deadline_unix_s)
        self._check_legal(request.plan)
        self._check_epoch(request.if_epoch)
        spacing_left_ns = self._changed_ns + CHANGE_SPACING_NS - self._clock()
        if spacing_left_ns > 0 or any(_pins(pending.question) for pending in self._pending.values()):
            raise RequestError(
                "too_soon",
                f"the partition takes one change every {CHANGE_SPACING_NS / 1e9:.0f} s",
                "wait, then look at the epoch before trying again",
                retry_after_s=max(spacing_left_ns, 0) / 1e9 or 1.0,
            )
        message = ipc.SetPlan(
            self._next_token,
            request.plan,
            request.ttl_s,
            request.guard,
            request.reason,
            request.by or client.label,
            request.if_epoch,
        )
        self._ask(client, request.call, message)

    def _check_epoch(self, expected: int | None) -> None:
        """What is stale already needs no waiting for the next change. The engine has the last word."""
        if expected is not None and expected < self._link.epoch:
            raise RequestError(
                "epoch_conflict",
                f"the control state changed: epoch is {self._link.epoch}, the command expected {expected}",
                "look at rapidctl partition show, then decide again",
            )

    def release(self, client: Client, request: wire.ReleasePartition) -> None:
        """End the override; always allowed, however recent it is. Raises `RequestError`."""
        self._check_rights(client, request.deadline_unix_s)
        by = request.by or client.label
        message = ipc.SetPlan(self._next_token, None, None, False, request.reason, by, request.if_epoch)
        self._ask(client, request.call, message)

    def undo(self, client: Client, request: wire.UndoPartition) -> None:
        """Bring back what the last operator's change replaced. Raises `RequestError`."""
        self._check_rights(client, request.deadline_unix_s)
        message = ipc.Undo(self._next_token, request.by or client.label, request.if_epoch)
        self._ask(client, request.call, message)

    def set_policy(self, client: Client, request: wire.SetPolicy) -> None:
        """Change the policy. Raises `RequestError`."""
        self._check_rights(client, request.deadline_unix_s)
        message = ipc.SetPolicy(self._next_token, request.policy, request.by or client.label, request.if_epoch)
        self._ask(client, request.call, message)

    def done(self, message: ipc.ControlDone) -> None:
        """The engine accepted or refused a change."""
        self._link.saw_epoch(message.epoch)
        pending = self._pending.pop(message.token, None)
        if pending is None:
            return  # given up
        if message.code is not None:
            error = RequestError(message.code, message.text, message.hint)
            self._clients.reply(pending.client, refusal(error, call=pending.call))
            return
        if isinstance(pending.question, ipc.ProbePlacement):
            self._tell_partition(pending.client, pending.call)  # the engine's state came before this
            return
        if _pins(pending.question):
            self._changed_ns = self._clock()
        if isinstance(pending.question, ipc.SetPolicy):
            self._link.policy = pending.question.policy
        reply = wire.ControlReply(call=pending.call, epoch=message.epoch, text=message.text)
        self._clients.reply(pending.client, reply)

    def answered(self, message: ipc.Predicted | ipc.ProfileAnswer) -> None:
        """The engine's dry run, or its profile."""
        pending = self._pending.pop(message.token, None)
        if pending is not None:
            reply = wire.Prediction if isinstance(message, ipc.Predicted) else wire.ProfileReply
            fields = {name: getattr(message, name) for name in message.__struct_fields__ if name != "token"}
            self._clients.reply(pending.client, reply(call=pending.call, **fields))

    def engine_lost(self) -> None:
        """Nobody will answer what was asked."""
        self._give_up(list(self._pending), "the engine died before it answered")

    def expire(self) -> None:
        """Answer for an engine that does not."""
        before_ns = self._clock() - ANSWER_NS
        late = [token for token, pending in self._pending.items() if pending.asked_ns <= before_ns]
        self._give_up(late, f"the engine did not answer within {ANSWER_NS / 1e9:.0f} s")

    def check_control(self, client: Client) -> None:
        """Raise `RequestError` unless this connection may send operator verbs."""
        if not client.control:
            raise RequestError(
                "not_permitted",
                "this connection has no control rights",
                _remedy(client.peer),
            )

    def _check_rights(self, client: Client, deadline_unix_s: float | None) -> None:
        self.check_control(client)
        if deadline_unix_s is not None and self._wall() > deadline_unix_s:
            raise RequestError(
                "deadline_exceeded", "the command arrived after its deadline and was not carried out", "send it again"
            )

    def _check_legal(self, plan: wire.PlanRequest) -> None:
        """Raise `RequestError` for a plan that is illegal however long one waits. The engine looks again."""
        if self._link.state is None:
            return
        partition = self._link.state.partition
        try:
            fixed(plan, partition.units_total, tuple(partition.splits), "")
        except ValueError as error:
            raise RequestError("invalid_request", str(error), LEGAL_HINT) from error

    def _ask(self, client: Client, call: int, question: Question) -> None:
        if sum(pending.client == client.identity for pending in self._pending.values()) >= MAX_ASKED:
            raise RequestError(
                "quota_exceeded",
                f"{MAX_ASKED} calls of this connection wait for the engine already",
                "wait for their answers",
                retry_after_s=1.0,
            )
        if not self._link.send(question):
            raise self._link.no_engine()
        self._pending[self._next_token] = _Pending(client.identity, call, self._clock(), question)
        self._next_token += 1

    def _give_up(self, tokens: list[int], message: str) -> None:
        for token in tokens:
            pending = self._pending.pop(token)
            error = RequestError("engine_lost", message, "look at the epoch to see whether it took effect")
            self._clients.reply(pending.client, refusal(error, call=pending.call))


def _pins(question: Question) -> bool:
    """Whether it begins an override, which takes some time between two; to release one does not."""
    return isinstance(question, ipc.SetPlan) and question.plan is not None


def _remedy(peer: Peer | None) -> str:
    """What gives control rights to whoever lacks them."""
    if peer is None or peer.name is None:
        return "say Hello with control = true, as root, the daemon's own user or a member of access.operators"
    if peer.operator:
        return "say Hello with control = true"
    return f"on the daemon's machine: rapidctl keys authorize KEY {peer.name} --operator; then connect again"
