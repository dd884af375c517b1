"""A client that somebody kills: ``python victim.py ENDPOINT REQUEST`` streams until it is gone; the request as JSON."""

import sys

import msgspec

from rapidctl.client import Client
from rapidctl.wire import Generate


def main() -> int:
    """Stream; 1 when the stream ended first."""
    endpoint, request = sys.argv[1:]
    with Client(endpoint, name="victim", timeout_s=60.0) as client:
        stream = client.submit(msgspec.json.decode(request, type=Generate))
        while stream.ended is None:
            client.poll(1.0)
    return 1


if __name__ == "__main__":
    sys.exit(main())
