"""The screen of prompts: what is typed, sent and shown, one answer or two side by side."""

import pytest
from msgspec.structs import replace
from textual.widgets import Input, Static

from rapidctl.console.screens.compare import Compare
from rapidctl.errors import Refused
from rapidctl.source import Answer
from rapidctl.wire import (
    Delta,
    SetPartition,
    Snapshot,
    pack_ids,
)
from support.console import LIVE_TICKS, desk
from support.run import streamed
from support.snapshots import event, moved, partition, snapshot


async def test_two_plans_side_by_side() -> None:
    async with desk(control=True) as at:
        await at.press("n", "w", "ctrl+t")
        assert isinstance(at.app.screen, Compare)
        assert at.app.focused is at.app.screen.query_one("#cancel")
        await at.press("y")
        ticket, command = at.source.commands()[0]
        assert isinstance(command, SetPartition)
        assert command.plan.mode == "hybrid"
        at.source.accept(ticket, 1842)
        at.source.put(event(1, "applied", epoch=1842))
        at.source.feed(moved(snapshot(241), partition(mode="hybrid", epoch=1842)))
        await at.settle()
        await at.settle()
        [request] = at.source.generated
        at.source.stream(request.id, *streamed(request, [5, 6, 7]))
        await at.settle()
        assert "5 6 7" in at.text
        assert at.text.count("TIMELINE") == 2
        assert "waiting for the lanes to run split" in at.text


async def test_two_times_the_same_plan_is_no_comparison() -> None:
    async with desk(control=True) as at:
        await at.press("n", "w", "ctrl+t")
        at.app.screen.query_one("#mode-1").focus()
        await at.press("left", "left")
        at.app.screen.query_one("#cancel").focus()
        await at.press("y")
        assert "both are the same plan" in at.text
        await at.press("escape")
        assert at.source.commands() == []


async def test_comparing_needs_the_operators_rights() -> None:
    async with desk() as at:
        await at.press("n", "w", "ctrl+t")
        assert not isinstance(at.app.screen, Compare)
        assert at.source.asked == []


async def test_settings_go_with_the_prompt_and_bad_ones_are_said() -> None:
    async with desk() as at:
        await at.press("n", "w")
        at.app.screen.query_one("#set-temperature", Input).value = "hot"
        await at.press("enter")
        assert at.source.generated == []
        at.app.screen.query_one("#set-temperature", Input).value = "0.5"
        at.app.screen.query_one("#set-system", Input).value = "Be brief."
        await at.press("enter")
        [request] = at.source.generated
        assert request.sampling.temperature == 0.5
        assert request.messages is not None
        assert request.messages[0].role == "system"


def short_context(tokens: int) -> Snapshot:
    found = snapshot(LIVE_TICKS)
    assert found.model is not None
    return replace(found, model=replace(found.model, max_model_len=tokens))


@pytest.mark.parametrize(("context", "asked"), [(256, None), (511, None), (512, 256)])
async def test_a_short_context_is_asked_for_what_it_leaves(context: int, asked: int | None) -> None:
    """It was asked for 256 tokens, which no prompt leaves in a context of 256: every one was refused."""
    async with desk() as at:
        await at.show(short_context(context))
        await at.press("n", "w", "enter")
        assert at.source.generated[0].sampling.max_tokens == asked


async def test_a_length_that_the_operator_chose_is_asked_for_whatever_the_context() -> None:
    async with desk() as at:
        await at.show(short_context(300))
        await at.press("n", "w")
        at.app.screen.query_one("#set-max_tokens", Input).value = "256"
        await at.press("enter", "escape")
        await at.show(short_context(300))
        await at.press("ctrl+r")
        assert [request.sampling.max_tokens for request in at.source.generated] == [256, 256]


async def test_a_prompt_of_several_lines_is_shown_on_one_and_sent_as_it_was() -> None:
    async with desk() as at:
        await at.press("n")
        at.app.screen.put_text("one\ntwo")  # type: ignore[attr-defined]
        await at.press("enter")
        messages = at.source.generated[0].messages
        assert messages is not None
        assert messages[0].content == "one\ntwo"


HOSTILE = "\x1b]0;x\x07\x1b[2J" + "名前" * 40 + "\u202eevil\u202c שלום" + "x" * 100_000


async def test_hostile_output_stays_inside_its_box() -> None:
    async with desk() as at:
        await at.press("n", "w", "enter")
        [request] = at.source.generated
        at.source.stream(
            request.id, Delta(id=request.id, index=0, token_ids=pack_ids([1]), text=HOSTILE, at_mono_ns=[1])
        )
        await at.settle()
        text = str(at.app.screen.query_one("#text-0", Static).render())
        assert "\x1b" not in text
        assert "\u202e" not in text
        for strip in at.app.screen._compositor.render_strips():
            assert strip.cell_length == 120
            assert "\x1b" not in strip.text


async def test_an_answer_to_another_question_is_no_answer() -> None:
    async with desk() as at:
        at.source.put(Answer(99, Refused("not_found", "no such thing")))
        await at.settle()
        assert "LIVE" in at.text
