"""Which profile holds for a device and model: the file that was named, the state directory's, or a shipped one.

A profile that was measured here holds only for the very software that it was measured with. One that is shipped with
rapidd was measured on another machine of the same kind, so a different driver, torch or triton is accepted, and said;
other kernels, another device, model shape, dtype or block size never are. Why a candidate is refused is said too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from rapidd.errors import ProfileError
from rapidd.policy.profile import IDENTITY, RECALIBRATE, VERSIONS, Profile, ProfileKey, load_profile

SHIPPED: Final = Path(__file__).parent.parent / "profiles"
"""Profiles that are installed with rapidd."""
HARMLESS: Final = frozenset(VERSIONS) - {"kernels"}
"""What a shipped profile may have been measured with another version of."""

Source = Literal["file", "state", "shipped"]


class Found(Struct, frozen=True):
    """The profile to use, or null; and what an operator should know about it and about those that were refused."""

    profile: Profile | None
    source: Source | None
    warnings: tuple[str, ...] = ()


def find_profile(key: ProfileKey, named: Path | None, state: Path, shipped: Path = SHIPPED) -> Found:
    """``named``: the configured file; ``state``: the directory that `rapidd calibrate` writes to. Never raises.

    A named file that is missing or corrupt is refused with the settings; one that went bad since then stops no restart.
    """
    warnings: list[str] = []
    if named is not None and (chosen := _load(named, warnings)) is not None:
        if (mismatch := chosen.mismatch(key)) is None:
            return Found(chosen, "file")
        warnings.append(_refused(named, mismatch))
    own = state / key.file_name
    if _is_there(own) and (kept := _load(own, warnings)) is not None:
        if (mismatch := kept.mismatch(key)) is None:
            return Found(kept, "state", tuple(warnings))
        warnings.append(_refused(own, mismatch))
    for path in sorted(shipped.glob("*.json")):
        candidate = _load(path, warnings)
        differences = set(candidate.key.differences(key)) if candidate else set()
        if candidate is None or differences & IDENTITY.keys():
            continue  # of another device or model: nothing to say
        mismatch = candidate.mismatch(key) or ""
        if differences <= HARMLESS:
            if differences:
                warnings.append(f"the profile {path.name} was shipped: {mismatch} ({RECALIBRATE})")
            return Found(candidate, "shipped", tuple(warnings))
        warnings.append(_refused(path, mismatch))
    return Found(None, None, tuple(warnings))


def _is_there(path: Path) -> bool:
    """Of a file that may not even be looked at, loading tells why."""
    try:
        return path.exists()
    except OSError:
        return True


def _load(path: Path, warnings: list[str]) -> Profile | None:
    try:
        return load_profile(path)
    except ProfileError as error:
        warnings.append(f"{error} ({error.hint})")
        return None


def _refused(path: Path, mismatch: str) -> str:
    return f"the profile {path} is not used: {mismatch} ({RECALIBRATE})"
