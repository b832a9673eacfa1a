"""Small parts of SVG pictures: elements, scales, axes.

The same numbers always give the same bytes. Colours are class names that the page's style sheet resolves, so
that a picture follows dark mode and print; every series also differs in dash, shape or fill. Nothing here
refers to anything outside the page, and whatever is not `Markup` is escaped.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from auditor.report.text import clean

WIDTH = 360  # units: one unit is about one pixel on a phone
MOST_POINTS = 240  # of a path; more than one point per unit shows nothing new

Scale = Callable[[float], float]


def number(value: float) -> str:
    """Return a coordinate with at most one decimal."""
    rounded = f"{value:.1f}".removesuffix(".0")
    return "0" if rounded == "-0" else rounded


def tag(name: str, *children: str, **attributes: str | float) -> Markup:
    """Return one element; `class_` is written `class`, and `_` in an attribute's name becomes `-`.

    Children that are not `Markup` are cleaned and escaped; attributes are escaped, never cut.
    """
    pairs = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value if isinstance(value, str) else number(value))
        for key, value in attributes.items()
    )
    content = Markup("").join(child if isinstance(child, Markup) else clean(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(name, pairs, content)


def text(content: str, x: float, y: float, class_: str = "t", anchor: str = "start", **attributes: str) -> Markup:
    """Return a line of text; its `anchor` is start, middle or end."""
    return tag("text", content, x=x, y=y, class_=class_, text_anchor=anchor, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def rectangle(x: float, y: float, width: float, height: float, class_: str) -> Markup:
    """Return a rectangle; one of no height keeps half a unit, so that a count of few does not vanish."""
    return tag("rect", x=x, y=y, width=width, height=max(height, 0.5), class_=class_)


def path(xs: Sequence[float], ys: Sequence[float], class_: str, *, closed: bool = False) -> Markup:
    """Return a line through points, those that fall on the one before left out."""
    points: list[str] = []
    for x, y in zip(xs, ys, strict=True):
        point = f"{number(x)} {number(y)}"
        if not points or points[-1] != point:
            points.append(point)
    return tag("path", d="M" + "L".join(points) + ("Z" if closed else ""), class_=class_)


def picture(ident: str, title: str, description: str, height: float, *parts: Markup) -> Markup:
    """Return a whole picture, named and described for those who cannot see it.

    Args:
        ident: unique in the page.
        title: what is shown.
        description: what a reader would see.
        height: in units; the width is always `WIDTH`.
        parts: what to draw, back to front.
    """
    names = {"role": "img", "aria_labelledby": f"{ident}-t {ident}-d"}
    return tag(
        "svg",
        tag("title", title, id=f"{ident}-t"),
        tag("desc", description, id=f"{ident}-d"),
        *parts,
        viewBox=f"0 0 {WIDTH} {number(height)}",
        **names,
    )


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Return the map of [low, high] onto [start, end]; values outside are drawn on the edge."""
    span = high - low or 1.0

    def place(value: float) -> float:
        return start + (end - start) * (min(max(value, low), high) - low) / span

    return place


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """Return the logarithmic map of [low, high] onto [start, end]; values outside are drawn on the edge."""
    inner = linear(math.log10(low), math.log10(high), start, end)
    return lambda value: inner(math.log10(max(value, low)))


def ticks(low: float, high: float, most: int) -> tuple[float, ...]:
    """Return round values in [low, high], at most about `most`; one value if there is no width."""
    if not high > low:
        return (low,)
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(step * count for count in range(first, last + 1))


def thin(count: int) -> list[int]:
    """Return which of `count` points to draw: all, or evenly spread ones with both ends."""
    if count <= MOST_POINTS:
        return list(range(count))
    return [round(i * (count - 1) / (MOST_POINTS - 1)) for i in range(MOST_POINTS)]


def finite(values: Float[np.ndarray, "record"]) -> Float[np.ndarray, "some"]:
    """Return the values that are neither infinite nor not a number."""
    kept: Float[np.ndarray, "some"] = values[np.isfinite(values)]
    return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where the data go within a picture, in units from its upper left corner."""

    left: float = 48
    right: float = WIDTH - 18
    top: float = 26
    bottom: float

    def axis_x(self, place: Scale, marks: Sequence[tuple[float, str]], title: str) -> Markup:
        """Return the lower axis with its marks' labels and title."""
        return Markup("").join(
            [
                line(self.left, self.bottom, self.right, self.bottom, "axis"),
                *(line(place(at), self.bottom, place(at), self.bottom + 4, "axis") for at, _ in marks),
                *(text(label, place(at), self.bottom + 15, "t num", "middle") for at, label in marks),
                text(title, (self.left + self.right) / 2, self.bottom + 31, "t", "middle"),
            ]
        )

    def axis_y(self, place: Scale, marks: Sequence[tuple[float, str]], title: str) -> Markup:
        """Return faint lines across the picture, their labels, and the title along the left edge."""
        middle = number((self.top + self.bottom) / 2)
        return Markup("").join(
            [
                *(line(self.left, place(at), self.right, place(at), "grid") for at, _ in marks),
                *(text(label, self.left - 5, place(at) + 3.5, "t num", "end") for at, label in marks),
                text(title, 11, (self.top + self.bottom) / 2, "t", "middle", transform=f"rotate(-90 11 {middle})"),
            ]
        )


def legend(*entries: tuple[str, str, str]) -> Markup:
    """Return a row of samples above the picture: (line, box or mark; class name; label)."""
    parts, x = [], 48.0
    for kind, class_, label in entries:
        if kind == "line":
            parts.append(line(x, 11, x + 20, 11, class_))
        elif kind == "box":
            parts.append(rectangle(x + 4, 6, 11, 10, class_))
        else:
            parts.append(path([x + 6, x + 14, x + 10], [15, 15, 7], class_, closed=True))
        parts.append(text(label, x + 24, 15))
        x += 36 + 6.0 * len(label)
    return Markup("").join(parts)
