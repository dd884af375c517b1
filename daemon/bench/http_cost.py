"""``PYTHONPATH=daemon python -m bench.http_cost [--streams N] [--tokens N] [--repeats N]``.

What the HTTP server costs a streamed token in CPU time, beside what the daemon's front costs for the same tokens: a
table, then one JSON line. The model has random weights and a few thousand parameters, so that steps come fast. CPU time
of a busy machine is longer too; the ratio of the two, taken in the same run, holds there as well.
"""

import argparse
import json
import selectors
import socket
import sys
import tempfile
from pathlib import Path
from typing import Final

import psutil

from bench.figures import SCHEMA_VERSION, Figure, table
from bench.processes import daemon
from bench.served import http_server
from rapidctl.client import Client
from rapidctl.wire import GetSnapshot

NAME: Final = "default"
"""Of the model, where no other was configured."""
SHAPE: Final = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 64,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
}  # fmt: skip
MICRO: Final = 1e6
CHUNK: Final = b"data: {"
"""Each begins so."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.http_cost", description="CPU of a token streamed over HTTP.")
    parser.add_argument("--streams", type=int, default=64, metavar="N")
    parser.add_argument("--tokens", type=int, default=300, metavar="N", help="a stream")
    parser.add_argument("--repeats", type=int, default=5, metavar="N")
    arguments = parser.parse_args()
    http, front = [], []
    with tempfile.TemporaryDirectory(prefix="rapidd-bench-") as folder:
        shape = Path(folder) / "config.json"
        shape.write_text(json.dumps(SHAPE), encoding="utf-8")
        options = ("--weights", "random", "--shape", str(shape), "--dtype", "float32", "--compute-units", "1")
        with daemon(*options) as server, Client(server.endpoint) as client, http_server(server.endpoint) as (url, _):
            (process,) = (child for child in psutil.Process().children() if "http" in child.cmdline())
            port = int(url.rpartition(":")[2])
            _stream(port, arguments.streams, 20)  # warm
            for _ in range(arguments.repeats):
                before = process.cpu_times(), _front_cpu_s(client)
                tokens = _stream(port, arguments.streams, arguments.tokens)
                after = process.cpu_times(), _front_cpu_s(client)
                used_s = after[0].user + after[0].system - before[0].user - before[0].system
                http.append(used_s / tokens * MICRO)
                front.append((after[1] - before[1]) / tokens * MICRO)
    figures = [
        Figure("HTTP server, CPU a streamed token", http, "us"),
        Figure("front, CPU a streamed token", front, "us"),
        Figure("HTTP server over front", [a / b for a, b in zip(http, front, strict=True)], "x"),
    ]
    print(table(figures))
    print(json.dumps({"schema_version": SCHEMA_VERSION, "figures": [figure.document() for figure in figures]}))
    return 0


def _stream(port: int, streams: int, tokens: int) -> int:
    """Stream so many tokens over each of so many connections; chunks received."""
    body = json.dumps(
        {
            "model": NAME,
            "prompt": "Once upon a time",
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
    ).encode()
    head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    chunks = 0
    tails: dict[socket.socket, bytes] = {}
    with selectors.DefaultSelector() as selector:
        for _ in range(streams):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(request)
            selector.register(connection, selectors.EVENT_READ, connection)
        while selector.get_map():
            for key, _ in selector.select():
                data = key.data.recv(65_536)
                count, tails[key.data] = count_chunks(tails.get(key.data, b""), data)
                chunks += count
                if not data:
                    selector.unregister(key.data)
                    key.data.close()
    if chunks != streams * tokens:
        raise RuntimeError(f"{chunks} chunks came for {streams * tokens} tokens")
    return chunks


def count_chunks(tail: bytes, data: bytes) -> tuple[int, bytes]:
    """Chunks that begin in ``data``, or in ``tail``, the end of what came before it; the tail of both."""
    seen = tail + data
    return seen.count(CHUNK), seen[1 - len(CHUNK) :]


def _front_cpu_s(client: Client) -> float:
    return client.call(GetSnapshot(call=0)).snapshot.front_cpu_s


if __name__ == "__main__":
    sys.exit(main())
