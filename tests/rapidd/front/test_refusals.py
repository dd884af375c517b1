"""What a refused request is told: the field that is to blame, and only what helps."""

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from rapidctl import wire
from rapidd.config import ServerConfig
from support.bad_frames import generate
from support.front import CONTEXT, TEXT, VOCAB, Rig


@pytest.mark.parametrize(
    ("max_positions", "num_tokens", "can_serve_more"),
    [(2 * CONTEXT, 70, True), (CONTEXT, 70, False), (2 * CONTEXT, 2 * CONTEXT, False)],
)
def test_a_larger_context_is_advised_only_where_the_model_has_one_that_takes_the_prompt(
    tmp_path: Path, max_positions: int, num_tokens: int, can_serve_more: bool
) -> None:
    """It was also advised where the whole context of the model was served: the daemon did not start with more."""
    rig = Rig(tmp_path, text=replace(TEXT, max_positions=max_positions))
    try:
        peer, _ = rig.ready()
        peer.raw(generate(prompt="x" * num_tokens))
        hint = peer.fails().hint
        assert "shorten the prompt" in hint
        assert ("--max-model-len" in hint) == can_serve_more
    finally:
        rig.close()


@pytest.mark.parametrize("is_chat", [False, True])
def test_to_leave_max_tokens_out_is_advised_only_where_that_gives_all_that_fits(rig: Rig, is_chat: bool) -> None:
    """Over HTTP a completion without it has 16 tokens; it was advised there too."""
    peer, _ = rig.ready()
    prompt = {"prompt": None, "messages": [{"role": "u", "content": "x"}]} if is_chat else {}
    peer.raw(generate(sampling={"max_tokens": CONTEXT}, **prompt))
    hint = peer.fails().hint
    assert hint.startswith("ask for at most ")
    assert ("leave it out" in hint) == is_chat


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"sampling": {"max_tokens": CONTEXT}}, "max_tokens"),
        ({"sampling": {"max_tokens": 1, "min_tokens": 2}}, "min_tokens"),
        ({"sampling": {"min_tokens": CONTEXT}}, "min_tokens"),
        ({"prompt": None, "prompt_ids": wire.pack_ids([VOCAB])}, "prompt_ids"),
        ({"prompt": None, "prompt_ids": b"12345"}, "prompt_ids"),
        ({"n": 4}, "n"),
    ],
)
def test_a_message_that_blames_one_field_begins_with_its_name(
    tmp_path: Path, fields: dict[str, Any], name: str
) -> None:
    """The HTTP server answered them without ``param``: it could not tell which field was meant."""
    rig = Rig(tmp_path, ServerConfig(max_waiting_requests=3))
    try:
        peer, _ = rig.ready()
        peer.raw(generate(**fields))
        assert re.match(r"\w+", peer.fails().message)[0] == name  # type: ignore[index]
    finally:
        rig.close()
