"""Counts and heights: score strips, certified radii, outputs before and after.

Does not: test anything. What lies outside a picture's range is drawn on its edge and counted beside it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from markupsafe import Markup

from auditor.report import svg
from auditor.report.svg import Frame
from auditor.report.text import SHORT, clean, percent, shown
from auditor.view import FrontierPoint, RecordOutput

BINS = 48
LANE = 76.0  # units of height on each side of the middle line
TILE = 6.0  # largest height of one record
SMALLEST_TILE = 1.6  # below it single records cannot be told apart, and a bar says it better
MOST_CLASSES = 12
MOST_BARS = 24
LARGEST = 1e150  # beyond it differences overflow, and a picture says nothing anyway


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lane:
    """One group's scores in bins.

    Attributes:
        counts: records in each bin, those beyond the range in the first and last.
        median: of the finite scores, if there is one.
        beyond: how many are drawn on an edge though they lie further out.
        missing: how many are not a number and so are not drawn.
        size: all of them.
    """

    counts: Int[np.ndarray, "bin"]
    median: float | None
    beyond: int
    missing: int
    size: int


def _lane(scores: Float[np.ndarray, "record"], low: float, high: float) -> _Lane:
    known = scores[~np.isnan(scores)]
    inside = np.clip(known, low, high)
    place = ((inside - low) / (high - low) * BINS).astype(np.int64).clip(0, BINS - 1)
    middle = svg.finite(known).clip(-LARGEST, LARGEST)
    return _Lane(
        counts=np.bincount(place, minlength=BINS),
        median=float(np.median(middle)) if middle.size else None,
        beyond=int((inside != known).sum()),
        missing=scores.size - known.size,
        size=scores.size,
    )


def score_range(forgotten: Float[np.ndarray, "some"], unseen: Float[np.ndarray, "others"]) -> tuple[float, float]:
    """Return the range to draw: all scores, or where a few lie far out, the bulk of both groups."""
    groups = [svg.finite(group).clip(-LARGEST, LARGEST) for group in (forgotten, unseen)]
    both = np.concatenate(groups)
    if not both.size:
        return 0.0, 1.0
    ends = np.array([np.quantile(group, [0.01, 0.99]) for group in groups if group.size])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    reach = (high - low) / 2
    near = both[(both >= low - reach) & (both <= high + reach)]
    low, high = float(near.min()), float(near.max())
    size = max(1.0, abs(low), abs(high))
    return (low, high) if high - low > 1e-9 * size else (low - size / 2, high + size / 2)


def scores(ident: str, name: str, forgotten: Float[np.ndarray, "some"], unseen: Float[np.ndarray, "others"]) -> Markup:
    """Return the scores of the forget set (up, one tile a record while they fit) and of unseen records (down).

    Args:
        ident: unique in the page.
        name: the attack.
        forgotten: scores of the forget set.
        unseen: scores of records that no party trained on.
    """
    low, high = score_range(forgotten, unseen)
    frame = Frame(left=14, top=20, bottom=20 + 2 * LANE + 26)
    middle = frame.top + LANE + 4
    x = svg.linear(low, high, frame.left, frame.right)
    up, down = _lane(forgotten, low, high), _lane(unseen, low, high)
    step = (frame.right - frame.left) / BINS
    tile = min(TILE, LANE / max(int(up.counts.max()), 1))
    parts = []
    for k in np.flatnonzero(up.counts):
        left, count = frame.left + k * step + 0.4, int(up.counts[k])
        if tile >= SMALLEST_TILE:
            stack = (f"M{svg.number(left)} {svg.number(middle - 1 - tile * (i + 1))}" for i in range(count))
            shape = f"h{svg.number(step - 0.8)}v{svg.number(tile - 0.5)}h{svg.number(0.8 - step)}z"
            parts.append(svg.tag("path", d="".join(start + shape for start in stack), class_="fill patched"))
        else:
            parts.append(svg.rectangle(left, middle - 1 - tile * count, step - 0.8, tile * count, "fill patched"))
    unit = LANE / max(int(down.counts.max()), 1)
    for k in np.flatnonzero(down.counts):
        height = unit * int(down.counts[k])
        parts.append(svg.rectangle(frame.left + k * step + 0.4, middle + 1, step - 0.8, height, "fill control"))
    if up.median is not None:
        parts.append(svg.line(x(up.median), middle - LANE, x(up.median), middle, "median patched"))
    if down.median is not None:
        parts.append(svg.line(x(down.median), middle, x(down.median), middle + LANE, "median control"))
    return svg.picture(
        ident,
        f"Scores of the attack {clean(name, SHORT)}",
        f"{_spoken('Forget set', up)} {_spoken('Never seen', down)}",
        frame.bottom + 38,
        *parts,
        svg.line(frame.left, middle, frame.right, middle, "axis"),
        svg.text(_label("Forget set", up), frame.left, 13, "t strong patched"),
        svg.text(_label("Never seen", down), frame.left, frame.bottom - 5, "t strong control"),
        frame.axis_x(x, [(at, _tick(at)) for at in svg.ticks(low, high, 5)], "Score (vertical line: median)"),
    )


def score_note(forgotten: Float[np.ndarray, "some"], unseen: Float[np.ndarray, "others"]) -> str:
    """Return what the strip cannot show: scores beyond its range, and those that are not numbers."""
    low, high = score_range(forgotten, unseen)
    parts = []
    for name, group in (("forget set’s records", forgotten), ("never-seen records", unseen)):
        lane = _lane(group, low, high)
        parts += [f"Further out than the edge where they are drawn: {lane.beyond:,} of the {name}."] * (lane.beyond > 0)
        parts += [f"Not a number, so not drawn: {lane.missing:,} of the {name}."] * (lane.missing > 0)
    return " ".join(parts)


def _tick(value: float) -> str:
    return shown(float(value)) if value else "0"


def _label(name: str, lane: _Lane) -> str:
    return f"{name}, {lane.size:,} " + ("record" if lane.size == 1 else "records")


def _spoken(name: str, lane: _Lane) -> str:
    return _label(name, lane) + ("." if lane.median is None else f", median score {shown(lane.median)}.")


def radii(ident: str, values: Sequence[int], unit: str) -> Markup:
    """Return how many records have which certified radius.

    Args:
        ident: unique in the page.
        values: at least one radius.
        unit: plural noun for the radius's unit.
    """
    frame = Frame(left=40, bottom=186, top=16)
    low, high = min(values), max(values)
    width = max(1, math.ceil((high - low + 1) / MOST_BARS))
    edges = list(range(low, high + 1, width))
    counts = np.bincount((np.array(values, np.int64) - low) // width, minlength=len(edges))
    step = min((frame.right - frame.left) / len(edges), 60.0)
    most = int(counts.max())
    y = svg.linear(0, most, frame.bottom, frame.top + 12)
    every = math.ceil((6.5 * len(f"{edges[-1]:,}") + 8) / step)  # labels that would touch are left out
    note = f", {width:,} to a bar" if width > 1 else ""
    bars, marks = [], []
    for k, (edge, count) in enumerate(zip(edges, counts.tolist(), strict=True)):
        left = frame.left + k * step
        if k % every == 0:
            marks.append((left + step / 2, f"{edge:,}"))
        if count:
            bars.append(svg.rectangle(left + 1, y(count), step - 2, frame.bottom - y(count), "fill patched"))
            bars.append(svg.text(f"{count:,}", left + step / 2, y(count) - 3, "t num small", "middle"))
    heights = [(at, f"{at:,.0f}") for at in svg.ticks(0, most, 4) if at == round(at)]
    middle = float(np.median(values))
    return svg.picture(
        ident,
        "Certified radii",
        f"{len(values):,} records: smallest {low:,}, median {middle:g}, largest {high:,} {clean(unit, 20)}; "
        f"{sum(value == 0 for value in values):,} have radius 0.",
        frame.bottom + 38,
        frame.axis_y(y, heights, "Records"),
        *bars,
        frame.axis_x(lambda at: at, marks, f"Certified radius ({clean(unit, 20)}{note})"),
    )


_SHORT = {"this patch": "patch", "exact-match deny-list": "deny-list", "linear region": "region"}


def frontier_map(ident: str, points: Sequence[FrontierPoint], unit: str) -> Markup:
    """Return every way as a numbered dot: how large a region it certifies, and how badly a record is rebuilt from it.

    Args:
        ident: unique in the page.
        points: in the order of the table that says what the numbers stand for.
        unit: plural noun for the radius's unit.
    """
    frame = Frame(bottom=170)
    known = [
        (k, p)
        for k, p in enumerate(points, start=1)
        if p.rebuilt is not None and math.isfinite(p.rebuilt) and math.isfinite(p.radius)
    ]
    largest = max([1.0, *(p.radius for _, p in known)])
    x, y = (
        svg.linear(0.0, largest, frame.left + 8, frame.right - 12),
        svg.linear(0.0, 1.0, frame.bottom, frame.top + 12),
    )
    dots: list[Markup] = []
    for k, p in known:
        assert p.rebuilt is not None
        left, top = x(max(p.radius, 0.0)), y(min(max(p.rebuilt, 0.0), 1.0))
        dots.append(svg.tag("circle", cx=left, cy=top, r=3.5, class_="fill patched" if k == 1 else "hollow control"))
        dots.append(svg.text(f"{k}", left + 6, top + 3, "t small"))
    spoken = "; ".join(f"{k}, {clean(p.name, 40)}: {shown(p.radius)} and {_share(p.rebuilt)}" for k, p in known)
    marks = [(at, shown(float(at)) if at else "0") for at in svg.ticks(0.0, largest, 5)]
    return svg.picture(
        ident,
        "Certified radius against rebuilding error",
        (spoken or "Nothing was measured") + ".",
        frame.bottom + 38,
        frame.axis_y(y, [(at, f"{at:.0%}") for at in (0.0, 0.5, 1.0)], "Rebuilt / guessing"),
        frame.axis_x(x, marks, f"Median certified radius ({clean(unit, 20)})"),
        *dots,
    )


def frontier(ident: str, points: Sequence[FrontierPoint], unit: str) -> Markup:
    """Return shares of a few ways side by side: coverage under noise and shifts, rebuilding, picking out.

    Args:
        ident: unique in the page.
        points: at most three are drawn, in the page's three series.
        unit: plural noun for the radius's unit.
    """
    frame = Frame(bottom=170)
    drawn = list(zip(points, ("fill patched", "fill control", "hollow base"), strict=False))
    y = svg.linear(0.0, 1.0, frame.bottom, frame.top + 12)
    measures: list[tuple[str, list[float | None]]] = [
        ("Noise", [p.noise for p, _ in drawn]),
        ("Shifts", [p.augmented for p, _ in drawn]),
        ("Rebuilt", [p.rebuilt for p, _ in drawn]),
        ("Picked out", [p.identified for p, _ in drawn]),
    ]
    step = (frame.right - frame.left) / len(measures)
    width = min(step * 0.8 / max(len(drawn), 1), 22.0)
    bars, marks = [], []
    for k, (name, values) in enumerate(measures):
        centre = frame.left + (k + 0.5) * step
        marks.append((centre, name))
        for place, (value, (_, class_)) in enumerate(zip(values, drawn, strict=True)):
            left = centre + (place - len(drawn) / 2) * width
            if value is None or not math.isfinite(value):
                bars.append(svg.text("–", left + width / 2, frame.bottom - 3, "t small", "middle"))
                continue
            top = y(min(max(value, 0.0), 1.0))
            bars.append(svg.rectangle(left + 0.8, top, width - 1.6, frame.bottom - top, class_))
    spoken = "; ".join(
        f"{clean(p.name, 40)}: median radius {shown(p.radius)} {clean(unit, 20)}, "
        + ", ".join(f"{name.lower()} {_share(v[k])}" for name, v in measures)
        for k, (p, _) in enumerate(drawn)
    )
    return svg.picture(
        ident,
        "What the patch buys and what it tells",
        spoken + ".",
        frame.bottom + 38,
        svg.legend(*(("box", class_, _SHORT.get(p.name, f"row {k}")) for k, (p, class_) in enumerate(drawn, 1))),
        frame.axis_y(y, [(at, f"{at:.0%}") for at in (0.0, 0.5, 1.0)], "Share"),
        *bars,
        frame.axis_x(lambda at: at, marks, "of 1; rebuilding relative to guessing, cut at 1"),
    )


def classes_to_show(record: RecordOutput) -> list[int]:
    """Return the classes to draw: all, or the largest outputs before and after and the label."""
    count = min(len(record.before), len(record.after))
    if count <= MOST_CLASSES:
        return list(range(count))
    order = sorted(range(count), key=lambda k: (k != record.label, -_height(max(record.before[k], record.after[k])), k))
    return sorted(order[:MOST_CLASSES])


def _height(value: float) -> float:
    return min(max(value, -LARGEST), LARGEST) if math.isfinite(value) else 0.0


def outputs(ident: str, record: RecordOutput) -> Markup:
    """Return one record's outputs as pairs of bars: outlined before, filled after."""
    frame = Frame(bottom=170)
    chosen = classes_to_show(record)
    heights = [_height(v) for k in chosen for v in (record.before[k], record.after[k])]
    low, high = min(0.0, *heights, 0.0), max(0.0, *heights, 0.0)
    high = high if high > low else 1.0
    y = svg.linear(low, high, frame.bottom - 5, frame.top + 6)
    step = (frame.right - frame.left) / max(len(chosen), 1)
    bar = min(step * 0.36, 22.0)
    bars, marks = [], []
    for k, klass in enumerate(chosen):
        centre = frame.left + (k + 0.5) * step
        marks.append((centre, f"{klass}"))
        for value, left, class_ in (
            (record.before[klass], centre - bar - 0.8, "hollow base"),
            (record.after[klass], centre + 0.8, "fill patched"),
        ):
            if math.isfinite(value):
                bars.append(svg.rectangle(left, min(y(value), y(0)), bar, abs(y(value) - y(0)), class_))
            else:
                bars.append(svg.text("?", left + bar / 2, y(0) - 3, "t small", "middle"))
    label = [
        svg.path([c - 4, c + 4, c], [frame.bottom + 26, frame.bottom + 26, frame.bottom + 19], "ink", closed=True)
        for c, name in marks
        if name == f"{record.label}"
    ]
    before, after = (_spoken_row(row, chosen) for row in (record.before, record.after))
    return svg.picture(
        ident,
        f"Outputs of record {clean(record.commitment, 24)}",
        f"Label {record.label}. Before: {before}. After: {after}.",
        frame.bottom + 38,
        svg.legend(("box", "hollow base", "before"), ("box", "fill patched", "after"), ("mark", "ink", "label")),
        frame.axis_y(y, [(at, _tick(at)) for at in svg.ticks(low, high, 4)], "Logit"),
        *bars,
        svg.line(frame.left, y(0), frame.right, y(0), "axis"),
        frame.axis_x(lambda at: at, marks, ""),
        *label,
        svg.text("Class", (frame.left + frame.right) / 2, frame.bottom + 36, "t", "middle"),
    )


def _spoken_row(row: Sequence[float], chosen: Sequence[int]) -> str:
    return ", ".join(f"class {k} {shown(float(row[k]))}" for k in chosen)


def _share(value: float | None) -> str:
    return "not measured" if value is None else percent(value)
