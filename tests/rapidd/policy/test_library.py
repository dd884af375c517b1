"""Which profile is used, which is refused, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rapidd.policy.cost import CostModel
from rapidd.policy.library import SHIPPED, find_profile
from rapidd.policy.profile import ProfileKey, load_profile, save_profile
from support.profiles import KEY, PROFILE

OTHER_DRIVER = msgspec.structs.replace(KEY, driver="2.0")
OTHER_DTYPE = msgspec.structs.replace(KEY, dtype="float32")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    return tmp_path / "shipped"


def named(folder: Path, key: ProfileKey = KEY) -> Path:
    path = folder / "mine.json"
    save_profile(msgspec.structs.replace(PROFILE, key=key, note="named"), path)
    return path


def keep(folder: Path, key: ProfileKey = KEY) -> None:
    save_profile(msgspec.structs.replace(PROFILE, key=key, note="kept"), folder / key.file_name)


def test_without_any_profile_there_is_none_and_nothing_to_say(state: Path, shipped: Path) -> None:
    found = find_profile(KEY, None, state, shipped)
    assert (found.profile, found.source, found.warnings) == (None, None, ())


def test_the_named_file_goes_before_the_state_directory_and_that_before_a_shipped_one(
    tmp_path: Path, state: Path, shipped: Path
) -> None:
    keep(shipped)
    assert find_profile(KEY, None, state, shipped).source == "shipped"
    keep(state)
    assert find_profile(KEY, None, state, shipped).source == "state"
    found = find_profile(KEY, named(tmp_path), state, shipped)
    assert found.source == "file"
    assert found.profile is not None
    assert found.profile.note == "named"


def test_a_named_file_of_another_device_or_model_is_refused_and_the_next_one_used(
    tmp_path: Path, state: Path, shipped: Path
) -> None:
    keep(state)
    found = find_profile(KEY, named(tmp_path, OTHER_DTYPE), state, shipped)
    assert found.source == "state"
    assert len(found.warnings) == 1
    assert "is not used: the dtype changed: float32 when measured, bfloat16 now" in found.warnings[0]
    assert "rapidd calibrate" in found.warnings[0]


def test_a_measured_profile_is_refused_after_any_change_of_the_software(state: Path, shipped: Path) -> None:
    keep(state, OTHER_DRIVER)
    found = find_profile(KEY, None, state, shipped)
    assert found.profile is None
    assert "the driver changed: 2.0 when measured, 1.0 now" in found.warnings[0]


def test_a_file_that_is_missing_or_corrupt_stops_nothing(tmp_path: Path, state: Path, shipped: Path) -> None:
    keep(shipped)
    (shipped / "0.json").write_text("{")
    state.mkdir()
    (state / KEY.file_name).write_text("{")
    found = find_profile(KEY, tmp_path / "none.json", state, shipped)
    assert found.source == "shipped"
    assert [word in text for word, text in zip(("No such", "corrupt", "corrupt"), found.warnings, strict=True)] == [
        True
    ] * 3


def test_a_state_directory_that_may_not_be_opened_stops_nothing(shipped: Path) -> None:
    """The engine never started beside one that root had made for itself, by calibrating for the service with a umask of
    077. A name that is too long stands for it: nothing is forbidden to root."""
    found = find_profile(KEY, None, Path(f"/{'x' * 300}"), shipped)
    assert found.profile is None
    assert "File name too long" in found.warnings[0]


def test_a_shipped_profile_holds_with_another_driver_and_says_so(state: Path, shipped: Path) -> None:
    keep(shipped, OTHER_DRIVER)
    found = find_profile(KEY, None, state, shipped)
    assert found.source == "shipped"
    assert "was shipped: the driver changed: 2.0 when measured, 1.0 now" in found.warnings[0]


@pytest.mark.parametrize("change", [{"kernels": "k2"}, {"dtype": "float32"}, {"device": "other"}, {"block_tokens": 64}])
def test_a_shipped_profile_of_other_kernels_or_another_device_is_not_used(
    state: Path, shipped: Path, change: dict[str, object]
) -> None:
    keep(shipped, msgspec.structs.replace(KEY, **change))
    found = find_profile(KEY, None, state, shipped)
    assert found.profile is None
    assert ["kernels changed" in warning for warning in found.warnings] == ([True] if "kernels" in change else [])


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.json")), ids=lambda path: path.stem)
def test_a_shipped_profile_predicts_what_it_was_not_fitted_to(path: Path) -> None:
    profile = load_profile(path)
    fit = CostModel(profile).fit
    assert fit.n >= (100 if len(profile.splits) > 1 else 80)
    assert fit.median is not None
    assert fit.median <= 0.10
    assert fit.p95 is not None
    assert fit.p95 <= 0.25
