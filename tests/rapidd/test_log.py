"""Lines of the log: one each, whatever they hold, for people or for programs."""

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator

import pytest

from rapidd import log
from rapidd.config import LogConfig


@pytest.fixture(autouse=True)
def quiet_afterwards() -> Iterator[None]:
    yield
    logging.getLogger("rapidd").handlers.clear()
    logging.getLogger().setLevel(logging.WARNING)


def test_a_json_line_has_its_head_and_what_was_given_but_nulls(capsys: pytest.CaptureFixture[str]) -> None:
    log.start(LogConfig(format="json"), "front")
    log.warning('two\nlines and a "quote"', request_id="r-1", epoch=None, process="not this one")
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert told.pop("time").endswith("Z")
    assert told == {
        "level": "warning",
        "process": "front",
        "message": 'two\nlines and a "quote"',
        "request_id": "r-1",
    }


def test_a_json_line_drives_no_terminal_whoever_wrote_it(capsys: pytest.CaptureFixture[str]) -> None:
    """`journalctl -o cat` gave clients' texts to the terminal with their DEL and C1 codes, of which U+009B begins an
    escape sequence as ESC [ does; JSON escapes only those below a space."""
    log.start(LogConfig(format="json"), "front")
    text = "\x1b[2J \x7f \x85 \x9b2J \u2028 café 🙂"
    log.info("a", client=text)
    line = capsys.readouterr().err.removesuffix("\n")
    assert not {char for char in line if not char.isprintable()}
    assert "café 🙂" in line
    assert json.loads(line)["client"] == text


def test_text_is_one_printable_line_whoever_wrote_it(capsys: pytest.CaptureFixture[str]) -> None:
    log.start(LogConfig(format="text"), "front")
    log.error("two\nlines, \x1b[31mred", request_id="r-1")
    assert capsys.readouterr().err == "rapidd: two lines,  [31mred (request_id r-1)\n"


@pytest.mark.parametrize(("level", "told"), [("debug", "diwe"), ("info", "iwe"), ("warning", "we"), ("error", "e")])
def test_a_level_hides_what_is_below_it(level: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    log.start(LogConfig(level=level, format="text"), "front")  # type: ignore[arg-type]
    for write, text in ((log.debug, "d"), (log.info, "i"), (log.warning, "w"), (log.error, "e")):
        write(text)
    assert capsys.readouterr().err.replace("rapidd: ", "").replace("\n", "") == told
    assert log.debug_is_on() == (level == "debug")


def test_json_is_chosen_where_stderr_is_the_journals() -> None:
    status = os.fstat(2)
    assert log._is_journal({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
    assert not log._is_journal({"JOURNAL_STREAM": "1:1"})
    assert not log._is_journal({})


def test_a_program_that_asked_for_no_log_hears_of_trouble_only(capsys: pytest.CaptureFixture[str]) -> None:
    log.info("nothing to see")
    log.warning("trouble")
    assert capsys.readouterr().err == "rapidd: trouble\n"


def test_an_exception_that_ends_a_process_or_a_thread_is_a_line_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sys, threading):
        monkeypatch.setattr(module, "excepthook", None)
    log.start(LogConfig(format="json"), "engine")
    log.adopt_crashes()
    thread = threading.Thread(target=lambda: 1 // 0)
    thread.start()
    thread.join()
    sys.excepthook(ValueError, ValueError("no"), None)
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["level"] for line in told] == ["error", "error"]
    assert "ZeroDivisionError" in told[0]["exception"]
    assert told[1]["exception"].endswith("ValueError: no\n")


def test_what_a_library_says_of_errors_looks_like_the_rest_with_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log.start(LogConfig(format="json"), "http")
    log.adopt_libraries()
    logging.getLogger("some.library").info("noise")
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("some.library").exception("it broke")
        log.bug("ours broke", request_id="r-1")
    theirs, ours = map(json.loads, capsys.readouterr().err.splitlines())
    assert (theirs["message"], theirs["process"], theirs["library"]) == ("it broke", "http", "some.library")
    assert (ours["message"], ours["request_id"]) == ("ours broke", "r-1")
    for told in (theirs, ours):
        assert told["exception"].endswith("ValueError: no\n")
