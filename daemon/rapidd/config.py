"""Settings of the daemon: frozen structs by layer, one TOML file, `RAPIDD__SECTION__KEY`, command line.

Order of precedence: built-in < file < environment < command line. Unknown keys are errors; all errors are
reported at once, each with its file and key. "auto" is resolved into a new config, never in place.
"""

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from rapidd.errors import ConfigError

GIVE_WAY_S: Final = 30.0
MAX_GIVE_WAY_S: Final = 3600.0
DAY_S: Final = 86_400
Text = Annotated[str, Meta(min_length=1)]
SHORTEST_S: Final = 1e-6
"""Of an objective: what took place is divided by it."""


class ModelConfig(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """What is served. ``path``: a Hugging Face folder, a .gguf file, or "default"."""

    path: Text = "default"
    weights: Literal["file", "random"] = "file"
    shape: Text | None = None
    """llama-3.1-8b, smollm2-135m or a config.json; only with random weights."""
    tokenizer: Text | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_model_len: Annotated[int, Meta(ge=16)] | None = None
    """null: the model's own context, at most 8,192 on a CPU."""


class EngineConfig(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """The device and how it is driven."""

    device: Literal["auto", "cpu", "cuda", "hip"] = "auto"
    compute_units: Annotated[int, Meta(ge=1)] | None = None
    """Units to use; null: all the process may use."""
    kv_blocks: Annotated[int, Meta(ge=2)] | None = None
    """null: sized from the memory that is free after loading."""
    block_tokens: Annotated[int, Meta(ge=1, le=1024)] | None = None
    """Tokens a KV block; null: 16 on a CPU, 64 on a GPU."""
    prefix_cache: bool = True
    """Whether prompts share the blocks of a beginning that another one computed."""
    max_batch_requests: Annotated[int, Meta(ge=1, le=4096)] | None = None
    """Most rows of one decode step, and so most requests running at once; null: 64 on a CPU, 256 on a GPU."""
    max_chunk_s: Annotated[float, Meta(gt=0, le=60)] | None = None
    """Longest a prefill chunk may take by prediction; null: 1 on a CPU, 0.1 on a GPU."""
    policy: str = "auto"


class ServerConfig(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """Sockets, queue and life cycle. ``listen`` null: see `rapidctl.wire.default_endpoint`."""

    listen: str | None = None
    max_waiting_requests: Annotated[int, Meta(ge=1)] = 1024
    max_waiting_tokens: Annotated[int, Meta(ge=1)] = 4_000_000
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    """Default and bound of max_tokens; null: what the context leaves."""
    drain_timeout_s: Annotated[float, Meta(ge=0, le=DAY_S)] = 30.0
    snapshot_hz: Annotated[float, Meta(ge=0.1, le=20)] = 4.0
    hang_timeout_s: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    """A child whose loop is silent, or that ends no batch while requests wait, for so long is replaced; 0: never."""
    load_timeout_s: Annotated[float, Meta(gt=0, le=DAY_S)] = 600.0
    """An engine that reports no progress for so long while it loads is replaced, unless hang-timeout-s is 0."""


class SloConfig(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """Latency objectives; null: the device kind's default (GPU 50 ms, 0.25 s, 1 s; CPU 300 ms, 2 s, 10 s)."""

    itl_s: Annotated[float, Meta(ge=SHORTEST_S, le=3600)] | None = None
    ttft_floor_s: Annotated[float, Meta(ge=SHORTEST_S, le=3600)] | None = None
    ttft_per_1k_s: Annotated[float, Meta(ge=SHORTEST_S, le=3600)] | None = None


class PolicyConfig(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """What the policy knows, and what happens when the load is more than the objectives allow.

    ``profile``: a file of `rapidd calibrate`; null: the state directory's, or a shipped. Which policy decides is
    `engine.policy`.
    """

    profile: Text | None = None
    refuse_hopeless: bool = False
    """Refuse an interactive request whose TTFT is predicted far beyond its objective; it is counted either way."""
    give_way_s: Annotated[float, Meta(ge=0, le=MAX_GIVE_WAY_S)] = GIVE_WAY_S
    """For which a prompt that cannot be in time lets others go first: long enough for a burst. 0: not at all."""


class HttpConfig(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """The HTTP server, a process of its own: `rapidd http`. ``uds`` takes the place of ``host`` and ``port``."""

    host: Text = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    uds: Text | None = None
    served_model_name: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    """What clients call the model; null: its path as configured, or its name."""
    api_keys: Text | None = None
    """File of hashed keys; null: no keys, and then only this machine may connect."""
    max_body_bytes: Annotated[int, Meta(ge=1024, le=268_435_456)] = 16_777_216
    drain_timeout_s: Annotated[float, Meta(ge=0, le=DAY_S)] = 30.0
    patience_s: Annotated[float, Meta(ge=0, le=DAY_S)] = 15.0
    """How long running answers wait for a daemon that went away."""
    vllm_aliases: bool = False
    """Some metrics also under ``vllm:`` names."""


class AccessConfig(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """Who may do what, and how much of the daemon one of them may have. A user is a uid, or the owner of a key."""

    operators: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    """Group whose members may send operator verbs; root and the daemon's own user always may."""
    max_clients: Annotated[int, Meta(ge=1)] = 1024
    """Connections that said Hello."""
    max_requests_per_client: Annotated[int, Meta(ge=1)] = 4096
    """Live requests of one connection."""
    max_requests_per_user: Annotated[int, Meta(ge=1)] | None = None
    """Live requests of all connections of one user; null: no such bound."""
    max_queue_share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Of server.max-waiting-requests that one user's may be; at least one request."""


class TcpConfig(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """Clients on other machines, beside the local socket; never without keys.

    ``key`` and ``authorized-keys`` are files of `rapidctl keys`: paths, or names of systemd credentials.
    """

    listen: str | None = None
    """tcp://ADDRESS:PORT; metrics are on the next port. null: none."""
    key: Text = "curve.key"
    authorized_keys: Text = "authorized-keys"


class FaultsConfig(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """Failures on purpose, for tests: see `rapidd.faults`. Never in a daemon that serves anybody."""

    points: str = ""
    """Such as "engine.step:raise@37, front.send:stall"."""


class LogConfig(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """Lines on stderr. ``auto``: JSON where they go to systemd's journal, else text for people."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """debug: also a line or two for each request, without its text."""
    format: Literal["auto", "text", "json"] = "auto"


class Config(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """The whole of it."""

    model: ModelConfig = ModelConfig()
    engine: EngineConfig = EngineConfig()
    server: ServerConfig = ServerConfig()
    slo: SloConfig = SloConfig()
    policy: PolicyConfig = PolicyConfig()
    http: HttpConfig = HttpConfig()
    access: AccessConfig = AccessConfig()
    log: LogConfig = LogConfig()
    tcp: TcpConfig = TcpConfig()
    faults: FaultsConfig = FaultsConfig()


def read_resolved(path: Path) -> Config:
    """What the supervisor wrote for its children. Raises `ConfigError`."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Config)
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path}: {error}"]) from error
