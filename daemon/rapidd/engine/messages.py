"""The front's requests as the scheduler's, and the scheduler's tokens as the front's."""

from array import array

from rapidctl.wire import unpack_ids
from rapidd import ipc
from rapidd.engine.observe import Limits
from rapidd.engine.outcome import Drop, Outcome
from rapidd.engine.request import Request, SamplingParams


def to_request(message: ipc.Submit, limits: Limits) -> Request:
    """The scheduler's request for a message of the front."""
    prompt_ids = array("I", unpack_ids(message.prompt_ids))
    sampling = SamplingParams(
        temperature=message.temperature,
        top_k=message.top_k,
        top_p=message.top_p,
        min_p=message.min_p,
        repetition_penalty=message.repetition_penalty,
        presence_penalty=message.presence_penalty,
        frequency_penalty=message.frequency_penalty,
        seed=message.seed,
        choice=message.choice,
        min_tokens=message.min_tokens,
        stop_ids=frozenset((*message.eos_token_ids, *message.stop_token_ids)),
        logprobs=message.logprobs,
    )
    return Request(
        message.rid,
        prompt_ids,
        array("I", unpack_ids(message.output_ids)),
        max_output=message.max_tokens,
        sampling=sampling,
        priority=message.priority,
        slo_class=message.slo_class,
        arrival_ns=message.arrival_mono_ns,
        due_ns=limits.due_ns(message.arrival_mono_ns, len(prompt_ids)),
    )


def to_token(outcome: Outcome) -> ipc.Token:
    """The front's message for one sampled token."""
    request = outcome.request
    cached = prefill_start_ns = None
    if not request.told:
        request.told = True
        cached, prefill_start_ns = min(request.cached, request.prompt_len), request.prefill_start_ns
    logprob, top = outcome.logprob if outcome.logprob else (None, None)
    return ipc.Token(request.rid, outcome.token_id, outcome.finish, logprob, top, cached, prefill_start_ns)


def to_dropped(drop: Drop) -> ipc.Dropped:
    """The front's message for a request that ends without a last token."""
    return ipc.Dropped(drop.request.rid, drop.code, drop.message)
