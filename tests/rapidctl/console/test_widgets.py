"""What each widget says, as text: no app, no terminal."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from textual.content import Content

from rapidctl.book import LogLine
from rapidctl.console.change import Change
from rapidctl.console.screens.help import key_names
from rapidctl.console.screens.log import log_lines
from rapidctl.console.screens.override import prediction_line
from rapidctl.console.widgets.banner import banner
from rapidctl.console.widgets.brief import brief
from rapidctl.console.widgets.decisions import decisions, last_event
from rapidctl.console.widgets.floor import floor
from rapidctl.console.widgets.keyline import keyline
from rapidctl.console.widgets.kv import kv_lines
from rapidctl.console.widgets.quantiles import latency
from rapidctl.console.widgets.queues import queues
from rapidctl.console.widgets.strip import strip
from rapidctl.console.widgets.units import units
from rapidctl.out import printable
from rapidctl.source import Connection
from rapidctl.wire import LanePlacement, PhaseWork, PlanRequest, Prediction, Quantiles, SetPartition, UnitGroup
from support.console import view
from support.snapshots import ENDPOINT, EPOCH_UNIX_S, event, moved, override_info, partition, placement, snapshot

WIDTHS = [30, 40, 58, 60, 68, 76, 80, 118, 120, 200]
EMPTY = view()


def text(lines: list[Content]) -> list[str]:
    return [line.plain.rstrip() for line in lines]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_banner_is_exactly_as_wide_as_the_screen(width: int) -> None:
    """A model's name in wide letters pushed the countdown of the operator's rights over the edge."""
    wide = snapshot()
    assert wide.model is not None
    wide.model.name = "模型" * 9
    for shown in (view(snapshot()), view(snapshot(), age_s=7), EMPTY, view(wide, unlocked_s=245.0)):
        assert banner(shown, width).cell_length == width


def test_the_banner_keeps_liveness_and_lock_longest() -> None:
    assert banner(view(snapshot(), unlocked_s=245.0), 40).plain == " ● LIVE 0.2 s             CONTROL 4m05s "
    assert banner(view(snapshot(), age_s=7), 30).plain.startswith(" ◌ STALE 7 s")


def test_the_banner_tells_why_there_is_nothing() -> None:
    gone = view(connection=Connection(ENDPOINT, connected=False))
    alien = view(connection=Connection(ENDPOINT, connected=False, problem="it speaks another protocol"))
    mute = view(snapshot(), age_s=7)
    assert "NO DATA reconnecting" in banner(gone, 120).plain
    assert "NO DATA it speaks another protocol" in banner(alien, 120).plain
    assert "STALE 7 s no snapshots come" in banner(mute, 120).plain


def test_the_banner_shouts_when_the_daemon_does_not_serve() -> None:
    loading = replace(snapshot(), state="engine_lost", detail="loading weights 63 %", partition=None, lanes=[], kv=None)
    assert "! ENGINE LOST loading weights 63 %" in banner(view(loading), 120).plain


def test_units_in_full() -> None:
    assert text(units(view(*map(snapshot, range(5))), 68, 7)) == [
        "SPLIT chunk 512  policy auto  epoch 1841   12s old",
        "decode  160 CU █████████████████████████▉░░░░  86% busy   45% of all",
        "prefill 144 CU █████████████████████████████▏  97% busy   46% of all",
        "XCC 0–7 │DDDPPP│DDDPPP│DDDPPP│DDDPPP│DDDPPP│DDDPPP│DDDPPP│DDDPPP│",
        "placed  ✓ overlap 0, 1s ago  D decode P prefill B both · idle",
        "decision 90412: batch 128 needs at least 160 units for ITL 100 ms",
        "time by mode  split 83%  hybrid 17%",
    ]


def test_where_work_is_counted_the_bound_of_each_phase_is_shown() -> None:
    found = snapshot()
    for lane, mfu, mbu in zip(found.lanes, (0.03, 0.44), (0.71, None), strict=True):
        lane.work = [PhaseWork(phase=lane.lane, n=4, mfu=mfu, mbu=mbu, flops_total=1.0, bytes_total=1.0)]
    _, decode, prefill, *_ = text(units(view(found), 68, 7))
    assert decode.endswith("77% busy   41% of all  MBU  71%")
    assert prefill.endswith("97% busy   46% of all  MFU  44%")


def test_units_of_a_laptop_in_brief() -> None:
    info = partition(units=2, decode=1, profile=None)
    assert text(units(view(moved(snapshot(), info)), 76, 3)) == [
        "prefill 1 core ██████▊  97% busy  units   0:D  1:P",
        "decode  1 core █████▍░  77% busy  placed  ✓ overlap 0, 0s ago",
        "no profile: rapidd calibrate",
    ]


def test_where_the_device_tells_what_holds_its_units_the_map_is_by_that() -> None:
    found = moved(snapshot(), partition())
    assert text(units(view(found), 68, 7))[3] == "XCC 0–7 │DDDPPP│DDDPPP│DDDPPP│DDDPPP│DDDPPP│DDDPPP│DDDPPP│DDDPPP│"
    assert text(brief(view(found), 60))[0] == " SPLIT auto epoch 1841  DDP│DDP│DDP│DDP│DDP│DDP│DDP│DDP"
    assert text(units(view(found), 76, 3))[0].endswith("XCC 0–7 │DDP│DDP│DDP│DDP│DDP│DDP│DDP│DDP│"), "at 80 columns"
    assert "units   0│DDDD" in text(units(view(found), 70, 3))[0], "too narrow for eight: by number"


def test_elsewhere_the_map_is_by_number() -> None:
    info = replace(partition(), groups=None)
    shown = view(moved(snapshot(), info))
    assert text(units(shown, 68, 7))[3] == "units   0│DDDDDDDDDDDDDDDDDDDDDDDDDDDDDPPPPPPPPPPPPPPPPPPPPPPPPP│303"
    assert text(brief(shown, 60))[0] == " SPLIT auto epoch 1841  DDDDDDDDDDDDDDDDDDPPPPPPPPPPPPPPPPP"
    assert text(floor(info, 30, 20))[:2] == ["   0 DDDDDDDD DDDDDDDD", "  16 DDDDDDDD DDDDDDDD"]


def test_the_floor_is_a_line_an_area_with_gaps_between_groups() -> None:
    info = partition()
    xcc = "DDDDDPPPPP DDDDDPPPPP DDDDDPPPP DDDDDPPPP"
    assert text(floor(info, 116, 6)) == [f"XCC {i} {xcc}   XCC {i + 1} {xcc}" for i in range(0, 8, 2)]
    assert text(floor(info, 76, 8)) == [f"XCC {i} {xcc}" for i in range(8)]
    tight = xcc.replace(" ", "")
    assert text(floor(info, 44, 8))[0] == f"XCC 0 {tight}", "too narrow for the gaps"


def test_areas_are_squeezed_before_any_is_left_out() -> None:
    info = partition()
    assert text(floor(info, 76, 3)) == [
        "XCC 0 DDDDDDDDDPPPPPPPP   XCC 1 DDDDDDDDDPPPPPPPP   XCC 2 DDDDDDDDDPPPPPPPP",
        "XCC 3 DDDDDDDDDPPPPPPPP   XCC 4 DDDDDDDDDPPPPPPPP   XCC 5 DDDDDDDDDPPPPPPPP",
        "XCC 6 DDDDDDDDDPPPPPPPP   XCC 7 DDDDDDDDDPPPPPPPP",
    ]
    too_small = text(floor(info, 30, 2))
    assert too_small == ["   0 DDDDDDDD DDDDDDDD", "and 288 units more"], "by number, and the rest is counted"


def test_threads_of_a_core_stand_together() -> None:
    cores = [UnitGroup(name=f"core {i}", within="socket 0", units=(i, i + 8)) for i in range(8)]
    info = replace(partition(units=16, decode=4), groups=cores)
    assert text(floor(info, 60, 6)) == ["socket 0 DP DP DP DP PP PP PP PP"]
    single = replace(info, groups=[UnitGroup(name=f"core {i}", within="socket 0", units=(i,)) for i in range(16)])
    assert text(floor(single, 60, 6)) == ["socket 0 DDDDPPPPPPPPPPPP"]


def test_units_have_the_numbers_that_the_system_gave_them() -> None:
    two = [UnitGroup(name=f"core {i}", within="socket 0", units=(i,)) for i in (6, 7)]
    lanes = [LanePlacement(lane=name, units=[unit], measured=True) for name, unit in (("decode", 6), ("prefill", 7))]  # type: ignore[arg-type]
    info = partition(units=2, decode=1)
    info = replace(info, groups=two, measured=replace(placement(2, 1), lanes=lanes))
    assert text(units(view(moved(snapshot(), info)), 68, 7))[3] == "units   6:D  7:P"


def test_a_placement_nobody_measured_is_not_drawn() -> None:
    info = replace(partition(), measured=None)
    drawn = "\n".join(text(units(view(moved(snapshot(), info)), 68, 7)))
    assert "placement not measured" in drawn
    assert "DDD" not in drawn


def test_overlap_in_a_split_is_marked() -> None:
    info = replace(partition(), measured=placement(304, 160, overlap=4))
    assert "placed  ! overlap 4" in "\n".join(text(units(view(moved(snapshot(), info)), 68, 7)))


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (partition(override=override_info()), "OVERRIDE by ana, 4m12s left, guarded: decode stalls"),
        (partition(override=override_info(None)), "OVERRIDE by ana, until released, guarded: decode stalls"),
        (partition(unsupported="no CPU affinity here", mode="shared"), "no split here: no CPU affinity here"),
        (partition(profile=None), "no profile: rapidd calibrate"),
    ],
    ids=["override", "for good", "unsupported", "no profile"],
)
def test_the_most_pressing_thing_has_the_last_line(info, expected: str) -> None:  # type: ignore[no-untyped-def]
    assert text(units(view(moved(snapshot(), info)), 68, 7))[-1] == expected
    assert text(units(view(moved(snapshot(), info)), 76, 3))[-1] == expected


def test_a_command_under_way_is_more_pressing_than_all() -> None:
    change = Change(1, SetPartition(call=0, plan=PlanRequest(mode="shared")), "shared", 0.0)
    shown = view(moved(snapshot(), partition(override=override_info())), change=change)
    assert text(units(shown, 68, 7))[-1] == "SENT shared: sent, no answer yet"


def test_latency_carries_n_and_says_what_was_missed() -> None:
    assert text(latency(view(snapshot()), 48, 7)) == [
        "         n    p50    p95    p99    SLO   met",
        "TTFT   726    212    424    636   1s/k   98% ✓",
        "ITL 21 840     38     75    113    100   87% !",
        "TPOT   700     33     66     99      —     —",
        "e2e    700   6100  12200  18300      —     —",
        "req/s in 12.2  out 11.9  good 10.2       86% !",
        "tokens/s  out 3 812  prompt 14 210",
    ]


def test_a_percentile_of_nothing_is_unknown() -> None:
    found = snapshot()
    found.latency = [replace(one, ttft_s=Quantiles(n=0), ttft_met=None) for one in found.latency]
    assert text(latency(view(found), 48, 7))[1] == "TTFT     0      —      —      —   1s/k     —"


def test_queues_and_cache() -> None:
    shown = view(*map(snapshot, range(240)))
    assert text(queues(shown, 32, 6)) == [
        "arrived 12.2/s  finished 11.9/s",
        "waiting       2 ▂▃▄▃▂▂▃▄▃▁ 0–8",
        "prefilling    3 ▃▃▃▃▃▃▃▃▃▃ 0–8",
        "decoding    111 ██▇▆▇██▇▆▇ 0–128",
        "preempt/min 0  queued 12.1k tok",
        "refused 0  failed 0  cancelled 1",
    ]
    assert text(kv_lines(shown, 32, 6)) == [
        "used  71% ███████████████▋░░░░░░",
        "blocks 81 920 / 115 200 (16 tok)",
        "cached 22 400  evicted/min 11",
        "prefix hit 34% /60 s  34% life",
        "headroom full in ≈ 22s",
        "memory 166.0 of 192.0 GiB",
    ]


def test_a_nearly_full_cache_is_marked() -> None:
    found = snapshot()
    assert found.kv is not None
    full = replace(found, kv=replace(found.kv, blocks_used=115_000, headroom_s=None))
    assert text(kv_lines(view(full), 32, 6))[0].startswith("used 100% ! ")
    assert "headroom not filling" in text(kv_lines(view(full), 32, 6))


def test_decisions_newest_first() -> None:
    assert text(decisions(view(snapshot()), 60, 2)) == [
        "07:59:48 guard    released: ITL p95 162 ms for 10 s",
        "07:59:20 operator ana: split decode 200, ttl 5m, was 160",
    ]
    assert text(decisions(view(replace(snapshot(), decisions=[])), 60, 2)) == ["none yet"]


def test_the_brief_lines_fit_and_carry_the_essentials() -> None:
    shown = view(*map(snapshot, range(5)))
    shown.book.add_event(event(4, "warning", "placement overlap 4 CU"))
    assert text(brief(shown, 60)) == [
        " SPLIT auto epoch 1841  DDP│DDP│DDP│DDP│DDP│DDP│DDP│DDP",
        " prefill  97% ████████████████████████████████████▉░ 144",
        " decode   86% ████████████████████████████████▊░░░░░ 160",
        " TTFT p50/95/99 212/424/636 ms  n=726  98% met",
        " ITL  p50/95/99 45/89/134 ms  n=21840  87% met",
        " 5 waiting 3 prefilling 115 decoding  KV 71%",
        " · 08:00:04 warning placement overlap 4 CU  (5 log)",
    ]
    assert last_event(view(snapshot()), 60).plain == " no events yet  (5 log)"
    for width in (30, 40, 60):
        told = last_event(shown, width).plain
        assert told.endswith("  (5 log)")
        assert len(told) <= width


def test_without_an_engine_nothing_is_zero() -> None:
    shown = view(replace(snapshot(), partition=None, lanes=[], kv=None, latency=[], device=None, model=None))
    for lines in (units(shown, 68, 7), latency(shown, 48, 7), kv_lines(shown, 32, 6), brief(shown, 60)):
        assert all("0%" not in line and " 0 " not in line for line in text(lines))
    for lines in (units(EMPTY, 68, 7), latency(EMPTY, 48, 7), kv_lines(EMPTY, 32, 6), queues(EMPTY, 32, 6)):
        assert len(lines) == 1


def test_the_slo_line_stays_visible_between_the_bars() -> None:
    assert text(strip([0.05, 0.12, None, 0.2], 0.15, 4, "", limit=0.1)) == [
        " 150┤ ▂ !",
        " SLO┼╌█╌█",
        "    │▃█ █",
        "   0┤██ █",
    ]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Prediction(call=0, legal=True, note="no profile: rapidd calibrate"), "dry run: no profile: rapidd calibrate"),
        (Prediction(call=0, legal=False, note="multiples of 16"), "! not legal: multiples of 16"),
        (
            Prediction(call=0, legal=True, note="", itl_p95_s=0.044, breaches_slo=True),
            "dry run (2027-01-02): ITL p95 75 → 44 ms, TTFT p95 424 → — ms, prefill — tok/s  ! breaches the SLO",
        ),
    ],
    ids=["unknown", "illegal", "breach"],
)
def test_predictions(found: Prediction, expected: str) -> None:
    assert prediction_line(found, partition(), view(snapshot()).latency).plain == expected


def test_log_lines_name_the_epoch() -> None:
    shown = view(snapshot())
    shown.book.add_event(event(4, "applied", "split 200/104", epoch=1842))
    assert text(log_lines(shown.book.log[-1], 80)) == ["08:00:04   applied       split 200/104 [epoch 1842]"]


@given(words=st.text(max_size=300), width=st.integers(1, 130))
@settings(max_examples=60, deadline=None)
def test_a_long_line_of_the_log_goes_on_below_and_loses_no_word(words: str, width: int) -> None:
    lines = log_lines(LogLine(EPOCH_UNIX_S, "info", "decision", words), width)
    assert all(one.cell_length <= max(width, 27) for one in lines), "11 cells of time and mark, and 16 of text"
    shown = "".join("".join(one.plain[11:] for one in lines).split())
    assert shown == "".join(f"decision{printable(words)}".split())


def test_keys_are_written_as_people_write_them() -> None:
    assert key_names("question_mark,ctrl+o,escape") == "? ^o esc"


KEYS = st.lists(st.tuples(st.text("abc^", min_size=1, max_size=4), st.text("abc ", max_size=12)), max_size=9)


@given(KEYS, st.integers(0, 90))
def test_the_key_line_leaves_out_whole_pairs_of_least_importance(keys: list[tuple[str, str]], width: int) -> None:
    shown = keyline(tuple(keys), width).plain
    assert len(shown.removesuffix(" ")) <= width
    drawn = [f" {key} {meaning} " for key, meaning in keys]
    fitting: list[str] = []
    for pair in drawn:
        if len("".join([*fitting, pair])) - 1 <= width:
            fitting.append(pair)
    assert shown == "".join(fitting)


def test_the_key_line_ends_with_the_screen() -> None:
    assert keyline((("?", "help"), ("q", "quit")), 14).plain == " ? help "
    assert keyline((("?", "help"), ("q", "quit")), 15).plain == " ? help  q quit "
