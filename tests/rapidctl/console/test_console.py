"""The console under an operator's fingers, on a scripted daemon and a clock that moves when told."""

import re

import pytest
from textual.widgets import Button, Input, Static

from rapidctl.console.app import UNLOCK_S
from rapidctl.console.change import UNKNOWN_AFTER_S
from rapidctl.console.screens.confirm import Confirm
from rapidctl.console.screens.help import Help
from rapidctl.console.screens.log import Log
from rapidctl.console.screens.override import Override
from rapidctl.console.screens.overview import Overview
from rapidctl.console.screens.prompt import Prompt
from rapidctl.console.widgets.rows import Rows
from rapidctl.errors import Refused
from rapidctl.source import Connection
from rapidctl.wire import (
    Accepted,
    Cancel,
    Delta,
    PlanRequest,
    Prediction,
    PredictPartition,
    ReleasePartition,
    SetPartition,
    pack_ids,
)
from support.console import ENDPOINT, Desk, desk, event, moved, override_info, partition, sent_split, snapshot

TEXTUAL_CHROME = ("c5c8c6", "292929", "ff5f57", "febc2e", "28c840")
"""Window frame and default text of every exported picture: no part of the console."""

# --- the overview --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "shown", "hidden"),
    [
        ((120, 36), ["COMPUTE UNITS", "decode busy", "DECISIONS", "REQUESTS 137", "r-8f001"], ["5 log)"]),
        ((120, 24), ["COMPUTE UNITS", "LATENCY ms", "REQUESTS 137", "r-8f001"], ["decode busy"]),
        ((80, 24), ["COMPUTE UNITS", "LATENCY ms", "QUEUES", "REQUESTS 137", "r-8f001"], ["decode busy", "DECISIONS"]),
        ((60, 20), ["TTFT p50/95/99", "r-8f001", "prefill"], ["COMPUTE UNITS", "╭"]),
        ((40, 8), ["LIVE", "prefill", "decode"], ["╭"]),
        ((120, 10), ["LIVE", "TTFT p50/95/99"], ["╭"]),
    ],
)
async def test_every_size_shows_what_fits(size: tuple[int, int], shown: list[str], hidden: list[str]) -> None:
    async with desk(*size) as at:
        assert "● LIVE" in at.text
        assert [word for word in shown if word not in at.text] == []
        assert [word for word in hidden if word in at.text] == []


async def test_resizing_across_the_breakpoints_changes_the_layout_and_keeps_the_selection() -> None:
    async with desk(120, 36) as at:
        await at.press("j", "j")
        for width, height, word in ((80, 24, "0–1.5 SLO"), (60, 20, "p50/95/99"), (120, 36, "decode busy")):
            await at.pilot.resize_terminal(width, height)
            await at.settle()
            assert word in at.text
            assert at.app.query_one(Rows).selected == "r-8f002"


async def test_before_the_first_snapshot_nothing_is_claimed() -> None:
    async with desk(live=False) as at:
        assert "NO DATA" in at.text
        assert ENDPOINT in at.text
        assert "REQUESTS —" in at.text
        assert "0%" not in at.text.replace("0–100%", "")


async def test_stale_values_stay_dimmed_under_the_word_and_come_back() -> None:
    async with desk(80, 24) as at:
        at.source.put(Connection(ENDPOINT, connected=False))
        await at.later(7)
        assert "◌ STALE 7 s reconnecting" in at.text
        assert "LIVE" not in at.text
        assert "prefill 144 CU" in at.text
        assert at.app.screen.has_class("-stale")
        assert at.app.query_one("#units").styles.text_style.dim
        at.source.put(Connection(ENDPOINT, connected=True))
        await at.show(snapshot(250, boot="b2", front="f2"))
        assert "● LIVE" in at.text
        assert not at.app.screen.has_class("-stale")
        await at.press("5")
        assert "the engine restarted" in at.text


async def test_nothing_is_drawn_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with desk() as at:
        drawn: list[object] = []
        monkeypatch.setattr(Overview, "show", lambda self, view: drawn.append(view))
        for _ in range(3):
            await at.settle()
        assert drawn == []
        await at.show(snapshot(241))
        assert len(drawn) == 1


async def test_the_selection_is_a_request_and_not_a_row() -> None:
    async with desk() as at:
        await at.press("j", "j")
        assert at.app.query_one(Rows).selected == "r-8f002"
        await at.press("s")
        await at.press("full_stop")
        assert at.app.query_one(Rows).selected == "r-8f002"
        found = snapshot(241)
        found.rows = found.rows[2:]
        await at.show(found)
        assert at.app.query_one(Rows).selected is None


async def test_filtering_types_into_the_field_and_esc_drops_it() -> None:
    async with desk() as at:
        await at.press("slash", *"~", "backspace", *"ana")
        assert "shown 2" in at.text
        await at.press("enter")
        assert "filter ana" in at.text
        await at.press("escape")
        assert "shown 5" in at.text


async def test_the_window_the_freeze_the_theme() -> None:
    async with desk() as at:
        assert "last 60 s" in at.text
        await at.press("w")
        assert "last 300 s" in at.text
        await at.press("p")
        await at.show(snapshot(241, info=partition(epoch=1900)))
        assert "FROZEN" in at.text
        assert "epoch 1841" in at.text
        await at.press("p")
        assert "epoch 1900" in at.text
        assert at.app.book.snapshot is not None, "recording went on"
        before = at.app.theme
        await at.press("t")
        assert at.app.theme != before


async def test_help_lists_every_key_and_the_figures() -> None:
    async with desk(120, 80) as at:
        await at.press("question_mark")
        assert isinstance(at.app.screen, Help)
        for word in ("?", "^o", "override the partition", "filter requests", "stop the stream", "TTFT SLO", "STALE"):
            assert word in at.text
        await at.press("escape")
        assert isinstance(at.app.screen, Overview)


async def test_the_log_shows_events_and_what_the_console_noticed() -> None:
    async with desk() as at:
        at.source.put(event(4, "warning", "placement overlap 4 CU"), event(6))
        await at.settle()
        await at.press("l")
        assert isinstance(at.app.screen, Log)
        for word in ("connected", "placement overlap 4 CU", "1 events were lost"):
            assert word in at.text
        await at.press("escape")
        assert isinstance(at.app.screen, Overview)


async def test_without_colour_the_letters_words_and_marks_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with desk() as at:
        assert "DDDPPP" in at.text
        assert "87% !" in at.text
        coloured = re.findall(r"fill: #(..)(..)(..)", at.app.export_screenshot())
        assert coloured
        assert [rgb for rgb in coloured if len(set(rgb)) != 1 and "".join(rgb) not in TEXTUAL_CHROME] == []


async def test_the_palette_offers_the_same_verbs_as_the_keys() -> None:
    async with desk() as at:
        verbs = {command.title for command in at.app.get_system_commands(at.app.screen)}
        assert {"Override", "Release", "Undo", "Unlock", "Prompt", "Log", "Help", "Quit"} <= verbs
        await at.press("ctrl+p")
        assert "override" in at.text.lower()


async def test_quitting_closes_the_source() -> None:
    async with desk() as at:
        await at.press("q")
    assert at.source.closed
    assert at.app.return_value == 0


def test_every_binding_has_an_id_of_its_own() -> None:
    from rapidctl.console.app import Console
    from rapidctl.console.widgets.choice import Choice
    from rapidctl.console.widgets.lines import Lines

    owners = (Console, Overview, Log, Prompt, Override, Confirm, Help, Lines, Choice)
    ids = [binding.id for owner in owners for binding in owner.__dict__.get("BINDINGS", [])]
    assert None not in ids
    assert len(set(ids)) == len(ids)


# --- control -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["o", "A", "u", "x"])
async def test_a_locked_console_sends_nothing(key: str) -> None:
    async with desk() as at:
        await at.show(moved(snapshot(241), partition(override=override_info())))
        await at.press("j", key)
        assert isinstance(at.app.screen, Overview)
        assert at.source.asked == []


async def test_unlocking_counts_down_and_locks_again() -> None:
    async with desk() as at:
        assert "read-only" in at.text
        await at.press("ctrl+o")
        assert "CONTROL 5m00s" in at.text
        await at.later(UNLOCK_S - 48)
        assert "CONTROL 48s" in at.text
        await at.later(48)
        assert "read-only" in at.text
        assert at.source.locked == 1


async def test_unlocking_twice_locks_at_once() -> None:
    async with desk(control=True) as at:
        await at.press("ctrl+o")
        assert "read-only" in at.text
        assert at.source.locked == 1


async def test_control_is_off_while_stale() -> None:
    async with desk(control=True) as at:
        await at.later(7)
        await at.press("o")
        assert isinstance(at.app.screen, Overview)


async def opened(at: Desk) -> None:
    """The dialog, asking for decode 176."""
    await at.press("o")
    assert isinstance(at.app.screen, Override)
    assert at.app.focused is at.app.screen.query_one("#cancel"), "enter on a fresh dialog must not apply"
    at.app.screen.query_one("#split").focus()
    await at.press("right")


async def test_an_override_is_applied_when_the_daemon_says_so_and_not_before() -> None:
    async with desk(control=True) as at:
        await opened(at)
        assert "prefill gets 128 of 304" in at.text
        assert "--mode split --decode-units 176" in at.text
        assert "no profile: rapidd calibrate" in at.text
        assert at.source.commands() == [], "a dry run needs no operator's rights"
        at.app.screen.query_one("#reason", Input).value = "decode stalls"
        await at.press("y")
        ticket, request = sent_split(at.source)
        assert request == SetPartition(
            call=0, plan=PlanRequest(mode="split", decode_units=176, chunk=512), ttl_s=300.0, guard=True,
            reason="decode stalls", by=at.app.by, if_epoch=1841,
        )  # fmt: skip
        await at.press("y")
        assert len(at.source.commands()) == 1, "once"
        at.source.accept(ticket, 1842)
        await at.settle()
        assert "PENDING: accepted as epoch 1842" in at.text
        at.source.put(event(1, "applied", epoch=1842))
        await at.settle()
        assert "APPLIED: applied as epoch 1842" in at.text


async def test_a_refusal_is_shown_in_the_daemons_words_and_can_be_corrected() -> None:
    async with desk(control=True) as at:
        await opened(at)
        await at.press("y")
        ticket, _ = sent_split(at.source)
        at.source.feed(moved(snapshot(241), partition(epoch=1843)))
        at.source.refuse(ticket, Refused("epoch_conflict", "the epoch is 1843, not 1841", "look again"))
        await at.settle()
        assert "REFUSED: the epoch is 1843, not 1841 (look again)" in at.text
        await at.press("y")
        assert [request.if_epoch for _, request in at.source.commands()] == [1841, 1843]  # type: ignore[union-attr]


async def test_silence_is_unknown() -> None:
    async with desk(control=True) as at:
        await opened(at)
        await at.press("y")
        await at.later(UNKNOWN_AFTER_S)
        assert "UNKNOWN: no answer" in at.text
        await at.press("escape")
        assert "UNKNOWN" in at.text, "the overview says so too"


async def test_a_state_that_moved_under_the_dialog_is_said() -> None:
    async with desk(control=True) as at:
        await opened(at)
        await at.show(moved(snapshot(241), partition(epoch=1842)))
        assert "epoch 1842" in at.text
        assert "it was epoch 1841 when this was opened" in at.text


async def test_a_predicted_breach_wants_the_word() -> None:
    async with desk(control=True) as at:
        at.source.predict = lambda _: Prediction(
            call=0, legal=True, note="", itl_p95_s=0.044, ttft_p95_s=1.24, breaches_slo=True
        )
        await opened(at)
        assert "breaches the SLO" in at.text
        await at.press("y")
        assert at.source.commands() == []
        at.app.screen.query_one("#word").focus()
        await at.press(*"APPLY", "enter")
        assert at.source.commands() == [], "enter in a field never applies"
        at.app.screen.query_one("#apply", Button).press()
        await at.settle()
        assert len(at.source.commands()) == 1


async def test_what_the_daemon_calls_illegal_cannot_be_applied() -> None:
    async with desk(control=True) as at:
        at.source.predict = lambda _: Prediction(call=0, legal=False, note="decode units must be a multiple of 16")
        await opened(at)
        await at.press("y")
        assert "not legal: decode units must be a multiple of 16" in at.text
        assert at.source.commands() == []


async def test_a_bad_field_says_what_would_do_and_sends_nothing() -> None:
    async with desk(control=True) as at:
        await opened(at)
        at.app.screen.query_one("#ttl", Input).value = "soon"
        await at.settle()
        assert "use a duration such as 30s or 5m" in at.text
        at.app.screen.query_one("#cancel").focus()
        await at.press("y")
        assert at.source.commands() == []


async def test_letters_typed_into_a_field_are_letters() -> None:
    async with desk(control=True) as at:
        await opened(at)
        at.app.screen.query_one("#reason").focus()
        await at.press(*"my way")
        assert at.app.screen.query_one("#reason", Input).value == "my way"
        assert at.source.commands() == []


async def test_where_splits_are_impossible_the_reason_stands_and_split_cannot_be_chosen() -> None:
    async with desk(control=True) as at:
        info = partition(units=2, decode=2, mode="shared", unsupported="the container may not pin threads")
        await at.show(moved(snapshot(241), info))
        await at.press("o")
        assert "the container may not pin threads" in at.text
        at.app.screen.query_one("#mode").focus()
        await at.press("right", "right", "right")
        assert "(•) shared" in at.text
        asked = [request for _, request, _ in at.source.asked if isinstance(request, PredictPartition)]
        assert {request.plan.mode for request in asked} == {"shared"}


async def test_locking_under_an_open_dialog_stops_it() -> None:
    async with desk(control=True) as at:
        await opened(at)
        await at.later(UNLOCK_S)
        await at.press("y")
        assert at.source.commands() == []
        assert "control is locked" in at.text


async def test_release_and_undo_are_new_changes_bound_to_the_epoch() -> None:
    async with desk(control=True) as at:
        pinned = override_info()
        await at.show(moved(snapshot(241), partition(epoch=1842, override=pinned)))
        assert "OVERRIDE 4m12s" in at.text
        assert "decode stalls" in at.text
        await at.press("A")
        ticket, request = at.source.commands()[-1]
        assert request == ReleasePartition(call=0, by=at.app.by, if_epoch=1842)
        at.source.accept(ticket, 1843)
        await at.show(moved(snapshot(242), partition(epoch=1843)))
        assert "APPLIED release" in at.text
        await at.press("u")
        assert isinstance(at.app.screen, Confirm)
        assert "split decode 200" in at.text
        await at.press("y")
        _, again = at.source.commands()[-1]
        assert isinstance(again, SetPartition)
        assert (again.plan, again.if_epoch) == (pinned.plan, 1843)


async def test_cancelling_asks_first_and_is_bound_to_the_request() -> None:
    async with desk(control=True) as at:
        await at.press("j", "x")
        assert "CANCEL r-8f001?" in at.text
        found = snapshot(241)
        found.rows.reverse()
        await at.show(found)
        await at.press("n")
        assert at.source.commands() == []
        await at.press("x", "y")
        assert [request for _, request in at.source.commands()] == [Cancel(call=0, id="r-8f001")]


# --- the prompt ----------------------------------------------------------------------------------------------------


async def test_typing_owns_the_letters() -> None:
    async with desk() as at:
        await at.press("n")
        assert isinstance(at.app.screen, Prompt)
        await at.press(*"q?1 nA/p")
        assert at.app.screen.query_one("#prompt", Input).value == "q?1 nA/p"
        assert isinstance(at.app.screen, Prompt)


async def test_a_prompt_streams_stops_and_is_sent_again() -> None:
    async with desk() as at:
        await at.press("n", "w", "enter")
        [request] = at.source.generated
        assert request.messages is not None
        assert [message.content for message in request.messages] == ["w"]
        at.source.stream(
            request.id,
            Accepted(id=request.id, prompt_tokens=14, seed=1),
            Delta(id=request.id, index=0, token_ids=pack_ids([5, 6]), text="Because [bold]", at_mono_ns=[1, 2]),
        )
        await at.settle()
        assert "Because [bold]" in at.text, "model output is no markup"
        assert "streaming" in at.text
        assert "14 tok" in at.text
        await at.press("escape")
        assert at.source.abandoned == [request.id]
        assert isinstance(at.app.screen, Prompt)
        await at.press("ctrl+r")
        assert len(at.source.generated) == 2
        assert str(at.app.screen.query_one("#text", Static).render()) == ""


async def test_without_a_stream_esc_goes_back() -> None:
    async with desk() as at:
        await at.press("n", "escape")
        assert isinstance(at.app.screen, Overview)
