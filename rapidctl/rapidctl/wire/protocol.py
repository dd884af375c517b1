"""Numbers and topics both ends agree on: versions, the most a message may hold, leases and heartbeats."""

from typing import Annotated, Final

from msgspec import Meta

PROTOCOL_MIN: Final = 1
PROTOCOL_MAX: Final = 1
SCHEMA_VERSION: Final = 1
"""Of the JSON documents of the command line and of `Snapshot`."""

MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
"""MAXMSGSIZE of the request socket: a peer that sends more is cut by libzmq."""
MAX_DEPTH: Final = 32
"""Deepest nesting a frame may have; scanned on the raw bytes before decoding."""
MAX_CHOICES: Final = 16
MAX_STOP_STRINGS: Final = 16
MAX_STOP_CHARS: Final = 256
MAX_STOP_TOKENS: Final = 64
MAX_LOGPROBS: Final = 20
MAX_ID_CHARS: Final = 64
MAX_MESSAGES: Final = 1024
MAX_PROMPT_CHARS: Final = 4 * 1024 * 1024
MAX_CHUNK_TOKENS: Final = 1_000_000
MAX_DEADLINE_S: Final = 604_800.0
"""A week: no request is older, and none may take longer."""
MAX_TTL_S: Final = 604_800.0
"""A week: an override that is to stay longer has no end."""
MAX_UNITS: Final = 100_000
"""Of a device."""
MAX_ENDPOINT_BYTES: Final = 107
"""sizeof(sockaddr_un.sun_path) - 1 on Linux: an ipc path longer than this cannot be bound."""

UnixTime = Annotated[float, Meta(ge=0, lt=253_402_300_800)]
"""Seconds since 1970, before the year 10000: any reader can make a date of it."""

LEASE_INTERVAL_S: Final = 2.0
"""A client with open streams sends `Ping` this often; three missed in a row abort its streams."""
LEASE_MISSES: Final = 3
HEARTBEAT_MS: Final = (2000, 6000, 6000)
"""ZMTP heartbeats of every public socket: interval, timeout, and the time to live told to the peer."""

SNAPSHOT_TOPIC: Final = b"s"
EVENT_TOPIC: Final = b"e"
