"""Tokenizers out of GGUF metadata; transformers' own GGUF reader is the reference."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from rapidctl.wire import ChatMessage
from rapidd.errors import ModelError
from rapidd.model import gguf_tokenizer, hf
from rapidd.model.gguf import read_header
from rapidd.model.resolve import LoadedModel, ModelFiles, load_chat_template, load_spec, load_tokenizer
from rapidd.model.tokenizer import Tokenizer

CORPUS = [
    "The quick brown fox doesn't jump over 1234567 lazy dogs; they'll run, won't they?\r\n\tTabs too.",
    "Été à la plage — déjà vu! 数字 12 和 345 个字。 emoji 😀😀 and e\u0301 combining.   Many   spaces\n\n\nlines",
    "def add(num1, num2):\n    return num1 + num2  # 0x1F\n",
]
TEXTS = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(CORPUS)


def bpe_vocabulary(words: pre_tokenizers.PreTokenizer) -> tuple[list[str], list[str]]:
    """Tokens in id order and merges of a small byte-level BPE learned from CORPUS."""
    learner = tokenizers.Tokenizer(models.BPE())
    learner.pre_tokenizer = words
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=sorted(alphabet), show_progress=False)
    learner.train_from_iterator(CORPUS, trainer)
    model = json.loads(learner.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return tokens, [" ".join(merge) for merge in model["merges"]]


def byte_level_keys(pre: str) -> dict[str, Any]:
    tokens, merges = bpe_vocabulary(pre_tokenizers.ByteLevel(add_prefix_space=False))
    added = ["<|endoftext|>", "<|im_end|>", "<think>"]
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens + added,
        "tokenizer.ggml.token_type": [1] * len(tokens) + [3, 3, 4],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": len(tokens),
        "tokenizer.ggml.eos_token_id": len(tokens) + 1,
    }


def theirs(path: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


def ours(path: Path) -> Tokenizer:
    return Tokenizer(gguf_tokenizer.build(read_header(path)))


@pytest.fixture(scope="module")
def pairs(gguf_writer: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tokenizer, Any]]:
    """Our tokenizer and theirs from the same files, by pre-tokenizer."""
    made = {}
    for pre in ("gpt-2", "llama-bpe", "qwen2"):
        folder = tmp_path_factory.mktemp(pre)
        path = gguf_writer(folder / "model.gguf", byte_level_keys(pre), {})
        made[pre] = ours(path), theirs(path)
    return made


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_byte_level_ids_equal_transformers(pairs: dict[str, tuple[Tokenizer, Any]], pre: str, text: str) -> None:
    mine, reference = pairs[pre]
    expected = reference(text, add_special_tokens=False).input_ids
    if pre == "qwen2":  # transformers leaves out the NFC of Qwen's own tokenizer.json
        expected = reference(unicodedata.normalize("NFC", text), add_special_tokens=False).input_ids
    assert mine.encode(text, add_special=False) == expected


def test_smollm_splits_numbers_into_digits_before_words(write_gguf: Any) -> None:
    tokenizer = ours(write_gguf(byte_level_keys("smollm"), {}))
    words = [word for word, _ in tokenizer.backend.pre_tokenizer.pre_tokenize_str("can't add 123 45")]
    assert words == ["can", "'t", "Ġadd", "Ġ", "1", "2", "3", "Ġ", "4", "5"]


def test_added_tokens_are_whole_and_only_control_ones_are_special(write_gguf: Any) -> None:
    keys = byte_level_keys("gpt-2")
    tokenizer = ours(write_gguf(keys, {}))
    end, think = (keys["tokenizer.ggml.tokens"].index(token) for token in ("<|im_end|>", "<think>"))
    ids = tokenizer.encode("a<|im_end|><think>", add_special=False)
    assert ids[1:] == [end, think]
    assert tokenizer.decode(ids) == "a<think>"


@pytest.mark.parametrize(
    ("pre", "flag", "starts"),
    [("gpt-2", None, False), ("gpt-2", True, True), ("llama-bpe", None, True), ("llama-bpe", False, False)],
)
def test_start_token_by_flag_or_by_kind(write_gguf: Any, pre: str, flag: bool | None, starts: bool) -> None:
    keys = byte_level_keys(pre)
    if flag is not None:
        keys["tokenizer.ggml.add_bos_token"] = flag
    tokenizer = ours(write_gguf(keys, {}))
    bos = keys["tokenizer.ggml.bos_token_id"]
    assert (tokenizer.encode("hi", add_special=True)[0] == bos) == starts
    assert bos not in tokenizer.encode("hi", add_special=False)


def sentencepiece_keys(folder: Path) -> dict[str, Any]:
    """The test model's tokenizer as llama.cpp's converter stores SentencePiece: scores instead of merges."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    rank = {"".join(merge): index for index, merge in enumerate(model["merges"])}
    types = [2, 3, 3] + [6 if token.startswith("<0x") else 1 for token in tokens[3:]]
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(rank.get(token, 0)) for token in tokens],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


@pytest.fixture(scope="module")
def sentencepiece(gguf_writer: Any, stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return ours(gguf_writer(tmp_path_factory.mktemp("sp") / "model.gguf", sentencepiece_keys(stories), {}))


@pytest.fixture(scope="module")
def original(stories: Path) -> tokenizers.Tokenizer:
    return hf.read_tokenizer(stories)


@given(text=TEXTS)
def test_sentencepiece_ids_equal_the_original_s(
    original: tokenizers.Tokenizer, sentencepiece: Tokenizer, text: str
) -> None:
    assert sentencepiece.encode(text, add_special=True) == original.encode(text).ids


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer.ggml.pre": "tekken"}, "pre-tokenizer 'tekken' is not known"),
        ({"tokenizer.ggml.pre": None}, "pre-tokenizer 'None'"),
        ({"tokenizer.ggml.model": "t5"}, "tokenizer 't5' is not supported"),
        ({"tokenizer.ggml.tokens": None}, r"tokenizer\.ggml\.tokens is missing"),
        ({"tokenizer.ggml.merges": None}, r"tokenizer\.ggml\.merges is missing"),
        ({"tokenizer.ggml.merges": ["ab"]}, "'ab' has no two parts"),
        ({"tokenizer.ggml.merges": ["a zzz"]}, "outside the vocabulary"),
        ({"tokenizer.ggml.token_type": [1, 1]}, "token_type does not match"),
        ({"tokenizer.ggml.bos_token_id": 70_000, "tokenizer.ggml.add_bos_token": True}, "bos token 70000"),
    ],
)
def test_refuses_by_name(write_gguf: Any, changes: dict[str, Any], message: str) -> None:
    keys = {key: value for key, value in (byte_level_keys("gpt-2") | changes).items() if value is not None}
    with pytest.raises(ModelError, match=message):
        ours(write_gguf(keys, {}))


def test_duplicate_tokens_are_refused(write_gguf: Any) -> None:
    keys = byte_level_keys("gpt-2")
    keys["tokenizer.ggml.tokens"][-1] = "a"
    with pytest.raises(ModelError, match="1 tokens occur twice"):
        ours(write_gguf(keys, {}))


def test_default_model_tokenises_its_chat_prompts_as_recorded(default_gguf: Path) -> None:
    golden = json.loads((Path(__file__).parents[2] / "data" / "smollm2_golden_fp32.json").read_text())
    files = ModelFiles("gguf", default_gguf)
    model = LoadedModel(spec=load_spec(files), weights=files, text=files)
    tokenizer, template = load_tokenizer(model), load_chat_template(model)
    for case in golden["cases"]:
        prompt = template.render([ChatMessage("user", case["prompt"])])
        assert tokenizer.encode(prompt, add_special=False) == case["prompt_ids"]
        assert tokenizer.decode(case["greedy_ids"]) == case["text"].removesuffix("<|im_end|>")
    assert tokenizer.eos_token_ids == (2,)
