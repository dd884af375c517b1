"""Stop strings and hold-back, against a character-by-character oracle."""

from hypothesis import given
from hypothesis import strategies as st

from rapidd.front.streams import OutputText, StopFilter
from rapidd.model.tokenizer import byte_tokenizer

ALPHABET = "abé"
TOKENIZER = byte_tokenizer(256)
texts = st.text(ALPHABET, max_size=24)
stop_lists = st.lists(st.text(ALPHABET, min_size=1, max_size=4), max_size=4)


def oracle(text: str, stops: list[str], armed_from: int) -> tuple[str, str | None]:
    """What may be shown of ``text``, and the first stop string to complete at or after character ``armed_from``."""
    for end in range(armed_from + 1, len(text) + 1):
        matches = [stop for stop in stops if text[:end].endswith(stop)]
        if matches:
            stop = max(matches, key=len)
            return text[: end - len(stop)], stop
    return text, None


@st.composite
def split_texts(draw: st.DrawFn) -> list[str]:
    text = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(split_texts(), stop_lists, st.integers(0, 5))
def test_the_split_does_not_matter_and_no_stop_is_ever_begun(pieces: list[str], stops: list[str], unarmed: int) -> None:
    armed_from = len("".join(pieces[:unarmed]))
    expected, expected_stop = oracle("".join(pieces), stops, armed_from)
    stop_filter = StopFilter(stops)
    shown, stop = "", None
    for number, piece in enumerate(pieces):
        text, stop = stop_filter.push(piece, armed=number >= unarmed)
        shown += text
        assert expected.startswith(shown)
        if stop is not None:
            break
    else:
        shown += stop_filter.flush()
    assert (shown, stop) == (expected, expected_stop)


@given(texts, stop_lists)
def test_text_is_held_back_only_while_it_may_become_a_stop(text: str, stops: list[str]) -> None:
    stop_filter = StopFilter(stops)
    shown, stop = stop_filter.push(text)
    if stop is None:
        held = text.removeprefix(shown)
        assert held == "" or any(len(held) < len(stop) and stop.startswith(held) for stop in stops)


@given(texts, stop_lists, st.integers(0, 12))
def test_output_text_stops_where_the_oracle_does_on_split_characters(
    text: str, stops: list[str], min_tokens: int
) -> None:
    """One token a byte, so "é" falls into two; a stop counts from the token that brings min_tokens on."""
    data = text.encode()
    armed_from = len(data[: max(0, min_tokens - 1)].decode(errors="ignore"))
    expected, expected_stop = oracle(text, stops, armed_from)
    output = OutputText(TOKENIZER.detokenizer(), stops, min_tokens)
    shown, stop = "", None
    lengths = []
    for byte in data:
        piece, stop = output.push(byte)
        shown += piece
        lengths.append(len(shown))
        if stop is not None:
            break
    else:
        shown += output.close()
    assert (shown, stop) == (expected, expected_stop)
    assert output.whole() == shown
    for num_ids, length in enumerate(lengths[:-1], start=1):
        assert output.after(num_ids) == shown[length:]


def test_of_two_stops_that_complete_together_the_longer_wins() -> None:
    assert StopFilter(["b", "ab"]).push("xab") == ("x", "ab")


def test_the_first_to_complete_wins_even_inside_a_longer_one() -> None:
    assert StopFilter(["abc", "b"]).push("xabc") == ("xa", "b")
