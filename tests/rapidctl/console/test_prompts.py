"""One prompt under two plans: what is sent when, and that the control state comes back whatever happens."""

import pytest
from msgspec.structs import replace

from rapidctl.console.form import FormError, PromptSettings, prompt_settings
from rapidctl.console.operator import Operator
from rapidctl.console.prompts import PIN_TTL_S, RETRIES, Prompts
from rapidctl.console.run import Run, asked, first_difference
from rapidctl.console.widgets.gaps import gap_strip
from rapidctl.errors import Refused
from rapidctl.source import Streamed
from rapidctl.wire import (
    Delta,
    Generate,
    PartitionInfo,
    PlanRequest,
    ReleasePartition,
    SetPartition,
    pack_ids,
)
from support.console import Clock, ScriptedSource
from support.run import streamed
from support.snapshots import event, moved, override_info, partition, snapshot

HYBRID, SPLIT = PlanRequest(mode="hybrid"), PlanRequest(mode="split", decode_units=160)


class World:
    """Prompts over a daemon that does as told: takes a change, applies it, streams an answer."""

    def __init__(self, *, unlocked: bool = True, override: bool = False) -> None:
        self.clock = Clock()
        self.source = ScriptedSource(self.clock)
        self.operator = Operator(self.source, self.clock, unlocked=unlocked)
        self.prompts = Prompts(self.source, self.operator)
        self.info: PartitionInfo = partition(
            mode="shared", decode=304, epoch=10, override=override_info(300.0) if override else None
        )
        self.answered = 0

    def tick(self, seconds: float = 0.25) -> None:
        self.clock.now += seconds
        for update in self.source.poll():
            self.operator.take(update)
            if isinstance(update, Streamed):
                self.prompts.take(update, moved(snapshot(), self.info))
        self.operator.tick()
        self.prompts.tick(self.clock.now, moved(snapshot(), self.info))

    def commands(self) -> list[SetPartition | ReleasePartition]:
        return [request for _, request in self.source.commands()]  # type: ignore[misc]

    def apply(self) -> None:
        """The newest command is accepted and the lanes adopt it."""
        ticket, command = self.source.commands()[-1]
        epoch = self.info.epoch + 1
        mode = command.plan.mode if isinstance(command, SetPartition) else "shared"
        self.info = partition(mode=mode, decode=160 if mode == "split" else 304, epoch=epoch)
        self.source.accept(ticket, epoch)
        self.source.put(event(epoch, "applied", epoch=epoch))
        self.tick()
        if isinstance(command, ReleasePartition):
            self.source.feed(moved(snapshot(), self.info))
        self.tick()

    def answer(self, tokens: list[int]) -> None:
        request = self.source.generated[-1]
        self.source.stream(request.id, *streamed(request, tokens))
        self.tick()
        self.tick()


def test_each_answer_streams_under_its_plan_and_then_the_override_is_released() -> None:
    world = World()
    world.prompts.compare("why", PromptSettings(), (HYBRID, SPLIT))
    world.tick()
    [first] = world.commands()
    assert isinstance(first, SetPartition)
    assert (first.plan, first.ttl_s, first.if_epoch) == (HYBRID, PIN_TTL_S, 10)
    assert world.source.generated == [], "not before the lanes run it"
    world.apply()
    assert len(world.source.generated) == 1
    world.answer([1, 2, 3])
    second = world.commands()[-1]
    assert isinstance(second, SetPartition)
    assert (second.plan, second.if_epoch) == (SPLIT, 11)
    world.apply()
    world.answer([1, 2, 3])
    assert isinstance(world.commands()[-1], ReleasePartition)
    assert (world.prompts.busy, world.prompts.verdict()) == (True, "restoring after split decode 160")
    world.apply()
    assert world.prompts.verdict() == "✓ the answers agree: 3 tokens   ITL p50 10 against 10 ms, p95 10 against 10 ms"
    assert [run.partition.plan.mode for run in world.prompts.runs if run.partition] == ["hybrid", "split"]
    assert not world.prompts.busy


def test_an_override_that_was_there_comes_back_with_what_is_left_of_its_time() -> None:
    world = World(override=True)
    world.prompts.compare("why", PromptSettings(), (HYBRID, SPLIT))
    world.tick()
    for _ in range(2):
        world.apply()
        world.answer([1])
    last = world.commands()[-1]
    assert isinstance(last, SetPartition)
    assert last.plan == override_info().plan
    assert last.ttl_s is not None
    assert 290 < last.ttl_s < 300
    assert (last.reason, last.guard) == ("decode stalls", True)


def test_where_answers_part_is_said() -> None:
    world = World()
    world.prompts.compare("why", PromptSettings(), (HYBRID, SPLIT))
    world.tick()
    for tokens in ([1, 2, 3], [1, 9, 3]):
        world.apply()
        world.answer(tokens)
    world.apply()
    assert world.prompts.verdict().startswith("! they differ at token 1 ")


def test_a_change_that_came_too_soon_is_sent_again_but_not_for_ever() -> None:
    world = World()
    world.prompts.compare("why", PromptSettings(), (HYBRID, SPLIT))
    world.tick()
    for _ in range(RETRIES):
        world.source.refuse(world.source.commands()[-1][0], Refused("too_soon", "wait", retry_after_s=1.5))
        world.tick()
        count = len(world.commands())
        world.tick(1.0)
        assert len(world.commands()) == count, "not before its time"
        world.tick(1.0)
        assert len(world.commands()) == count + 1
    world.source.refuse(world.source.commands()[-1][0], Refused("too_soon", "wait", retry_after_s=1.5))
    world.tick()
    assert world.prompts.verdict() == "! hybrid: refused, wait"
    assert not world.prompts.busy


def test_a_refusal_of_the_second_plan_puts_back_what_was_before() -> None:
    world = World()
    world.prompts.compare("why", PromptSettings(), (HYBRID, SPLIT))
    world.tick()
    world.apply()
    world.answer([1])
    world.source.refuse(world.source.commands()[-1][0], Refused("invalid_request", "no such split"))
    world.tick()
    world.tick()
    assert isinstance(world.commands()[-1], ReleasePartition)
    world.apply()
    assert world.prompts.verdict() == "! split decode 160: refused, no such split"


def test_stopping_ends_the_stream_and_puts_back_what_was_before() -> None:
    world = World()
    world.prompts.compare("why", PromptSettings(), (HYBRID, SPLIT))
    world.tick()
    world.apply()
    assert world.prompts.stop()
    assert world.source.abandoned == [world.source.generated[0].id]
    world.tick()
    assert isinstance(world.commands()[-1], ReleasePartition)
    world.apply()
    assert world.prompts.verdict() == "! stopped"


def test_a_prompt_is_stopped_once_and_one_that_has_ended_not_at_all() -> None:
    world = World()
    busy = [world.prompts.busy]
    stopped = [world.prompts.stop()]
    world.prompts.send("why", PromptSettings(), snapshot(), world.clock.now)
    busy.append(world.prompts.busy)
    stopped += [world.prompts.stop(), world.prompts.stop()]
    assert world.source.abandoned == [world.source.generated[0].id]
    world.prompts.send("when", PromptSettings(), snapshot(), world.clock.now)
    world.answer([1, 2])
    busy.append(world.prompts.busy)
    stopped.append(world.prompts.stop())
    assert (busy, stopped) == ([False, True, False], [False, True, False, False])
    assert len(world.source.abandoned) == 1


def test_a_comparison_under_way_is_not_replaced_and_waits_for_a_daemon_that_says_how_it_is() -> None:
    world = World()
    world.prompts.compare("why", PromptSettings(), (HYBRID, SPLIT))
    begun = world.prompts.comparison
    world.prompts.compare("when", PromptSettings(), (SPLIT, HYBRID))
    assert world.prompts.comparison is begun
    for said in (None, replace(snapshot(), partition=None)):
        world.prompts.tick(world.clock.now, said)
    assert world.source.commands() == []
    world.tick()
    assert len(world.source.commands()) == 1
    world.apply()
    world.tick()
    assert len(world.source.generated) == 1, "one answer after the other"


def test_a_prompt_or_a_comparison_takes_the_place_of_what_was_there() -> None:
    world = World()
    for text in ("why", "when"):
        world.prompts.send(text, PromptSettings(), snapshot(), world.clock.now)
    first, second = world.source.generated
    assert (world.source.abandoned, [run.request for run in world.prompts.runs]) == ([first.id], [second])
    world.prompts.compare("why", PromptSettings(), (HYBRID, SPLIT))
    assert (world.source.abandoned, world.prompts.runs) == ([first.id, second.id], [])
    world.tick()
    world.source.refuse(world.source.commands()[-1][0], Refused("not_permitted", "read-only"))
    world.tick()
    assert world.prompts.verdict() == "! hybrid: refused, read-only"
    world.prompts.send("why", PromptSettings(), snapshot(), world.clock.now)
    assert (world.prompts.verdict(), world.prompts.side_by_side) == ("", False)


def test_locked_nothing_is_sent() -> None:
    world = World(unlocked=False)
    world.prompts.compare("why", PromptSettings(), (HYBRID, SPLIT))
    world.tick()
    assert world.commands() == []
    assert "control is locked" in world.prompts.verdict()


@pytest.mark.parametrize(("temperature", "chosen", "sent"), [(1.0, None, 1), (1.0, 7, 7), (0.0, None, None)])
def test_sampled_answers_are_compared_under_one_seed(temperature: float, chosen: int | None, sent: int | None) -> None:
    world = World()
    world.prompts.compare("why", PromptSettings(temperature=temperature, seed=chosen), (HYBRID, SPLIT))
    world.tick()
    world.prompts.compare("another", PromptSettings(), (SPLIT, HYBRID))  # one at a time: this one is not begun
    for _ in range(2):
        world.apply()
        world.answer([1])
    assert [(asked(request), request.sampling.seed) for request in world.source.generated] == [("why", sent)] * 2


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_a_model_without_a_chat_template_gets_the_text_as_it_is() -> None:
    found = snapshot().model
    assert found is not None
    settings = PromptSettings(system="Be brief.")
    chat = settings.request("why", found)
    assert chat.messages is not None
    assert [(message.role, message.content) for message in chat.messages] == [("system", "Be brief."), ("user", "why")]
    found.has_chat_template = False
    plain = settings.request("why", found)
    assert (plain.messages, plain.prompt) == (None, "Be brief.\n\nwhy")


def test_the_fields_of_the_screen() -> None:
    assert prompt_settings({}) == PromptSettings()
    found = prompt_settings({"temperature": "0.7", "top_p": ".9", "max_tokens": "12", "seed": "5", "system": " x "})
    assert found == PromptSettings("x", 0.7, 0.9, 12, 5)


@pytest.mark.parametrize(
    ("name", "text"),
    [("temperature", "hot"), ("temperature", "nan"), ("top_p", "0"), ("max_tokens", "0"), ("seed", "-1")],
)
def test_a_field_that_cannot_be_sent_says_what_would_do(name: str, text: str) -> None:
    with pytest.raises(FormError, match="number from"):
        prompt_settings({name: text})


def test_two_answers_differ_where_one_goes_on() -> None:
    def run(tokens: list[int]) -> Run:
        made = Run(Generate(id="r", prompt="why"), None, 0.0)
        made.token_ids = tokens
        return made

    assert first_difference(run([1, 2]), run([1, 2])) is None
    assert first_difference(run([1, 2]), run([1, 2, 3])) == 2
    assert first_difference(run([4, 2]), run([1, 2, 3])) == 0


def test_a_change_of_plan_in_the_middle_is_marked_between_its_tokens() -> None:
    """Whatever the daemon last said of its plan; one that has said nothing yet marks nothing."""
    world = World()
    prompts = world.prompts
    begin = moved(snapshot(), partition(decode=160))
    prompts.send("why", PromptSettings(), begin, 0.0)
    run = prompts.run
    assert run is not None
    assert prompts.busy
    for index, said in enumerate((begin, None, begin, *[moved(snapshot(), partition(decode=96))] * 3)):
        delta = Delta(
            id=run.request.id, index=index, token_ids=pack_ids([index]), text="x", at_mono_ns=[index * 5 * 10**7]
        )
        prompts.take(Streamed("another", delta, 0.0), said)
        prompts.take(Streamed(run.request.id, delta, 0.0), said)
    assert (run.tokens, run.changes) == (6, [2])
    drawn = [line.plain for line in gap_strip(run, 0.1, 25, 3)]
    assert drawn[0][5:10] == "╌╌┊╌╌"
