"""`rapidctl bench` over `rapidd http`: one client measures this server as it measures any other."""

import json

import pytest

from rapidctl import cli
from support.daemon import Daemon
from support.http import NAME, HttpServer


@pytest.mark.parametrize("watched", [False, True])
def test_the_server_is_measured_over_http_and_the_daemon_watched_if_named(
    server: HttpServer, chatty: Daemon, watched: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "run", "--http", server.url, "--model", NAME, "--vocab-size", "512", "--json"]
    load = ["--shape", "40/7@inf", "--requests", "6", "--max-lateness", "1m"]
    code = cli.main([*(["--endpoint", chatty.endpoint] if watched else []), *words, *load])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    document = json.loads(captured.out)
    (run,) = document["runs"]
    summary = run["summary"]
    assert (summary["finished"], summary["short"], summary["errors"]) == (6, 0, {})
    assert (summary["ttft_s"]["n"], summary["itl_s"]["n"]) == (6, 6 * 6)
    assert document["server"]["model"] == NAME
    assert document["load"]["max_model_len"] == 512
    if watched:
        assert run["slo"]["itl_s"] == 0.3
        assert run["realised"]["modes"]["decode alone"] > 0
    else:
        assert run["slo"]["itl_s"] == 0.05
        assert run["realised"] is None


def test_more_than_the_server_takes_is_counted_as_refused(
    server: HttpServer, chatty: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """64 run, 12 wait: of 100 at once the rest is refused, and what is open when the drain ends is given up."""
    words = ["bench", "run", "--http", server.url, "--vocab-size", "512", "--json", "--drain", "500ms"]
    assert cli.main([*words, "--shape", "40/300@inf", "--requests", "100", "--max-lateness", "1m"]) == 0
    summary = json.loads(capsys.readouterr().out)["runs"][0]["summary"]
    assert summary["finished"] + summary["refused"] + summary["unfinished"] == 100
    assert summary["errors"] == {"http_429": summary["refused"]}
    assert summary["refused"] > 0
    chatty.until_idle()  # whoever left was noticed
