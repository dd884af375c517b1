"""Closed sets of words that messages use: modes, phases, states, why a request ended, why it was refused."""

from typing import Literal

Mode = Literal["serial", "hybrid", "shared", "split"]
Phase = Literal["waiting", "prefilling", "decoding"]
SloClass = Literal["interactive", "batch"]
DaemonState = Literal["starting", "serving", "draining", "drained", "engine_lost"]
RestartCause = Literal[
    "exit",  # it ended, or was killed, after it had been ready
    "start",  # it ended before it was ready
    "hang",  # its loop did not answer, or no batch ended
    "device",  # a device fault that a new process mends
]
FinishReason = Literal["stop", "length", "cancelled"]
ErrorCode = Literal[
    "malformed",  # the frame is no message: truncated, invalid UTF-8, too deep, random bytes
    "unknown_kind",  # a well-formed frame of a kind this daemon does not know
    "hello_required",  # a message before Hello
    "protocol",  # no common protocol version
    "invalid_request",  # a field is missing, out of bounds or contradictory
    "unsupported",  # a feature this daemon does not have
    "empty_prompt",
    "prompt_too_long",  # longer than the context, or leaves no room for one token
    "kv_too_small",  # the request can never fit the KV cache
    "duplicate_id",  # another client's stream runs under this id
    "queue_full",
    "quota_exceeded",  # this connection's or this user's share is used up; others are served
    "starting",
    "draining",
    "engine_lost",  # the engine died more often than a request is resubmitted
    "quarantined",  # requests like this one killed the engine twice; refused until the front is started again
    "deadline_exceeded",
    "slow_consumer",
    "not_found",
    "not_permitted",
    "epoch_conflict",
    "too_soon",  # at most one change of the partition every 2 s
    "out_of_memory",  # this request's batch ran out of device memory
    "front_restarted",  # given by the client library, when the front's boot id changed under a stream
    "internal_error",
]
