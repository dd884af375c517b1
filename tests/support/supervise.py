"""Runs the supervisor over stand-ins for its children: ``python supervise.py FOLDER FRONT ENGINE [GRACE_S]``.

FRONT and ENGINE are behaviours of `stand_in`. GRACE_S shortens what a child gets to end.
"""

import sys
from pathlib import Path

from rapidd import supervisor
from rapidd.config import Config, ServerConfig
from rapidd.supervisor import serve


def main() -> int:
    folder, front, engine, *grace = sys.argv[1:]
    if grace:
        vars(supervisor).update(DRAIN_GRACE_S=float(grace[0]), ENGINE_STOP_S=float(grace[0]))
    program = [sys.executable, "-P", str(Path(__file__).with_name("stand_in.py"))]
    config = Config(server=ServerConfig(listen=f"ipc://{folder}/run/request.sock", drain_timeout_s=0.0))
    return serve(config, {"front": [*program, "front", folder, front], "engine": [*program, "engine", folder, engine]})


if __name__ == "__main__":
    sys.exit(main())
