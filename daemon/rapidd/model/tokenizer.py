"""Text to token ids and back. A thin wrapper over Hugging Face `tokenizers`; no torch.

Encoding is the library's. Decoding is ours, because a stream needs what the library's decoders lack: every token
has a fixed byte string (`Tokenizer.token_bytes`), and a `Detokenizer` runs those bytes through an incremental UTF-8
decoder, so a character split over tokens appears once, complete, and malformed bytes become U+FFFD.

Output continues a prompt, so a leading space is kept: text(prompt) + text(output) = text(prompt + output).
It does not know chat templates (`chat`) or where its files are (`resolve`).
"""

import codecs
import json
import re
from collections.abc import Iterable
from typing import Any, Final, Literal

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from rapidd.errors import ModelError, RequestError

Scheme = Literal["byte_level", "byte_fallback", "words"]
"""How a token's text stands for bytes: GPT-2's printable alphabet, SentencePiece's ▁ and <0xNN>, or a word and a blank
before it, which is what a vocabulary of whole words without a decoder means."""

_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_LONG_CHARS: Final = 4096
"""From here on the library's batch call is used: unlike the plain one it lets other threads run."""
_METASPACE: Final = "\u2581"


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte: Latin-1 letters stay, the rest move up from U+0100."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in kept]
    return {chr(byte): byte for byte in kept} | {chr(256 + i): byte for i, byte in enumerate(moved)}


_BYTE_OF: Final = _byte_alphabet()


class Tokenizer:
    """Encoder and decoder of one model.

    ``vocab_size``: the model's; ids at or above it are never produced. ``bos_token_id`` is what a chat template or
    a raw prompt starts with, where the model has one.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        vocab_size: int | None = None,
        eos_token_ids: tuple[int, ...] = (),
        bos_token_id: int | None = None,
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.vocab_size: int = backend.get_vocab_size() if vocab_size is None else vocab_size
        self.eos_token_ids = eos_token_ids
        self.bos_token_id = bos_token_id
        self._scheme = _scheme(backend)
        added = backend.get_added_tokens_decoder()
        self._special = frozenset(token_id for token_id, token in added.items() if token.special)
        self._added = frozenset(added)
        self._bytes: dict[int, bytes] = {}
        self.ascii_texts: dict[int, str] = {}
        """Texts of tokens met so far whose `output_bytes` are ASCII: what comes before and after cannot change them."""

    def encode(self, text: str, add_special: bool) -> list[int]:
        """Ids of ``text``. ``add_special``: with what the model puts around a raw prompt (usually a BOS).

        Raises `RequestError` when the text holds a token that the model has no embedding for.
        """
        ids = self._encode(text, add_special)
        if ids and max(ids) >= self.vocab_size:
            token_id = max(ids)
            raise RequestError(
                "invalid_request",
                f"the text holds {self.token_text(token_id)!r}, token {token_id} of a model of {self.vocab_size}",
            )
        return ids

    def _encode(self, text: str, add_special: bool) -> list[int]:
        if len(text) < _LONG_CHARS:
            ids: list[int] = self.backend.encode(text, add_special_tokens=add_special).ids
        else:
            ids = self.backend.encode_batch_fast([text], add_special_tokens=add_special)[0].ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ``ids`` without special tokens, as the continuation of an earlier text."""
        stream = self.detokenizer()
        return stream.feed(ids) + stream.flush()

    def detokenizer(self, ids: Iterable[int] = ()) -> "Detokenizer":
        """A decoder of one choice's output, standing after ``ids``, which were output before (resumption)."""
        stream = Detokenizer(self)
        stream.feed(ids)
        return stream

    def token_text(self, token_id: int) -> str:
        """What to show for one token by itself, special tokens included; "" for an id without a token."""
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes one token stands for; empty for an id without a token."""
        data = self._bytes.get(token_id)
        if data is None:
            data = self._bytes[token_id] = self._make_bytes(token_id)
        return data

    def output_bytes(self, token_id: int) -> bytes:
        """As `token_bytes`, but empty for a special token."""
        return b"" if token_id in self._special else self.token_bytes(token_id)

    def _make_bytes(self, token_id: int) -> bytes:
        text: str | None = self.backend.id_to_token(token_id)
        if text is None:
            return b""
        if self._scheme == "byte_level":
            if all(char in _BYTE_OF for char in text):
                return bytes(_BYTE_OF[char] for char in text)
            return text.encode()
        if self._scheme == "words":
            return f" {text}".encode()
        byte = _BYTE_TOKEN.fullmatch(text)
        if byte and token_id not in self._added:
            return bytes([int(byte[1], 16)])
        return text.replace(_METASPACE, " ").encode()


class Detokenizer:
    """Output text of one choice, token by token."""

    __slots__ = ("_ascii_texts", "_inside", "_utf8", "tokenizer")

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._ascii_texts = tokenizer.ascii_texts
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._inside = False
        """A character has begun and is not complete."""

    def push(self, token_id: int) -> str:
        """The text that one more id completes; the start of an unfinished character is held back."""
        if not self._inside and (text := self._ascii_texts.get(token_id)) is not None:
            return text
        data = self.tokenizer.output_bytes(token_id)
        if data.isascii():
            self._ascii_texts[token_id] = data.decode()
        return self._decode(data)

    def feed(self, ids: Iterable[int]) -> str:
        """Several at once."""
        return self._decode(b"".join([self.tokenizer.output_bytes(token_id) for token_id in ids]))

    def _decode(self, data: bytes) -> str:
        text = self._utf8.decode(data)
        self._inside = bool(self._utf8.getstate()[0])
        return text

    def flush(self) -> str:
        """What is held back at the end of the output: "" or U+FFFD."""
        return self._utf8.decode(b"", final=True)


def byte_tokenizer(vocab_size: int) -> Tokenizer:
    """A tokenizer that needs no file, for random weights: id = byte; ids from 256 show as their number."""
    if vocab_size < 256:
        raise ModelError(
            f"a vocabulary of {vocab_size} tokens is too small for the byte tokenizer",
            "give --tokenizer DIR, or a shape with at least 256 tokens",
        )
    vocab = dict(_BYTE_OF) | {f"<{token_id}>": token_id for token_id in range(256, vocab_size)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend, vocab_size=vocab_size)


def _scheme(backend: tokenizers.Tokenizer) -> Scheme:
    """How this tokenizer's decoder maps tokens to bytes. Raises `ModelError` for one that we do not know."""
    if backend.decoder is None and isinstance(backend.model, models.WordLevel):
        return "words"
    state = json.loads(backend.decoder.__getstate__()) if backend.decoder else {"type": "none"}
    kinds = {step["type"] for step in _steps(state)}
    if "ByteLevel" in kinds and kinds <= {"ByteLevel", "Fuse"}:
        return "byte_level"
    if kinds and kinds <= {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}:
        return "byte_fallback"
    raise ModelError(
        f"the tokenizer's decoder is {'+'.join(sorted(kinds))}, which cannot be streamed",
        "supported: byte-level BPE (GPT-2, Llama 3, Qwen) and SentencePiece-style BPE (Llama 2, Mistral)",
    )


def _steps(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    return decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
