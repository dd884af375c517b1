"""How far a benchmark is, on stderr: stdout is for its figures. Standard library only."""

import sys


def say(what: str) -> None:
    """A line of progress, for people."""
    print(f"bench: {what}", file=sys.stderr, flush=True)
