"""From one choice's output ids to the text a client may see: detokenising, stop strings, hold-back. Pure.

A stop string is found where it *completes*, so the result does not depend on how text falls into tokens; of two that
complete on the same character the longer one wins. The stop string itself is never shown, nor any end of the text
that may still become one.
"""

from collections.abc import Sequence

from rapidctl.wire import TokenLogprob
from rapidd.model.tokenizer import Detokenizer


class StopFilter:
    """Lets text through as soon as no stop string can begin in it."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._starts = frozenset(stop[0] for stop in stops)
        self._reach = max(map(len, stops), default=1) - 1
        self._held = ""

    def push(self, text: str, armed: bool = True) -> tuple[str, str | None]:
        """Text that is safe to show now, and the stop string that ``text`` completed.

        Unless ``armed`` (min_tokens is not reached yet) completed stop strings are ordinary text. After a stop
        nothing is held any more and the filter must not be used again.
        """
        pending = self._held + text
        if armed and (match := self._first_match(pending)) is not None:
            begin, stop = match
            self._held = ""
            return pending[:begin], stop
        keep = self._held_len(pending)
        self._held = pending[len(pending) - keep :]
        return pending[: len(pending) - keep], None

    def flush(self) -> str:
        """What is still held back, at the end of the output."""
        held, self._held = self._held, ""
        return held

    def _first_match(self, pending: str) -> tuple[int, str] | None:
        """Begin and text of the match that ends first, among those that end in new text."""
        best: tuple[int, int, str] | None = None
        for stop in self._stops:
            begin = pending.find(stop, max(0, len(self._held) - len(stop) + 1))
            if begin >= 0 and (best is None or (begin + len(stop), begin) < best[:2]):
                best = (begin + len(stop), begin, stop)
        return None if best is None else best[1:]

    def _held_len(self, pending: str) -> int:
        """Length of the longest end of ``pending`` that begins, but is not, a stop string."""
        for begin in range(max(0, len(pending) - self._reach), len(pending)):
            if pending[begin] in self._starts:
                tail = pending[begin:]
                if any(len(tail) < len(stop) and stop.startswith(tail) for stop in self._stops):
                    return len(tail)
        return 0


class OutputText:
    """The shown text of one choice, by the id that let it show."""

    __slots__ = ("_detokenizer", "_filter", "_min_tokens", "_pieces")

    def __init__(self, detokenizer: Detokenizer, stops: Sequence[str], min_tokens: int) -> None:
        self._detokenizer = detokenizer
        self._filter = StopFilter(stops) if stops else None
        self._min_tokens = min_tokens
        self._pieces: list[str] = []  # [ids]

    def push(self, token_id: int) -> tuple[str, str | None]:
        """One more id: the text it lets show, and the stop string it completes."""
        shown, stop = self._detokenizer.push(token_id), None
        if self._filter is not None:
            shown, stop = self._filter.push(shown, armed=len(self._pieces) + 1 >= self._min_tokens)
        self._pieces.append(shown)
        return shown, stop

    def push_silent(self) -> None:
        """One more id that has no text: the one that ended the output."""
        self._pieces.append("")

    def close(self) -> str:
        """The output ends here: the text that was held back, which can be no stop string any more."""
        rest = self._detokenizer.flush()
        if self._filter is not None:
            rest = self._filter.push(rest, armed=False)[0] + self._filter.flush()
        if rest:
            self._pieces[-1] += rest  # without an id nothing is held back
        return rest

    def logprob(self, token_id: int, logprob: float, top: list[tuple[int, float]]) -> TokenLogprob:
        """A token's probability and its best alternatives, with the bytes of each."""
        token_bytes = self._detokenizer.tokenizer.token_bytes
        return TokenLogprob(token_id, logprob, top, token_bytes(token_id), [token_bytes(other) for other, _ in top])

    def after(self, num_ids: int) -> str:
        """What was shown after the first ``num_ids`` ids' share."""
        return "".join(self._pieces[num_ids:])

    def whole(self) -> str:
        """All text shown."""
        return "".join(self._pieces)
