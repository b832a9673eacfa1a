"""The pictures: every number lands where its axis says, odd data do not break them, paths stay short."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from auditor.report import bars, curves, drawings, figures, shift, svg
from auditor.view import FrontierPoint, PersistencePoint, Pictures, RecordOutput, RocCurve, Shift
from tests.auditor.report.views import audit, hostile, pictures

NUMBER = r"-?[0-9]+(\.[0-9])?"
PATH = re.compile(rf"(M{NUMBER} {NUMBER}((L{NUMBER} {NUMBER})*Z?|h{NUMBER}v{NUMBER}h{NUMBER}z))+")


def parse(picture):
    root = ET.fromstring(str(picture))
    height = float(root.get("viewBox").split()[3])
    for element in root.iter():
        if element.tag == "path":
            assert PATH.fullmatch(element.get("d")), element.get("d")[:200]
        for key, limit in (("x", 360), ("cx", 360), ("x1", 360), ("x2", 360), ("y", height), ("cy", height)):
            if element.get(key) is not None:
                assert 0 <= float(element.get(key)) <= limit, (element.tag, element.attrib)
        for key in ("width", "height", "r"):
            if element.get(key) is not None:
                assert float(element.get(key)) >= 0
    return root


def named(root, class_, tag=None):
    return [e for e in root.iter() if e.get("class") == class_ and tag in (None, e.tag)]


def points(d):
    return [tuple(map(float, pair.split())) for pair in d.strip("MZ").split("L")]


def flat(name, rate, count=3):
    xs = np.geomspace(0.01, 1, count)
    return RocCurve(name=name, false_positive=xs, true_positive=xs * 0 + rate, low=xs * 0, high=xs * 0 + 1)


def test_roc_is_where_the_axes_say():
    root = parse(curves.roc("r", "a", patched=flat("a", 0.1), control=flat("a", 1.0), base=None, floor=0.01))
    (patched,) = [e for e in named(root, "line patched", "path")]
    (control,) = [e for e in named(root, "line control", "path")]
    assert points(patched.get("d")) == [(48.0, 131.0), (195.0, 131.0), (342.0, 131.0)]
    assert {y for _, y in points(control.get("d"))} == {26.0}
    assert len(named(root, "band patched")) == len(named(root, "band control")) == 1
    assert not named(root, "line base")
    labels = [e.text for e in named(root, "t num")]
    assert labels == ["1", "10", "100"] * 2
    assert "10 % at 1 %" in root.findtext("desc")


def test_roc_floor():
    assert curves.roc_floor([flat("a", 0.0), flat("b", 0.5)]) == pytest.approx(0.01)
    assert curves.roc_floor([]) == pytest.approx(0.1)
    tiny = RocCurve(name="", **{k: np.array([1e-9]) for k in ("false_positive", "true_positive", "low", "high")})
    assert curves.roc_floor([tiny]) == pytest.approx(1e-5)
    exact = RocCurve(name="", **{k: np.array([0.001]) for k in ("false_positive", "true_positive", "low", "high")})
    assert curves.roc_floor([exact]) == pytest.approx(0.001)


def test_roc_of_little():
    empty = RocCurve(name="", **{k: np.zeros(0) for k in ("false_positive", "true_positive", "low", "high")})
    root = parse(curves.roc("r", "", patched=empty, control=flat("", 0.5, 1), base=None, floor=0.1))
    assert len(named(root, "line control", "circle")) == 1
    assert "no point" in root.findtext("desc")
    without_width = RocCurve(
        name="", **{k: np.array([0.5, 1.0]) for k in ("false_positive", "true_positive", "low", "high")}
    )
    assert not named(
        parse(curves.roc("r", "", patched=without_width, control=None, base=None, floor=0.1)), "band patched"
    )


def test_many_thresholds_make_a_short_path():
    root = parse(curves.roc("r", "", patched=flat("", 0.5, 100_000), control=None, base=None, floor=0.01))
    assert len(ET.tostring(root)) < 20_000
    assert points(named(root, "line patched", "path")[0].get("d"))[-1] == (342.0, pytest.approx(57.6, abs=0.1))


def test_score_tiles_count_records():
    forgotten, unseen = np.arange(40.0), np.arange(400.0) / 10
    root = parse(bars.scores("s", "a", forgotten, unseen))
    assert sum(e.get("d").count("M") for e in named(root, "fill patched")) == 40
    assert "Forget set, 40 records, median score 19.5." in root.findtext("desc")
    assert bars.score_note(forgotten, unseen) == ""
    root = parse(bars.scores("s", "a", np.zeros(1000), np.ones(1)))
    assert [e.tag for e in named(root, "fill patched")] == ["rect"]
    assert "Never seen, 1 record, median" in root.findtext("desc")


def test_scores_far_out_are_counted():
    random = np.random.default_rng(0)
    forgotten = np.concatenate([random.normal(size=299), [1e6, np.inf, np.nan]])
    unseen = random.normal(size=1000)
    low, high = bars.score_range(forgotten, unseen)
    assert -5 < low < -2
    assert 2 < high < 5
    assert bars.score_note(forgotten, unseen) == (
        "Further out than the edge where they are drawn: 2 of the forget set’s records. "
        "Not a number, so not drawn: 1 of the forget set’s records."
    )
    few = np.concatenate([random.normal(size=3), [8.0]])
    assert bars.score_range(few, unseen)[1] == 8.0  # a single record that stands apart is not cut off


@settings(max_examples=60, deadline=None)
@example(np.zeros(0), np.full(4, -1.7e308))
@given(arrays(np.float64, st.integers(0, 6)), arrays(np.float64, st.integers(0, 6)))
def test_any_scores(forgotten, unseen):
    low, high = bars.score_range(forgotten, unseen)
    assert low < high
    root = parse(bars.scores("s", "a", forgotten, unseen))
    drawn = sum(e.get("d").count("M") for e in named(root, "fill patched"))
    assert drawn == int((~np.isnan(forgotten)).sum())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**40) | st.integers(0, 30), min_size=1, max_size=50))
def test_radii_count_every_record(values):
    root = parse(bars.radii("r", values, "steps"))
    counts = [int(e.text.replace(",", "")) for e in named(root, "t num small")]
    assert sum(counts) == len(values)
    assert len(named(root, "fill patched")) == len(counts) <= bars.MOST_BARS
    assert f"smallest {min(values):,}" in root.findtext("desc")


def test_radii_bars():
    root = parse(bars.radii("r", [0, 0, 1, 3], "flips"))
    heights = [float(e.get("height")) for e in named(root, "fill patched")]
    assert heights[0] == 2 * heights[1] == 2 * heights[2]
    assert "2 have radius 0" in root.findtext("desc")
    assert "Certified radius (flips)" in [e.text for e in root.iter("text")]
    assert any("to a bar" in (e.text or "") for e in parse(bars.radii("r", [0, 100], "steps")).iter("text"))


def way(**changes):
    known = {"name": "patch", "radius": 6.0, "noise": 0.5, "augmented": 0.25, "rebuilt": 0.4, "identified": 1.0,
             "candidates": 10, "bytes_per_record": 9.0}  # fmt: skip
    return FrontierPoint(**(known | changes))


def test_frontier():
    points = [way(), way(name="deny-list", noise=0.0), way(name="region", augmented=None, rebuilt=7.0)]
    root = parse(bars.frontier("f", points, "steps"))
    patch = [float(e.get("height")) for e in named(root, "fill patched", "rect")[1:]]
    assert patch[3] == pytest.approx(2 * patch[0], abs=0.2)
    assert patch[0] == pytest.approx(2 * patch[1], abs=0.2)
    region = [float(e.get("height")) for e in named(root, "hollow base", "rect")[1:]]
    assert len(region) == 3  # shifts were not measured
    assert region[1] == patch[3]  # cut at 1
    assert "region: median radius 6 steps, noise 50" in root.findtext("desc")
    assert "shifts not measured" in root.findtext("desc")
    assert bars.frontier("f", points, "steps") == bars.frontier("f", points, "steps")


def test_the_map_of_the_frontier():
    points = [
        way(radius=6.0, rebuilt=0.5), way(name="deny-list", radius=0.0, rebuilt=1.0), way(name="region", rebuilt=None),
        way(name="part 2", radius=3.0, rebuilt=7.0), way(name="part 3", radius=float("nan")),
    ]  # fmt: skip
    root = parse(bars.frontier_map("f", points, "steps"))
    dots = [(float(e.get("cx")), float(e.get("cy"))) for e in root.iter("circle")]
    assert len(dots) == 3  # what was not measured has no place
    assert dots[0][0] > dots[2][0] > dots[1][0]  # radii 6, 3 and 0
    assert dots[0][1] > dots[1][1] == dots[2][1]  # cut at 1
    said = root.findtext("desc")
    assert "4, part 2: 3 and" in said
    assert "region" not in said
    assert bars.frontier_map("f", points, "steps") == bars.frontier_map("f", points, "steps")


def record(before, after, label=0):
    return RecordOutput(commitment="ab" * 32, label=label, radius="2", before=before, after=after)


def test_outputs():
    root = parse(bars.outputs("o", record((2.0, -1.0), (0.0, 4.0), label=1)))
    before, after = named(root, "hollow base", "rect")[1:], named(root, "fill patched", "rect")[1:]
    assert float(before[0].get("height")) == pytest.approx(2 * float(before[1].get("height")), abs=0.2)
    assert float(after[1].get("height")) == pytest.approx(2 * float(before[0].get("height")), abs=0.2)
    assert len(named(root, "ink")) == 2  # in the legend, and under class 1
    assert "Label 1. Before: class 0 2, class 1 −1." in root.findtext("desc")


def test_outputs_of_many_classes():
    before = tuple(float(k % 7) for k in range(1000))
    chosen = bars.classes_to_show(record(before, (0.0,) * 998 + (50.0, 0.0), label=700))
    assert len(chosen) == bars.MOST_CLASSES
    assert chosen == sorted(chosen)
    assert {700, 998} <= set(chosen)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=14), st.integers(-1, 14))
def test_any_outputs(pairs, label):
    before, after = tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
    parse(bars.outputs("o", record(before, after, label)))
    (group,) = figures.groups(Pictures(outputs=(record(before, after, label),)))
    assert f"Label {label}" in group.panels[0].note


def test_unchanged_outputs_are_said_to_be():
    (group,) = figures.groups(Pictures(outputs=(record((1.0, 2.0), (1.0, 2.0)),)))
    assert group.panels[0].note.startswith("The outputs are the same, bit for bit.")


def at(distance, share=0.5):
    return PersistencePoint(distance=distance, share=share, low=share / 2, high=1.0)


def test_persistence():
    root = parse(curves.persistence("p", [at(8, 0.0), at(0, 1.0), at(4)], 4, "steps"))
    assert [float(e.get("cy")) for e in named(root, "dot patched")] == [26.0, 116.0, 206.0]
    marks = named(root, "mark")
    assert marks[1].get("x1") == "195"
    assert "100 % at 0; 50 % at 4; 0 % at 8" in root.findtext("desc")
    for certified in (None, 9):
        assert not named(parse(curves.persistence("p", [at(0), at(8)], certified, "steps")), "mark")


def test_persistence_far_out():
    root = parse(curves.persistence("p", [at(0), at(1), at(3), at(255)], None, "steps"))
    xs = [float(e.get("cx")) for e in named(root, "dot patched")]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert "Distance from the record (steps, logarithmic)" in [e.text for e in root.iter("text")]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.builds(at, st.integers(-3, 2**40), st.floats(0, 1)), min_size=1, max_size=12), st.integers(0, 40))
def test_any_persistence(points_, certified):
    parse(curves.persistence("p", points_, certified, "steps"))


def test_all_pictures_parse_as_xml():
    for view in (pictures(), hostile().pictures):
        for group in figures.groups(view):
            for panel in (*group.panels, *group.more):
                parse(panel.svg)
    assert figures.groups(Pictures()) == ()
    assert figures.groups(Pictures(scores={"a": (np.zeros(0), np.zeros(0))})) == ()


def test_more_than_a_few_attacks_are_a_click_away():
    group = figures.groups(pictures())[0]
    assert (len(group.panels), len(group.more)) == (4, 1)


@settings(deadline=None)
@given(st.floats(-1e12, 1e12), st.floats(1e-8, 1e8), st.integers(1, 9))
def test_ticks(low, relative, most):
    width = relative * max(1.0, abs(low))
    high = low + width
    found = svg.ticks(low, high, most)
    assert len(found) <= most + 1
    assert all(low - width * 1e-6 <= value <= high + width * 1e-6 for value in found)
    assert list(found) == sorted(set(found))


def test_svg_parts():
    assert svg.ticks(0, 10, 5) == (0, 2, 4, 6, 8, 10)
    assert svg.ticks(3, 3, 5) == (3,)
    assert [svg.number(v) for v in (-0.04, 0.05, 1, 1.25, -2.5, 10)] == ["0", "0.1", "1", "1.2", "-2.5", "10"]
    assert svg.tag("a", "<b>", class_='"', aria_label="x") == '<a class="&#34;" aria-label="x">&lt;b&gt;</a>'
    assert svg.thin(3) == [0, 1, 2]
    assert svg.thin(1000)[0] == 0
    assert svg.thin(1000)[-1] == 999
    assert len(svg.thin(1000)) == svg.MOST_POINTS
    assert svg.linear(1, 1, 0, 10)(1) == 0
    assert svg.linear(0, 1, 0, 10)(7) == 10
    assert svg.logarithmic(0.01, 1, 0, 10)(0.0) == 0
    assert svg.path([1, 1, 2], [1, 1.01, 2], "c") == '<path d="M1 1L2 2" class="c"></path>'


def test_notes_on_outputs():
    wide, none = record(tuple(map(float, range(40))), (0.0,) * 40, label=7), record((), (1.0,))
    (group,) = figures.groups(Pictures(outputs=(wide, none), unit="flips"))
    assert group.panels[0].note == (
        "Largest output: class 39 before, class 0 after. Label 7, certified radius 2 flips. 12 of 40 classes shown."
    )
    assert group.panels[1].note.startswith("Largest output: class none before, class 0 after.")


def shifted(count=30, seed=0):
    random = np.random.default_rng(seed)
    before, unseen = random.normal(3, 1, count), random.normal(2, 1, 4 * count)
    return Shift(forgotten_before=before, forgotten_after=-before, unseen_before=unseen, unseen_after=unseen.copy())


def test_the_shift_has_a_dot_for_each_record_and_counts_what_moved():
    moved = shifted()
    root = parse(shift.shift("s", moved))
    dots, others = named(root, "dot patched", "circle"), named(root, "dot control", "circle")
    assert (len(dots), len(others)) == (30, 120)
    # What did not move lies on the diagonal: as far from the left as from the bottom.
    ends = [(float(e.get("x1")), float(e.get("y1")), float(e.get("x2")), float(e.get("y2"))) for e in root.iter()
            if e.get("class") == "chance"]  # fmt: skip
    (x1, y1, x2, y2) = ends[0]
    for dot in others:
        share = (float(dot.get("cx")) - x1) / (x2 - x1)
        assert float(dot.get("cy")) == pytest.approx(y1 + share * (y2 - y1), abs=0.2)
    assert "Moved: 30 of 30 records of the forget set, 0 of 120 never-seen records." in "".join(root.itertext())


def test_a_shift_of_many_or_extreme_records():
    random = np.random.default_rng(1)
    many = np.concatenate([random.normal(size=5000), [1e300, -1e300, 0.0]])
    root = parse(shift.shift("s", Shift(forgotten_before=many, forgotten_after=many[::-1].copy(),
                                        unseen_before=many, unseen_after=many)))  # fmt: skip
    assert len(named(root, "dot patched", "circle")) == shift.DOTS
    none = np.zeros(0)
    parse(shift.shift("s", Shift(forgotten_before=none, forgotten_after=none, unseen_before=none, unseen_after=none)))


@pytest.mark.parametrize("view", [audit(), hostile()], ids=["real", "hostile"])
def test_pictures_are_files_that_stand_alone_and_always_the_same(view):
    view = replace(view, pictures=replace(view.pictures, shift=shifted()))
    found = drawings.svg_files(view)
    assert drawings.svg_files(view) == found
    assert any(name.startswith("pictures/shift-0") for name in found)
    groups = figures.groups(view.pictures)
    assert len(found) == sum(len(group.panels) + len(group.more) for group in groups)
    for name, data in found.items():
        assert re.fullmatch(r"pictures/[a-z]+-[0-9]+(-[a-z0-9-]*[a-z0-9])?\.svg", name), name
        root = ET.fromstring(data)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        # Nothing but shapes, text and the style: nothing that runs or loads.
        tags = {element.tag.split("}")[1] for element in root.iter()}
        assert tags <= {"svg", "title", "desc", "style", "line", "rect", "path", "circle", "text"}, tags
        assert not any("href" in key or key.startswith("on") for element in root.iter() for key in element.attrib)
        assert b"url(" not in data and b"@import" not in data
