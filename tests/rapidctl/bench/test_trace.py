"""Traces as they are read, scaled, cut and turned into token ids; every bad line is named."""

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapidctl.bench.trace import Part, Prompts, Trace, TraceError, TraceRequest, poisson, read_trace, shape_trace
from rapidctl.wire import unpack_ids
from support.process import ROOT

SLICES = ROOT / "tests/data/traces"
NAMES = ["azure2023_conv", "claude_code_sessions", "mooncake_conversation", "ragpulse"]
GOOD = {"arrival_s": 1.0, "prompt_tokens": 600, "output_tokens": 3}


def slice_path(name: str) -> Path:
    return next(SLICES.glob(f"{name}.jsonl*"))


def rows(name: str) -> list[dict[str, Any]]:
    path = slice_path(name)
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.splitlines()]


def common(a: list[int], b: list[int]) -> int:
    """Length of the common prefix."""
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def ids_of(trace: Trace, vocab_size: int = 32_000, salt: str = "") -> list[list[int]]:
    prompts = Prompts(vocab_size, salt)
    return [unpack_ids(prompts(request)) for request in trace.requests]


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_lengths_and_arrivals_are_the_recorded_ones(name: str) -> None:
    trace, recorded = read_trace(slice_path(name)), rows(name)
    column = "arrival_spread_s" if "arrival_spread_s" in recorded[0] else "arrival_s"
    assert trace.name == name
    assert [(r.prompt_tokens, r.output_tokens) for r in trace.requests] == [
        (row["prompt_tokens"], row["output_tokens"]) for row in recorded
    ]
    assert [r.arrival_s for r in trace.requests] == [row[column] - recorded[0][column] for row in recorded]
    assert [r.index for r in trace.requests] == list(range(len(recorded)))
    assert [sum(part.tokens for part in r.parts) for r in trace.requests] == [r.prompt_tokens for r in trace.requests]


def test_batched_arrivals_can_be_kept() -> None:
    recorded = rows("mooncake_conversation")
    trace = read_trace(slice_path("mooncake_conversation"), spread=False)
    assert [r.arrival_s for r in trace.requests] == [row["arrival_s"] for row in recorded]


def test_lengths_alone_get_poisson_arrivals() -> None:
    path = slice_path("lengths_arxiv_summarization")
    trace = read_trace(path, request_rate=2.0, seed=7)
    assert [r.arrival_s for r in trace.requests] == list(itertools.islice(poisson(2.0, 7), len(trace.requests)))
    assert read_trace(path, request_rate=2.0, seed=7) == trace
    assert read_trace(path, request_rate=2.0, seed=8) != trace
    with pytest.raises(TraceError, match=r"line 1: .*arrival_s.*request rate"):
        read_trace(path)


def test_poisson_arrivals_have_their_rate() -> None:
    arrivals = list(itertools.islice(poisson(4.0, 1), 20_001))
    gaps = [after - before for before, after in itertools.pairwise(arrivals)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(0.25, rel=0.03)
    assert deviation == pytest.approx(mean, rel=0.03)  # exponential


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_tokens": None}, "prompt_tokens"),
        ({"output_tokens": -1}, "output_tokens"),
        ({"prompt_tokens": 0}, "prompt_tokens"),
        ({"output_tokens": 2.5}, "output_tokens"),
        ({"arrival_s": "soon"}, "arrival_s"),
        ({"arrival_s": -1.0}, "arrival_s"),
        ({"arrival_s": 0.5}, "before the line above .*sort the file"),
        ({"hash_ids": [1]}, "1 hash_ids for 2 blocks"),
        ({"segments": [[1, 601]]}, "601 tokens in parts, 600 in the prompt"),
        ({"shared_blocks": 1, "shares_with_turn": 1, "session_id": 3, "turn": 2}, "turn 1, which no earlier line"),
        ({"shared_blocks": 1, "shares_with_turn": 0, "session_id": 3, "turn": 1}, "turn 0, which no earlier line"),
        ({"shared_blocks": 1, "shares_with_turn": 1}, "need session_id and shares_with_turn"),
        ({"shared_blocks": 1, "session_id": 3, "turn": 1}, "need session_id and shares_with_turn"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    bad = {key: value for key, value in (GOOD | change).items() if value is not None}
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(map(json.dumps, [GOOD, GOOD, bad, GOOD])))
    with pytest.raises(TraceError, match=f"bad.jsonl, line 3: .*{message}") as raised:
        read_trace(path)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"prompt_tokens": 1, "output_tokens": 1, "x": "\xff"}', b"[" * 9999])
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\n" + line)
    with pytest.raises(TraceError, match="line 3: "):
        read_trace(path)


@pytest.mark.parametrize("begins", [0, 1])
@pytest.mark.parametrize("nothing", [{}, {"shared_blocks": 0, "shares_with_turn": 0}])
def test_turns_may_be_counted_from_nought_and_the_first_need_not_say_that_it_shares_nothing(
    tmp_path: Path, begins: int, nothing: dict[str, int]
) -> None:
    """What was shared with turn 0 was taken for each prompt's own, and without the columns a first turn was missed."""
    first = GOOD | {"session_id": 1, "turn": begins} | nothing
    second = GOOD | {"session_id": 1, "turn": begins + 1, "shared_blocks": 9, "shares_with_turn": begins}
    path = tmp_path / "t.jsonl"
    path.write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    one, two = ids_of(read_trace(path))
    assert common(one, two) == 9 * 64


def test_a_turn_cannot_share_more_than_the_earlier_one_has(tmp_path: Path) -> None:
    first = GOOD | {"session_id": 1, "turn": 1, "shared_blocks": 0, "shares_with_turn": 0, "prompt_tokens": 64}
    second = first | {"turn": 2, "shared_blocks": 2, "shares_with_turn": 1, "prompt_tokens": 200}
    path = tmp_path / "t.jsonl"
    path.write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    with pytest.raises(TraceError, match="line 2: shares 128 tokens with turn 1, whose prompt is shorter"):
        read_trace(path)


@pytest.mark.parametrize("content", [b"", b"\n\n", None, b"\x1f\x8b\x08\x00 truncated", b"not gzip"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / ("t.jsonl" if not content or content.isspace() else "t.jsonl.gz")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TraceError, match=r"t\.jsonl"):
        read_trace(path)


# --- shapes -------------------------------------------------------------------------------------------------------


def test_a_shape_is_fixed_lengths_and_seeded_arrivals() -> None:
    trace = shape_trace("20000/200@0.8", seed=3, count=50)
    assert {(r.prompt_tokens, r.output_tokens) for r in trace.requests} == {(20_000, 200)}
    assert [r.arrival_s for r in trace.requests] == list(itertools.islice(poisson(0.8, 3), 50))
    assert {r.arrival_s for r in shape_trace("8/2@inf", count=5).requests} == {0.0}
    assert len({r.parts[0].key for r in trace.requests}) == 50


@pytest.mark.parametrize("shape", ["", "8/2", "8@2", "0/2@1", "8/0@1", "8/2@0", "8/2@-1", "8/2@nan", "99999999/1@1"])
def test_what_is_no_shape_is_said(shape: str) -> None:
    with pytest.raises(TraceError, match="shape"):
        shape_trace(shape)


# --- changing -----------------------------------------------------------------------------------------------------


def test_a_window_begins_at_zero_and_keeps_the_gaps() -> None:
    trace = shape_trace("8/2@1", count=100)
    window = trace.window(10.0, 20.0)
    inside = [r for r in trace.requests if 10 <= r.arrival_s < 30]
    assert [r.index for r in window.requests] == [r.index for r in inside]
    assert [r.arrival_s for r in window.requests] == [r.arrival_s - 10 for r in inside]


def test_scaling_changes_arrivals_only() -> None:
    trace = read_trace(slice_path("ragpulse"))
    assert [r.arrival_s for r in trace.scaled(4).requests] == [r.arrival_s / 4 for r in trace.requests]
    assert [r.parts for r in trace.scaled(4).requests] == [r.parts for r in trace.requests]
    with pytest.raises(TraceError, match="cannot scale"):
        trace.scaled(0)


@given(limit=st.integers(1, 30_000))
def test_a_limit_is_kept_and_what_it_did_is_counted(limit: int) -> None:
    trace = read_trace(slice_path("mooncake_conversation"))
    cut, dropped = trace.limited(limit), trace.limited(limit, "drop")
    assert all(r.prompt_tokens + r.output_tokens <= limit for r in (*cut.requests, *dropped.requests))
    assert all(sum(part.tokens for part in r.parts) == r.prompt_tokens for r in cut.requests)
    assert len(cut.requests) + cut.dropped == len(dropped.requests) + dropped.dropped == len(trace.requests)
    assert cut.cut + cut.dropped == dropped.dropped
    whole = {r.index: r for r in trace.requests}
    assert all(r == whole[r.index] for r in dropped.requests)


# --- prompts ------------------------------------------------------------------------------------------------------


def test_prompts_share_what_mooncake_says() -> None:
    recorded = rows("mooncake_conversation")
    ids = ids_of(read_trace(slice_path("mooncake_conversation")))
    for (a, row_a), (b, row_b) in itertools.combinations(zip(ids, recorded, strict=True), 2):
        blocks = common(row_a["hash_ids"], row_b["hash_ids"])
        whole = min(512 * blocks, len(a), len(b))
        assert whole <= common(a, b) <= whole + 2  # a chance id


def test_prompts_share_what_a_session_says() -> None:
    recorded = rows("claude_code_sessions")
    ids = ids_of(read_trace(slice_path("claude_code_sessions")))
    at = {(row["session_id"], row["turn"]): number for number, row in enumerate(recorded)}
    assert any(row["shared_blocks"] for row in recorded)
    for number, row in enumerate(recorded):
        if row["shares_with_turn"]:
            earlier = ids[at[row["session_id"], row["shares_with_turn"]]]
            assert 64 * row["shared_blocks"] <= common(earlier, ids[number]) <= 64 * row["shared_blocks"] + 2
    strangers = [ids[number] for (_, turn), number in at.items() if turn == 1]
    assert common(*strangers) <= 2


def test_prompts_share_leading_segments() -> None:
    recorded = rows("ragpulse")
    ids = ids_of(read_trace(slice_path("ragpulse")))
    for (a, row_a), (b, row_b) in itertools.combinations(zip(ids, recorded, strict=True), 2):
        segments = [[tuple(segment) for segment in row["segments"]] for row in (row_a, row_b)]
        tokens = sum(tokens for _, tokens in segments[0][: common(*segments)])  # type: ignore[arg-type]
        assert tokens <= common(a, b) <= tokens + 2


@pytest.mark.parametrize("factor", [1 / 32, 1 / 7, 3])
def test_resized_prompts_share_as_much(factor: float) -> None:
    trace = read_trace(slice_path("mooncake_conversation"))
    ids, resized = ids_of(trace), ids_of(trace.resized(factor))
    for (a, small_a), (b, small_b) in itertools.combinations(zip(ids, resized, strict=True), 2):
        assert common(small_a, small_b) == pytest.approx(factor * common(a, b), abs=3 * max(1, factor))


def test_equal_trace_and_salt_are_equal_prompts_and_another_salt_shares_nothing() -> None:
    trace = read_trace(slice_path("mooncake_conversation"))
    first, again, salted = ids_of(trace, salt="a"), ids_of(trace, salt="a"), ids_of(trace, salt="b")
    assert first == again
    assert max(common(a, b) for a in first for b in salted) <= 2


@given(
    vocab_size=st.sampled_from([2, 100, 256, 300, 512, 49_152, 128_256]),
    lengths=st.lists(st.integers(1, 700), min_size=1, max_size=5),
)
def test_prompts_have_their_length_and_legal_ids(vocab_size: int, lengths: list[int]) -> None:
    parts = tuple(Part(key, tokens) for key, tokens in enumerate(lengths))
    request = TraceRequest(0, 0.0, sum(lengths), 1, parts)
    prompts = Prompts(vocab_size)
    ids = unpack_ids(prompts(request))
    assert len(ids) == sum(lengths)
    assert max(ids) < min(vocab_size, 65_536)
    assert min(ids) >= (256 if vocab_size >= 512 else 0)
    assert prompts.ids(request).tolist() == ids


def test_unrelated_prompts_share_no_block() -> None:
    trace = shape_trace("4096/1@1", count=20)
    blocks = [tuple(ids[at : at + 16]) for ids in ids_of(trace, 512) for at in range(0, 4096, 16)]
    assert len(set(blocks)) == len(blocks)


def test_a_vocabulary_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot tell prompts apart"):
        Prompts(1)
