"""That the soak finds a sampled token, or a log-probability, which is not what the request's seed gives."""

from array import array

import pytest
import torch
from msgspec.structs import replace

from bench import soak
from bench.soak_checks import Record
from bench.soak_draws import Drawn, draw_again
from bench.teacher import Teacher
from rapidctl.wire import Generate, Sampling, TokenLogprob, pack_ids
from rapidd.engine.sampling import SamplingRow, sample

PROMPT = [1, 403, 407, 261, 378]
LENGTH = 12
ASKED = Sampling(
    max_tokens=LENGTH, temperature=0.9, top_p=0.95, repetition_penalty=1.2, frequency_penalty=0.3, seed=7, logprobs=2
)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher(str(soak.MODEL), "cpu", 64)


def sampled(teacher: Teacher, asked: Sampling, choices: int = 1) -> Record:
    """A request as a right daemon answers it, token by token."""
    record = Record(Generate(id="r", prompt_ids=pack_ids(PROMPT), sampling=asked, n=choices), "serial")
    for choice, output in enumerate(record.outputs):
        for index in range(LENGTH):
            row = SamplingRow(
                prompt_len=len(PROMPT), length=len(PROMPT) + index, choice=choice, logprobs=2, seed=asked.seed or 0,
                temperature=asked.temperature, top_p=asked.top_p, repetition_penalty=asked.repetition_penalty,
                frequency_penalty=asked.frequency_penalty,
            )  # fmt: skip
            so_far = [*PROMPT, *output]
            history = torch.zeros((1, len(PROMPT) + LENGTH), dtype=torch.int32)
            history[0, : len(so_far)] = torch.tensor(so_far)
            # What chooses the next token is what the reference thinks of any token there.
            (token,) = sample(teacher.logits(PROMPT, [*output, 0])[-1:], [row], history).to_host()
            assert token.logprob is not None
            output.append(token.token_id)
            record.logprobs[choice].append(TokenLogprob(token.token_id, token.logprob, token.top or []))
    return record


def test_what_was_drawn_is_drawn_again(teacher: Teacher) -> None:
    record = sampled(teacher, ASKED, choices=2)
    assert record.outputs[0] != record.outputs[1]
    drawn = draw_again(teacher, [record])
    assert (drawn.tokens, drawn.uncertain, drawn.logprobs, drawn.wrong) == (2 * LENGTH, 0, 2 * LENGTH, [])
    assert drawn.worst_logprob_error < 1e-4


def test_another_token_is_found_where_it_is(teacher: Teacher) -> None:
    record = sampled(teacher, ASKED)
    record.outputs[0][-1] = (record.outputs[0][-1] + 1) % 512
    (sentence,) = draw_again(teacher, [record]).wrong
    assert sentence.startswith(f"r (sent under serial, prompt of 5): choice 0, token {LENGTH} of {LENGTH} is ")


@pytest.mark.parametrize("other", [{"seed": 8}, {"repetition_penalty": 3.0}, {"temperature": 0.1}])
def test_tokens_drawn_by_other_settings_are_found(teacher: Teacher, other: dict[str, float]) -> None:
    record = sampled(teacher, ASKED)
    record.request.sampling = replace(ASKED, **other)
    assert draw_again(teacher, [record]).wrong


def test_a_log_probability_that_is_off_or_missing_is_found(teacher: Teacher) -> None:
    record = sampled(teacher, ASKED)
    record.logprobs[0][3].logprob += 0.01
    assert [line.partition("token ")[2] for line in draw_again(teacher, [record]).wrong] == [
        f"4 of {LENGTH} has log-probabilities that are 0.01 off"
    ]
    del record.logprobs[0][3:]
    assert len(draw_again(teacher, [record]).wrong) == LENGTH - 3


def test_a_draw_between_two_tokens_is_uncertain_and_not_wrong(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two highest of these logits are as close as float32 computes them."""
    logits = torch.zeros((1, 512))
    logits[0, [5, 9]] = torch.tensor([10.0, 10.0 + 1e-6])
    monkeypatch.setattr(teacher, "logits", lambda prompt, output: logits)
    greedy = Sampling(max_tokens=1, temperature=0.0, logprobs=0)
    record = Record(Generate(id="r", prompt_ids=pack_ids(PROMPT), sampling=greedy), "serial", outputs=[])
    record.outputs[0] = array("I", [5])
    assert draw_again(teacher, [record]) == Drawn(tokens=1, uncertain=1)
    record.outputs[0] = array("I", [6])
    assert len(draw_again(teacher, [record]).wrong) == 1


def test_greedy_requests_without_log_probabilities_are_left_to_teacher_forcing(teacher: Teacher) -> None:
    record = Record(Generate(id="r", prompt_ids=pack_ids(PROMPT), sampling=Sampling(max_tokens=1)), "serial")
    record.outputs[0].append(6)
    assert draw_again(teacher, [record]) == Drawn()
