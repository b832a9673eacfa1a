"""How outputs moved from base to patched model, one dot a record.

Assumes: finite values. Does not: test anything. What lies outside the picture's range is drawn on its edge and
counted in its description; of very many never-seen records an even share is drawn.
"""

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from auditor.report import svg
from auditor.report.bars import score_range
from auditor.report.svg import Frame, Scale
from auditor.report.text import shown
from auditor.view import Shift

DOTS = 600  # of one kind
LARGEST = 1e150


def _dots(
    before: Float[np.ndarray, "record"],
    after: Float[np.ndarray, "record"],
    x: Scale,
    y: Scale,
    class_: str,
    size: float,
) -> list[Markup]:
    chosen = np.unique(np.linspace(0, len(before) - 1, min(DOTS, len(before))).astype(np.int64)) if len(before) else ()
    return [svg.tag("circle", cx=x(float(before[k])), cy=y(float(after[k])), r=size, class_=class_) for k in chosen]


def shift(ident: str, moved: Shift) -> Markup:
    """Return the confidence after the patch against that before it, forgotten and never-seen records.

    Args:
        ident: unique in the page.
        moved: what to draw.
    """
    arrays = [
        np.clip(one, -LARGEST, LARGEST)
        for one in (moved.forgotten_before, moved.forgotten_after, moved.unseen_before, moved.unseen_after)
    ]
    low, high = score_range(np.concatenate(arrays[:2]), np.concatenate(arrays[2:]))
    frame = Frame(bottom=286)
    x, y = svg.linear(low, high, frame.left, frame.right), svg.linear(low, high, frame.bottom, frame.top)
    marks = [(at, shown(float(at)) if at else "0") for at in svg.ticks(low, high, 5)]
    changed = [int((before != after).sum()) for before, after in (arrays[:2], arrays[2:])]
    beyond = sum(int(((one < low) | (one > high)).sum()) for one in arrays)
    about = (
        f"Moved: {changed[0]:,} of {arrays[0].size:,} records of the forget set, {changed[1]:,} of {arrays[2].size:,} "
        f"never-seen records. Values drawn on an edge though they lie further out: {beyond:,}."
    )
    return svg.picture(
        ident,
        "Confidence before and after the patch",
        about,
        frame.bottom + 38,
        svg.legend(("box", "fill patched", "forget set"), ("box", "hollow control", "never seen")),
        frame.axis_y(y, marks, "After, patched model"),
        frame.axis_x(x, marks, "Before, base model (log-odds of the label)"),
        svg.line(x(low), y(low), x(high), y(high), "chance"),
        *_dots(arrays[2], arrays[3], x, y, class_="dot control", size=1.8),
        *_dots(arrays[0], arrays[1], x, y, class_="dot patched", size=2.4),
    )
