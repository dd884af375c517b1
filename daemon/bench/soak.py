"""``PYTHONPATH=rapidctl:daemon:kernels python -m bench.soak --minutes M``: is every token right under any load?

A daemon of its own with a small KV cache; random arrivals, cancels and priorities through the product's client, and a
mode switch every 2.1 s. Afterwards every greedy token is checked by teacher forcing in float32, and that no request,
token, block or engine was lost. The tolerance is measured: the worst token of a serial run of the same daemon, before
the load; a token beyond it is wrong unless plain runs in the daemon's type may be as far off at that very place. In
float32 sampled tokens are drawn again, with their seeds, from the reference's logits. Prints a table, then one JSON
line; exit status 1, with a list, when a check fails. Measures no speed.
"""

import argparse
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch

from bench.figures import SCHEMA_VERSION
from bench.processes import daemon
from bench.progress import say
from bench.soak_checks import (
    Checked,
    Record,
    Suspect,
    coverage_problems,
    daemon_problems,
    find_suspects,
    mode_problems,
    tolerance,
)
from bench.soak_draws import draw_again
from bench.soak_load import LOOK_S, SWITCH_S, Load, Mix, Recorder, plans_of
from bench.teacher import Teacher
from rapidctl.errors import RapidctlError, TimedOut
from rapidctl.wire import GetSnapshot, ModelInfo, PartitionInfo, Snapshot
from rapidd.policy.policies import fixed

MODEL: Final = Path(__file__).resolve().parents[2] / "tests/data/stories260K_hf"
MAX_MODEL_LEN: Final = 384
MAX_ROWS: Final = 32
KV_TOKENS: Final = 3072
"""Too few for so many rows: growing requests preempt others."""
BLOCK_TOKENS: Final = {"cpu": 16, "cuda": 64}
"""The defaults of the two devices, written out because the cache's size in blocks follows from them."""
SERIAL_SHARE, SERIAL_S = 0.05, (SWITCH_S + 0.4, 15.0)
"""Of the load's time, and its bounds: a switch must be allowed again, and a sample need not grow for ever."""
SERIAL_TOKENS: Final = 1000
"""However long they take."""
SETTLE_S: Final = 1.5
"""The engine of an idle daemon says every second how it is."""
IDLE_S: Final = 12.0
"""An idle engine checks its block pool every 10 s."""
SHOWN: Final = 20
"""Failures that are printed, and suspects that the file keeps; all are counted."""
NUDGES: Final = 8
"""Plain runs that say how far the daemon's type may be off: one rounds otherwise than the next by up to a half."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is run. ``idle_s`` below `IDLE_S`: the engine may not have checked its pool after the load."""

    load_s: float
    model: str = str(MODEL)
    device: str = "cpu"
    dtype: str = "bfloat16"
    seed: int = 0
    idle_s: float = IDLE_S


@dataclass(slots=True)
class Found:
    """What a run gave. ``failures``: sentences; none: every check passed."""

    failures: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    suspects: list[Suspect] = field(default_factory=list)
    """Tokens beyond the tolerance, wrong or not."""


def main() -> int:
    """Run it, print what was found."""
    parser = argparse.ArgumentParser(prog="bench.soak", description="Check rapid-serve under random load.")
    parser.add_argument("--minutes", type=float, required=True, metavar="M", help="of random load")
    parser.add_argument("--model", default=str(MODEL), metavar="PATH", help="Hugging Face folder or .gguf file")
    parser.add_argument("--device", choices=BLOCK_TOKENS, default=default_device(), help="the GPU, where there is one")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of prompts, arrivals, cancels and switches")
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the JSON, with every failure")
    arguments = parser.parse_args()
    if arguments.minutes <= 0:
        parser.error("--minutes must be more than 0")
    settings = Settings(60 * arguments.minutes, arguments.model, arguments.device, arguments.dtype, arguments.seed)
    found = soak(settings)
    print(table(found))
    document = {"schema_version": SCHEMA_VERSION, "passed": not found.failures, **found.summary}
    print(json.dumps({**document, "failures": len(found.failures)}), flush=True)
    if arguments.out is not None:
        document |= {"failures": found.failures, "suspects": [suspect.facts() for suspect in found.suspects[:SHOWN]]}
        text = json.dumps(document, indent=1)
        arguments.out.write_text(text + "\n", encoding="utf-8")
    return 1 if found.failures else 0


def default_device() -> str:
    """As the daemon chooses by itself, of those that the soak knows: AMD's GPUs are not among them."""
    return "cuda" if torch.version.cuda and torch.cuda.is_available() else "cpu"


def soak(settings: Settings) -> Found:
    """Everything: a daemon, a serial run, the load, and, once the daemon is gone, the reference."""
    draw = random.Random(settings.seed)
    found = Found(summary={"started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **_describe(settings)})
    serial: list[Record] = []
    loaded: list[Record] = []
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, daemon(*_options(settings, Path(folder))) as server:
        try:
            with Recorder(server.endpoint) as client:
                _drive(client, settings, draw, serial, loaded, found)
        except RapidctlError as error:
            found.failures.append(f"the daemon did not answer: {error}")
        if found.failures:
            say(f"the daemon's log:\n{server.said()}")
    for record in (*serial, *loaded):
        found.failures += record.problems()
    _teach(settings, serial, loaded, found)
    return found


def _options(settings: Settings, folder: Path) -> tuple[str, str]:
    """The daemon's, by way of a file: not every setting has an option."""
    block_tokens = BLOCK_TOKENS[settings.device]
    path = folder / "rapidd.toml"
    path.write_text(
        f"[model]\npath = {json.dumps(settings.model)}\ndtype = {json.dumps(settings.dtype)}\n"
        f"max-model-len = {MAX_MODEL_LEN}\n"
        f"[engine]\ndevice = {json.dumps(settings.device)}\nmax-batch-requests = {MAX_ROWS}\n"
        f"block-tokens = {block_tokens}\nkv-blocks = {KV_TOKENS // block_tokens}\n",
        encoding="utf-8",
    )
    return "--config", str(path)


def _drive(
    client: Recorder,
    settings: Settings,
    draw: random.Random,
    serial: list[Record],
    loaded: list[Record],
    found: Found,
) -> None:
    """Both runs; their requests go to ``serial`` and ``loaded``, what the daemon says of itself to ``found``."""
    model, partition = _greet(client)
    units, splits = partition.units_total, tuple(partition.splits)
    plans = {fixed(plan, units, splits, "").describe(): plan for plan in plans_of(splits)}
    mix = Mix(draw, model.vocab_size, MAX_MODEL_LEN)

    say(f"a serial run, for the tolerance; then {settings.load_s:.0f} s of load under {len(plans)} plans")
    quiet = Load(client, mix, draw, plans, serial)
    serial_s = min(max(SERIAL_SHARE * settings.load_s, SERIAL_S[0]), SERIAL_S[1])
    quiet.serial(serial_s, SERIAL_TOKENS)
    quiet.rest(SETTLE_S)
    before = _snapshot(client)

    load = Load(client, mix, draw, plans, loaded)
    load.random(settings.load_s)
    say("the load has ended; the daemon idles")
    load.rest(settings.idle_s)
    after = _snapshot(client)

    seconds = {mode: total - before.mode_seconds.get(mode, 0.0) for mode, total in after.mode_seconds.items()}
    found.failures += quiet.faults + load.faults + quiet.events.problems() + load.events.problems()
    found.failures += daemon_problems(before, after, load.records)
    found.failures += coverage_problems(load.records)
    found.failures += mode_problems(seconds, load.tried, load.events.applied)
    found.summary |= _counts(before, after, load)
    found.summary |= {
        "device_name": after.device.name if after.device else None,
        "plans": len(plans),
        "plans_run": len(load.events.applied & plans.keys()),
        "mode_seconds": {mode: round(value, 2) for mode, value in sorted(seconds.items())},
    }


def _counts(before: Snapshot, after: Snapshot, load: Load) -> dict[str, Any]:
    """Of the load."""
    whole = [record for record in load.records if not record.cancelled]
    return {
        "requests": len(load.records),
        "greedy": sum(record.greedy for record in load.records),
        "several_choices": sum(record.request.n > 1 for record in load.records),
        "cancels": len(load.records) - len(whole),
        "prompt_tokens": sum(len(record.prompt) for record in load.records),
        "output_tokens": sum(record.output_tokens for record in load.records),
        "switches": load.switches,
        "preempted": after.requests.preempted_total - before.requests.preempted_total,
        "prefix_hit_tokens": _kv(after, "prefix_hit_tokens_total") - _kv(before, "prefix_hit_tokens_total"),
        "evicted_blocks": _kv(after, "evicted_blocks_total") - _kv(before, "evicted_blocks_total"),
        "events": dict(sorted(load.events.kinds.items())),
    }


def _kv(snapshot: Snapshot, name: str) -> int:
    return int(getattr(snapshot.kv, name)) if snapshot.kv is not None else 0


def _teach(settings: Settings, serial: list[Record], loaded: list[Record], found: Found) -> None:
    """Measure the tolerance and judge every greedy token."""
    say("the float32 reference")
    teacher = Teacher(settings.model, settings.device, MAX_MODEL_LEN)
    of_serial, of_load = check(teacher, serial), check(teacher, loaded)
    values = sorted(value for checked in of_load for value in checked.shortfalls)
    if not values or not any(checked.shortfalls for checked in of_serial):
        found.failures.append("no greedy token came: nothing was checked")
        return
    worst, most = tolerance(of_serial)
    beyond = [checked for checked in of_load if not max(checked.shortfalls) <= most < math.inf]
    plain = (Teacher(settings.model, settings.device, MAX_MODEL_LEN, settings.dtype, nudge) for nudge in range(NUDGES))
    found.suspects = find_suspects(with_noise(teacher, plain, beyond) if beyond else [], most)
    found.failures += [str(suspect) for suspect in found.suspects if suspect.wrong]
    if settings.dtype == "float32":
        _draw_again(teacher, loaded, found)
    found.summary |= {
        "serial_tokens": sum(len(checked.shortfalls) for checked in of_serial),
        "serial_not_the_highest": sum(value > 0 for checked in of_serial for value in checked.shortfalls),
        "serial_worst_shortfall": worst,
        "tolerance": most,
        "checked_tokens": len(values),
        "not_the_highest": sum(value > 0 for value in values),
        "worst_shortfall": values[-1] if math.isfinite(values[-1]) else None,
        "beyond_tolerance": len(found.suspects),
        "beyond_but_as_uncertain": sum(not suspect.wrong for suspect in found.suspects),
    }


def _draw_again(teacher: Teacher, loaded: list[Record], found: Found) -> None:
    drawn = draw_again(teacher, loaded)
    found.failures += drawn.wrong
    found.summary |= {
        "drawn_tokens": drawn.tokens,
        "uncertain_draws": drawn.uncertain,
        "logprobs": drawn.logprobs,
        "worst_logprob_error": drawn.worst_logprob_error,
    }


def check(teacher: Teacher, records: Sequence[Record]) -> list[Checked]:
    """Every greedy choice that has output, cut ones included."""
    choices = [
        (record, choice)
        for record in records
        if record.greedy
        for choice, output in enumerate(record.outputs)
        if output
    ]
    shortfalls = teacher.shortfalls([(record.prompt, record.outputs[choice]) for record, choice in choices])
    return [Checked(record, choice, values) for (record, choice), values in zip(choices, shortfalls, strict=True)]


def with_noise(teacher: Teacher, plain: Iterable[Teacher], checked: Sequence[Checked]) -> list[Checked]:
    """The same, with how far the worst of ``plain``, in the daemon's own type, is off at each of their tokens."""
    sequences = [(one.record.prompt, one.record.outputs[one.choice]) for one in checked]
    runs = [list(teacher.deviations(other, sequences)) for other in plain]
    return [
        replace(one, noise=[max(at) for at in zip(*of_all, strict=True)])
        for one, *of_all in zip(checked, *runs, strict=True)
    ]


def table(found: Found) -> str:
    """For people: the summary, a line each, and what failed."""
    width = max(map(len, found.summary))
    lines = [f"{name.ljust(width)}  {_cell(value)}" for name, value in found.summary.items()]
    lines.append(f"{'checks'.ljust(width)}  {f'{len(found.failures)} FAILED' if found.failures else 'all passed'}")
    lines += [f"  - {failure}" for failure in found.failures[:SHOWN]]
    if len(found.failures) > SHOWN:
        lines.append(f"  - and {len(found.failures) - SHOWN} more")
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(item)}" for key, item in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _describe(settings: Settings) -> dict[str, Any]:
    return {
        "model": Path(settings.model).name,
        "device": settings.device,
        "dtype": settings.dtype,
        "seed": settings.seed,
        "load_s": settings.load_s,
        "idle_s": settings.idle_s,
    }


def _greet(client: Recorder) -> tuple[ModelInfo, PartitionInfo]:
    """What is served on what. A daemon that is just ready may not have heard yet how its engine is."""
    deadline = time.monotonic() + client.timeout_s
    while time.monotonic() < deadline:
        snapshot = _snapshot(client)
        if snapshot.model is not None and snapshot.partition is not None:
            return snapshot.model, snapshot.partition
        client.poll(LOOK_S)
    raise TimedOut(f"the engine did not say within {client.timeout_s:g} s how it is")


def _snapshot(client: Recorder) -> Snapshot:
    return client.call(GetSnapshot(call=0)).snapshot


if __name__ == "__main__":
    sys.exit(main())
