"""One test prompt from sending to its end: text, stamps and gaps. Pure; gaps are by the daemon's clock."""

from __future__ import annotations

from typing import Literal

from rapidctl.console.text import printable
from rapidctl.errors import RapidctlError
from rapidctl.source import Streamed
from rapidctl.wire import Accepted, Delta, Failed, Finished, Generate, PartitionInfo, Quantiles, Slo

State = Literal["sent", "queued", "streaming", "finished", "failed"]


class Run:
    """A generation as it arrives. ``gaps_s`` are the inter-token latencies, one for each token but the first."""

    def __init__(self, request: Generate, partition: PartitionInfo | None, now: float) -> None:
        self.request = request
        self.partition = partition
        """The plan at the start."""
        self.sent_s = now
        self.accepted: Accepted | None = None
        self.finished: Finished | None = None
        self.problem = ""
        self.text = ""
        self.tokens = 0
        self.first_s: float | None = None
        """When the first token arrived here."""
        self.last_s: float | None = None
        self.gaps_s: list[float] = []
        self._last_ns: int | None = None

    @property
    def state(self) -> State:
        """How far it got."""
        if self.problem:
            return "failed"
        if self.finished is not None:
            return "finished"
        if self.first_s is not None:
            return "streaming"
        return "sent" if self.accepted is None else "queued"

    @property
    def over(self) -> bool:
        """Nothing more will come."""
        return self.state in ("finished", "failed")

    def take(self, streamed: Streamed) -> None:
        """The next thing that came."""
        match streamed.event:
            case Accepted() as accepted:
                self.accepted = accepted
            case Delta() as delta:
                self._extend(delta, streamed.at_s)
            case Finished() as finished:
                self.finished = finished
                self.text = printable(finished.choices[0].text, lines=True)
            case Failed() as failed:
                self.problem = printable(" — ".join(filter(None, (failed.message, failed.hint))))
            case RapidctlError() as error:
                self.problem = printable(" — ".join(filter(None, (error.message, error.hint))))

    def gaps(self) -> Quantiles:
        """Quantiles of the gaps so far, of this request alone."""
        ordered = sorted(self.gaps_s)
        if not ordered:
            return Quantiles(n=0)

        def at(share: float) -> float:
            return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

        return Quantiles(n=len(ordered), p50=at(0.5), p95=at(0.95), p99=at(0.99), max=ordered[-1])

    def ttft_slo_s(self, slo: Slo) -> float | None:
        """This prompt's TTFT SLO; null until its length is known."""
        if self.accepted is None:
            return None
        return max(slo.ttft_floor_s, slo.ttft_per_1k_s * self.accepted.prompt_tokens / 1000)

    @property
    def tokens_per_s(self) -> float | None:
        """Decode rate so far: tokens after the first over their gaps."""
        spent = sum(self.gaps_s)
        return len(self.gaps_s) / spent if spent > 0 else None

    def _extend(self, delta: Delta, at_s: float) -> None:
        if delta.choice != 0:
            return
        self.text += printable(delta.text, lines=True)
        self.tokens += len(delta.token_ids) // 4
        if self.first_s is None:
            self.first_s = at_s
        self.last_s = at_s
        for stamp in delta.at_mono_ns:
            if self._last_ns is not None:
                self.gaps_s.append(max(0, stamp - self._last_ns) / 1e9)
            self._last_ns = stamp
