"""What the HTTP server asks the daemon about itself."""

from pathlib import Path

import pytest

from rapidd.http import probe
from support import samples
from support.peer import Peer


async def test_the_first_question_has_as_long_as_any_however_long_nobody_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon counted as away from the server's start on: the first request, if it came a second later, was answered
    with 503 where the daemon did not greet and answer within a tenth of a second.
    """
    monkeypatch.setattr(probe, "GONE_TIMEOUT_S", 0.0)
    with Peer(tmp_path) as peer:
        asking = probe.Probe(peer.endpoint)
        asking._client._link.lost_at_s -= 60.0
        assert await asking.snapshot() == samples.SNAPSHOT
        asking.close()
