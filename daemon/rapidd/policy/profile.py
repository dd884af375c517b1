"""What `rapidd calibrate` measured on a device: samples as readable JSON, and what they hold for.

The samples are kept, not the fit: a better cost model reads old profiles. Knows neither torch nor the device; where
profiles lie is `rapidd.paths`' and `find`'s business, what they mean `rapidd.policy.cost`'s.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from rapidd.errors import ProfileError

SCHEMA_VERSION: Final = 1
MAX_BYTES: Final = 16 << 20
RECALIBRATE: Final = "measure this device anew: rapidd calibrate"

Count = Annotated[int, Meta(ge=1, le=1 << 40)]
CountOrNone = Annotated[int, Meta(ge=0, le=1 << 40)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]

IDENTITY: Final = {
    "device": "the device",
    "device_kind": "the kind of device",
    "units_total": "the number of compute units",
    "shape": "the model's shape",
    "dtype": "the dtype",
    "block_tokens": "the KV block size",
}
"""What makes another profile: another file."""
VERSIONS: Final = {
    "kernels": "the kernels",
    "driver": "the driver",
    "torch": "torch",
    "triton": "triton",
}
"""What makes a profile stale: the same file, measured anew."""


class ProfileKey(Struct, frozen=True, kw_only=True):
    """What times depend on. ``model`` and ``build`` are for people: another model of the same shape is as fast."""

    device: str
    """Name, as the driver or the system tells it."""
    device_kind: Literal["cpu", "cuda", "hip"]
    units_total: Count
    driver: str = ""
    """Version; empty on a CPU."""
    model: str = ""
    shape: str
    """`shape_digest` of the model."""
    dtype: str
    kernels: str
    """Digest of the kernels' code."""
    torch: str = ""
    triton: str = ""
    """Empty where it is not used."""
    block_tokens: Count
    build: str = ""
    """Version of rapid-serve."""

    def differences(self, other: ProfileKey) -> list[str]:
        """Fields in which ``other`` is another, of those that matter."""
        return [name for name in (*IDENTITY, *VERSIONS) if getattr(self, name) != getattr(other, name)]

    @property
    def file_name(self) -> str:
        """The same for all versions of the software on one device and model."""
        text = "\n".join(f"{name}={getattr(self, name)}" for name in IDENTITY)
        return f"{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}.json"


class DecodeSample(Struct, frozen=True, omit_defaults=True):
    """A decode step of ``rows`` rows that read ``kv_tokens`` cached tokens in all, on ``units`` units.

    ``beside``: prompt chunks ran on the other lane meanwhile; ``shared`` when ``units`` is all of them, else a split.
    """

    rows: Count
    kv_tokens: CountOrNone
    units: Count
    seconds: Seconds
    beside: bool = False


class PrefillSample(Struct, frozen=True, omit_defaults=True):
    """A chunk of ``tokens`` tokens of one prompt behind ``context`` cached ones.

    ``beside``: decode steps ran on the other lane meanwhile, of ``beside_rows`` rows and ``beside_kv_tokens``.
    """

    tokens: Count
    context: CountOrNone
    units: Count
    seconds: Seconds
    beside: bool = False
    beside_rows: CountOrNone = 0
    beside_kv_tokens: CountOrNone = 0


class HybridSample(Struct, frozen=True):
    """Decode rows and a chunk in one batch, on all units."""

    rows: Count
    kv_tokens: CountOrNone
    tokens: Count
    context: CountOrNone
    seconds: Seconds


class PromptWave(Struct, frozen=True):
    """Of a chunk's attention so many tiles of so many tokens run at a time, on all units."""

    tiles: Count
    tile_tokens: Count


class Profile(Struct, frozen=True, kw_only=True, tag_field="kind", tag="rapidd profile"):
    """One calibration. ``splits``: decode units of every split; ``row_buckets``: rows are padded to one of these."""

    schema_version: int = SCHEMA_VERSION
    key: ProfileKey
    made_unix_s: float
    seconds: float
    """The calibration took, engine start not counted."""
    note: str = ""
    others_cpu_share: float | None = None
    """Of the processor, which other processes and machines used meanwhile; null: not known."""
    passes_differ: float | None = None
    """Median over batches: by how much the slowest pass took longer than the quickest, 0.1: 10 %; null: one pass."""
    splits: tuple[Count, ...]
    row_buckets: tuple[Count, ...] = ()
    prompt_wave: PromptWave | None = None
    """Null: of a chunk's attention each token takes its own time."""
    decode: tuple[DecodeSample, ...]
    prefill: tuple[PrefillSample, ...]
    hybrid: tuple[HybridSample, ...]

    @property
    def name(self) -> str:
        """A few words for people."""
        return f"{self.key.model or 'model'} on {self.key.device}"

    def mismatch(self, key: ProfileKey) -> str | None:
        """In words, why these times do not hold for ``key``; null when they do."""
        words = IDENTITY | VERSIONS
        changed = [
            _changed(words[name], getattr(self.key, name), getattr(key, name)) for name in self.key.differences(key)
        ]
        return "; ".join(changed) or None


def _changed(what: str, then: object, now: object) -> str:
    return f"{what} changed: {then or 'none'} when measured, {now or 'none'} now"


def shape_digest(fields: dict[str, object]) -> str:
    """Of whatever decides how much a model computes; names and weights are not among it."""
    return hashlib.blake2b(msgspec.json.encode(fields, order="deterministic"), digest_size=8).hexdigest()


# --- files


class _Head(Struct):
    """Read before the rest, which another version may spell otherwise."""

    kind: str = ""
    schema_version: int = 0


def load_profile(path: Path) -> Profile:
    """Raises ProfileError, which says what is wrong with the file and what to do."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ProfileError(f"cannot read the profile {path}: {error.strerror or error}", RECALIBRATE) from error
    if len(data) > MAX_BYTES:
        raise ProfileError(f"{path} is no profile: it is larger than {MAX_BYTES >> 20} MiB", RECALIBRATE)
    try:
        head = msgspec.json.decode(data, type=_Head)
    except msgspec.ValidationError as error:
        raise ProfileError(f"{path} is no profile of rapidd: {error}", RECALIBRATE) from error
    except (ValueError, RecursionError) as error:  # malformed JSON, no UTF-8, absurd nesting
        raise ProfileError(f"the profile {path} is corrupt: {error}", RECALIBRATE) from error
    if head.kind != Profile.__struct_config__.tag:
        raise ProfileError(f"{path} is no profile of rapidd", RECALIBRATE)
    if head.schema_version != SCHEMA_VERSION:
        raise ProfileError(
            f"the profile {path} has schema {head.schema_version} and this rapidd reads {SCHEMA_VERSION}", RECALIBRATE
        )
    try:
        profile = msgspec.json.decode(data, type=Profile)
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"the profile {path} is corrupt: {error}", RECALIBRATE) from error
    if missing := incomplete(profile):
        raise ProfileError(f"the profile {path} is incomplete: {missing}", RECALIBRATE)
    return profile


def incomplete(profile: Profile) -> str | None:
    """What a cost model cannot do without, and this profile lacks; null: nothing."""
    total = profile.key.units_total
    if not any(s.units == total and not s.beside for s in profile.decode):
        return "no decode step on all units"
    if not any(s.units == total and not s.beside for s in profile.prefill):
        return "no prompt chunk on all units"
    return None


def save_profile(profile: Profile, path: Path) -> None:
    """Write it so that a reader sees the old file or the new one, never half of it. Raises ProfileError.

    Makes the directory if there is none.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            temporary.write_bytes(to_json(profile))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ProfileError(
            f"cannot write the profile {path}: {error.strerror or error}",
            "grant the right or free some space, or choose another place: rapidd calibrate --out FILE",
        ) from error


def to_json(profile: Profile) -> bytes:
    """Readable: one sample a line."""
    head = msgspec.to_builtins(profile)
    lists = {name: head.pop(name) for name in ("decode", "prefill", "hybrid")}
    text = msgspec.json.format(msgspec.json.encode(head), indent=1).decode().rstrip().removesuffix("}").rstrip()
    for name, samples in lists.items():
        lines = ",\n  ".join(msgspec.json.encode(sample).decode() for sample in samples)
        text += f',\n "{name}": [\n  {lines}\n ]'
    return f"{text}\n}}\n".encode()
