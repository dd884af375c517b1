"""`rapidd http` as users run it, in front of a daemon that has a chat template, and a client that sees every byte."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from support.daemon import LOOK_S, MODEL, WAIT_S
from support.process import environment, python_module

TEMPLATE = "{% for message in messages %}{{ message.content }} {% endfor %}"
NAME = "stories"
"""What the servers of these tests call their model."""


def chat_model(folder: Path) -> Path:
    """A copy of the test model with a chat template: the contents, one after the other."""
    model = folder / "model"
    shutil.copytree(MODEL, model)
    (model / "chat_template.jinja").write_text(TEMPLATE)
    return model


class Reply(NamedTuple):
    """One response, whole."""

    status: int
    headers: "http.client.HTTPMessage"
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """Of a refusal; it must have the API's shape."""
        (name,) = self.json
        assert name == "error"
        error: dict[str, Any] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert self.headers["content-type"] == "application/json"
        return error


class HttpServer:
    """The process. ``url`` is where it listens."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        assert process.stderr is not None
        first = process.stderr.readline()
        assert " ready on " in first, first + process.stderr.read()
        self.url = first.partition(" ready on ")[2].partition(",")[0]
        self.port = int(self.url.rpartition(":")[2]) if self.url.startswith("http") else 0

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """One request on a connection of its own; underscores in header names are dashes."""
        connection = self.connect()
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, None, **headers)

    def post(self, path: str, document: object, **headers: str) -> Reply:
        """A JSON document, or bytes as they are."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.ask("POST", path, body, **{"content_type": "application/json", **headers})

    def complete(self, **fields: Any) -> Reply:
        return self.post("/v1/completions", {"model": NAME, "temperature": 0} | fields)

    def chat(self, *contents: str, **fields: Any) -> Reply:
        messages = [{"role": "user", "content": content} for content in contents]
        return self.post("/v1/chat/completions", {"model": NAME, "temperature": 0, "messages": messages} | fields)

    @contextmanager
    def stream(self, path: str, **fields: Any) -> Iterator[http.client.HTTPResponse]:
        """A streamed answer, to be read or left."""
        connection = self.connect()
        try:
            body = json.dumps({"model": NAME, "temperature": 0, "stream": True} | fields).encode()
            connection.request("POST", path, body, {"content-type": "application/json"})
            yield connection.getresponse()
        finally:
            connection.close()

    def until_ready(self) -> None:
        """It has found a daemon that serves."""
        deadline = time.monotonic() + WAIT_S
        while (reply := self.get("/health/ready")).status != 200:
            assert time.monotonic() < deadline, reply
            time.sleep(LOOK_S)

    def raw(self, data: bytes) -> bytes:
        """Whatever comes back for these bytes until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S) as sock:
            try:
                sock.sendall(data)
                return b"".join(iter(lambda: sock.recv(65536), b""))
            except ConnectionError:
                return b""

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)


def events(response: http.client.HTTPResponse) -> Iterator[Any]:
    """The documents of an event stream up to its end, comments left out."""
    while line := response.readline():
        if line.startswith(b"data: "):
            data = line.removeprefix(b"data: ").strip()
            if data == b"[DONE]":
                return
            yield json.loads(data)
        else:
            assert line == b"\n" or line.startswith(b":"), line
    raise AssertionError("the stream ended without [DONE]")


@contextmanager
def http_server(endpoint: str, *options: str, **environ: str) -> Iterator[HttpServer]:
    """A server that is ended with the block."""
    command = python_module("rapidd.cli", "http", "--endpoint", endpoint, "--port", "0", *options)
    with subprocess.Popen(
        command, env=environment(**environ), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield HttpServer(process)
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
