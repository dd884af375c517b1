"""How long the threads of an OpenMP team wait for each other: to be said before torch is imported, which has libgomp.

By itself libgomp looks 300,000 times whether the others of a team are done before it sleeps. Where another process
wants a core, the thread that looks keeps it from the one that it waits for until the operating system takes it away, at
each of a step's many barriers (docs/log.md, 33).
"""

import os
from typing import Final

SPINS: Final = 4_000


def bound_spinning() -> None:
    """Look `SPINS` times in this process, unless its environment says something else."""
    if "OMP_WAIT_POLICY" not in os.environ:  # whose meaning for libgomp it would change
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
