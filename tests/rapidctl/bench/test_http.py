"""OpenAI-compatible servers as targets, over real sockets: every token is stamped, every failure has a name."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapidctl.bench.http import Answer, HttpTarget, Server, served_model
from rapidctl.bench.metrics import summarize
from rapidctl.bench.records import Record
from rapidctl.bench.replay import replay
from rapidctl.bench.trace import Prompts, shape_trace
from rapidctl.errors import ProtocolMismatch, Refused, Unreachable, UsageError
from rapidctl.wire import Slo
from support.openai import OpenAIServer, Script

PROMPTS = Prompts(512)
TRACE = shape_trace("20/5@inf", count=6)
SLO = Slo(itl_s=0.1, ttft_floor_s=0.5, ttft_per_1k_s=1.0)


def records_of(server: OpenAIServer, url: str | None = None) -> list[Record]:
    target = HttpTarget(Server.parse(url or server.url), "m", PROMPTS)
    try:
        return replay(TRACE, target, drain_s=20.0).records
    finally:
        target.close()


@pytest.mark.parametrize(
    "script",
    [
        Script(),
        Script(chunked=False),
        Script(newline="\r\n"),
        Script(piece_bytes=1),
        Script(piece_bytes=7, newline="\r\n"),
        Script(closing_event=True),
        Script(tokens_an_event=3),
        Script(tokens_an_event=2, usage="every"),
        Script(usage="none"),
    ],
    ids=str,
)
def test_every_token_is_stamped_however_it_is_framed(script: Script) -> None:
    with OpenAIServer(script) as server:
        records = records_of(server)
    assert [(r.outcome, r.error, len(r.stamps)) for r in records] == [("finished", "", 5)] * 6
    for record in records:
        assert record.ended_s is not None
        assert record.sent_s <= record.stamps[0] <= record.stamps[-1] <= record.ended_s
        assert sorted(record.stamps) == record.stamps.tolist()


def test_requests_say_all_that_a_recorded_length_needs() -> None:
    with OpenAIServer() as server:
        records_of(server)
    expected = [PROMPTS.ids(request).tolist() for request in TRACE.requests]
    assert sorted(body["prompt"] for body in server.bodies) == sorted(expected)
    body = server.bodies[0]
    assert body == body | {
        "model": "m", "max_tokens": 5, "ignore_eos": True, "temperature": 0.0, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("script", "outcome", "error"),
    [
        (Script(status=429), "refused", "http_429"),
        (Script(status=500), "refused", "http_500"),
        (Script(cut_off_after=2), "failed", "cut_off"),
        (Script(cut_off_after=2, chunked=False), "failed", "cut_off"),
        (Script(error_event=True), "failed", "server_error"),
        (Script(raw=b""), "refused", "connection_closed"),
        (Script(raw=b"SSH-2.0-x\r\n\r\n"), "failed", "unreadable"),
        (Script(raw=b"HTTP/1.1 200 OK\r\n\r\ndata: nonsense\n\n"), "failed", "unreadable"),
        (Script(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n"), "failed", "unreadable"),
    ],
)
def test_what_goes_wrong_is_named(script: Script, outcome: str, error: str) -> None:
    with OpenAIServer(script) as server:
        records = records_of(server)
    assert [(r.outcome, r.error) for r in records] == [(outcome, error)] * 6


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "the prompt holds token 900"}}', "the prompt holds token 900"),
        (b"<h1>Bad Gateway</h1>\n", "<h1>Bad Gateway</h1>"),
        (b"\xff" * 300, "\ufffd" * 200),
        (b"", ""),
    ],
)
def test_what_a_server_says_with_a_refusal_is_kept_for_the_report(body: bytes, said: str) -> None:
    head = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(body)
    with OpenAIServer(Script(raw=head + body)) as server:
        records = records_of(server)
    assert [(r.outcome, r.error, r.said) for r in records] == [("refused", "http_400", said)] * 6
    assert summarize(records, SLO).said == ({"http_400": said} if said else {})


def test_nobody_there_is_a_refusal() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port, and nobody answers
        records = records_of(OpenAIServer(), f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert [(r.outcome, r.error) for r in records] == [("refused", "ECONNREFUSED")] * 6


def test_an_unfinished_request_is_given_up_and_its_connection_closed() -> None:
    with OpenAIServer(Script(silent=True)) as server:
        target = HttpTarget(Server.parse(server.url), "m", PROMPTS)
        records = replay(TRACE.head(1), target, drain_s=0.2).records
        target.close()
        assert server.gone.wait(10)
    assert [(r.outcome, r.stamps.tolist()) for r in records] == [("unfinished", [])]


def test_without_a_descriptor_left_a_request_is_refused_and_the_run_not_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server had less to do than it should, and was blamed for what it never got."""

    def none_left(*_: object) -> None:
        raise OSError(24, "Too many open files")

    with OpenAIServer() as server:
        target = HttpTarget(Server.parse(server.url), "m", PROMPTS)
        monkeypatch.setattr(socket, "socket", none_left)
        result = replay(TRACE.head(1), target)
        target.close()
        monkeypatch.undo()
    assert [(r.outcome, r.error) for r in result.records] == [("refused", "EMFILE")]
    assert any("1 requests were not sent" in problem for problem in result.problems())


# --- which server, which model ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("http://localhost:8000", "localhost", 8000, "/v1"),
        ("http://localhost", "localhost", 80, "/v1"),
        ("http://localhost:8000/v1/", "localhost", 8000, "/v1"),
        ("http://[::1]:8000/proxy", "::1", 8000, "/proxy/v1"),
    ],
)
def test_urls(url: str, host: str, port: int, path: str) -> None:
    server = Server.parse(url)
    assert (server.host, server.port, server.path) == (host, port, path)


@pytest.mark.parametrize("url", ["", "localhost:8000", "https://x", "http://", "http://x:y", "http://x/?a=1"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        Server.parse(url)


def test_the_model_is_found() -> None:
    with OpenAIServer(models=[{"id": "a", "max_model_len": 100}, {"id": "b"}]) as server:
        place = Server.parse(server.url)
        assert served_model(place, "a").max_model_len == 100
        assert served_model(place, "b").max_model_len is None
        assert served_model(place, None).id == "a"
        with pytest.raises(Refused, match="serves: a, b"):
            served_model(place, "c")
    with pytest.raises(Unreachable):
        served_model(place, "a")


def test_something_else_that_speaks_http_is_no_server() -> None:
    with OpenAIServer(models={"nonsense": 1}) as server, pytest.raises(ProtocolMismatch):  # type: ignore[arg-type]
        served_model(Server.parse(server.url), None)


# --- the parser ---------------------------------------------------------------------------------------------------


@given(
    events=st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1), max_size=8),
    chunked=st.booleans(),
    data=st.data(),
)
def test_events_survive_any_cutting(events: list[str], chunked: bool, data: st.DataObject) -> None:
    body = "".join(f"data: {event}\n\n" for event in events).encode()
    head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"
    if chunked:
        sizes = data.draw(st.lists(st.integers(1, max(1, len(body))), max_size=6))
        pieces, at = [], 0
        for size in (*sizes, len(body)):
            if piece := body[at : at + size]:
                pieces.append(b"%X;x=y\r\n%s\r\n" % (len(piece), piece))
            at += size
        raw = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(pieces) + b"0\r\n\r\n"
    else:
        raw = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    answer, found, at = Answer(), [], 0
    while at < len(raw):
        size = data.draw(st.integers(1, len(raw) - at))
        found += [event.decode() for event in answer.feed(raw[at : at + size])]
        at += size
    assert found == events
    assert (answer.status, answer.ended) == (200, True)
