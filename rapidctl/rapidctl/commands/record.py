"""`rapidctl record`: write what the daemon publishes to a file, for `replay` and `export`, or as CSV at once.

The daemon publishes no text of prompts and answers. The only text that a recording can hold is of a prompt that this
command sends itself, and only if asked.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rapidctl.client import Client, Feed, new_id, wait
from rapidctl.commands import common
from rapidctl.commands.run import prompt_text, send_raw
from rapidctl.console.run import Run, exchange
from rapidctl.errors import RapidctlError, TimedOut, UsageError, refusal
from rapidctl.export import CsvRecorder
from rapidctl.out import Out, duration, size
from rapidctl.source import REPLAY_S, Streamed
from rapidctl.tape import Record, Recorder
from rapidctl.wire import ChatMessage, Failed, Generate, Sampling

if TYPE_CHECKING:
    from argparse import Namespace

    from rapidctl.client import Stream, StreamEvent
    from rapidctl.wire import Snapshot

LOOK_S = 0.5


def add_parser(commands: common.Commands) -> None:
    """Declare the command."""
    parser = common.add_command(
        commands,
        "record",
        run,
        "write snapshots and events to a new file, until ^C or the time is over",
        "Recordings hold names of models and clients, and no text of prompts or answers: the daemon publishes none.\n"
        "With a PROMPT, that is sent too, and the recording ends with its answer unless --for says how long it is;\n"
        "--with-text keeps both, and rapidctl replay FILE shows them as they came (rapidctl top --with-text does the\n"
        "same for prompts sent from the console).",
    )
    parser.add_argument(
        "prompt", metavar="PROMPT|-", nargs="?", help="a prompt to send meanwhile; - reads it from stdin"
    )
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="a file that does not exist yet")
    parser.add_argument(
        "--for", dest="length", metavar="DUR", type=common.positive_duration_s, help="stop after so long"
    )
    parser.add_argument("--with-text", action="store_true", help="keep the text of PROMPT and of its answer")
    parser.add_argument(
        "--max-tokens", metavar="N", type=common.integer, help="of the answer (what the context leaves)"
    )
    parser.add_argument(
        "--csv", action="store_true", help="a table, one line a snapshot, as rapidctl export makes of a recording"
    )


def run(args: Namespace, out: Out) -> int:
    """Record."""
    _check(args)
    request = None if args.prompt is None else _request(args)
    with common.connect(args) as client, _recorder(args) as recorder:
        started = time.monotonic()
        with Feed(client.endpoint, client=client, since=0) as feed:
            recording = _Recording(client, feed, recorder, started)
            # ^C is the ordinary way to end a recording.
            with suppress(KeyboardInterrupt):
                recording.follow(request, args.length, with_text=args.with_text)
            recording.end()
    took = time.monotonic() - started
    if not recorder.snapshots:
        raise TimedOut("no snapshot came: nothing was recorded", "see: rapidctl doctor")
    written = Path(args.output).stat().st_size
    if out.json:
        out.document({"file": args.output, "snapshots": recorder.snapshots, "recorded_s": took, "bytes": written})
    else:
        out.note(f"recorded {recorder.snapshots} snapshots in {duration(took)}: {args.output}, {size(written)}")
    if recording.failed is not None:
        raise refusal(recording.failed)
    return 0


def _check(args: Namespace) -> None:
    if args.with_text and args.prompt is None:
        raise UsageError(
            "--with-text keeps the text of a PROMPT that this command sends: the daemon publishes no text of others'",
            'rapidctl record -o FILE --with-text "Hello"',
        )
    if args.with_text and args.csv:
        raise UsageError("a table holds no text", "leave out --csv, and later: rapidctl export FILE --csv")
    if args.max_tokens is not None and args.prompt is None:
        raise UsageError("--max-tokens is of the answer to a PROMPT, and there is none")


def _request(args: Namespace) -> Generate:
    return Generate(
        id=new_id(),
        messages=[ChatMessage("user", prompt_text(args))],
        sampling=Sampling(max_tokens=args.max_tokens),
    )


def _recorder(args: Namespace) -> Recorder | CsvRecorder:
    return (CsvRecorder if args.csv else Recorder)(Path(args.output))


class _Recording:
    """What comes from one daemon on its way into a file; times are seconds since ``started``."""

    def __init__(self, client: Client, feed: Feed, recorder: Recorder | CsvRecorder, started: float) -> None:
        self.failed: Failed | None = None
        """Why there is no answer to the prompt."""
        self._client = client
        self._feed = feed
        self._recorder = recorder
        self._started = started
        self._seen: Snapshot | None = None
        self._stream: Stream | None = None
        self._kept: Run | None = None
        """The answer as it comes, where its text is wanted."""

    def follow(self, request: Generate | None, length: float | None, *, with_text: bool) -> None:
        """Until the time is over, or without one until the answer has ended."""
        while length is None or self._now() < length:
            left = LOOK_S if length is None else min(LOOK_S, length - self._now())
            wait(self._feed, self._client, timeout_s=max(0.0, left))
            self._take()
            if request is not None and self._seen is not None:  # how it was before the prompt is recorded too
                self._send(request, with_text=with_text)
                request = None
            if length is None and self._stream is not None and self._stream.ended is not None:
                return

    def end(self) -> None:
        """Keep what there is of an answer that has not ended; the daemon cancels it when the connection closes."""
        if self._kept is not None:
            self._keep(self._kept, TimedOut("the recording ended before the answer"))

    def _now(self) -> float:
        return time.monotonic() - self._started

    def _send(self, request: Generate, *, with_text: bool) -> None:
        if self._client.welcome is not None and self._client.welcome.has_chat_template is False:
            send_raw(request)
        self._stream = self._client.submit(request)
        if with_text:
            self._kept = Run(request, None if self._seen is None else self._seen.partition, self._now())

    def _take(self) -> None:
        self._client.poll(0)
        if wait(self._feed, timeout_s=0) or self._feed.replay_is_due:
            self._feed.poll(REPLAY_S)
        for event in self._feed.take_events():
            self._recorder.add(Record(self._now(), event))
        if self._feed.snapshot is not None and self._feed.snapshot is not self._seen:
            self._seen = self._feed.snapshot
            self._recorder.add(Record(self._now(), self._seen))
        while self._stream is not None and self._stream.events:
            found = self._stream.events.popleft()
            if isinstance(found, Failed):
                self.failed = found
            if self._kept is not None:
                self._keep(self._kept, found)

    def _keep(self, kept: Run, found: StreamEvent | RapidctlError) -> None:
        partition = None if self._seen is None else self._seen.partition
        kept.take(Streamed(kept.request.id, found, self._now()), None if partition is None else partition.plan)
        if kept.over:
            self._recorder.add(Record(self._now(), exchange(kept)))
            self._kept = None
