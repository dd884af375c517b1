"""What the daemon says about itself, for health, metrics and the model's name: asked beside the event loop.

One question at a time over a client of its own, and one every `PERIOD_S` at most: whoever polls the HTTP server costs
the daemon little. An answer, a refusal too, is shared by all who asked before the question was sent, and by no others.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from rapidctl import wire
from rapidctl.client import Client
from rapidctl.errors import RapidctlError
from rapidd.http.bridge import GRACE_S
from rapidd.http.errors import ApiError, from_client

PERIOD_S: Final = 0.05
TIMEOUT_S: Final = 2.0
GONE_TIMEOUT_S: Final = 0.1
"""For a daemon that has been away for a while already."""


class Probe:
    """Belongs to the event loop."""

    def __init__(self, endpoint: str) -> None:
        self._client = Client(endpoint, name="http probe")
        self._thread = ThreadPoolExecutor(1, "probe")
        self._lock = asyncio.Lock()
        self._found: wire.Snapshot | ApiError | None = None
        self._asked_s = 0.0
        self._model: wire.ModelInfo | None = None
        self._model_of: str | None = None

    def close(self) -> None:
        """Drop the connection."""
        self._thread.submit(self._client.close)
        self._thread.shutdown()

    async def snapshot(self) -> wire.Snapshot:
        """How the daemon is now. Raises `ApiError` when it does not answer."""
        arrived_s = time.monotonic()
        async with self._lock:
            if self._found is None or self._asked_s < arrived_s:
                await asyncio.sleep(self._asked_s + PERIOD_S - time.monotonic())
                self._asked_s, self._found = time.monotonic(), None
                try:
                    self._found = await asyncio.get_running_loop().run_in_executor(self._thread, self._ask)
                except RapidctlError as error:
                    self._found = from_client(error)
        if isinstance(self._found, ApiError):
            raise self._found
        return self._found

    async def model(self, front_boot_id: str | None) -> wire.ModelInfo:
        """What the daemon serves; asked once a boot of its front. Raises `ApiError` until it knows."""
        if self._model is None or self._model_of != front_boot_id or front_boot_id is None:
            snapshot = await self.snapshot()
            if snapshot.model is None:
                raise ApiError(
                    503, "starting", f"the daemon is starting: {snapshot.detail or snapshot.state}", retry_after_s=2.0
                )
            self._model, self._model_of = snapshot.model, snapshot.front_boot_id
        return self._model

    def _ask(self) -> wire.Snapshot:
        """In the thread."""
        self._client.open()
        self._client.poll(0)  # a connection that was lost meanwhile is noticed before the question is sent
        lost_s = self._client.lost_s
        timeout_s = TIMEOUT_S if lost_s is None or lost_s <= GRACE_S else GONE_TIMEOUT_S
        return self._client.call(wire.GetSnapshot(call=0), timeout_s).snapshot
