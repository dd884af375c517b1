"""How large everything is that `bench.gpu` measures: as the requirements have it, or small enough for a CPU."""

from dataclasses import dataclass

from rapidctl.wire import PlanRequest


@dataclass(frozen=True, slots=True)
class Decode:
    """A decode step of ``rows`` streams past ``prompt`` tokens each; ``share``: of the read peak, at least."""

    rows: int
    prompt: int
    share: float | None = None

    @property
    def name(self) -> str:
        """Of the figures."""
        return f"decode {self.rows} x {self.prompt}"


@dataclass(frozen=True, slots=True)
class Sharing:
    """Streams that decode while chunks arrive. Of the splits that keep the gap within ``gap_ms`` the fastest must
    compute ``rate`` prompt tokens a millisecond."""

    rows: int
    prompt: int
    gap_ms: float | None = None
    rate: float | None = None

    @property
    def name(self) -> str:
        """Of the figures."""
        return f"sharing {self.rows} x {self.prompt}"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Lengths are in tokens."""

    max_model_len: int = 16384
    slots: int = 112
    """Requests at once: the widest decode step, and some that arrive beside it."""
    window_s: float = 1.2
    """One sample of a decode step; more than a second, over which the lanes' busy shares are."""
    repeats: int = 3
    prefills: tuple[tuple[int, float | None], ...] = ((2048, 48.0), (8192, 205.0))
    """Prompt, and milliseconds at most."""
    decodes: tuple[Decode, ...] = (
        Decode(1, 1024, 0.88),
        Decode(64, 1024, 0.90),
        Decode(96, 4096, 0.90),
        Decode(32, 8192),
    )
    hybrid: Decode = Decode(64, 1024)
    hybrid_chunk: int = 512
    hybrid_ms: float | None = 17.0
    hybrid_arrivals: int = 16
    """Prompts of one chunk each."""
    switched: Decode = Decode(64, 1024)
    switches: int = 8
    """As many as the daemon keeps the times of."""
    sharings: tuple[Sharing, ...] = (Sharing(96, 4096, 40.0, 21.0), Sharing(32, 8192))
    prefixes: tuple[int, ...] = (2048, 4096)
    """Of the arriving prompts, cached; whole blocks."""
    chunk: int = 1024
    arrivals: int = 32
    splits: tuple[int, ...] = (24, 32, 40, 48, 64)
    """Units of decode."""
    loaded: Decode = Decode(32, 1024)
    loaded_arrivals: tuple[int, int] = (12, 4096)
    """How many, and their prompts."""
    bulk: tuple[int, int, int] = (64, 1024, 128)
    """Requests at once, prompt and output."""

    def modes(self) -> dict[str, PlanRequest]:
        """That the loaded streams are tried in."""
        modes = {
            "serial": PlanRequest(mode="serial"),
            f"hybrid:{self.hybrid_chunk}": PlanRequest(mode="hybrid", chunk=self.hybrid_chunk),
            "hybrid": PlanRequest(mode="hybrid"),
            "shared": PlanRequest(mode="shared"),
        }
        return modes | {f"split {units}": PlanRequest(mode="split", decode_units=units) for units in self.splits}


SMALL = Sizes(
    max_model_len=8192,
    slots=8,
    repeats=2,
    prefills=((32, None), (64, None)),
    decodes=(Decode(1, 16), Decode(3, 32)),
    hybrid=Decode(2, 16),
    hybrid_chunk=16,
    hybrid_ms=None,
    hybrid_arrivals=4,
    switched=Decode(2, 16),
    switches=2,
    sharings=(Sharing(2, 32),),
    prefixes=(32,),
    chunk=16,
    arrivals=5,
    splits=(1,),
    loaded=Decode(2, 16),
    loaded_arrivals=(2, 32),
    bulk=(3, 16, 4),
)
"""Shows that everything runs, on any machine with two cores; its numbers mean nothing."""
