"""The pictures section: which pictures there are, in which order, with the sentence that says how to read each.

Shows every attack it is given, in the given order: the first few at once, the others one click away.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from auditor.report import bars, curves, shift
from auditor.report.text import CELL, SHORT, clean, is_number, percent, shown
from auditor.view import Pictures, RecordOutput

PANELS = 4  # of one kind, shown at once
DOTS = 16  # ways in one picture
ROWS = 500  # of a table
COLUMNS = 24
NOTE = 1200  # characters above a table


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of text, cut to a size that a page can hold; `left_out` rows are not shown, the note stands above."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left_out: int = 0
    note: str = ""

    @property
    def flush_right(self) -> tuple[bool, ...]:
        """Which columns hold numbers only."""
        columns = zip(*self.rows, strict=True) if self.rows else ((),) * len(self.header)
        return tuple(bool(column) and all(is_number(cell) for cell in column) for column in columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture with its heading, a remark, and its numbers where they are few."""

    title: str
    svg: Markup
    note: str = ""
    table: Table | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Pictures of one kind: `panels` at once, `more` on demand."""

    ident: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    more: tuple[Panel, ...] = ()


def _roc(pictures: Pictures) -> Group | None:
    kinds = [{c.name: c for c in curves_} for curves_ in (pictures.roc, pictures.control, pictures.base)]
    patched, control, base = kinds
    names = list(dict.fromkeys(name for kind in kinds for name in kind))
    if not names:
        return None
    floor = curves.roc_floor([curve for kind in kinds for curve in kind.values()])
    panels = tuple(
        Panel(
            title=name,
            svg=curves.roc(
                f"roc-{k}", name, patched=patched.get(name), control=control.get(name), base=base.get(name), floor=floor
            ),
        )
        for k, name in enumerate(names)
    )
    return Group(
        ident="roc",
        title="Membership: what an attacker gains",
        caption="Each attack calls a record a member when its score is high enough. A curve shows how many records of "
        "the forget set it catches (up) against how many never-seen records it calls members by mistake (right). The "
        "null control runs the same attack on never-seen records in the forget set’s place: a patched model that "
        "gives nothing away looks like the control; the check, not the picture, decides. The base model "
        "shows what the attack could see before "
        "the patch. The thin diagonal is guessing. Each band covers 95 % at one threshold, not along the whole curve; "
        "rates too low for the axes are drawn on their edge.",
        panels=panels[:PANELS],
        more=panels[PANELS:],
    )


def _scores(pictures: Pictures) -> Group | None:
    samples = {
        name: tuple(np.asarray(group, np.float64).ravel() for group in pair) for name, pair in pictures.scores.items()
    }
    panels = tuple(
        Panel(
            title=name,
            svg=bars.scores(f"scores-{k}", name, forgotten, unseen),
            note=bars.score_note(forgotten, unseen),
        )
        for k, (name, (forgotten, unseen)) in enumerate(samples.items())
        if forgotten.size or unseen.size
    )
    if not panels:
        return None
    return Group(
        ident="scores",
        title="Membership: record by record",
        caption="Scores of the forget set above the line, of records never seen below it; a small tile is one record, "
        "where there are few enough for tiles. "
        "Each side has its own height, so compare positions and shapes. Records of the forget set that stand "
        "apart on either side can be told from records the model never saw.",
        panels=panels[:PANELS],
        more=panels[PANELS:],
    )


def _largest(row: Sequence[float]) -> str:
    return f"{max(range(len(row)), key=lambda k: (row[k], -k))}" if row else "none"


def _output(ident: str, record: RecordOutput, unit: str) -> Panel:
    chosen = bars.classes_to_show(record)
    count = len(record.before)
    if record.before == record.after:
        note = "The outputs are the same, bit for bit."
    else:
        note = f"Largest output: class {_largest(record.before)} before, class {_largest(record.after)} after."
    note += f" Label {record.label}, certified radius {clean(record.radius, 40)} {unit}."
    if len(chosen) < count:
        note += f" {len(chosen)} of {count} classes shown."
    rows = tuple((f"{k}", shown(float(record.before[k])), shown(float(record.after[k]))) for k in chosen)
    return Panel(
        title=clean(record.commitment, 24),
        svg=bars.outputs(ident, record),
        note=note,
        table=Table(title="Numbers", header=("Class", "Before", "After"), rows=rows),
    )


def _outputs(pictures: Pictures, unit: str) -> Group | None:
    if not pictures.outputs:
        return None
    panels = tuple(_output(f"outputs-{k}", record, unit) for k, record in enumerate(pictures.outputs[: 2 * PANELS]))
    total = len(pictures.outputs)
    some = f" The first {len(panels)} of {total:,} records are drawn." if total > len(panels) else ""
    return Group(
        ident="outputs",
        title="Outputs before and after",
        caption="Logits of the base model (outlined) and of the patched model (filled) on single records of the forget "
        f"set, which are named by the beginning of their commitments.{some}",
        panels=panels[:PANELS],
        more=panels[PANELS:],
    )


def _shift(pictures: Pictures) -> Group | None:
    if pictures.shift is None:
        return None
    return Group(
        ident="shift",
        title="How outputs moved",
        caption="Confidence in each record’s own label (log-odds) under the base model, and under the patched model. "
        "On the diagonal nothing moved. Where a patch hides what the base remembered, the forget set’s records lie "
        "among the never-seen ones when read from the side; where it makes them wrong, they lie below them all.",
        panels=(Panel(title="", svg=shift.shift("shift-0", pictures.shift)),),
    )


def _persistence(pictures: Pictures, unit: str) -> Group | None:
    points = pictures.persistence
    if not points:
        return None
    rows = tuple(
        (f"{p.distance:,}", percent(p.share), f"{percent(p.low)} to {percent(p.high)}")
        for p in sorted(points, key=lambda p: p.distance)[:ROWS]
    )
    smallest = min(pictures.radii, default=None)
    panel = Panel(
        title="",
        svg=curves.persistence("persistence-0", points, smallest, unit),
        table=Table(title="Numbers", header=(f"Distance ({unit})", "Still redirected", "95 % interval"), rows=rows),
    )
    return Group(
        ident="persistence",
        title="Persistence: just outside the region",
        caption="Share of probes at each distance from a record of the forget set on which the patched model still "
        "redirects, with its 95 % interval. Whether the claims up to the certified radius hold is for the "
        "redirection check to say; beyond it, this is what was measured. A curve that "
        "falls straight to zero at distance 1 is what a mere list of exact records would give.",
        panels=(panel,),
    )


def _radii(pictures: Pictures, unit: str) -> Group | None:
    if not pictures.radii:
        return None
    return Group(
        ident="radii",
        title="Certified radii",
        caption="How many records have which certified radius, the distance up to which a redirection is claimed; the "
        "redirection check says whether the claims hold. Radius 0 covers only inputs that round to the record itself.",
        panels=(Panel(title="", svg=bars.radii("radii-0", pictures.radii, unit)),),
    )


def _cell(value: float | None) -> str:
    return "not measured" if value is None else percent(value)


def _frontier(pictures: Pictures, unit: str) -> Group | None:
    points = pictures.frontier
    if not points:
        return None
    header = (
        "Way", f"Radius ({unit}, median)", "Noise", "Shifts", "Rebuilt / guessing", "Picked out", "Candidates",
        "Bytes a record",
    )  # fmt: skip
    rows = tuple(
        (
            clean(p.name, 40), shown(p.radius), _cell(p.noise), _cell(p.augmented),
            "not measured" if p.rebuilt is None else shown(p.rebuilt), _cell(p.identified), f"{p.candidates:,}",
            f"{p.bytes_per_record:,.0f}",
        )
        for p in points[:ROWS]
    )  # fmt: skip
    panel = Panel(
        title="",
        svg=bars.frontier("frontier-0", points[:PANELS], unit),
        table=Table(title="Numbers", header=("", *header), rows=tuple((f"{k}", *row) for k, row in enumerate(rows, 1))),
    )
    chart = Panel(title="", svg=bars.frontier_map("frontier-1", points[:DOTS], unit))
    return Group(
        ident="frontier",
        title="What the patch buys and what it tells",
        caption="The patch beside an exact-match deny-list and beside the linear region of the base around each "
        "record, on the same draws. Noise and shifts: share of noisy versions of the records (2 % of each column’s "
        "range; one category in fifty changed) and of versions shifted by a pixel that are still redirected. Rebuilt: "
        "error of rebuilding a record from what is stored, relative to guessing the mean of its class; 1 is no better "
        "than guessing. Picked out: share of the records that running the patch on candidates gives away; inherent, "
        "since whatever acts on a record confirms it. A patch of several parts is shown part by part, too: each "
        "sketch or box that can be seen in it, with what its own items catch, certify and tell. In the second picture "
        "every dot is a row of the table: further right certifies more, further up tells less.",
        panels=(panel, chart),
    )


def groups(pictures: Pictures) -> tuple[Group, ...]:
    """Return the groups of pictures there is something to draw for."""
    unit = clean(pictures.unit, 20)
    found = (
        _roc(pictures),
        _scores(pictures),
        _shift(pictures),
        _outputs(pictures, unit),
        _persistence(pictures, unit),
        _radii(pictures, unit),
        _frontier(pictures, unit),
    )
    return tuple(group for group in found if group is not None)


def tables(pictures: Pictures) -> tuple[Table, ...]:
    """Return the further tables, cut to what a page can hold; short rows are filled with empty cells."""
    result = []
    for title, (header, rows) in pictures.tables.items():
        width = min(max([len(header), *(len(row) for row in rows[:ROWS])]), COLUMNS)
        padding = ("",) * width
        result.append(
            Table(
                title=clean(title, SHORT),
                header=tuple(clean(cell, SHORT) for cell in (*header, *padding)[:width]),
                rows=tuple(tuple(clean(cell, CELL) for cell in (*row, *padding)[:width]) for row in rows[:ROWS]),
                left_out=max(len(rows) - ROWS, 0),
                note=clean(pictures.notes.get(title, ""), NOTE),
            )
        )
    return tuple(result)
