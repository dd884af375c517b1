"""Profiles as files: what is read back, and what is refused in which words."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from rapidd.errors import ProfileError
from rapidd.policy.profile import (
    IDENTITY,
    VERSIONS,
    DecodeSample,
    HybridSample,
    PrefillSample,
    Profile,
    ProfileKey,
    load_profile,
    save_profile,
    shape_digest,
)
from support.profiles import KEY, PROFILE


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "profile.json"
    save_profile(PROFILE, path)
    return path


def rewrite(path: Path, **fields: object) -> Path:
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | fields))
    return path


def test_what_is_written_is_read_back_and_nothing_else_is_left(file: Path) -> None:
    assert load_profile(file) == PROFILE
    assert list(file.parent.iterdir()) == [file]


def test_the_file_is_readable_one_sample_a_line(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert '  {"rows":1,"kv_tokens":512,"units":4,"seconds":' in "\n".join(lines)
    assert max(map(len, lines)) < 160


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "corrupt"),
        (b'{"kind": "rapidd profile", "schema_version": 1', "corrupt"),
        (b"\xff\xfe", "corrupt"),
        (b"[" * 100_000, "corrupt|no profile"),
        (b"[1, 2]", "no profile of rapidd"),
        (b'{"kind": "trace", "schema_version": 1}', "no profile of rapidd"),
        (b'{"schema_version": 1}', "no profile of rapidd"),
        (b'{"kind": "rapidd profile", "schema_version": 99, "cells": []}', "has schema 99 and this rapidd reads 1"),
        (b'{"kind": "rapidd profile", "schema_version": 1}', "corrupt: .*missing required field"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused_with_the_reason(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(content)
    with pytest.raises(ProfileError, match=says) as caught:
        load_profile(path)
    assert str(path) in str(caught.value)
    assert "rapidd calibrate" in caught.value.hint


@pytest.mark.parametrize("seconds", [0, -1, 1e99, "1", None])
def test_a_time_that_cannot_be_is_refused(file: Path, seconds: object) -> None:
    sample = {"rows": 1, "kv_tokens": 8, "units": 4, "seconds": seconds}
    with pytest.raises(ProfileError, match=r"corrupt.*decode\[0\]\.seconds"):
        load_profile(rewrite(file, decode=[sample]))


@pytest.mark.parametrize(("field", "says"), [("decode", "no decode step"), ("prefill", "no prompt chunk")])
def test_a_profile_without_the_whole_device_is_incomplete(file: Path, field: str, says: str) -> None:
    with pytest.raises(ProfileError, match=f"incomplete: {says} on all units"):
        load_profile(rewrite(file, **{field: []}))


def test_a_file_that_cannot_be_read_or_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="No such file"):
        load_profile(tmp_path / "none.json")
    with pytest.raises(ProfileError, match="Is a directory"):
        load_profile(tmp_path)
    huge = tmp_path / "huge.json"
    with huge.open("wb") as sparse:
        sparse.truncate(17 << 20)
    with pytest.raises(ProfileError, match="larger than 16 MiB"):
        load_profile(huge)


def test_a_place_that_cannot_be_written_is_said_and_the_old_file_stays(file: Path) -> None:
    (file.parent / f".{file.name}.{os.getpid()}").mkdir()
    with pytest.raises(ProfileError, match="cannot write the profile") as caught:
        save_profile(msgspec.structs.replace(PROFILE, note="new"), file)
    assert "--out FILE" in caught.value.hint
    assert load_profile(file) == PROFILE


@pytest.mark.parametrize("field", [*IDENTITY, *VERSIONS])
def test_a_change_of_what_matters_is_told_in_words(field: str) -> None:
    other = msgspec.structs.replace(KEY, **{field: 3 if isinstance(getattr(KEY, field), int) else "other"})
    words = (IDENTITY | VERSIONS)[field]
    assert (
        PROFILE.mismatch(other) == f"{words} changed: {getattr(KEY, field)} when measured, {getattr(other, field)} now"
    )
    assert KEY.differences(other) == [field]
    assert (other.file_name == KEY.file_name) == (field in VERSIONS)


def test_the_models_name_and_the_build_do_not_matter() -> None:
    other = msgspec.structs.replace(KEY, model="another of the same shape", build="9.9")
    assert PROFILE.mismatch(other) is None
    assert other.file_name == KEY.file_name


def test_the_shapes_digest_does_not_depend_on_the_order_of_fields() -> None:
    assert shape_digest({"layers": 2, "heads": 4}) == shape_digest({"heads": 4, "layers": 2})
    assert shape_digest({"layers": 2, "heads": 4}) != shape_digest({"layers": 4, "heads": 2})


def test_a_profile_without_hybrid_steps_is_valid(tmp_path: Path) -> None:
    bare = Profile(
        key=ProfileKey(
            device="d", device_kind="cpu", units_total=1, shape="s", dtype="t", kernels="k", block_tokens=16
        ),
        made_unix_s=0.0,
        seconds=1.0,
        splits=(),
        decode=(DecodeSample(1, 0, 1, 0.1),),
        prefill=(PrefillSample(16, 0, 1, 0.1),),
        hybrid=(),
    )
    save_profile(bare, tmp_path / "bare.json")
    assert load_profile(tmp_path / "bare.json") == bare


def test_samples_carry_what_ran_beside_them(file: Path) -> None:
    profile = load_profile(file)
    assert any(sample.beside and sample.beside_rows for sample in profile.prefill)
    assert all(isinstance(sample, HybridSample) for sample in profile.hybrid)
