"""One generation as its client sees it: what arrived, what is still to be read, how to ask for the rest.

Pure bookkeeping: it knows no socket and no clock. `rapidctl.client` feeds it messages and sends what it asks for.
"""

from collections import deque

from msgspec.structs import replace

from rapidctl.wire import (
    MAX_DEADLINE_S,
    MAX_ID_CHARS,
    Accepted,
    Delta,
    Failed,
    Finished,
    Generate,
    Limits,
    encode,
    pack_ids,
    unpack_ids,
)

StreamEvent = Accepted | Delta | Finished | Failed
"""What a stream yields: `Accepted` (again after each resume), `Delta`s, and one `Finished` or `Failed` last."""


def unsendable(request: Generate, limits: Limits) -> Failed | None:
    """Why the daemon could not even refuse it: a frame over its limit ends the connection; no long id is repeated."""
    if len(request.id) > MAX_ID_CHARS:
        message = f"the id has {len(request.id)} characters, of at most {MAX_ID_CHARS}"
        return Failed(code="invalid_request", message=message, hint="choose a shorter id", id=request.id)
    if (size := len(encode(request))) > limits.max_frame_bytes:
        message = f"the request has {size} bytes and the daemon takes at most {limits.max_frame_bytes}"
        return Failed(code="invalid_request", message=message, hint="send a shorter prompt", id=request.id)
    return None


class Stream:
    """An open generation. ``events`` holds what the caller has not taken yet, oldest first.

    ``sent_s``: when it was sent, in seconds on the client's monotonic clock.
    """

    def __init__(self, request: Generate, resume: bool, sent_s: float) -> None:
        self.request = request
        self.sent_s = sent_s
        self.resume = resume
        self.events: deque[StreamEvent] = deque()
        held = request.resume_ids or [b""] * request.n
        self.output_ids: list[list[int]] = [unpack_ids(ids) for ids in held]
        """Output ids received so far, by choice."""
        self.accepted: Accepted | None = None
        self.ended: Finished | Failed | None = None
        self.refused: Failed | None = None
        """The last refusal of a daemon that was still starting."""
        self.retry_at_s: float | None = None
        """When a refused resubmission is sent again, on the client's monotonic clock."""

    @property
    def id(self) -> str:
        """The client-chosen id."""
        return self.request.id

    def accept(self, accepted: Accepted) -> None:
        """The daemon queued the request, or re-attached it."""
        self.accepted = accepted
        self.events.append(accepted)

    def extend(self, delta: Delta) -> None:
        """New output. After a re-attach the daemon may repeat what is already here; that is dropped."""
        if delta.choice >= len(self.output_ids) or delta.index > len(self.output_ids[delta.choice]):
            self.end(Failed(code="internal_error", message="the daemon skipped part of the output", id=self.id))
            return
        have = self.output_ids[delta.choice]
        ids = unpack_ids(delta.token_ids)
        known = len(have) - delta.index
        if known and ids:
            if known >= len(ids):
                return
            delta = _from(delta, known)
        have.extend(ids[known:])
        self.events.append(delta)

    def end(self, last: Finished | Failed) -> None:
        """The one terminal message."""
        self.ended = last
        self.events.append(last)

    def front_changed(self) -> None:
        """The front that drew the seed is gone; from now on the request names it, so that the next one goes on alike.

        Not before: to the front that runs it, a request with another seed would be another request.
        """
        if self.accepted is not None:
            self.request = replace(self.request, sampling=replace(self.request.sampling, seed=self.accepted.seed))

    def resubmission(self, now_s: float) -> Generate:
        """The request for what is missing: the same, with the ids received so far, and its age at ``now_s``.

        Ids, even none, say that it was let in before: neither a full queue nor a drain keeps it out.
        """
        was_let_in = self.accepted is not None or any(self.output_ids)
        resume_ids = [pack_ids(ids) for ids in self.output_ids] if was_let_in else None
        age_s = min(self.request.age_s + now_s - self.sent_s, MAX_DEADLINE_S)
        return replace(self.request, resume_ids=resume_ids, age_s=age_s)

    @property
    def output_tokens(self) -> int:
        """Output tokens received so far, of all choices."""
        return sum(map(len, self.output_ids))


def _from(delta: Delta, known: int) -> Delta:
    """The delta without its first ``known`` tokens."""
    return replace(
        delta,
        index=delta.index + known,
        token_ids=delta.token_ids[4 * known :],
        at_mono_ns=delta.at_mono_ns[known:],
        logprobs=None if delta.logprobs is None else delta.logprobs[known:],
    )
