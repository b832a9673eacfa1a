"""Curves over a threshold or a distance: ROC and persistence.

Assumes: intervals come with the data; none is computed here. The ROC band holds at each threshold for itself.
Does not: interpolate, pick a threshold or smooth.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from auditor.report import svg
from auditor.report.svg import Frame, Scale
from auditor.report.text import SHORT, clean, percent
from auditor.view import PersistencePoint, RocCurve

LOWEST_FLOOR, HIGHEST_FLOOR = -5, -1  # decades
LINEAR_UP_TO = 24  # distance up to which an even axis still shows single steps


def _points(curve: RocCurve) -> Float[np.ndarray, "4 threshold"]:
    """Return false-positive rate, true-positive rate, low and high where all four are finite, from the left."""
    rows = np.stack([curve.false_positive, curve.true_positive, curve.low, curve.high]).astype(np.float64)
    rows = rows[:, np.isfinite(rows).all(axis=0)]
    return rows[:, np.lexsort((rows[1], rows[0]))]


def roc_floor(curves: Iterable[RocCurve]) -> float:
    """Return the power of ten at which the axes of all ROC pictures begin, so that they can be compared."""
    rates = [svg.finite(np.concatenate([c.false_positive, c.true_positive])) for c in curves]
    positive = np.concatenate([np.ones(1), *rates])
    smallest = math.floor(math.log10(float(positive[positive > 0].min())) + 1e-9)
    return 10.0 ** min(max(smallest, LOWEST_FLOOR), HIGHEST_FLOOR)


def _band(rows: Float[np.ndarray, "4 threshold"], x: Scale, y: Scale, class_: str) -> Markup:
    kept = svg.thin(rows.shape[1])
    there = [(x(rows[0, i]), y(rows[3, i])) for i in kept]
    back = [(x(rows[0, i]), y(rows[2, i])) for i in reversed(kept)]
    if not kept or bool((rows[3] <= rows[2]).all()):
        return Markup("")
    xs, ys = zip(*there, *back, strict=True)
    return svg.path(xs, ys, class_, closed=True)


def _line(rows: Float[np.ndarray, "4 threshold"], x: Scale, y: Scale, class_: str) -> Markup:
    kept = svg.thin(rows.shape[1])
    if not kept:
        return Markup("")
    if len(kept) == 1:
        return svg.tag("circle", cx=x(rows[0, 0]), cy=y(rows[1, 0]), r=3, class_=class_)
    return svg.path([x(rows[0, i]) for i in kept], [y(rows[1, i]) for i in kept], class_)


def roc(
    ident: str, name: str, *, patched: RocCurve | None, control: RocCurve | None, base: RocCurve | None, floor: float
) -> Markup:
    """Return one attack's ROC on log-log axes: patched model with its band, null control, unpatched base.

    Args:
        ident: unique in the page.
        name: the attack.
        patched: absent where the attack ran on the base only, and so for the other two.
        control: its band is drawn too.
        base: without a band.
        floor: where both axes begin, in (0, 1).
    """
    frame = Frame(bottom=236)
    x = svg.logarithmic(floor, 1.0, frame.left, frame.right)
    y = svg.logarithmic(floor, 1.0, frame.bottom, frame.top)
    decades = [10.0**k for k in range(round(math.log10(floor)), 1)]
    marks = [(at, f"{100 * at:g}") for at in decades]
    series = [(patched, "patched model"), (control, "null control"), (base, "base model")]
    rows = {label: _points(curve) for curve, label in series if curve is not None}
    about = "; ".join(f"{label}: {_range(found)}" for label, found in rows.items())
    drawn = [
        _band(rows["null control"], x, y, "band control") if control is not None else Markup(""),
        _band(rows["patched model"], x, y, "band patched") if patched is not None else Markup(""),
        svg.line(x(floor), y(floor), x(1.0), y(1.0), "chance"),
        _line(rows["base model"], x, y, "line base") if base is not None else Markup(""),
        _line(rows["null control"], x, y, "line control") if control is not None else Markup(""),
        _line(rows["patched model"], x, y, "line patched") if patched is not None else Markup(""),
    ]
    classes = {"patched model": "line patched", "null control": "line control", "base model": "line base"}
    return svg.picture(
        ident,
        f"ROC curve of the attack {clean(name, SHORT)}",
        f"True-positive rate against false-positive rate, both axes logarithmic from {100 * floor:g} %. {about}.",
        frame.bottom + 38,
        svg.legend(*(("line", classes[label], label) for label in rows)),
        frame.axis_y(y, marks, "True-positive rate (%)"),
        frame.axis_x(x, marks, "False-positive rate (%)"),
        *drawn,
    )


def _range(rows: Float[np.ndarray, "4 threshold"]) -> str:
    if not rows.shape[1]:
        return "no point"
    ends = [percent(float(v)) for v in (rows[0, 0], rows[1, 0], rows[0, -1], rows[1, -1])]
    return f"{rows.shape[1]} points, from {ends[1]} at {ends[0]} to {ends[3]} at {ends[2]}"


def _distance(values: Sequence[int], frame: Frame) -> tuple[Scale, list[tuple[float, str]], str]:
    """Return the distance axis: even where single steps fit on it, else logarithmic in one plus the distance."""
    low, high = min(values), max(values)
    if high - low <= LINEAR_UP_TO or low < 0:
        marks = [(at, f"{at:g}") for at in svg.ticks(low, high, 8) if at == round(at)]
        return svg.linear(low, high, frame.left + 8, frame.right - 8), marks, ""
    inner = svg.logarithmic(1 + low, 1 + high, frame.left + 8, frame.right - 8)
    powers = (0, *(2**k for k in range(64)))
    every = 1 + sum(low <= at <= high for at in powers) // 10
    kept = [at for at in powers if low <= at <= high][::-every][::-1]
    return (lambda value: inner(1 + value)), [(at, f"{at:g}") for at in kept], ", logarithmic"


def persistence(ident: str, points: Sequence[PersistencePoint], certified: int | None, unit: str) -> Markup:
    """Return the share of probes that are still redirected, against the distance from a record.

    Args:
        ident: unique in the page.
        points: at least one.
        certified: smallest certified radius in the same unit, marked if it is given and on the axis.
        unit: plural noun for the distance's unit.
    """
    frame = Frame(bottom=206)
    points = sorted(points, key=lambda point: point.distance)
    x, marks, note = _distance([point.distance for point in points], frame)
    y = svg.linear(0.0, 1.0, frame.bottom, frame.top)
    rows = np.array([[x(p.distance), p.share, p.low, p.high] for p in points], np.float64).T
    rows = rows[:, np.isfinite(rows).all(axis=0)]

    def same(value: float) -> float:
        return value

    inside = certified is not None and points[0].distance <= certified <= points[-1].distance
    edge = x(certified) if certified is not None and inside else 0.0
    mark = svg.line(edge, frame.top, edge, frame.bottom, "mark") if inside else Markup("")
    entries = [("line", "line patched", "redirected")] + [("line", "mark", "smallest certified radius")] * inside
    about = "; ".join(f"{percent(p.share)} at {p.distance}" for p in points[:12])
    return svg.picture(
        ident,
        "Redirected share against distance",
        f"Share of probes still redirected, by distance in {clean(unit, 20)}: {about}.",
        frame.bottom + 38,
        svg.legend(*entries),
        frame.axis_y(y, [(k / 4, f"{25 * k} %") for k in range(5)], "Still redirected"),
        frame.axis_x(x, marks, f"Distance from the record ({clean(unit, 20)}{note})"),
        _band(rows, same, y, "band patched"),
        mark,
        _line(rows, same, y, "line patched"),
        *(
            svg.line(rows[0, i], y(rows[2, i]), rows[0, i], y(rows[3, i]), "whisker")
            + svg.tag("circle", cx=rows[0, i], cy=y(rows[1, i]), r=2.6, class_="dot patched")
            for i in svg.thin(rows.shape[1])
        ),
    )
