"""What a daemon streams for a prompt, from its output ids."""

from rapidctl.wire import ChoiceResult, Delta, Finished, Generate, Quantiles, Timing, pack_ids


def streamed(request: Generate, tokens: list[int]) -> list[Delta | Finished]:
    """A delta a token, whose text is its number, and the end."""
    deltas = [
        Delta(id=request.id, index=index, token_ids=pack_ids([token]), text=f"{token} ", at_mono_ns=[index * 10**7])
        for index, token in enumerate(tokens)
    ]
    text = "".join(delta.text for delta in deltas)
    choice = ChoiceResult(index=0, finish_reason="length", text=text, token_ids=pack_ids(tokens))
    timing = Timing(queued_s=0.0, prefill_s=0.1, ttft_s=0.1, e2e_s=1.0, itl_s=Quantiles(n=0))
    last = Finished(
        id=request.id, choices=[choice], prompt_tokens=3, cached_tokens=0, output_tokens=len(tokens), timing=timing,
        mode="hybrid",
    )  # fmt: skip
    return [*deltas, last]
