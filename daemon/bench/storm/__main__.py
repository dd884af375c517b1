"""``python -m bench.storm [SECTION ...]``: what a daemon must survive, counted; all sections, in full size, by default.

Needs no GPU and no idle machine: it counts what was lost, and the two figures that are times (refusals, and how soon a
client that is gone is noticed) have bounds. Prints a JSON line a section; exit status 1 when anything failed.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.figures import SCHEMA_VERSION
from bench.storm import aborts, bodies, deaths, drain, frames, gone, overload, scheduler
from bench.storm.site import Site, site

Section = Callable[[float], dict[str, Any]]


def _on_a_site(run: Callable[[Site], dict[str, Any]]) -> dict[str, Any]:
    with site() as one:
        return run(one)


SECTIONS: Final[dict[str, Section]] = {
    "scheduler": lambda share: scheduler.run(_count(1_000_000, share)),
    "frames": lambda share: frames.decode(_count(5_000_000, share)),
    "frames-socket": lambda share: _on_a_site(lambda one: frames.send(one, _count(200_000, share))),
    "bodies": lambda share: _on_a_site(lambda one: bodies.call(one, _count(100_000, share))),
    "bodies-socket": lambda share: _on_a_site(lambda one: bodies.send(one, _count(5_000, share))),
    "aborts": lambda share: _on_a_site(lambda one: aborts.run(one, _count(10_000, share))),
    "overload": lambda share: _on_a_site(lambda one: overload.run(one, _count(5, share), 60)),
    "drain": lambda share: drain.run(_count(5, share)),
    "gone": lambda share: gone.run(_count(3, share)),
    "deaths": lambda share: deaths.run(_count(5, share)),
}
"""In the order in which they run; a section's size times ``share`` is run."""


def _count(whole: int, share: float) -> int:
    return max(1, round(whole * share))


def main() -> int:
    """Run the sections, print and keep what they found."""
    parser = argparse.ArgumentParser(
        prog="bench.storm", description="Count what a daemon loses when it is treated badly."
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"all by default: {', '.join(SECTIONS)}")
    parser.add_argument("--share", type=float, default=1.0, metavar="S", help="of the full size, 0.01 to try it")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="JSON; sections it already has and this run not are kept"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - SECTIONS.keys():
        parser.error(f"there is no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    try:
        kept = _kept(arguments.out)
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"--out {arguments.out} is no file of earlier sections: {error!r}")
    found: dict[str, dict[str, Any]] = {}
    for name in [name for name in SECTIONS if name in (arguments.sections or SECTIONS)]:
        found[name] = _run(name, arguments.share)
        if arguments.out is not None:  # half an hour of sections is not lost with the next one
            _keep(arguments.out, kept | found)
    return 1 if any(section["failures"] for section in found.values()) else 0


def _run(name: str, share: float) -> dict[str, Any]:
    begin_s = time.monotonic()
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        figures = SECTIONS[name](share)
    except Exception as error:  # a daemon that does not end, a socket that stays silent: what a storm looks for
        notes = getattr(error, "__notes__", [])
        figures = {"failures": [f"{type(error).__name__}: {error}", *notes]}
    figures = {"started": started, "seconds": round(time.monotonic() - begin_s, 1), **figures}
    print(json.dumps({"section": name, **figures}), flush=True)
    return figures


def _kept(path: Path | None) -> dict[str, dict[str, Any]]:
    """Sections of earlier runs, read before anything is run."""
    if path is None or not path.exists():
        return {}
    sections: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["sections"]
    return sections


def _keep(path: Path, sections: dict[str, dict[str, Any]]) -> None:
    document = {
        "schema_version": SCHEMA_VERSION,
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "sections": sections,
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
