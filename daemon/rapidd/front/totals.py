"""What became of streams since the front's start, counted when they end. Plain numbers, for `Publisher`."""

from collections import Counter


class Totals:
    """Streams by how they ended."""

    __slots__ = (
        "accepted", "cancelled", "failed", "finished", "hopeless", "outputs", "refused", "streamed_tokens",
        "unreadable",
    )  # fmt: skip

    def __init__(self) -> None:
        self.accepted = self.finished = self.cancelled = self.streamed_tokens = 0
        self.hopeless = 0
        """Whose TTFT was predicted far beyond the objective when they came."""
        self.failed: Counter[str] = Counter()
        """By error code; ``client_lost``: there was nobody to tell."""
        self.refused: Counter[str] = Counter()
        """By error code."""
        self.outputs: Counter[str] = Counter()
        """Choices that ended by themselves or were cancelled, by finish reason."""
        self.unreadable: Counter[tuple[str, str]] = Counter()
        """Messages that could not be read, by socket and error code."""
