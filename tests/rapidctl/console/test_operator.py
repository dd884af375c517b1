"""Control and prompts: what may be sent, when, and what is said about its end."""

import pytest
from msgspec.structs import replace
from textual.widgets import Input, Static

from rapidctl.console.change import UNKNOWN_AFTER_S
from rapidctl.console.operator import APPLIED_S, UNLOCK_S
from rapidctl.console.screens.confirm import Confirm
from rapidctl.console.screens.override import Override
from rapidctl.console.screens.overview import Overview
from rapidctl.console.screens.prompt import Prompt
from rapidctl.errors import Refused
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
from support.console import Desk, desk, sent_split
from support.snapshots import event, moved, override_info, partition, snapshot


async def test_a_locked_console_sends_nothing() -> None:
    async with desk() as at:
        await at.show(moved(snapshot(241), partition(override=override_info())))
        for key in ("j", "o", "A", "u", "x"):
            await at.press(key)
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
            reason="decode stalls", by=at.app.operator.by, if_epoch=1841,
        )  # fmt: skip
        await at.press("y")
        assert len(at.source.commands()) == 1, "once"
        at.source.accept(ticket, 1842)
        await at.settle()
        assert "PENDING: accepted as epoch 1842" in at.text
        at.source.put(event(1, "applied", epoch=1842))
        await at.settle()
        assert "APPLIED: applied as epoch 1842" in at.text
        await at.press("y")
        assert len(at.source.commands()) == 1, "not again"


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


async def test_an_end_is_shown_for_a_while_and_then_makes_room() -> None:
    async with desk(control=True) as at:
        await opened(at)
        await at.press("y")
        ticket, _ = sent_split(at.source)
        at.source.accept(ticket, 1842)
        at.source.put(event(1, "applied", epoch=1842))
        await at.press("escape")
        assert "APPLIED" in at.text
        await at.later(APPLIED_S)
        assert "APPLIED" not in at.text


async def test_a_state_that_moved_under_the_dialog_is_said() -> None:
    async with desk(control=True) as at:
        await opened(at)
        await at.show(moved(snapshot(241), partition(epoch=1842)))
        assert "epoch 1842" in at.text
        assert "it was epoch 1841 when this was opened" in at.text


async def test_the_dialog_shows_the_daemons_bounds() -> None:
    async with desk(80, 24, control=True) as at:
        await at.press("o")
        assert "expires after (at most 7d00h)" in at.text
        assert "ends it at 1.5× the ITL or 2× the TTFT SLO for 10 s" in at.text
        await at.press("escape")
        await at.show(moved(snapshot(231), replace(partition(), bounds=None)))
        await at.press("o")
        assert "at most" not in at.text, "an older daemon judges by itself"


async def test_a_predicted_breach_wants_the_word() -> None:
    async with desk(control=True) as at:
        at.source.predict = lambda _: Prediction(
            call=0, legal=True, note="", itl_p95_s=0.044, ttft_p95_s=1.24, breaches_slo=True
        )
        await opened(at)
        assert "breaches the SLO" in at.text
        await at.press("y")
        assert at.source.commands() == []
        await at.press(*"APPL", "enter", "Y", "enter")
        assert at.source.commands() == [], "y led to the word; enter in a field never applies"
        await at.press("enter")
        await at.settle()
        assert len(at.source.commands()) == 1


async def test_nothing_is_drawn_while_the_app_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick that came while the dialog's parts were being removed ended the app with an error."""
    async with desk(control=True) as at:
        await opened(at)
        await at.press("y")
        with monkeypatch.context() as patch:  # as long as parts are missing: the app ticks by itself too
            patch.setattr(type(at.app), "is_running", property(lambda _: False))
            await at.app.screen.query_one("#status").remove()
            at.app._shown = ()
            at.app.tick()
            assert at.app._shown == (), "no frame was handed to a screen that is losing its parts"
            await at.app.pop_screen()
        assert isinstance(at.app.screen, Overview), "and the app goes on"


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
        assert request == ReleasePartition(call=0, by=at.app.operator.by, if_epoch=1842)
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
        assert str(at.app.screen.query_one("#text-0", Static).render()) == ""


async def test_without_a_stream_esc_goes_back() -> None:
    async with desk() as at:
        await at.press("n", "escape")
        assert isinstance(at.app.screen, Overview)


async def test_the_command_line_that_does_the_same_can_be_copied() -> None:
    async with desk(control=True) as at:
        await opened(at)
        at.app.screen.query_one("#cancel").focus()
        await at.press("c")
        words = "--mode split --decode-units 176 --chunk 512 --ttl 300s --guard --if-epoch 1841 --yes"
        assert at.app.clipboard == f"rapidctl partition set {words}"
        assert at.source.commands() == []
