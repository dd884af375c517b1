"""The tokenizer and chat template inside a GGUF file, as a `tokenizers` object. No torch.

A GGUF file names its pre-tokenizer (``tokenizer.ggml.pre``) but does not contain it, so only names whose rules are
written here are served; guessing would split prompts in ways the model never saw.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from rapidd.errors import ModelError
from rapidd.model.gguf import GgufHeader

_METASPACE: Final = "\u2581"


class _TokenType(IntEnum):
    """``tokenizer.ggml.token_type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def _split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    """Words by ``pattern``, then bytes."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _smollm() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


def _llama3() -> pre_tokenizers.PreTokenizer:
    return _split_by(_WORDS.format(digits="{1,3}"))


def _qwen2() -> pre_tokenizers.PreTokenizer:
    return _split_by(_WORDS.format(digits=""))


_WORDS: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}|"
    r" ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The word pattern of Llama 3 (numbers in threes) and Qwen 2 (digit by digit), as their tokenizer.json state it."""

_PRE_TOKENIZERS: Final[dict[str, Callable[[], pre_tokenizers.PreTokenizer]]] = {
    "gpt-2": _gpt2,
    "gpt2": _gpt2,
    "smollm": _smollm,
    "llama-bpe": _llama3,
    "llama3": _llama3,
    "qwen2": _qwen2,
}


def build(header: GgufHeader) -> tokenizers.Tokenizer:
    """The file's tokenizer. Raises `ModelError` for kinds and pre-tokenizers that are not known here."""
    tokens = _strings(header, "tokenizer.ggml.tokens")
    types = header.metadata.get("tokenizer.ggml.token_type", [_TokenType.NORMAL] * len(tokens))
    if not isinstance(types, list) or len(types) != len(tokens):
        raise ModelError(f"{header.path}: tokenizer.ggml.token_type does not match the {len(tokens)} tokens")
    kind = header.metadata.get("tokenizer.ggml.model")
    pre = str(header.metadata.get("tokenizer.ggml.pre"))
    if kind == "gpt2":
        backend = _byte_level_bpe(header, tokens, pre)
    elif kind == "llama":
        backend = _sentencepiece_bpe(header, tokens, types)
    else:
        raise ModelError(f"{header.path}: tokenizer {kind!r} is not supported", "supported: gpt2, llama")
    # Special tokens have to be known before the others: a later addition would not be marked special.
    backend.add_special_tokens(_added(tokens, types, _TokenType.CONTROL, special=True))
    backend.add_tokens(_added(tokens, types, _TokenType.USER_DEFINED, special=False))
    _add_bos_and_eos(backend, header, tokens, bos_by_default=kind == "llama" or _PRE_TOKENIZERS.get(pre) is _llama3)
    return backend


def chat_template(header: GgufHeader) -> tuple[str | None, dict[str, str]]:
    """The template's source (null: none) and the special tokens it may name."""
    source = header.metadata.get("tokenizer.chat_template")
    tokens = _strings(header, "tokenizer.ggml.tokens")
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    special = {}
    for variable, name in names.items():
        token = _special_token(header, tokens, name)
        if token is not None:
            special[variable] = token[0]
    return source if isinstance(source, str) else None, special


def _byte_level_bpe(header: GgufHeader, tokens: list[str], pre: str) -> tokenizers.Tokenizer:
    if pre not in _PRE_TOKENIZERS:
        raise ModelError(
            f"{header.path}: pre-tokenizer {pre!r} is not known",
            f"known: {', '.join(_PRE_TOKENIZERS)}; or give --tokenizer DIR",
        )
    # Llama 3's vocabulary has words that no sequence of merges makes.
    model = _bpe(header, tokens, _stated_merges(header), ignore_merges=_PRE_TOKENIZERS[pre] is _llama3)
    backend = tokenizers.Tokenizer(model)
    if _PRE_TOKENIZERS[pre] is _qwen2:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = _PRE_TOKENIZERS[pre]()
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece_bpe(header: GgufHeader, tokens: list[str], types: list[int]) -> tokenizers.Tokenizer:
    """SentencePiece BPE keeps a score for each token instead of merges; the best-scored join goes first."""
    scores = header.metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise ModelError(f"{header.path}: tokenizer.ggml.scores is missing or does not match the tokens")
    unknown = next((token for token, kind in zip(tokens, types, strict=True) if kind == _TokenType.UNKNOWN), None)
    if "tokenizer.ggml.merges" in header.metadata:
        merges = _stated_merges(header)
    else:
        merges = _merges_by_score(tokens, scores)
    model = _bpe(header, tokens, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    backend = tokenizers.Tokenizer(model)
    spaces: list[normalizers.Normalizer] = [normalizers.Replace(" ", _METASPACE)]
    if header.metadata.get("tokenizer.ggml.add_space_prefix", True):
        spaces.insert(0, normalizers.Prepend(_METASPACE))
    backend.normalizer = normalizers.Sequence(spaces)
    backend.decoder = decoders.Sequence([decoders.Replace(_METASPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    if unknown is not None:
        backend.add_special_tokens([AddedToken(unknown, special=True, normalized=False)])
    return backend


def _stated_merges(header: GgufHeader) -> list[tuple[str, str]]:
    merges = []
    for merge in _strings(header, "tokenizer.ggml.merges"):
        left, space, right = merge.partition(" ")
        if not space:
            raise ModelError(f"{header.path}: merge {merge!r} has no two parts")
        merges.append((left, right))
    return merges


def _merges_by_score(tokens: list[str], scores: list[float]) -> list[tuple[str, str]]:
    """Every pair of tokens that joins to a token, in the order of the joined token's score, best first."""
    ids = {token: token_id for token_id, token in enumerate(tokens)}
    merges = []
    for token, score in zip(tokens, scores, strict=True):
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [(left, right) for left, right in pairs if left in ids and right in ids]
        known.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        merges += [(-score, pair) for pair in known]
    merges.sort(key=lambda entry: entry[0])
    return [pair for _, pair in merges]


def _bpe(header: GgufHeader, tokens: list[str], merges: list[tuple[str, str]], **options: Any) -> models.BPE:
    vocab = {token: token_id for token_id, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise ModelError(f"{header.path}: {len(tokens) - len(vocab)} tokens occur twice in the vocabulary")
    for left, right in merges:
        if left not in vocab or right not in vocab or left + right not in vocab:
            raise ModelError(f"{header.path}: merge {left!r} + {right!r} is outside the vocabulary")
    return models.BPE(vocab=vocab, merges=merges, **options)


def _added(tokens: list[str], types: list[int], wanted: _TokenType, *, special: bool) -> list[AddedToken]:
    return [
        AddedToken(token, special=special, normalized=False)
        for token, kind in zip(tokens, types, strict=True)
        if kind == wanted
    ]


def _add_bos_and_eos(
    backend: tokenizers.Tokenizer, header: GgufHeader, tokens: list[str], *, bos_by_default: bool
) -> None:
    """What goes around a raw prompt: the flags of the file, or what files of its kind do without them."""
    bos, eos = (_special_token(header, tokens, name) for name in ("bos", "eos"))
    around = ["$A"]
    special: list[tuple[str, int]] = []
    if bos is not None and header.metadata.get("tokenizer.ggml.add_bos_token", bos_by_default):
        around.insert(0, bos[0])
        special.append(bos)
    if eos is not None and header.metadata.get("tokenizer.ggml.add_eos_token", False):
        around.append(eos[0])
        special.append(eos)
    if special:
        backend.post_processor = processors.TemplateProcessing(single=around, special_tokens=special)


def _special_token(header: GgufHeader, tokens: list[str], name: str) -> tuple[str, int] | None:
    """Text and id of a token with a role, where the file names one."""
    token_id = header.metadata.get(f"tokenizer.ggml.{name}_token_id")
    if not isinstance(token_id, int):
        return None
    if token_id >= len(tokens):
        raise ModelError(f"{header.path}: {name} token {token_id} is not among the {len(tokens)} tokens")
    return tokens[token_id], token_id


def _strings(header: GgufHeader, key: str) -> list[str]:
    value = header.metadata.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ModelError(f"{header.path}: metadata {key} is missing or holds no strings")
    return value
