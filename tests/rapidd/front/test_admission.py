"""From a request to what the engine is asked: the bounds of one request and of the queue, at their edges."""

from typing import Any, cast

import pytest
from msgspec.structs import replace

from rapidctl.wire import ChatMessage, Generate, Sampling, pack_ids
from rapidd.errors import RequestError
from rapidd.front.admission import MAX_RETRY_S, MIN_RETRY_S, Capacity, admit, check_queue, digest, encode
from rapidd.front.journal import Journal, Stream
from support.front import EOS, TEXT, VOCAB

CAPACITY = Capacity(max_model_len=64, kv_tokens=1000, vocab_size=VOCAB, eos_token_ids=(EOS,), max_output_tokens=None)


def opened(request: Generate, capacity: Capacity = CAPACITY, prompt_tokens: int = 4) -> Stream:
    return admit(request, [97] * prompt_tokens, b"client", TEXT, capacity, 0)


def refused(request: Generate, capacity: Capacity = CAPACITY, prompt_tokens: int = 4) -> str:
    with pytest.raises(RequestError) as refusal:
        opened(request, capacity, prompt_tokens)
    return refusal.value.code


def asking(max_tokens: int | None = None, min_tokens: int = 0) -> Generate:
    return Generate(id="r", prompt="aaaa", sampling=Sampling(max_tokens=max_tokens, min_tokens=min_tokens))


def test_what_a_client_has_already_and_since_when_is_no_part_of_what_it_asks() -> None:
    request = Generate(id="r", prompt="a")
    assert digest(replace(request, age_s=3.0, resume_ids=[b""])) == digest(request)
    assert digest(replace(request, prompt="b")) != digest(request)


@pytest.mark.parametrize(
    ("capacity", "most", "code"),
    [
        (CAPACITY, 60, "invalid_request"),
        (replace(CAPACITY, max_output_tokens=10), 10, "invalid_request"),
        (replace(CAPACITY, kv_tokens=20), 16, "kv_too_small"),
    ],
    ids=["context", "operator's bound", "cache"],
)
def test_an_output_may_be_as_long_as_fits_which_is_what_it_gets_unasked(
    capacity: Capacity, most: int, code: str
) -> None:
    for request in (asking(), asking(most), asking(most, min_tokens=most), asking(None, min_tokens=most)):
        assert opened(request, capacity).template.max_tokens == most
    assert opened(asking(3), capacity).template.max_tokens == 3
    assert refused(asking(most + 1), capacity) == code
    assert refused(asking(None, min_tokens=most + 1), capacity) == "invalid_request"


def test_a_prompt_leaves_place_for_one_token_of_output() -> None:
    assert opened(asking(), prompt_tokens=63).template.max_tokens == 1
    assert refused(asking(), prompt_tokens=64) == "prompt_too_long"
    assert opened(asking(), replace(CAPACITY, kv_tokens=5)).template.max_tokens == 1
    assert refused(asking(), replace(CAPACITY, kv_tokens=4)) == "kv_too_small"


def test_end_tokens_may_be_ignored_and_seeds_that_nobody_chose_differ() -> None:
    assert opened(asking()).template.eos_token_ids == [EOS]
    assert opened(Generate(id="r", prompt="a", sampling=Sampling(ignore_eos=True))).template.eos_token_ids == []
    assert len({opened(asking()).template.seed for _ in range(3)}) == 3


def test_ids_that_come_back_must_be_such_as_this_request_could_have_got() -> None:
    request = replace(asking(3), n=2)
    stream = opened(replace(request, resume_ids=[pack_ids([97, 98]), b""]))
    assert ([len(choice.output_ids) for choice in stream.choices], stream.resumed) == ([2, 0], True)
    assert not opened(replace(request, resume_ids=[b"", b""])).resumed, "nothing was brought back"
    assert opened(replace(request, resume_ids=[pack_ids([97] * 3)] * 2)).done
    for ids in ([97] * 4, [VOCAB]):
        assert refused(replace(request, resume_ids=[pack_ids(ids), b""])) == "invalid_request"


def test_a_template_brings_its_own_special_tokens_and_a_prompt_gets_the_models() -> None:
    class Telling:
        def encode(self, text: str, *, add_special: bool) -> list[int]:
            return [int(add_special)]

    text = replace(TEXT, tokenizer=cast(Any, Telling()))
    assert encode(Generate(id="r", prompt="a"), text, CAPACITY) == [1]
    assert encode(Generate(id="r", prompt=""), text, CAPACITY) == [], "no prompt becomes one by them"
    assert encode(Generate(id="r", messages=[ChatMessage(role="user", content="a")]), text, CAPACITY) == [0]


def queue_of_four() -> tuple[Journal, list[Generate]]:
    """Two choices that wait with 8 tokens together, and two that are encoded, of 32 characters together."""
    journal = Journal()
    journal.add(opened(replace(asking(), n=2)))
    return journal, [Generate(id="e", messages=[ChatMessage(role="user", content="x" * 16)], n=2)]


@pytest.mark.parametrize(
    ("num_choices", "max_requests", "max_tokens", "code"),
    [
        (1, 5, 13, None),
        (2, 5, 13, "queue_full"),
        (1, 5, 12, "queue_full"),
        (5, 5, 13, "queue_full"),
        (6, 5, 13, "invalid_request"),
    ],
)
def test_the_queue_counts_choices_and_their_tokens_also_of_what_is_still_encoded(
    num_choices: int, max_requests: int, max_tokens: int, code: str | None
) -> None:
    journal, encoding = queue_of_four()
    if code is None:
        check_queue(journal, num_choices, encoding, max_requests, max_tokens, 1.0)
        return
    with pytest.raises(RequestError) as refusal:
        check_queue(journal, num_choices, encoding, max_requests, max_tokens, 1.0)
    assert refusal.value.code == code
    assert code != "queue_full" or "4 requests with 12 prompt tokens" in str(refusal.value)


@pytest.mark.parametrize(
    ("finished_per_s", "retry_after_s"), [(2.0, 2.0), (100.0, MIN_RETRY_S), (0.01, MAX_RETRY_S), (0.0, MAX_RETRY_S)]
)
def test_who_finds_the_queue_full_is_told_to_come_back_when_it_has_moved_on(
    finished_per_s: float, retry_after_s: float
) -> None:
    journal, encoding = queue_of_four()
    with pytest.raises(RequestError) as refusal:
        check_queue(journal, 1, encoding, 4, 100, finished_per_s)
    assert refusal.value.retry_after_s == retry_after_s
