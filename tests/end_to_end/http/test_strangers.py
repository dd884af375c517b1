"""The HTTP server among strangers: keys, limits, malformed bodies, daemons that go, signals."""

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rapidd.errors import EXIT_CONFIG
from rapidd.http.app import ROUTES, Spec
from rapidd.http.guard import MAX_HEAD_BYTES
from support.daemon import PROMPTS, WAIT_S, Daemon
from support.http import NAME, HttpServer, events, http_server
from support.process import ROOT, python_module, run
from support.supervised import Manager

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"


def rapidd_http(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end."""
    return run(python_module("rapidd.cli", "http", *arguments))


# --- who may come in ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A key as the command makes it, and the file that lets it in."""
    made = dict(line.split(maxsplit=1) for line in rapidd_http("--make-key").stdout.splitlines())
    file = tmp_path_factory.mktemp("k") / "keys"
    file.write_text(f"# ours\n{made['line:']}  # the laptop\n")
    assert made["key:"] not in file.read_text()
    return made["key:"], file


@pytest.fixture(scope="module")
def locked(chatty: Daemon, key: tuple[str, Path]) -> Iterator[HttpServer]:
    with http_server(chatty.endpoint, "--host", "0.0.0.0", "--api-keys", str(key[1])) as server:
        yield server


@pytest.mark.parametrize("spec", ROUTES, ids=lambda spec: f"{spec.method} {spec.path}")
def test_every_route_but_health_wants_a_key(locked: HttpServer, key: tuple[str, Path], spec: Spec) -> None:
    assert spec.is_open == spec.path.startswith("/health")
    headers = {"content_type": "application/json"}
    for wrong in ({}, {"authorization": "Bearer sk-rapid-wrong"}, {"authorization": key[0]}, {"authorization": "é"}):
        reply = locked.ask(spec.method, spec.path, b"{}", **headers, **wrong)
        assert (reply.status == 401) == (not spec.is_open)
        if not spec.is_open:
            assert reply.error["code"] == "invalid_api_key"
    reply = locked.ask(spec.method, spec.path, b"{}", **headers, authorization=f"Bearer {key[0]}")
    assert reply.status in (200, 400)


def test_the_documentation_lists_every_route() -> None:
    listed = re.findall(r"^\| `(GET|POST) (/\S*)` \|", (ROOT / "docs/http.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted((spec.method, spec.path) for spec in ROUTES)


def test_without_keys_only_this_machine_may_come(chatty: Daemon, server: HttpServer) -> None:
    refused = rapidd_http("--endpoint", chatty.endpoint, "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == EXIT_CONFIG
    assert "--make-key" in refused.stderr
    assert server.get("/version", host="example.com").error["code"] == "unknown_host"
    assert server.get("/version", host="[::1]:8000").status == 200
    assert server.get("/version", host="localhost").status == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [("HTTP/1.0", 200), ("HTTP/1.0\r\nHost: example.com", 421), ("HTTP/1.0\r\nHost:", 421), ("HTTP/1.1", 421)],
)
def test_who_speaks_http_1_0_need_name_no_host(server: HttpServer, head: str, status: int) -> None:
    """It was refused as if it had named another machine; a web page's requests always name one."""
    answer = server.raw(f"GET /version {head}\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize("options", [("--host", "0.0.0.0", "--uds", ""), ("--api-keys", "")])
def test_a_name_that_is_empty_lets_nobody_in(options: tuple[str, ...]) -> None:
    """As of a variable that was not set: an empty socket stood for no address that others reach, and then the address
    was listened on, for everybody and without keys; an empty file of keys was none."""
    refused = rapidd_http("--endpoint", "ipc:///nowhere/x.sock", "--port", "0", *options)
    assert refused.returncode == EXIT_CONFIG
    assert "of length >= 1" in refused.stderr


@pytest.mark.parametrize("text", ["", "# nothing\n", "sk-rapid-not-a-hash\n", None])
def test_a_file_without_a_hash_is_a_bad_configuration(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "keys"
    if text is not None:
        file.write_text(text)
    refused = rapidd_http("--endpoint", "ipc:///nowhere/x.sock", "--port", "0", "--api-keys", str(file))
    assert refused.returncode == EXIT_CONFIG
    assert str(file) in refused.stderr


def test_an_address_in_use_is_a_sentence(server: HttpServer, chatty: Daemon) -> None:
    refused = rapidd_http("--endpoint", chatty.endpoint, "--port", str(server.port))
    assert refused.returncode == EXIT_CONFIG
    assert f"cannot listen on 127.0.0.1:{server.port}" in refused.stderr


# --- what they may send --------------------------------------------------------------------------------------------


def test_what_is_no_route_or_no_json_is_refused_in_the_same_shape(server: HttpServer) -> None:
    assert server.get("/v1/nothing").error["code"] == "not_found"
    assert server.get("/v1/models/").error["code"] == "not_found"
    reply = server.get(COMPLETIONS)
    assert (reply.status, reply.headers["allow"], reply.error["code"]) == (405, "POST", "method_not_allowed")
    assert server.post(COMPLETIONS, {}, content_type="text/plain").status == 415
    for body in (b"", b"{", b"[]", b"\xff", b'{"model":' + b"[" * 90_000, b'{"model":"\xff","prompt":"x"}'):
        reply = server.post(COMPLETIONS, body)
        assert (reply.status, reply.error["type"]) == (400, "invalid_request_error")


def test_bodies_and_heads_are_bounded(server: HttpServer) -> None:
    assert server.complete(prompt="x" * 100_000).error["code"] == "request_too_large"
    chunk = b"%x\r\n%s\r\n" % (60_000, b"x" * 60_000)  # says no length beforehand
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n".encode()
    found = server.raw(head + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n" + 2 * chunk + b"0\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 413")
    assert b"200 OK" not in server.raw(b"GET /health/live HTTP/1.1\r\nx: " + b"y" * 8 * MAX_HEAD_BYTES)
    assert b"400 Bad Request" in server.raw(b"\x16\x03\x01 nonsense\r\n\r\n")
    assert server.get("/health/live").status == 200


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
GOOD: tuple[tuple[str, dict[str, Any]], ...] = (
    (COMPLETIONS, {"model": NAME, "prompt": "Once", "max_tokens": 2, "n": 2, "stop": ["z"], "logprobs": 1}),
    (COMPLETIONS, {"model": NAME, "prompt": [[1, 2], [3]], "max_tokens": 2, "stream": True, "suffix": None}),
    (CHAT, {"model": NAME, "messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "top_k": 3, "tools": []}),
    (
        CHAT,
        {"model": NAME, "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}], "max_tokens": 2},
    ),
)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    """A good body of which some fields are anything, or some bytes are others."""
    path, good = draw(st.sampled_from(GOOD))
    body = dict(good)
    for name in draw(st.lists(st.sampled_from([*body, "temperature", "seed", "stream_options", "x"]), max_size=2)):
        body[name] = draw(ANY_JSON)
    data = bytearray(json.dumps(body).encode())
    for _ in range(draw(st.integers(0, 2))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return path, bytes(data)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=mutated())
def test_whatever_a_body_holds_is_answered_or_refused_with_a_type(server: HttpServer, case: tuple[str, bytes]) -> None:
    reply = server.post(*case)
    if reply.status == 200:
        assert reply.body.endswith(b"data: [DONE]\n\n") or reply.json["choices"]
    else:
        assert reply.status in (400, 404)
        assert reply.error["type"] == "invalid_request_error"


# --- daemons that go -------------------------------------------------------------------------------------------------


def test_a_server_without_a_daemon_says_so(tmp_path: Path) -> None:
    with http_server(f"ipc://{tmp_path}/request.sock") as alone:
        for reply in (alone.complete(prompt="x"), alone.get("/health"), alone.get("/v1/models")):
            assert (reply.status, reply.error["code"]) == (503, "daemon_unreachable")
            assert "rapidd serve" in reply.error["message"]
            assert reply.headers["retry-after"] == "1"
        assert alone.get("/health/live").status == 200
        assert b"rapidd_up 0.0" in alone.get("/metrics").body


def test_a_daemon_that_is_killed_ends_the_streams_and_may_come_back(chatty: Daemon) -> None:
    with http_server(chatty.endpoint, "--served-model-name", NAME, RAPIDD__HTTP__PATIENCE_S="0.2") as server:
        with server.stream(COMPLETIONS, prompt=PROMPTS[0], n=8, max_tokens=490, ignore_eos=True) as response:
            found = events(response)
            next(found)
            chatty.close()
            *_, last = found
        assert last["error"]["code"] == "daemon_lost"
        assert server.complete(prompt="x").error["code"] == "daemon_unreachable"
        assert server.get("/health/ready").status == 503
        chatty.start()
        server.until_ready()  # it tries to connect once a second
        assert server.complete(prompt="x").status == 200
        assert server.get("/health/ready").status == 200


def test_a_signal_lets_answers_finish_and_ends_with_0(chatty: Daemon) -> None:
    with http_server(chatty.endpoint, "--served-model-name", NAME) as server:
        with server.stream(COMPLETIONS, prompt=PROMPTS[0], max_tokens=200, ignore_eos=True) as response:
            found = events(response)
            next(found)
            server.process.terminate()
            assert len(list(found)) == 199
        assert server.process.wait(WAIT_S) == 0
    chatty.until_idle()


def test_the_service_manager_waits_as_long_as_answers_may_take(tmp_path_factory: pytest.TempPathFactory) -> None:
    """It cut them after its own 60 s, however long `http.drain-timeout-s` was."""
    manager = Manager(tmp_path_factory.mktemp("m"))
    told = {"NOTIFY_SOCKET": manager.path, "RAPIDD__HTTP__DRAIN_TIMEOUT_S": "120"}
    with closing(manager.socket), http_server("ipc:///nonexistent/request.sock", **told) as server:
        assert server.get("/health/live").status == 200
        assert server.stop() == 0
        assert manager.until("STOPPING=1") == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=125000000"]


def test_a_unix_socket_takes_the_place_of_the_address(chatty: Daemon, tmp_path: Path) -> None:
    """Whoever may open the file may use the server, so it asks neither for a key nor for a host."""
    path = tmp_path / "http.sock"
    for _ in range(2):  # what a killed server left is replaced
        with http_server(chatty.endpoint, "--uds", str(path)):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
                sock.sendall(b"GET /health HTTP/1.1\r\nhost: anything\r\nconnection: close\r\n\r\n")
                assert sock.recv(4096).startswith(b"HTTP/1.1 200")
            refused = rapidd_http("--endpoint", chatty.endpoint, "--uds", str(path))
            assert (refused.returncode, "cannot listen" in refused.stderr) == (EXIT_CONFIG, True)
            assert path.stat().st_mode & 0o007 == 0


def test_its_log_has_lines_like_the_daemons_that_name_requests_and_hold_no_prompt(
    chatty: Daemon, tmp_path: Path
) -> None:
    config = tmp_path / "rapidd.toml"
    config.write_text('[log]\nlevel = "debug"\n')
    options = ("--config", str(config), "--log-format", "json", "--served-model-name", NAME)
    with http_server(chatty.endpoint, *options) as server:
        reply = server.complete(prompt=PROMPTS[0], max_tokens=2)
        assert server.get("/nowhere").status == 404
        assert server.stop() == 0
        assert server.process.stderr is not None
        said = server.process.stderr.read()
    lines = [json.loads(line) for line in said.splitlines()]
    assert {line["process"] for line in lines} == {"http"}
    told = {line["message"]: line.get("request_id") for line in lines}
    assert told == {"POST /v1/completions 200": reply.headers["x-request-id"], "GET other 404": None}
    assert PROMPTS[0] not in said
