"""`rapidctl run`: send one prompt and stream the answer. Text to stdout, timing to stderr; or JSON lines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rapidctl.client import new_id
from rapidctl.commands import common
from rapidctl.errors import Refused, TimedOut, Unreachable, UsageError
from rapidctl.out import Out, safe_text, seconds
from rapidctl.wire import Accepted, ChatMessage, Delta, Finished, Generate, GetStatus, Sampling, unpack_ids

if TYPE_CHECKING:
    import argparse
    from argparse import Namespace
    from collections.abc import Callable

    from rapidctl.client import Client

_SAMPLING = (
    ("--max-tokens", common.integer, "most output tokens (what the context leaves)"),
    ("--min-tokens", common.integer, "no stop before so many"),
    ("--temperature", float, "0 is greedy (0)"),
    ("--top-k", common.integer, "0 is off (0)"),
    ("--top-p", float, "1 is off (1)"),
    ("--min-p", float, "0 is off (0)"),
    ("--repetition-penalty", float, "over prompt and output, 1 is off (1)"),
    ("--presence-penalty", float, "over the output, 0 is off (0)"),
    ("--frequency-penalty", float, "over the output, 0 is off (0)"),
    ("--seed", common.integer, "for the random numbers (drawn)"),
    ("--logprobs", common.integer, "alternatives a token, in --json"),
)


def add_parser(commands: common.Commands) -> None:
    """Declare the command."""
    parser = common.add_command(commands, "run", run, "send a prompt and stream the answer")
    parser.add_argument("prompt", metavar="PROMPT|-", nargs="?", help="the prompt; - reads it from stdin")
    parser.add_argument("--system", metavar="TEXT", help="system message of the chat")
    parser.add_argument(
        "--no-chat", action="store_true", help="send the prompt as it is, as to a model without a chat template"
    )
    _add_sampling(parser.add_argument_group("sampling"))
    group = parser.add_argument_group("request")
    group.add_argument("--n", metavar="N", type=common.integer, default=1, help="choices (1)")
    group.add_argument(
        "--priority",
        metavar="N",
        type=common.integer,
        default=0,
        help="a level goes before what came up to a minute earlier (0)",
    )
    group.add_argument("--deadline", metavar="DUR", type=common.duration_s, help="give up after so long")
    group.add_argument("--id", metavar="ID", help="client-chosen and idempotent (drawn)")
    group.add_argument("--slo-class", choices=["interactive", "batch"], default="interactive")
    group.add_argument(
        "--no-resume", action="store_true", help="end when the daemon's front restarts, instead of going on"
    )


def _add_sampling(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    for option, kind, text in _SAMPLING:
        add(option, metavar="N" if kind is common.integer else "X", type=kind, help=text)
    add("--stop", metavar="TEXT", action="append", default=[], help="end before this text; may be repeated")
    add("--stop-token-id", metavar="N", action="append", default=[], type=common.integer, help="end at this token")
    add("--ignore-eos", action="store_true", help="go on after the end-of-sequence token")


def run(args: Namespace, out: Out) -> int:
    """Stream it."""
    request = _request(args)
    printer = _Lines(out) if out.json else _Text(out, request.n)
    with common.connect(args) as client:
        if client.welcome and client.welcome.has_chat_template is False and send_raw(request):
            out.note("this model has no chat template: the prompt is sent as it is (as with --no-chat)")
        try:
            silence = Silence(client, out, lambda: printer.in_line)
            for event in client.generate(request, resume=not args.no_resume, on_silence=silence):
                printer.show(event)
        except Refused as error:
            printer.failed(error)
            raise
        finally:
            printer.close()
    return 0


def _request(args: Namespace) -> Generate:
    prompt = prompt_text(args)
    given = {name: getattr(args, name) for name in (option[2:].replace("-", "_") for option, *_ in _SAMPLING)}
    sampling = Sampling(
        **{name: value for name, value in given.items() if value is not None},
        stop_token_ids=args.stop_token_id,
        ignore_eos=args.ignore_eos,
    )
    request = Generate(
        id=args.id or new_id(),
        sampling=sampling,
        n=args.n,
        stop=args.stop,
        priority=args.priority,
        deadline_s=args.deadline,
        slo_class=args.slo_class,
    )
    if args.no_chat:
        if args.system is not None:
            raise UsageError("--system needs the chat template, which --no-chat leaves out")
        request.prompt = prompt
    else:
        system = [] if args.system is None else [ChatMessage("system", args.system)]
        request.messages = [*system, ChatMessage("user", prompt)]
    return request


def send_raw(request: Generate) -> bool:
    """Turn a chat of one message into its bare text. One with a system message stays: the daemon says what to do."""
    if request.messages is None or len(request.messages) != 1:
        return False
    request.prompt, request.messages = request.messages[0].content, None
    return True


def prompt_text(args: Namespace) -> str:
    """``PROMPT``, or what stdin holds. Raises `UsageError`."""
    if args.prompt not in (None, "-"):
        return str(args.prompt)
    if args.prompt is None and sys.stdin.isatty():
        raise UsageError("no prompt", 'rapidctl run "Hello", or pipe one in: … | rapidctl run -')
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"the prompt on stdin is not valid UTF-8: {error}") from error


class Silence:
    """Says why nothing comes, where that is not the model's doing: each reason once, in a line of its own.

    ``in_line``: whether the cursor is behind a part of the answer.
    """

    def __init__(self, client: Client, out: Out, in_line: Callable[[], bool]) -> None:
        self._client = client
        self._out = out
        self._in_line = in_line
        self._said = ""

    def __call__(self) -> None:
        """Nothing came for a while."""
        why = self._why()
        if why and why != self._said:
            break_line = "\n" if self._in_line() and not self._said else ""
            self._out.note(f"{break_line}rapidctl: waiting: {why}")
        self._said = why

    def _why(self) -> str:
        if not self._client.connected:
            return "the daemon is away"
        try:
            status = self._client.call(GetStatus(call=0), timeout_s=1.0)
        except (TimedOut, Unreachable):
            return "the daemon does not answer"
        return "" if status.state in ("serving", "draining") else status.state.replace("_", " ")


class _Text:
    """The answer as it comes; several choices one after the other at the end."""

    def __init__(self, out: Out, choices: int) -> None:
        self._out = out
        self._live = choices == 1
        self.in_line = False
        """The last line has no newline yet."""

    def show(self, event: Accepted | Delta | Finished) -> None:
        if isinstance(event, Delta) and self._live and event.text:
            self.in_line = not event.text.endswith("\n")
            self._out.text(safe_text(event.text), end="")
        elif isinstance(event, Finished):
            if not self._live:
                for choice in event.choices:
                    self._out.text(f"--- choice {choice.index} ({choice.finish_reason})\n{safe_text(choice.text)}")
            self.close()
            self._out.note(summary(event))

    def failed(self, error: Refused) -> None:
        self.close()

    def close(self) -> None:
        """The next line begins on the left, whatever ended the answer."""
        if self.in_line:
            self.in_line = False
            self._out.text("")


def summary(finished: Finished) -> str:
    """One line about a finished request."""
    timing = finished.timing
    rate = "" if not timing.itl_s_mean else f", {1 / timing.itl_s_mean:.1f} tokens/s"
    reasons = ", ".join(dict.fromkeys(choice.finish_reason for choice in finished.choices))
    cached = f" ({finished.cached_tokens} cached)" if finished.cached_tokens else ""
    return (
        f"[{reasons}] {finished.prompt_tokens} prompt tokens{cached}, {finished.output_tokens} output tokens, "
        f"TTFT {seconds(timing.ttft_s)}, ITL p50 {seconds(timing.itl_s.p50)} p95 {seconds(timing.itl_s.p95)} "
        f"max {seconds(timing.itl_s.max)}{rate}, {finished.mode or 'mode unknown'}"
    )


class _Lines:
    """A JSON line an event; the last one has type ``finished`` or ``failed``."""

    in_line = False

    def __init__(self, out: Out) -> None:
        self._out = out

    def close(self) -> None:
        """Every line is whole."""

    def show(self, event: Accepted | Delta | Finished) -> None:
        match event:
            case Accepted():
                body: dict[str, object] = {
                    "type": "accepted",
                    "id": event.id,
                    "prompt_tokens": event.prompt_tokens,
                    "seed": event.seed,
                    "resumed": event.resumed,
                }
            case Delta():
                body = {
                    "type": "tokens",
                    "choice": event.choice,
                    "index": event.index,
                    "token_ids": unpack_ids(event.token_ids),
                    "text": event.text,
                    "at_mono_ns": event.at_mono_ns,
                }
                if event.logprobs is not None:
                    body["logprobs"] = [
                        {"token_id": item.token_id, "logprob": item.logprob, "top": item.top} for item in event.logprobs
                    ]
            case Finished():
                body = _finished(event)
        self._out.document(body)

    def failed(self, error: Refused) -> None:
        self._out.document(
            {
                "type": "failed",
                "code": error.code,
                "message": error.message,
                "hint": error.hint,
                "retry_after_s": error.retry_after_s,
                "output_tokens": sum(map(len, error.output_ids)),
            }
        )


def _finished(finished: Finished) -> dict[str, object]:
    """The last line: the first choice at the top, all of them under ``choices``."""
    choices = [
        {
            "index": choice.index,
            "text": choice.text,
            "token_ids": unpack_ids(choice.token_ids),
            "finish_reason": choice.finish_reason,
            "stop": choice.stop,
        }
        for choice in finished.choices
    ]
    timing = finished.timing
    return {
        "type": "finished",
        "id": finished.id,
        **{key: choices[0][key] for key in ("text", "token_ids", "finish_reason")},
        "prompt_tokens": finished.prompt_tokens,
        "cached_tokens": finished.cached_tokens,
        "output_tokens": finished.output_tokens,
        "queued_s": timing.queued_s,
        "prefill_s": timing.prefill_s,
        "ttft_s": timing.ttft_s,
        "e2e_s": timing.e2e_s,
        "itl_s": timing.itl_s,
        "itl_s_mean": timing.itl_s_mean,
        "mode": finished.mode,
        "preemptions": finished.preemptions,
        "resubmissions": finished.resubmissions,
        "slo_met": finished.slo_met,
        "choices": choices,
    }
