"""The screens beside the overview, the daemons beside the first one, and how all of them are drawn."""

import pytest
from msgspec.structs import replace

from rapidctl.console.app import Console
from rapidctl.console.ascii import plain
from rapidctl.console.host import Host
from rapidctl.console.screens.fleet import COLUMNS, fitting, fleet_line
from rapidctl.console.theme import THEMES
from rapidctl.console.view import Fleet
from rapidctl.console.whatif import Guess, WhatIf, knee, plans
from rapidctl.console.widgets.area import area
from rapidctl.console.widgets.details import ahead, details
from rapidctl.console.widgets.guesses import guess_lines, measured_lines
from rapidctl.console.widgets.rows import AllRows
from rapidctl.demo.source import DemoSource
from rapidctl.settings import Settings
from rapidctl.source import Answer, Connection
from rapidctl.wire import GetRequests, PlanRequest, Prediction, PredictPartition, ProfileReply, RequestList
from support import messages, samples
from support.console import Clock, Desk, ScriptedSource, desk, host_of, view, wall
from support.snapshots import ENDPOINT, moved, partition, rows, snapshot

# --- requests ---------------------------------------------------------------------------------------------------------


async def test_every_request_is_asked_for_once_a_second_and_one_can_be_read() -> None:
    async with desk() as at:
        await at.press("2")
        await at.later(1)
        asked = [ticket for ticket, request, _ in at.source.asked if isinstance(request, GetRequests)]
        many = [replace(rows(0)[0], id=f"r-{number:03d}", age_s=float(number)) for number in range(200)]
        at.source.put(Answer(asked[-1], RequestList(call=0, rows=many)))
        await at.settle()
        assert "shown 200" in at.text
        await at.press("G")
        assert at.app.screen.query_one(AllRows).selected == "r-000"
        assert "DETAILS r-000" in at.text
        assert "411 of at most 512 tokens" in at.text
        await at.press("slash", *"id:r-01", "enter")
        assert "shown 10" in at.text
        await at.press("escape")
        assert "shown 200" in at.text
        await at.press("escape")
        assert at.app.current_mode == "overview"


async def test_enter_on_the_overview_leads_to_the_requests() -> None:
    async with desk() as at:
        await at.press("j", "enter")
        assert at.app.current_mode == "requests"


def test_details_tell_how_far_a_request_is_and_what_it_missed() -> None:
    waiting, decoding = rows(0)[4], rows(0)[1]
    slo = snapshot().slo
    text = [line.plain for line in details(replace(decoding, itl_p95_s=0.2, ttft_s=0.3), None, slo, 100)]
    assert text[2].startswith("prompt   ████████████████████████ 100%  4 096 of 4 096 tokens computed, 1 024 of them")
    assert text[4:6] == ["TTFT     300 ms  SLO 4096 ✓", "ITL p95  200 ms  SLO 100 ! over"]
    assert "2 wait before it" in details(waiting, 2, slo, 100)[1].plain
    assert details(waiting, None, None, 100)[4].plain == "TTFT     — ms"


def test_the_queue_is_by_priority_then_by_age() -> None:
    one = replace(rows(0)[4], id="a", age_s=5.0)
    queue = [one, replace(one, id="b", age_s=9.0), replace(one, id="c", age_s=1.0, priority=5), rows(0)[0]]
    assert [ahead(row, queue) for row in queue[:3]] == [2, 1, 0]


# --- the partition --------------------------------------------------------------------------------------------------


def predicted(request: PredictPartition) -> Prediction:
    """Decode gains from units up to 160 of them."""
    units = request.plan.decode_units or 304
    return Prediction(
        call=0, legal=request.plan.mode != "serial", note="chunk all", prefill_units=304 - units,
        itl_p95_s=0.02 * max(1.0, 160 / units), ttft_p95_s=0.9, prefill_tokens_per_s=1000.0, breaches_slo=units < 100,
    )  # fmt: skip


async def test_dry_runs_of_every_plan_are_asked_for_on_sight_and_again_on_demand() -> None:
    async with desk() as at:
        at.source.predict = predicted
        await at.press("3")
        await at.settle()
        for words in ("▸ split 160/144", "◂ knee", "! missed", "not legal: chunk all", "PREDICTED / MEASURED"):
            assert words in at.text
        asked = len(at.source.asked)
        await at.press("P")
        assert len(at.source.asked) == 2 * asked
        assert at.source.commands() == [], "a dry run needs no rights"


async def test_on_a_small_terminal_the_plan_in_force_is_in_sight_and_the_rest_a_key_away() -> None:
    async with desk(80, 24) as at:
        at.source.predict = predicted
        await at.press("3")
        await at.until("▸ split 160/144")  # scrolled to by a timer
        assert "plan, 7 more" in at.text
        assert "not legal: chunk all" not in at.text
        await at.press("g")
        assert "not legal: chunk all" in at.text, "serial, the first one"
        await at.press("G")
        await at.settle()
        assert "split 272/32" in at.text


async def test_without_a_profile_the_reason_stands_in_place_of_figures() -> None:
    async with desk() as at:
        await at.press("3")
        await at.settle()
        assert "no figures: no profile: rapidd calibrate" in at.text


def test_what_is_predicted_of_an_idle_daemon_is_shown_without_the_rest() -> None:
    """Without rows there is no ITL to predict, and the other figures were not shown either."""
    whatif = WhatIf()
    tickets = iter(range(100))
    whatif.ask(partition(), lambda _: next(tickets), 0.0)
    idle = Prediction(
        call=0, legal=True, note="with 0 rows", ttft_p95_s=0.02, prefill_tokens_per_s=1000.0, breaches_slo=False
    )
    assert whatif.answered(Answer(0, idle))
    table, lines = guess_lines(whatif, partition(), 70)
    assert (table, lines[0].plain.split()) == (True, ["serial", "—", "20", "1", "000", "✓", "met"])


def test_the_plans_asked_about_are_few_and_hold_the_one_in_force() -> None:
    info = partition(decode=48)
    found = [plan.decode_units for plan in plans(info) if plan.mode == "split"]
    assert len(found) <= 10
    assert found == sorted(found)  # type: ignore[type-var]
    assert {32, 48, 272} <= set(found)
    assert [plan.mode for plan in plans(partition(unsupported="no"))] == ["serial", "hybrid", "shared"]
    shared = partition(mode="shared", decode=304)
    assert {plan.decode_units for plan in plans(shared) if plan.mode == "split"} <= set(shared.splits)


def test_the_knee_is_where_more_units_hardly_help() -> None:
    guesses = [
        Guess(plan, predicted(PredictPartition(call=0, plan=plan)))
        for plan in (PlanRequest(mode="split", decode_units=units) for units in (64, 128, 144, 160, 200))
    ]
    assert knee(guesses) == 160
    assert knee(guesses[:1]) is None
    assert knee(guesses[2:4]) == 160
    assert knee([Guess(guess.plan, None) for guess in guesses]) is None


def test_predicted_and_measured_stand_side_by_side() -> None:
    whatif = WhatIf()
    tickets = iter(range(100))
    whatif.ask(partition(), lambda _: next(tickets), 1000.0)
    for ticket, plan in enumerate(plans(partition())):
        whatif.answered(Answer(ticket, predicted(PredictPartition(call=0, plan=plan))))
    found = snapshot()
    found.latency = [
        replace(window, itl_s=replace(window.itl_s, p95=0.04), ttft_s=replace(window.ttft_s, p95=0.45))
        for window in found.latency
    ]
    text = [line.plain for line in measured_lines(view(found), whatif, 60)]
    assert text[1].split() == ["ITL", "p95", "ms", "20", "40", "2.00"]
    assert text[2].split() == ["TTFT", "p95", "ms", "900", "450", "0.50"]
    assert text[-1] == "profile  2027-01-02"


def test_a_profile_tells_its_error_its_corrections_and_its_knee() -> None:
    info = replace(partition(), calibration=samples.CALIBRATION)
    whatif = WhatIf()
    tickets = iter(range(100))
    whatif.ask(info, lambda _: next(tickets), 1000.0)
    reply = messages.REPLIES["profile"]
    assert isinstance(reply, ProfileReply)
    assert whatif.answered(Answer(len(plans(info)), reply))
    assert not whatif.answered(Answer(99, reply)), "what somebody else asked"
    text = [line.plain for line in measured_lines(view(moved(snapshot(), info)), whatif, 100)]
    assert any(line.startswith(f"profile  {samples.CALIBRATION.name}, off by ") for line in text)
    for found in samples.CALIBRATION.corrections:
        assert any(f"{found.mode} {found.kind}: took ×{found.factor:.2f}" in line for line in text)
    assert "gaps count ×1.12 to keep late ones at 2%, n=4096" in text
    assert text[-1].startswith("rows→fewest units for ")


def test_units_over_time_are_stacked_and_unknown_where_nothing_was_seen() -> None:
    history = [moved(snapshot(tick), partition(decode=152)) for tick in range(400)]
    history += [moved(snapshot(tick), partition(decode=304, mode="shared")) for tick in range(400, 800)]
    text = [line.plain for line in area(view(*history), 42, 6)]
    assert text[0].startswith(" 304 ┤")
    assert text[4].split() == ["mode", "//bb"]
    assert text[0][6:].split() == ["▒▒"]
    assert text[3][6:].split() == ["██▒▒"]
    assert text[3][6:30].strip() == ""
    assert text[5].split() == ["07:33:19", "08:03:19"]


# --- device and daemons ---------------------------------------------------------------------------------------------


async def test_sensors_are_drawn_and_those_that_are_missing_are_said() -> None:
    async with desk() as at:
        await at.press("6")
        for words in ("612 of 750 W", "61 °C", "2.10 GHz", "busy  97%"):
            assert words in at.text
        found = snapshot(240)
        assert found.device is not None
        found.device = replace(found.device, power_w=None)
        at.clock.now += 400
        await at.show(found)
        assert "this system has no such sensor" in at.text


async def test_every_daemon_has_its_own_liveness_and_one_can_be_looked_at() -> None:
    clock = Clock()
    first, second, third = ScriptedSource(clock), ScriptedSource(clock), ScriptedSource(clock)
    hosts = [host_of(first, name="lab"), host_of(second, name="edge"), host_of(third, name="new")]
    app = Console(hosts, clock=clock, wall=wall)
    async with app.run_test(size=(120, 36)) as pilot:
        at = Desk(app, first, clock, pilot)
        first.feed(snapshot(1))
        second.feed(snapshot(1, info=partition(epoch=77, mode="shared", decode=304)))
        await at.settle()
        assert "lab" in at.text.splitlines()[0]
        clock.now += 5
        first.feed(snapshot(21))
        second.put(Connection(ENDPOINT, connected=False))
        await at.press("7")
        lines = at.text.splitlines()
        assert "● live" in lines[3]
        assert "◌ STALE 5 s" in lines[4]
        assert "◌ no data" in lines[5]
        await at.press("j", "j", "enter")
        assert "edge ◌ STALE" in at.text
        assert "epoch 77" in at.text
        await at.press("N")
        assert "new ◌ NO DATA" in at.text
        await at.press("N")
        assert "lab ● LIVE" in at.text


async def test_daemons_of_one_name_are_told_apart() -> None:
    """What a variable names is called default, and so may a context be: keys never came past the first of the two, and
    to choose the second looked at the first."""
    clock = Clock()
    first, second = ScriptedSource(clock), ScriptedSource(clock)
    app = Console([host_of(first, name="default"), host_of(second, name="default")], clock=clock, wall=wall)
    async with app.run_test(size=(120, 36)) as pilot:
        at = Desk(app, first, clock, pilot)
        await at.press("7", "j", "j", "enter")
        assert app.host.source is second
        await at.press("7", "k", "enter")
        assert app.host.source is first
        await at.press("7", "y")
        assert app.clipboard == "rapidctl hosts"


@pytest.mark.parametrize("width", [12, 36, 56, 76, 116, 156])
def test_the_fleet_table_keeps_what_fits_and_says_most_with_least(width: int) -> None:
    columns = fitting(width)
    line = fleet_line(view_fleet(), 60.0, columns)
    assert line.cell_length <= width + 1 or columns == [COLUMNS[0]]
    kept = {column.title for column in columns}
    assert all(column.title in kept for column in COLUMNS if column.rank < max(found.rank for found in columns))
    if width >= 76:
        assert {"FEED", "MODE", "BUSY D/P", "TTFT95", "ITL95", "MET"} <= kept
        assert "split 160/144" in line.plain


def view_fleet() -> Fleet:
    """A daemon's line as the console makes it."""
    clock = Clock()
    host = host_of(ScriptedSource(clock), name="lab")
    host.book.add(snapshot(1), clock.now)
    return host.fleet(current=True)


async def test_leaving_a_daemon_gives_its_rights_back() -> None:
    clock = Clock()
    first, second = ScriptedSource(clock), ScriptedSource(clock)
    app = Console([host_of(first, name="a", control=True), host_of(second, name="b")], clock=clock, wall=wall)
    async with app.run_test(size=(120, 36)) as pilot:
        at = Desk(app, first, clock, pilot)
        await at.settle()
        assert "CONTROL" in at.text
        await at.press("N")
        assert "read-only" in at.text
        await at.press("N")
        assert "read-only" in at.text
        assert first.locked == 1


async def test_the_make_believe_daemon_is_said_to_be_one_and_can_be_steered() -> None:
    clock = Clock()
    source = DemoSource(clock, wall)
    host = Host(source, "demo", clock=clock, wall=wall, kind="demo", control=True)
    app = Console([host], clock=clock, wall=wall)
    async with app.run_test(size=(120, 36)) as pilot:
        at = Desk(app, source, clock, pilot)  # type: ignore[arg-type]
        await at.settle()
        assert "DEMO: made-up figures" in at.text
        await at.press("o")
        at.app.screen.query_one("#mode").focus()
        await at.press("left")
        assert "(•) shared" in at.text
        at.app.screen.query_one("#cancel").focus()
        await at.press("y")
        await at.later(1)
        assert "APPLIED: applied as epoch 1; measured: decode on 304" in at.text
        await at.press("escape")
        assert "OVERRIDE" in at.text


# --- how it is drawn ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(THEMES))
async def test_every_theme_draws_every_screen(name: str) -> None:
    async with desk(settings=Settings(theme=name)) as at:  # type: ignore[arg-type]
        for key in "1234567"[:: 1 if name == "ansi" else 3]:
            await at.press(key)
            assert "LIVE" in at.text
            await at.press("escape")


async def test_in_16_colours_only_the_terminals_own_are_used() -> None:
    async with desk(settings=Settings(theme="ansi")) as at:
        for strip in at.app.screen._compositor.render_strips():
            for _, style, _ in strip:
                for colour in () if style is None else (style.color, style.bgcolor):
                    assert colour is None or colour.number is None or colour.number < 16
                    assert colour is None or colour.triplet is None, colour


async def test_in_ascii_nothing_else_is_drawn_and_no_column_moves() -> None:
    for key in "123":
        drawn = []
        for ascii_only in (False, True):
            async with desk(settings=Settings(ascii=ascii_only)) as at:
                await at.press(key)
                drawn.append(at.text)
        assert drawn[1].isascii()
        assert plain(drawn[0]) == drawn[1]


def test_ascii_keeps_the_number_of_cells() -> None:
    assert plain("│●│ é 名 ✓ ×") == "|*| e ?? v x"


async def test_keys_can_be_other_ones_and_help_says_which() -> None:
    async with desk(120, 150, settings=Settings(keys={"part.override": "O", "app.log": "f5"}), control=True) as at:
        await at.press("o")
        assert "OVERRIDE CU PARTITION" not in at.text
        await at.press("question_mark")
        assert any("O " in line and "override the partition" in line for line in at.text.splitlines())
        await at.press("escape", "O")
        assert "OVERRIDE CU PARTITION" in at.text


async def test_a_panel_can_have_the_screen_for_itself() -> None:
    async with desk() as at:
        await at.press("M")
        assert "REQUESTS 137" in at.text
        assert "KV CACHE" not in at.text
        await at.press("M")
        assert "KV CACHE" in at.text


async def test_the_pace_of_drawing_has_ends() -> None:
    async with desk() as at:
        await at.press("5", "plus", "plus", "plus")
        assert at.app.rate_hz == 10.0
        await at.press(*["minus"] * 9)
        assert at.app.rate_hz == 0.5
        assert at.app.current_mode == "log"
