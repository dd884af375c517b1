"""The partition of the device: plans asked for and in force, where lanes ran, and the profile behind predictions."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from rapidctl.wire.protocol import MAX_CHUNK_TOKENS, MAX_UNITS, UnixTime
from rapidctl.wire.terms import Mode


class PlanRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """A plan an operator asks for. ``chunk``: prompt tokens a batch, null for the time bound, "all" in serial."""

    mode: Mode
    decode_units: Annotated[int, Meta(ge=0, le=MAX_UNITS)] | None = None
    chunk: Annotated[int, Meta(ge=1, le=MAX_CHUNK_TOKENS)] | Literal["all"] | None = None


class PlanInfo(Struct, kw_only=True):
    """The plan in force and why. ``decision`` counts the policy's choices; ``chunk`` null: bounded by time."""

    mode: Mode
    decode_units: int
    prefill_units: int
    chunk: int | Literal["all"] | None
    decision: int
    reason: str
    age_s: float


class OverrideInfo(Struct, kw_only=True):
    """A running override; ``ttl_s`` is what is left of it, null when it never ends by itself."""

    plan: PlanRequest
    ttl_s: float | None
    guard: bool
    reason: str
    by: str


class OverrideBounds(Struct, kw_only=True, frozen=True):
    """What the daemon takes for an override, and when its guard ends one.

    ``guard_itl``, ``guard_ttft``: times the objective; either p95 beyond it for ``guard_after_s`` releases.
    """

    ttl_max_s: float
    chunk_max: int
    change_every_s: float
    guard_itl: float
    guard_ttft: float
    guard_after_s: float


class LanePlacement(Struct, kw_only=True):
    """Units on which a lane was seen to run. ``measured`` is false when the system tells no placement."""

    lane: Literal["decode", "prefill"]
    units: list[int]
    measured: bool


class Placement(Struct, kw_only=True):
    """Realised placement: by lane, units both lanes ran on, and whether an old chunk still holds old units."""

    lanes: list[LanePlacement]
    overlap: int
    transition: bool
    probed_unix_s: UnixTime | None


class UnitGroup(Struct, kw_only=True, frozen=True):
    """Units that sit together on the device, numbered as in `LanePlacement`: a shader engine, a core's two threads.

    ``within``: what holds this group and its neighbours ("XCC 3", "socket 0"); empty: the device itself.
    """

    name: str
    within: str = ""
    units: tuple[int, ...]


class FitInfo(Struct, kw_only=True):
    """Relative errors of predictions on held-back measurements; ``part`` "all", or what was predicted."""

    part: str
    n: int
    median: float | None
    p95: float | None


class CorrectionInfo(Struct, kw_only=True):
    """What batches took over what was predicted, a moving mean. ``error``: of the corrected predictions, relative."""

    mode: Mode
    kind: Literal["decode", "prefill", "mixed"]
    factor: float
    error: float
    n: int


class GapMarginInfo(Struct, kw_only=True):
    """How many times as long as predicted gaps count, so that ``late_share`` of them exceed the ITL objective.

    ``n``: gaps that it has learnt from.
    """

    factor: float
    late_share: float
    n: int


class CalibrationInfo(Struct, kw_only=True):
    """The calibrated profile in use: what it was measured on, how well it fits, how it is corrected.

    ``source``: a file that was named, the state directory, or shipped with the daemon.
    """

    name: str
    source: Literal["file", "state", "shipped"]
    device: str
    units_total: int
    driver: str
    model: str
    dtype: str
    build: str
    made_unix_s: UnixTime
    note: str
    fit: FitInfo
    parts: list[FitInfo]
    corrections: list[CorrectionInfo]
    margin: GapMarginInfo | None = None
    """Null from a daemon that does not publish it."""
    short_contexts: dict[Literal["decode", "prefill"], list[int]] = {}
    """By lane the numbers of units on which no long context was measured; a lane without any is not in it."""


class PartitionInfo(Struct, kw_only=True, tag_field="kind", tag="partition"):
    """Reply to `GetPartition`, and part of every snapshot. ``source``: policy, override or config."""

    call: int = 0
    policy: str
    units_total: Annotated[int, Meta(ge=1, le=MAX_UNITS)]
    unit_name: Literal["CU", "SM", "core"]
    splits: list[int]
    """Legal values of ``decode_units`` in split mode; empty when this device cannot be partitioned."""
    unsupported: str | None
    """Why only `shared`, `serial` and `hybrid` are possible here; null when splits are."""
    epoch: int
    source: Literal["policy", "override"]
    plan: PlanInfo
    override: OverrideInfo | None
    measured: Placement | None
    profile: str | None
    """Name of the calibrated profile in use; null: none, and predictions answer null."""
    calibration: CalibrationInfo | None = None
    """More about that profile."""
    groups: list[UnitGroup] | None = None
    """Every unit in one group, neighbours side by side; null where the system does not tell."""
    bounds: OverrideBounds | None = None
    """Null from a daemon that does not publish them."""
    chunk_limit: int | None = None
    """Most prompt tokens of a batch, whatever the plan, since one ran out of memory; null: none did."""
