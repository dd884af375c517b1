"""How often things are drawn and asked: charts at the feed's pace, the table once a second, dry runs once an engine."""

from msgspec.structs import replace

from rapidctl.wire import PredictPartition
from support.console import Desk, desk
from support.snapshots import rows, snapshot


def table(at: Desk) -> str:
    """The requests as the overview shows them."""
    return "\n".join(line for line in at.text.splitlines() if " r-8f0" in line)


async def test_the_table_is_drawn_once_a_second_and_the_rest_with_every_snapshot() -> None:
    async with desk() as at:
        tables, screens = [], []
        for tick in range(300, 312):  # three seconds, in which requests come and go
            at.clock.now += 0.25
            await at.show(replace(snapshot(tick), rows=rows(tick)[: 3 + tick % 3]))
            tables.append(table(at))
            screens.append(at.text)
        assert len(set(screens)) == len(screens)
        assert [table for index, table in enumerate(tables) if index and table != tables[index - 1]] == [
            tables[4],
            tables[8],
        ]


async def test_an_operators_order_is_seen_at_once() -> None:
    async with desk() as at:
        before = table(at)
        await at.press("s")
        assert table(at).splitlines() == before.splitlines()[::-1]


async def test_every_step_through_the_past_is_drawn() -> None:
    async with desk() as at:
        seen = [table(at)]
        for _ in range(3):
            await at.press("left_square_bracket")
            seen.append(table(at))
        assert len(set(seen)) == 4


def dry_runs(at: Desk) -> int:
    return sum(isinstance(request, PredictPartition) for _, request, _ in at.source.asked)


async def test_an_engine_that_restarted_is_asked_again_what_if() -> None:
    async with desk() as at:
        await at.press("3")
        asked = dry_runs(at)
        assert asked > 3
        await at.show(snapshot(232))
        assert dry_runs(at) == asked, "the same engine says the same"
        await at.show(replace(snapshot(233, boot=""), partition=None))
        assert dry_runs(at) == asked, "nobody is there to be asked"
        await at.show(snapshot(234, boot="b2"))
        await at.settle()
        assert dry_runs(at) == 2 * asked


async def test_the_override_dialog_asks_the_new_engine_too() -> None:
    async with desk(control=True) as at:
        await at.press("o")
        assert dry_runs(at) == 1
        await at.show(snapshot(232))
        assert dry_runs(at) == 1
        await at.show(snapshot(233, boot="b2"))
        assert dry_runs(at) == 2
