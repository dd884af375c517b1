"""Files that the tests of `rapidd.model` read: the 1 MB test model, the default GGUF, GGUFs written on the spot."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as GgmlType
from hypothesis import settings

from rapidd.errors import ModelError
from rapidd.model.resolve import find_default

settings.register_profile("model", deadline=None, derandomize=True)
settings.load_profile("model")

GgufWriter = Callable[..., Path]


@pytest.fixture(scope="session")
def stories() -> Path:
    """A Llama of 260K parameters with a SentencePiece-style tokenizer of 512 tokens."""
    return Path(__file__).parents[2] / "data" / "stories260K_hf"


@pytest.fixture(scope="session")
def default_gguf() -> Path:
    """SmolLM2-135M-Instruct, 93 MB; continuous integration always has it."""
    try:
        return find_default()
    except ModelError as error:
        pytest.skip(f"{error}: {error.hint}")


@pytest.fixture(scope="session")
def gguf_writer() -> GgufWriter:
    """Write a GGUF file at a path: metadata by key (Python values), tensors as (values, type) or values (float32)."""
    return _write


@pytest.fixture
def write_gguf(tmp_path: Path) -> GgufWriter:
    """The same, at model.gguf in the test's own folder."""
    return partial(_write, tmp_path / "model.gguf")


def _write(
    path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray | tuple[np.ndarray, GgmlType]]
) -> Path:
    writer = gguf.GGUFWriter(path, metadata["general.architecture"])
    for key, value in metadata.items():
        if key != "general.architecture":
            _add(writer, key, value)
    for tensor, content in tensors.items():
        values, kind = content if isinstance(content, tuple) else (content, GgmlType.F32)
        writer.add_tensor(tensor, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: object) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)
