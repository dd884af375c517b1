"""The picture: well-formed, inside its frame, and true at the points that can be named."""

import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from rapidctl.bench.daemon import Sample
from rapidctl.bench.svg import MODE_COLORS, POINTS, Drawn, picture, thinned

LATENCIES = st.lists(st.floats(0, 1e4), max_size=30).map(sorted)
NS = "{http://www.w3.org/2000/svg}"


def sample(at_s: float, mode: str | None, decode: int = 8, prefill: int = 8, running: int = 1) -> Sample:
    return Sample(at_s, mode, decode, prefill, 0.5, 0.5, 0, 0, running)


@given(
    runs=st.lists(
        st.builds(
            Drawn,
            label=st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"], max_codepoint=0xFFFD)),
            ttft_s=LATENCIES,
            itl_s=LATENCIES,
            samples=st.lists(
                st.builds(
                    sample,
                    st.floats(-5, 100),
                    st.sampled_from([*MODE_COLORS, None]),
                    st.integers(0, 8),
                    st.integers(0, 8),
                ),
                max_size=9,
            ).map(lambda found: sorted(found, key=lambda one: one.at_s)),
        ),
        max_size=4,
    )
)
def test_everything_is_inside_the_frame(runs: list[Drawn]) -> None:
    root = ElementTree.fromstring(picture(runs))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for line in root.iter(f"{NS}polyline"):
        for x, y in (map(float, point.split(",")) for point in line.attrib["points"].split()):
            assert 0 <= x <= width
            assert 0 <= y <= height
    for box in root.iter(f"{NS}rect"):
        if "%" not in box.attrib["width"]:
            assert 0 <= float(box.attrib["x"]) <= float(box.attrib["x"]) + float(box.attrib["width"]) <= width + 0.1
            assert 0 <= float(box.attrib["y"]) <= height


def test_a_decade_is_a_quarter_of_the_axis_and_the_median_half_of_its_height() -> None:
    root = ElementTree.fromstring(picture([Drawn("a", [0.1, 1.0], [], [])]))
    line = next(root.iter(f"{NS}polyline"))
    (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in line.attrib["points"].split())
    assert (x1, x2) == (60 + 840 / 4, 60 + 840 / 2)
    assert (y1, y2) == (125, 30)


def test_a_split_is_drawn_as_high_as_its_share_of_units_and_idle_time_is_white() -> None:
    samples = [
        sample(0, "split", 4, 12),
        sample(5, "hybrid", 16, 16),
        sample(10, "hybrid", running=0),
        sample(15, None),
    ]
    root = ElementTree.fromstring(picture([Drawn("a", [], [], samples)]))
    boxes = [box.attrib for box in root.iter(f"{NS}rect")][-2:]
    assert [box["fill"] for box in boxes] == [MODE_COLORS["split"], MODE_COLORS["hybrid"]]
    assert [float(box["width"]) for box in boxes] == [840 / 3] * 2
    assert float(boxes[0]["height"]) * 4 == float(boxes[1]["height"])


def test_labels_are_escaped() -> None:
    text = picture([Drawn('<b>&"', [], [], [])])
    assert "&lt;b&gt;&amp;" in text
    assert re.search(r"<b>", text) is None


@given(st.lists(st.floats(0, 100), max_size=1000).map(sorted))
def test_thinning_keeps_the_ends_and_the_order(values: list[float]) -> None:
    few = thinned(values)
    assert len(few) <= POINTS + 1
    assert few == sorted(few)
    assert not values or (few[0], few[-1]) == (values[0], values[-1])
    assert set(few) <= set(values)
