"""What an operator typed into the override dialog, and the command that means; also undo. Pure."""

from __future__ import annotations

import math
import shlex
from argparse import ArgumentTypeError
from dataclasses import dataclass
from typing import Literal

from rapidctl.book import Control
from rapidctl.client import new_id
from rapidctl.commands.common import duration_s
from rapidctl.console.change import Command
from rapidctl.out import duration
from rapidctl.wire import (
    MAX_CHUNK_TOKENS,
    MAX_TTL_S,
    ChatMessage,
    Generate,
    Mode,
    ModelInfo,
    OverrideBounds,
    PartitionInfo,
    PlanRequest,
    ReleasePartition,
    Sampling,
    SetPartition,
    SetPolicy,
    UndoPartition,
)


class FormError(ValueError):
    """A field that cannot be sent; the message says which and what it takes."""


@dataclass(frozen=True)
class PromptSettings:
    """How the model is asked."""

    system: str = ""
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int | None = None
    """Null: what the context leaves, which the daemon knows."""
    seed: int | None = None

    def request(self, text: str, model: ModelInfo | None) -> Generate:
        """A request for this prompt; without a chat template the text goes as it is, after the system prompt."""
        sampling = Sampling(temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens, seed=self.seed)
        if model is not None and model.has_chat_template is False:
            prompt = "\n\n".join(filter(None, (self.system, text)))
            return Generate(id=new_id(), prompt=prompt, sampling=sampling)
        system = [ChatMessage("system", self.system)] if self.system else []
        return Generate(id=new_id(), messages=[*system, ChatMessage("user", text)], sampling=sampling)


@dataclass(frozen=True)
class Form:
    """The dialog's fields as typed."""

    mode: Mode
    decode_units: int | None
    chunk: str
    ttl: str
    guard: bool
    reason: str
    bounds: OverrideBounds | None = None
    """The daemon's; null: it does not publish them, and judges by itself."""

    def plan(self) -> PlanRequest:
        """The plan asked for. Raises `FormError`."""
        if self.mode == "split" and self.decode_units is None:
            raise FormError("split needs decode units: choose one of the legal splits")
        units = self.decode_units if self.mode == "split" else None
        most = MAX_CHUNK_TOKENS if self.bounds is None else self.bounds.chunk_max
        return PlanRequest(mode=self.mode, decode_units=units, chunk=parse_chunk(self.chunk, self.mode, most))

    def command(self, if_epoch: int, by: str) -> SetPartition:
        """The command to send. Raises `FormError`."""
        return SetPartition(
            call=0,
            plan=self.plan(),
            ttl_s=parse_ttl(self.ttl, MAX_TTL_S if self.bounds is None else self.bounds.ttl_max_s),
            guard=self.guard,
            reason=self.reason[:200],
            by=by,
            if_epoch=if_epoch,
        )


def parse_ttl(text: str, most_s: float = MAX_TTL_S) -> float | None:
    """A duration as on the command line; 0 or nothing means until released (null)."""
    try:
        seconds = duration_s(text) if text.strip() else 0.0
    except ArgumentTypeError:
        raise FormError(f"expires after {text!r}: use a duration such as 30s or 5m, or 0 for never") from None
    if not 0 <= seconds <= most_s:
        raise FormError(f"expires after {text!r}: at most {duration(most_s)}, or 0 for never")
    return seconds or None


def parse_chunk(text: str, mode: Mode, most: int = MAX_CHUNK_TOKENS) -> int | Literal["all"] | None:
    """Prompt tokens a batch; nothing: bounded by time; ``all`` in serial mode."""
    text = text.strip().lower()
    if not text:
        return None
    if text == "all":
        if mode != "serial":
            raise FormError("chunk all is for serial mode: elsewhere give a number or nothing")
        return "all"
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise FormError(f"chunk {text!r}: use 1 to {most} tokens, nothing for a bound by time, or all in serial")
    return int(text)


def prompt_settings(values: dict[str, str]) -> PromptSettings:
    """What the prompt screen's fields mean; empty ones are the defaults. Raises `FormError`."""
    given = {name: text.strip() for name, text in values.items() if text.strip()}
    most, seed = given.get("max_tokens"), given.get("seed")
    return PromptSettings(
        system=given.get("system", ""),
        temperature=_decimal("temperature", given.get("temperature", "0"), 0.0, 100.0),
        top_p=_decimal("top-p", given.get("top_p", "1"), 1e-6, 1.0),
        max_tokens=None if most is None else _integer("max tokens", most, 1, 10_000_000),
        seed=None if seed is None else _integer("seed", seed, 0, 2**63 - 1),
    )


def _decimal(name: str, text: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise FormError(f"{name} {text!r}: use a number from {least:g} to {most:g}")
    return value


def _integer(name: str, text: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise FormError(f"{name} {text!r}: use a whole number from {least} to {most}")
    return int(text)


def command_line(command: Command) -> str:
    """The same command for a shell."""
    guarded = "" if command.if_epoch is None else f" --if-epoch {command.if_epoch}"
    match command:
        case SetPolicy():
            return f"rapidctl policy set {shlex.quote(command.policy)}{guarded}"
        case ReleasePartition():
            return f"rapidctl partition auto{guarded}"
        case UndoPartition():
            return f"rapidctl partition undo{guarded}"
    words = ["rapidctl partition set --mode", command.plan.mode]
    if command.plan.decode_units is not None:
        words.append(f"--decode-units {command.plan.decode_units}")
    if command.plan.chunk is not None:
        words.append(f"--chunk {command.plan.chunk}")
    words.append(f"--ttl {'0' if command.ttl_s is None else f'{command.ttl_s:g}s'}")
    words.append("--guard" if command.guard else "--no-guard")
    if command.reason:
        words.append(f"--reason {shlex.quote(command.reason)}")
    return " ".join(words) + guarded + " --yes"


def describe(plan: PlanRequest) -> str:
    """A plan in a few words."""
    units = "" if plan.decode_units is None else f" decode {plan.decode_units}"
    return plan.mode + units + ("" if plan.chunk is None else f" chunk {plan.chunk}")


def undo(now: PartitionInfo, previous: Control | None, by: str) -> tuple[Command, str] | None:
    """The command that brings the previous control state back as a new change, and its title; null: nothing to undo.

    What this console did not see change, the daemon knows: then it is asked to undo its last operator's change.
    """
    if previous is None:
        return UndoPartition(call=0, by=by, if_epoch=now.epoch), "the last operator's change"
    if previous.policy != now.policy:
        return SetPolicy(call=0, policy=previous.policy, by=by, if_epoch=now.epoch), f"policy {previous.policy}"
    if previous.override is None:
        if now.override is None:
            return None
        return release(now, by), "release the override"
    was = previous.override
    if now.override is not None and now.override.plan == was.plan:
        return None
    command = SetPartition(
        call=0, plan=was.plan, ttl_s=was.ttl_s, guard=was.guard, reason=was.reason, by=by, if_epoch=now.epoch
    )
    return command, describe(was.plan)


def release(now: PartitionInfo, by: str) -> ReleasePartition:
    """The command that ends an override."""
    return ReleasePartition(call=0, by=by, if_epoch=now.epoch)


def initial(info: PartitionInfo) -> Form:
    """The plan in force, as a form to start from."""
    mode: Mode = "shared" if info.plan.mode == "split" and not info.splits else info.plan.mode
    nearest = min(info.splits, key=lambda units: abs(units - info.plan.decode_units), default=None)
    chunk = "" if info.plan.chunk is None else str(info.plan.chunk)
    return Form(mode=mode, decode_units=nearest, chunk=chunk, ttl="5m", guard=True, reason="")
