"""Text to ids and back; the `tokenizers` library's own decoder is the reference."""

from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from rapidd.errors import ModelError, RequestError
from rapidd.model import hf
from rapidd.model.config import ModelSpec
from rapidd.model.resolve import SHAPES, LoadedModel, ModelFiles, load_tokenizer
from rapidd.model.tokenizer import Detokenizer, Tokenizer, byte_tokenizer

TEXTS = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    ["👩‍👩‍👧 family", "naïve café", "한국어 \n\n\t 中文", "  leading and trailing  ", "🇫🇷🏳️‍🌈", "a\r\nb"]
)


@pytest.fixture(scope="module")
def byte_fallback(stories: Path) -> Tokenizer:
    """SentencePiece style: 512 tokens, most characters as <0xNN> byte tokens."""
    return Tokenizer(hf.read_tokenizer(stories), eos_token_ids=(2,), bos_token_id=1)


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    """GPT-2 style over bytes, with a special and a plain added token; some merges cut characters in two."""
    backend = byte_tokenizer(256).backend
    alphabet = backend.get_vocab()
    char_of = {byte: char for char, byte in alphabet.items()}
    first, second = (char_of[byte] for byte in "€".encode()[:2])
    vocab = alphabet | {first + second: 256, "hi": 257}
    trained = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[(first, second), ("h", "i")]))
    trained.pre_tokenizer = backend.pre_tokenizer
    trained.decoder = decoders.ByteLevel()
    trained.add_special_tokens(["<|end|>"])
    trained.add_tokens(["<think é>"])
    return Tokenizer(trained)


def push_all(stream: Detokenizer, ids: list[int]) -> str:
    return "".join(stream.push(token_id) for token_id in ids) + stream.flush()


def feed_all(stream: Detokenizer, ids: list[int], sizes: list[int]) -> str:
    """Feed ``ids`` in steps of the given sizes, one by one when they run out."""
    parts, at = [], 0
    while at < len(ids):
        size = sizes.pop() if sizes else 1
        parts.append(stream.feed(ids[at : at + size]))
        at += size
    return "".join(parts) + stream.flush()


def id_of(tokenizer: Tokenizer, token: str) -> int:
    token_id = tokenizer.backend.token_to_id(token)
    assert token_id is not None
    return token_id


SIZES = st.lists(st.integers(1, 4), max_size=8)


@given(ids=st.lists(st.integers(0, 259), max_size=60), sizes=SIZES)
def test_byte_level_increments_make_the_library_s_text(byte_level: Tokenizer, ids: list[int], sizes: list[int]) -> None:
    """Random ids are mostly malformed UTF-8: U+FFFD falls in the same places."""
    assert feed_all(byte_level.detokenizer(), ids, sizes) == byte_level.backend.decode(ids)
    assert push_all(byte_level.detokenizer(), ids) == byte_level.backend.decode(ids)


@given(prompt=TEXTS, output=TEXTS, sizes=SIZES)
def test_output_continues_the_prompt(byte_fallback: Tokenizer, prompt: str, output: str, sizes: list[int]) -> None:
    """text(prompt) + text(output) = text(prompt + output): the first output token keeps its leading space."""
    start = byte_fallback.encode("x" + prompt, add_special=True)
    ids = byte_fallback.encode(output, add_special=False)
    whole = byte_fallback.backend.decode(start + ids)
    assert byte_fallback.backend.decode(start) + feed_all(byte_fallback.detokenizer(), ids, sizes) == whole


@given(text=TEXTS, cut=st.integers(0, 60))
def test_resumption_stands_where_the_output_stopped(byte_level: Tokenizer, text: str, cut: int) -> None:
    ids = byte_level.encode(text, add_special=False)
    before = byte_level.detokenizer()
    shown = before.feed(ids[:cut])
    resumed = byte_level.detokenizer(ids[:cut])
    assert shown + feed_all(resumed, ids[cut:], []) == text


@given(text=TEXTS)
def test_no_unfinished_character_is_ever_shown(byte_level: Tokenizer, text: str) -> None:
    stream = byte_level.detokenizer()
    shown = ""
    for token_id in byte_level.encode(text, add_special=False):
        shown += stream.feed([token_id])
        assert text.startswith(shown)
    assert shown == text
    assert stream.flush() == ""


@given(data=st.binary(max_size=40))
def test_malformed_bytes_become_replacement_characters(byte_fallback: Tokenizer, data: bytes) -> None:
    ids = [id_of(byte_fallback, f"<0x{byte:02X}>") for byte in data]
    assert feed_all(byte_fallback.detokenizer(), ids, []) == data.decode("utf-8", "replace")
    assert push_all(byte_fallback.detokenizer(), ids) == data.decode("utf-8", "replace")


def test_an_unfinished_character_at_the_end_is_flushed(byte_level: Tokenizer) -> None:
    stream = byte_level.detokenizer()
    assert stream.feed("é".encode()[:1]) == ""
    assert stream.flush() == "\ufffd"


def test_special_tokens_are_skipped_and_others_shown(byte_level: Tokenizer) -> None:
    end, think = (id_of(byte_level, token) for token in ("<|end|>", "<think é>"))
    assert byte_level.decode([104, end, think]) == "h<think é>"
    assert byte_level.token_text(end) == "<|end|>"
    assert byte_level.token_text(257) == "hi"
    assert byte_level.token_text(10_000) == byte_level.decode([10_000]) == ""


def test_add_special_puts_the_start_token_first(byte_fallback: Tokenizer) -> None:
    plain = byte_fallback.encode("Once upon a time", add_special=False)
    assert byte_fallback.encode("Once upon a time", add_special=True) == [1, *plain]
    assert byte_fallback.decode([1, *plain, 2]) == " Once upon a time"


def test_truncation_and_padding_of_the_file_are_ignored(stories: Path) -> None:
    """tokenizer.json keeps whatever training set: prompts would be cut silently."""
    backend = hf.read_tokenizer(stories)
    backend.enable_truncation(4)
    backend.enable_padding(length=64)
    text = "Once upon a time there was a little girl"
    assert len(Tokenizer(backend).encode(text, add_special=False)) == len(
        hf.read_tokenizer(stories).encode(text, add_special_tokens=False).ids
    )


def test_ids_without_an_embedding_are_refused(byte_level: Tokenizer) -> None:
    small = Tokenizer(byte_level.backend, vocab_size=256)
    with pytest.raises(RequestError, match="token 257") as refused:
        small.encode("hi", add_special=False)
    assert refused.value.code == "invalid_request"


def test_unknown_decoders_are_refused() -> None:
    backend = tokenizers.Tokenizer(models.BPE({"a": 0}, []))
    with pytest.raises(ModelError, match="none"):
        Tokenizer(backend)
    backend.decoder = decoders.WordPiece()
    with pytest.raises(ModelError, match="WordPiece"):
        Tokenizer(backend)


def test_a_vocabulary_of_words_needs_no_decoder() -> None:
    """As made for benchmarks with random weights: a prompt of so many words is so many tokens."""
    backend = tokenizers.Tokenizer(models.WordLevel({f"t{number}": number for number in range(9)}, unk_token="t0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = Tokenizer(backend)
    assert words.encode("t3 t1  t8 none", add_special=True) == [3, 1, 8, 0]
    assert words.decode([3, 1]) == " t3 t1" == push_all(words.detokenizer(), [3, 1])


@given(text=TEXTS)
@settings(max_examples=30)
def test_the_byte_tokenizer_is_utf8(text: str) -> None:
    tokenizer = BYTES
    assert tokenizer.encode(text, add_special=True) == list(text.encode())
    assert tokenizer.decode(text.encode()) == text


BYTES = byte_tokenizer(300)


def test_the_byte_tokenizer_shows_every_id_of_the_vocabulary() -> None:
    assert BYTES.decode([72, 105, 299]) == "Hi<299>"
    assert BYTES.vocab_size == 300
    with pytest.raises(ModelError, match="too small"):
        byte_tokenizer(255)


def test_random_weights_need_no_tokenizer_file() -> None:
    spec: ModelSpec = SHAPES["smollm2-135m"]
    tokenizer = load_tokenizer(LoadedModel(spec=spec, weights=None, text=None))
    assert tokenizer.encode("hi", add_special=True) == [104, 105]
    assert tokenizer.vocab_size == spec.vocab_size


def test_an_encoder_from_a_folder(stories: Path) -> None:
    files = ModelFiles("hf", stories)
    tokenizer = load_tokenizer(LoadedModel(spec=hf.parse_hf_config(stories), weights=files, text=files))
    assert (tokenizer.vocab_size, tokenizer.eos_token_ids, tokenizer.bos_token_id) == (512, (2,), 1)
