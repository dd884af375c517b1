"""Where a child that dies badly leaves the stacks of its threads: written by faulthandler, kept by the supervisor.

The file is made when the child starts and stays empty in a good life. systemd's LogsDirectory= is used where there is
one, else the daemon's private directory. Imports nothing that a crash could break.
"""

import contextlib
import faulthandler
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

KEPT: Final = 10
"""Files of past deaths; a crash loop must not fill the disk."""


def directory(private: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """For the stacks of the daemon whose private directory is ``private``."""
    logs = environ.get("LOGS_DIRECTORY", "").partition(":")[0]
    return Path(logs) / private.name if logs else private


def catch(private: Path, name: str) -> None:
    """In the child: write the stacks of all threads when the process is aborted or crashes. To stderr, at worst."""
    folder = directory(private)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(folder / f"{name}.stacks", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError:
        faulthandler.enable()
        return
    faulthandler.enable(descriptor)


def keep(private: Path, name: str, pid: int) -> Path | None:
    """In the supervisor, once the child is gone: the file under a name of its own, if anything was written."""
    folder = directory(private)
    written = folder / f"{name}.stacks"
    with contextlib.suppress(OSError):
        if not written.stat().st_size:
            return None
        kept = folder / f"{name}-{time.strftime('%Y%m%dT%H%M%S')}-{pid}.stacks"
        written.rename(kept)
        for old in sorted(folder.glob(f"{name}-*.stacks"))[:-KEPT]:
            old.unlink()
        return kept
    return None
