"""Runs the supervisor over stand-ins for its children: ``python supervise.py FOLDER FRONT ENGINE [GRACE_S]``.

FRONT and ENGINE are behaviours of `stand_in`. GRACE_S is what a child gets to end; with it a front that failed is
started again at once. A reload reads FOLDER/rapidd.toml. HANG_BEATS in the environment makes a child that does not
answer so many quick probes hang, and LOAD_TIMEOUT_S one that loads without progress; ABORT_S is what it then gets to
write its stacks.
"""

import os
import sys
from pathlib import Path

from msgspec.structs import replace

from rapidd import settings
from rapidd.config import Config
from rapidd.supervisor import child, core, ladder

QUICK_BEAT_S = 0.02


def main() -> int:
    folder, front, engine, *grace = sys.argv[1:]
    if grace:
        vars(core).update(DRAIN_GRACE_S=float(grace[0]), ENGINE_STOP_S=float(grace[0]), FRONT_DELAYS_S=(0.0,))
    hang_s, load_s = 0.0, float(os.environ.get("LOAD_TIMEOUT_S", "600"))
    if "HANG_BEATS" in os.environ:
        vars(core).update(BEAT_S=QUICK_BEAT_S)
        vars(child).update(ABORT_S=float(os.environ.get("ABORT_S", "60")))
        vars(ladder).update(BEAT_S=QUICK_BEAT_S)
        hang_s = int(os.environ["HANG_BEATS"]) * QUICK_BEAT_S
    program = [sys.executable, "-P", str(Path(__file__).with_name("stand_in.py"))]
    path = Path(folder) / "rapidd.toml"

    def load() -> Config:
        config = settings.load(path, {}).config if path.exists() else Config()
        quick = replace(config.server, drain_timeout_s=0.0, hang_timeout_s=hang_s, load_timeout_s=load_s)
        return replace(config, server=quick)

    first = load()
    first = replace(first, server=replace(first.server, listen=f"ipc://{folder}/run/request.sock"))
    commands = {"front": [*program, "front", folder, front], "engine": [*program, "engine", folder, engine]}
    return core.serve(first, commands, load)  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
