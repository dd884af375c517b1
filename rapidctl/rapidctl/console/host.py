"""One daemon as the console knows it: its source, history, tape, operator and prompts; and the moment shown of it.

Live daemons are taped for the last half hour, so that a view can stand still or go back; a recording has its tape
already. Whoever draws sees no difference. It knows no widgets.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from rapidctl.book import STALE_AFTER_S, Book
from rapidctl.console.operator import Operator
from rapidctl.console.prompts import Prompts
from rapidctl.console.run import exchange, replayed
from rapidctl.console.view import Fleet, Kind, Past, View
from rapidctl.player import Player
from rapidctl.source import Answer, Connection, Received, Source, Streamed, Update
from rapidctl.tape import Exchange, MemoryTape, Record, Recorder, Tape, TapeError
from rapidctl.wire import Event, GetRequests, RequestList, RequestRow, Snapshot

ROWS_EVERY_S: Final = 1.0
"""How often the requests screen asks for all of them."""
HISTORY_AFTER_S: Final = 10.0
"""An event so much older than the latest snapshot was replayed by the daemon: it is no news."""
REPLAY_LOG_LINES: Final = 100_000


class Host:
    """``name``: of its context. ``tape``: of a recording; null: a live feed is taped here.

    ``with_text``: recordings also hold the prompts that are sent from here, and their answers.
    """

    def __init__(
        self,
        source: Source,
        endpoint: str,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        name: str = "",
        kind: Kind = "live",
        control: bool = False,
        tape: Tape | None = None,
        with_text: bool = False,
    ) -> None:
        self.name = name
        self.kind: Kind = kind
        self.source = source
        self.connection = Connection(endpoint, connected=False)
        self.operator = Operator(source, clock, unlocked=control)
        self.prompts = Prompts(source, self.operator)
        self.with_text = with_text
        self.player: Player | None = None
        self.recorder: Recorder | None = None
        self._clock = clock
        self._wall = wall
        self._memory = MemoryTape()
        self.tape: Tape = tape or self._memory
        self._exchanges: list[Exchange] = []
        """Of a recording."""
        self._rewound = (0, 0.0)
        """How many of them had begun at the moment shown, and how far the last one was."""
        self._rows: list[RequestRow] | None = None
        self._rows_ticket = 0
        self._rows_asked_s = 0.0
        if tape is None:
            self.book = Book()
        else:
            start, end = tape.start_s or 0.0, tape.end_s or 0.0
            self.book = Book(end - start + 1.0, REPLAY_LOG_LINES)
            self.player = Player(tape, start, clock(), playing=True)

    def close(self) -> None:
        """End its thread and its recording. Raises `TapeError`."""
        self.source.close()
        self.end_recording()

    # --- taking in ----------------------------------------------------------------------------------------------

    def poll(self) -> list[Answer]:
        """Take in what arrived, let time pass, and give back the answers: screens may have asked."""
        answers = []
        for update in self.source.poll():
            self.operator.take(update)
            self._take(update)
            if isinstance(update, Answer):
                answers.append(update)
        now = self._clock()
        self.operator.tick()
        self.prompts.tick(now, self.latest())
        if self.player is not None:
            self.player.tick(now)
        return answers

    def _take(self, update: Update) -> None:
        match update:
            case Received(snapshot, at_s):
                self.book.add(snapshot, at_s)
                self._keep(Record(at_s, snapshot))
            case Event():
                self.book.add_event(update)
                self._keep_event(update)
            case Answer(ticket, RequestList(rows=rows)) if ticket == self._rows_ticket:
                self._rows = rows
                self.book.version += 1
            case Streamed():
                self.prompts.take(update, self.book.snapshot)
                self._keep_text(update)
            case Exchange():
                self._exchanges.append(update)
            case Connection():
                self._connected(update)

    def _keep(self, record: Record) -> None:
        if self.kind == "replay":
            return
        self._memory.add(record)
        self._record(record)

    def _record(self, record: Record) -> None:
        if self.recorder is not None:
            try:
                self.recorder.add(record)
            except TapeError as error:
                self.recorder = None
                self.book.note(self._wall(), "error", f"recording ended: {error.message}")

    def _keep_event(self, event: Event) -> None:
        """Between the snapshots where it belongs. What happened before the console came is in the log only."""
        latest, at_s = self.book.snapshot, self.book.received_s
        if latest is not None and at_s is not None and event.at_unix_s > latest.at_unix_s - HISTORY_AFTER_S:
            self._keep(Record(at_s, event))

    def _keep_text(self, streamed: Streamed) -> None:
        """An answer that ended, into a recording that was asked to hold text."""
        if self.recorder is None or not self.with_text:
            return
        for run in self.prompts.runs:
            if run.request.id == streamed.id and run.over:
                self._record(Record(max(streamed.at_s, self.book.received_s or 0.0), exchange(run)))

    def _connected(self, connection: Connection) -> None:
        if connection.connected != self.connection.connected:
            text = "connected" if connection.connected else connection.problem or "the connection was lost"
            self.book.note(self._wall(), "info" if connection.connected else "warn", text)
        self.connection = connection

    def want_requests(self) -> None:
        """A screen shows every request: ask for them, at most once a second."""
        now = self._clock()
        if self.kind != "replay" and self.connection.connected and now >= self._rows_asked_s + ROWS_EVERY_S:
            self._rows_asked_s = now
            self._rows_ticket = self.source.ask(GetRequests(call=0))

    # --- time ---------------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether what is shown is what happens now, so that it can be acted on."""
        return self.player is None and self.kind != "replay"

    def hold(self) -> Player:
        """Stand still on the tape, where the view is."""
        if self.player is None:
            self.player = Player(self.tape, self._clock(), self._clock())
        return self.player

    def release(self) -> None:
        """Follow the feed again; a recording goes to its end."""
        if self.kind != "replay":
            self.player = None
        elif self.player is not None:
            self.player.seek(self.tape.end_s or 0.0)

    def record(self, path: Path) -> None:
        """Write what comes from now on to a file. Raises `TapeError`."""
        self.recorder = Recorder(path)

    def end_recording(self) -> Recorder | None:
        """Write what is left of it, and give it back; null: there was none. Raises `TapeError`."""
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            recorder.close()
        return recorder

    # --- showing ------------------------------------------------------------------------------------------------

    def view(self, window_s: float, fleet: tuple[Fleet, ...] = ()) -> View:
        """The moment to show."""
        now = self._clock()
        snapshot, received_s = self.book.snapshot, self.book.received_s
        if self.player is not None:
            now = self.player.position_s
            received_s, snapshot = _moment(self.player)
        if self.kind == "replay":
            self._rewind_prompts(now)
        age_s = None if received_s is None else max(0.0, now - received_s)
        return View(
            book=self.book,
            snapshot=snapshot,
            connection=self.connection,
            now_s=now,
            age_s=age_s,
            stale=age_s is None or age_s > STALE_AFTER_S,
            window_s=window_s,
            unlocked_s=self.operator.left_s,
            change=self.operator.change,
            prompts=self.prompts,
            host=self.name,
            kind=self.kind,
            past=self._past(),
            live_stale=self.kind != "replay" and self.book.stale(self._clock()),
            recording=self._recording(),
            fleet=fleet,
            requests=self._rows if self.player is None else None,
        )

    def _rewind_prompts(self, now: float) -> None:
        """Show the recorded answer that was begun last, as far as it had come."""
        begun = [found for found in self._exchanges if found.sent_s <= now]
        moment = (len(begun), min(now, begun[-1].end_s)) if begun else (0, 0.0)
        if moment != self._rewound:
            self._rewound = moment
            self.prompts.runs = [replayed(begun[-1], now)] if begun else []

    def _recording(self) -> str:
        if self.recorder is None:
            return ""
        return ("+text " if self.with_text else "") + self.recorder.path.name

    def _past(self) -> Past | None:
        player = self.player
        if player is None:
            return None
        tape = player.tape
        return Past(
            position_s=player.position_s,
            start_s=tape.start_s or 0.0,
            end_s=tape.end_s or 0.0,
            playing=player.playing,
            speed=player.speed,
            marks=tape.marks(),
        )

    def fleet(self, *, current: bool) -> Fleet:
        """Its line in the table of all."""
        now, snapshot = self._clock(), self.book.snapshot
        stale = self.kind != "replay" and self.book.stale(now)
        return Fleet(
            name=self.name or "default",
            endpoint=self.connection.endpoint,
            snapshot=snapshot,
            connection=self.connection,
            age_s=None if self.kind == "replay" else self.book.age_s(now),
            stale=stale,
            current=current,
        )

    def latest(self) -> Snapshot | None:
        """The newest snapshot, when it is no older than `STALE_AFTER_S`."""
        return None if self.book.stale(self._clock()) else self.book.snapshot


def _moment(player: Player) -> tuple[float, Snapshot] | tuple[None, None]:
    """The snapshot where the player stands; a damaged part of a recording has none."""
    try:
        return player.tape.snapshot_at(player.position_s) or (None, None)
    except TapeError:
        return None, None
