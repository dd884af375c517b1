"""`rapidctl schema`: what every ``--json`` document holds, as JSON Schema. The tests hold every command against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from rapidctl import wire
from rapidctl.commands import common
from rapidctl.errors import UsageError
from rapidctl.tape import Exchange

if TYPE_CHECKING:
    from argparse import Namespace

    from rapidctl.out import Out

Number = float | None
Text = str | None
Ids = list[int]
Counts = dict[str, float]
_PLACE: Final[dict[str, Any]] = {
    "mode": wire.Mode, "policy": str, "units_total": int, "unit_name": str, "decode_units": int, "prefill_units": int,
    "chunk": int | Literal["all"] | None, "epoch": int, "decision": int, "reason": str, "source": str, "age_s": float,
    "override": wire.OverrideInfo | None, "measured": wire.Placement | None, "splits": list[int],
    "unsupported": Text, "profile": Text, "groups": list[wire.UnitGroup] | None,
    "bounds": wire.OverrideBounds | None, "chunk_limit": int | None,
}  # fmt: skip
_CHOICE: Final = msgspec.defstruct(
    "Choice",
    [("index", int), ("text", str), ("token_ids", Ids), ("finish_reason", str), ("stop", str | int | None)],
    forbid_unknown_fields=True,
)
_HOST: Final = msgspec.defstruct(
    "Host",
    [
        ("name", str), ("endpoint", str), ("problem", str), ("state", wire.DaemonState | None), ("model", Text),
        ("policy", Text), ("epoch", int | None), ("mode", wire.Mode | None), ("decode_units", int | None),
        ("prefill_units", int | None), ("decode_busy", Number), ("prefill_busy", Number), ("waiting", int | None),
        ("prefilling", int | None), ("decoding", int | None), ("kv_used", Number), ("ttft_p95_s", Number),
        ("itl_p95_s", Number), ("both_met", Number),
    ],
    forbid_unknown_fields=True,
)  # fmt: skip
DOCUMENTS: Final[dict[str, dict[str, Any]]] = {
    "status": {
        "state": wire.DaemonState, "detail": str, "boot_id": Text, "front_boot_id": str, "version": str,
        "endpoint": str, "uptime_s": float, "front_uptime_s": float | None, "model": Text,
        "model_info": wire.ModelInfo | None, "device": Text, "device_info": wire.DeviceInfo | None,
        "engine": wire.Process, "front": wire.Process, "supervisor": wire.Process,
        "mode": wire.Mode | None, "policy": Text, "epoch": int | None,
        "decode_units": int | None, "prefill_units": int | None, "chunk_limit": int | None,
        "unsupported": Text, "kv": wire.KvStats | None,
        "requests": wire.RequestCounts, "slo": wire.Slo, "slo_met": bool | None,
    },
    "stats": {"at_unix_s": float, "boot_id": Text, "state": wire.DaemonState,
              "latency?": dict[str, Any], "units?": dict[str, Any], "queue?": wire.RequestCounts,
              "kv?": wire.KvStats | None, "device?": wire.DeviceInfo | None, "work?": dict[str, Any]},
    "requests ls": {"requests": list[wire.RequestRow]},
    "requests show": {"id": str, "choices": list[wire.RequestRow]},
    "requests cancel": {"id": str, "text": str},
    "partition show": _PLACE,
    "partition predict": {
        "mode": wire.Mode, "decode_units": int | None, "prefill_units": int | None, "legal": bool, "note": str,
        "itl_p95_s": Number, "ttft_p95_s": Number, "prefill_tokens_per_s": Number, "breaches_slo": bool | None,
    },
    "partition set": {"epoch": int, "text": str, "applied": wire.Event | None},
    "partition auto": {"epoch": int, "text": str, "applied": wire.Event | None},
    "partition undo": {"epoch": int, "text": str},
    "partition log": {"oldest_seq": int, "next_seq": int, "events": list[wire.Event]},
    "policy show": {"policy": str, "mode": wire.Mode, "source": str, "epoch": int, "decision": int, "reason": str,
                    "profile": Text},
    "profile show": {"profile": wire.CalibrationInfo | None, "notes": list[str], "knee": dict[str, Any]},
    "policy set": {"policy": str, "epoch": int, "text": str},
    "events": {"oldest_seq": int, "next_seq": int, "events": list[wire.Event]},
    "events -f": {name: kind for name, kind in wire.Event.__annotations__.items() if name != "schema_version"},
    "drain": {"draining": bool, "epoch": int, "text": str},
    "reload": {"text": str},
    "wait": {"condition": str, "state": wire.DaemonState, "waited_s": float},
    "run accepted": {"type": Literal["accepted"], "id": str, "prompt_tokens": int, "seed": int, "resumed": bool},
    "run tokens": {"type": Literal["tokens"], "choice": int, "index": int, "token_ids": Ids, "text": str,
                   "at_mono_ns": Ids, "logprobs?": list[dict[str, Any]]},
    "run finished": {
        "type": Literal["finished"], "id": str, "text": str, "token_ids": Ids, "finish_reason": str,
        "prompt_tokens": int, "cached_tokens": int, "output_tokens": int, "queued_s": Number, "prefill_s": Number,
        "ttft_s": Number, "e2e_s": float, "itl_s": wire.Quantiles, "itl_s_mean": Number, "mode": wire.Mode | None,
        "preemptions": int, "resubmissions": int, "slo_met": bool | None, "choices": list[_CHOICE],  # type: ignore[valid-type]
    },
    "run failed": {"type": Literal["failed"], "code": str, "message": str, "hint": str, "retry_after_s": Number,
                   "output_tokens": int},
    "version": {"version": str, "protocol_min": int, "protocol_max": int},
    "record": {"file": str, "snapshots": int, "recorded_s": float, "bytes": int},
    "replay snapshot": {"type": Literal["snapshot"], "at_s": float, "snapshot": wire.Snapshot},
    "replay event": {"type": Literal["event"], "at_s": float, "event": wire.Event},
    "replay exchange": {"type": Literal["exchange"], "at_s": float, "exchange": Exchange},
    "export": {"file": str, "rows": int},
    "check": {"subject": str, "level": Literal["OK", "WARNING", "CRITICAL", "UNKNOWN"], "text": str,
              "perfdata": dict[str, Number]},
    "context ls": {"contexts": list[dict[str, Any]]},
    "context use": {"file": str, "context": str},
    "context add": {"file": str, "context": str},
    "hosts": {"window_s": float, "hosts": list[_HOST]},  # type: ignore[valid-type]
    "config path": {"path": str},
    "config init": {"path": str},
    "config show": {"settings": dict[str, Any], "origin": dict[str, str]},
    "keys show": {"file": str, "public": Text, "servers": dict[str, str]},
    "keys make": {"file": str, "public": str},
    "keys authorize": {"text": str},
    "keys trust": {"text": str},
    "doctor": {"findings": list[dict[str, str]]},
}  # fmt: skip
"""By command: every key and its type, beside ``schema_version``, which comes first; ``?``: may be missing."""


def document_type(name: str) -> type[msgspec.Struct]:
    """The document as a struct; unknown keys are refused by its decoder."""
    fields: list[Any] = [("schema_version", Literal[1])]
    fields += [(key, kind) for key, kind in DOCUMENTS[name].items() if not key.endswith("?")]
    fields += [
        (key.removesuffix("?"), kind | msgspec.UnsetType, msgspec.UNSET)
        for key, kind in DOCUMENTS[name].items()
        if key.endswith("?")
    ]
    title = name.title().replace(" ", "").replace("-", "")
    return msgspec.defstruct(title, fields, forbid_unknown_fields=True)


def add_parser(commands: common.Commands) -> None:
    """Declare the command."""
    parser = common.add_command(commands, "schema", run, "JSON Schema of a --json document, or of all")
    parser.add_argument("document", nargs="*", help=f"one of: {', '.join(DOCUMENTS)}")


def run(args: Namespace, out: Out) -> int:
    """Print it."""
    name = " ".join(args.document)
    if name and name not in DOCUMENTS:
        raise UsageError(f"there is no document {name!r}", f"there are: {', '.join(DOCUMENTS)}")
    names = [name] if name else list(DOCUMENTS)
    schemas, shared = msgspec.json.schema_components(
        [document_type(found) for found in names], ref_template="#/$defs/{name}"
    )
    body = {"documents": dict(zip(names, schemas, strict=True)), "$defs": shared}
    out.document({"$schema": "https://json-schema.org/draft/2020-12/schema", **body})
    return 0
