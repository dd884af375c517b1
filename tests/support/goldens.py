"""Writes one golden frame a message type to tests/data/wire/VERSION. Run as a script, when the protocol grows:

    python tests/support/goldens.py             adds frames for messages that have none
    python tests/support/goldens.py --replace   writes all of the current version again: only before a release

Frames of a released version are never touched again: every later daemon and client must read them.
"""

import argparse
import sys
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from rapidctl import wire
from support import messages, samples

FOLDER: Final = Path(__file__).parents[1] / "data" / "wire"
VERSION: Final = "0.1"


def frames() -> dict[str, bytes]:
    """File name and content of every golden frame."""
    named = {f"request_{name}": wire.encode(message) for name, message in messages.REQUESTS.items()}
    named |= {f"reply_{name}": wire.encode(message) for name, message in messages.REPLIES.items()}
    named["published_snapshot"] = wire.SNAPSHOT_TOPIC + wire.encode(samples.SNAPSHOT)
    named["published_event"] = wire.EVENT_TOPIC + wire.encode(samples.EVENT)
    return {f"{name}.bin": frame for name, frame in named.items()}


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replace", action="store_true")
    replace = parser.parse_args().replace
    folder = FOLDER / VERSION
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in frames().items():
        if replace or not (folder / name).exists():
            (folder / name).write_bytes(frame)


if __name__ == "__main__":
    main()
