"""Sketch gates: which public matrix, and how large a box around each record.

Proves (by exact integers, `apart`): the core of every item lies in its box, no box holds a retained record
(unless it equals the forgotten one, which is counted), and boxes of items with different rows are disjoint.
Does not hide the record: a sketch is a thumbnail. How much it shows is estimated here (`rebuilding`), to keep the
choice of a matrix within a level, and measured by the auditor. Source: certificate mathematics, SPEC 11.6.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Integer, Num

from owner.gates.apart import reach, share_out
from owner.gates.meeting import Boxes
from owner.gates.rebuilding import Rebuilder, Sample
from owner.gates.region import Cores, Points, Shape
from protocol.errors import OwnerError
from protocol.model.parts import SketchGate
from protocol.model.schema import InputSchema

Matrix = Int[np.ndarray, "component feature"]
EXACT = 1 << 24
_TOGETHER = 1024  # records made float32 at once: what stays in a processor's cache
IDENTITY = "identity"
_TRIED = 96  # records that the matrices are compared on
_COMPARED = 4000  # and retained records
_FEW = 0.1  # share of the records that may get a matrix of their own
_WORTH = 0.1  # by how much log2(1 + radius) has to grow on average for a finer matrix


def block_sums(shape: tuple[int, ...], size: int) -> Matrix:
    """Sums over `size` x `size` blocks of each channel; the last block of a row or column may be narrower.

    Args:
        shape: (height, width) or (channel, height, width).
        size: pixels on a side.
    """
    channels, height, width = (1, *shape) if len(shape) == 2 else shape
    rows, columns = -(-height // size), -(-width // size)
    block = (np.arange(height) // size)[:, None] * columns + (np.arange(width) // size)[None, :]
    matrix = np.zeros((channels, rows * columns, channels, height * width), dtype=np.int32)
    for channel in range(channels):
        matrix[channel, block.ravel(), channel, np.arange(height * width)] = 1
    return matrix.reshape(channels * rows * columns, channels * height * width)


def integer_components(values: Int[np.ndarray, "record feature"], count: int, *, largest: int = 15) -> Matrix:
    """The leading principal directions of `values`, scaled and rounded to integers of at most `largest`.

    Rounding costs a little variance; what it buys is that every sum is exact.
    """
    centred = values.astype(np.float64) - values.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    leading = directions[:count]
    scaled = np.round(leading / np.abs(leading).max(axis=1, keepdims=True) * largest).astype(np.int32)
    # The sign of a singular vector is arbitrary; fixed here so that equal data gives equal matrices.
    signs = np.sign(scaled[np.arange(len(scaled)), np.abs(scaled).argmax(axis=1)])
    result: Matrix = scaled * signs[:, None]
    return result


def is_exact(matrix: Matrix, schema: InputSchema) -> bool:
    """Whether every partial sum of S Q(x) is exact in float32, in any order."""
    largest = np.maximum(np.abs(schema.low), np.abs(schema.high)).astype(np.int64)
    return bool((np.abs(matrix.astype(np.int64)) @ largest).max() < EXACT)


def signs(values: Int[np.ndarray, "record feature"], columns: Int[np.ndarray, "column"], count: int) -> Matrix:
    """Signs of the leading principal directions over some columns, 0 elsewhere.

    A flip moves each component by 1 (binary) or 2 (one-hot) whatever it flips, so that the hull of a few flips is as
    small as can be beside the distances between records.
    """
    part = values[:, columns].astype(np.float64)
    _, _, directions = np.linalg.svd(part - part.mean(axis=0), full_matrices=False)
    leading = directions[:count]
    leading *= np.sign(leading[np.arange(len(leading)), np.abs(leading).argmax(axis=1)])[:, None]
    matrix = np.zeros((len(leading), values.shape[1]), dtype=np.int32)
    matrix[:, columns] = np.where(leading >= 0, 1, -1)
    return matrix


def codes(schema: InputSchema, columns: Int[np.ndarray, "column"], count: int = 3) -> Matrix:
    """Rows of public random integers over columns that a region holds fixed: records that differ there differ here.

    No secret: with few possible values of these columns the right ones are found by trying.
    """
    span = np.maximum(np.abs(schema.low), np.abs(schema.high))[columns]
    largest = int(min(4096, (EXACT - 1) // max(1, int(span.sum()))))
    matrix = np.zeros((count, schema.features), dtype=np.int32)
    if largest:
        matrix[:, columns] = np.random.default_rng(0).integers(1, largest + 1, (count, len(columns)))
    return matrix


def _over(columns: Int[np.ndarray, "column"], part: Matrix, features: int) -> Matrix:
    matrix = np.zeros((len(part), features), dtype=np.int32)
    matrix[:, columns] = part
    return matrix


def candidates(shape: Shape, values: Integer[np.ndarray, "record feature"]) -> list[tuple[str, Matrix]]:
    """Matrices to choose from, the least telling first; the identity, which stores the record itself, is the last one.

    Block sums for images; principal directions for numeric tables, their signs for flips; codes for what is held fixed.
    """
    schema = shape.schema
    size, features = schema.shape, schema.features
    found: list[tuple[str, Matrix]] = []
    # A singular value decomposition of very many columns takes fewer records.
    sample = values[:: max(1, len(values) // (4000 if features <= 1000 else 1000))]
    numeric, others = np.flatnonzero(shape.numeric), np.flatnonzero(~shape.numeric)
    if shape.kind == "flips":
        fixed = [codes(schema, numeric)] if numeric.size else []
        for count in (count for count in (16, 32, 64, 128) if count < min(others.size, len(sample))):
            matrix = np.concatenate([signs(sample, others, count), *fixed])
            found.append((f"signs of {count} principal directions", matrix))
    elif shape.kind == "steps":
        for count in (count for count in (2, 4, 8, 16, 32) if count < min(numeric.size, len(sample))):
            leading = _over(numeric, integer_components(sample[:, numeric], count), features)
            found.append((f"{count} principal directions and codes", np.concatenate([leading, codes(schema, others)])))
        own = _over(numeric, np.eye(numeric.size, dtype=np.int32), features)
        found.append(("numeric columns and codes", np.concatenate([own, codes(schema, others)])))
    else:
        side = int(np.sqrt(features))
        if len(size) in (2, 3) and min(size[-2:]) >= 4:
            sizes = [k for k in (8, 7, 6, 5, 4, 3, 2) if k * 2 <= min(size[-2:])]
            found += [(f"block sums {k}x{k}", block_sums(size, k)) for k in sizes]
        elif len(size) == 1 and side * side == features and side >= 6 and (schema.scale == schema.scale[0]).all():
            # A flattened square: neighbours are probably pixels. A wrong guess costs radius, never soundness.
            sizes = [k for k in (7, 5, 4, 3, 2) if k * 2 <= side]
            found += [(f"block sums {k}x{k}", block_sums((side, side), k)) for k in sizes]
        if not found:
            for count in (count for count in (16, 32, 64) if count < min(features, len(sample))):
                found.append((f"{count} principal directions", integer_components(sample, count)))
    # The identity keeps apart whatever differs, at the price of storing the record: the last resort.
    found.append((IDENTITY, np.eye(features, dtype=np.int32)))
    return [(name, matrix) for name, matrix in found if is_exact(matrix, schema)]


def sketch(matrix: Matrix, values: Integer[np.ndarray, "record feature"]) -> Int[np.ndarray, "record component"]:
    """S q for every record, exact."""
    # Every partial sum is below 2^24 (`is_exact`), so float32 products are exact, and fast.
    columns, start = matrix.T.astype(np.float32), 0
    found = np.empty((len(values), len(matrix)), dtype=np.int32)
    for part in _blocks(values, np.float32):
        found[start : start + len(part)] = part @ columns
        start += len(part)
    return found


def boxes(
    matrix: Matrix, schema: InputSchema, values: Int[np.ndarray, "item feature"], radius: Int[np.ndarray, "item"]
) -> tuple[Int[np.ndarray, "item component"], Int[np.ndarray, "item component"]]:
    """The exact hull of S q over {|q - q_k| <= e_k} within the columns' ranges: the smallest sufficient boxes."""
    return Shape(schema=schema, kind="linf").hull(matrix, values, radius)


def without_idle(gate: SketchGate, schema: InputSchema) -> SketchGate:
    """The gate without components that limit no item anywhere on the grid: they would only fill the file.

    An auditor takes what no claim needs for a payload (SPEC 13.4.13). A gate that nothing limits stays as it is.
    """
    matrix = gate.matrix.astype(np.int64)
    ends = np.stack([matrix * schema.low.astype(np.int64), matrix * schema.high.astype(np.int64)])
    least, most = ends.min(axis=0).sum(axis=1), ends.max(axis=0).sum(axis=1)
    used = (gate.low > least).any(axis=0) | (gate.high < most).any(axis=0)
    if used.all() or not used.any():
        return gate
    return SketchGate(matrix=gate.matrix[used], low=gate.low[:, used], high=gate.high[:, used])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """One matrix, and how much of a record it shows: error of rebuilding relative to guessing the class mean."""

    name: str
    matrix: Matrix
    shown: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The chosen matrices and, for each record, its own one, its radius and its box.

    Args:
        sketches: the matrices in use, the most telling first: their items come first, too.
        sketch_of: for each record the number of its sketch.
        radius: of each record's region, at least 0, in the shape's unit.
        low: least value of each component of a record's own sketch over its region.
        high: greatest value.
        twins: for each record the retained records that equal it in every value; they are redirected with it.
        leader: for each record the one whose row it shares because their sketches coincide (mostly itself).
    """

    sketches: tuple[Sketch, ...]
    sketch_of: Int[np.ndarray, "item"]
    radius: Int[np.ndarray, "item"]
    low: tuple[Int[np.ndarray, "component"], ...]
    high: tuple[Int[np.ndarray, "component"], ...]
    twins: Int[np.ndarray, "item"]
    leader: Int[np.ndarray, "item"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What to look for.

    Args:
        shape: the kind of region.
        wanted: radius that every record should reach, if any allowed matrix gives it.
        ceiling: largest radius to certify.
        level: least error of rebuilding a record from its sketch, relative to guessing its class mean; a matrix below
            it is used only where nothing else tells a retained record from a forgotten one.
        parts: how many matrices may be used at once.
        only: the one matrix to use, by name; None to choose.
        most: for each record to forget a radius that it must not exceed for other reasons; None for no such limit.
        before: matrices that an earlier certificate's items use already, the likeliest first.
    """

    shape: Shape
    wanted: int
    ceiling: int
    level: float
    parts: int = 1
    only: str | None = None
    most: Int[np.ndarray, "item"] | None = None
    before: tuple[Matrix, ...] = ()


def _leaders(points: Int[np.ndarray, "item component"]) -> Int[np.ndarray, "item"]:
    _, first, inverse = np.unique(points, axis=0, return_index=True, return_inverse=True)
    return np.asarray(first[inverse.ravel()])


def _blocks(values: Num[np.ndarray, "record feature"], kind: type[np.floating]) -> Iterator[np.ndarray]:
    # Few enough records at once to stay in a processor's cache.
    for start in range(0, len(values), _TOGETHER):
        yield values[start : start + _TOGETHER].astype(kind)


def _ends(values: Num[np.ndarray, "record feature"]) -> Num[np.ndarray, "end"]:
    return np.array([values.min(), values.max()]) if values.size else np.zeros(1, np.int64)


def count_twins(
    forget: Int[np.ndarray, "item feature"], retain: Integer[np.ndarray, "record feature"]
) -> Int[np.ndarray, "item"]:
    """How many retained records equal each record in every value."""
    # Most records differ in a sum with weights already; only the others are compared value by value. Every partial sum
    # is below 2^53, so equal records have equal sums, in whatever order float64 adds them up.
    largest = max((int(np.abs(part.astype(np.int64)).max(initial=1)) for part in (forget, _ends(retain))), default=1)
    top = min(1 << 20, (1 << 53) // (max(1, largest) * forget.shape[1]))
    weights = np.random.default_rng(0).integers(1, top + 1, forget.shape[1]).astype(np.float64)
    own, others = (
        np.concatenate([part @ weights for part in _blocks(records, np.float64)] or [np.zeros(0)])
        for records in (forget, retain)
    )
    near = retain[np.isin(others, own)].astype(np.int64)
    table = Counter(record.tobytes() for record in near)
    return np.array([table[record.tobytes()] for record in forget.astype(np.int64)], dtype=np.int64)


class _Finder:
    """One search: what is computed for a matrix is computed once."""

    def __init__(
        self, search: Search, forget: np.ndarray, sample: Sample, retain: np.ndarray,
        progress: Callable[[str, float], None],
    ) -> None:  # fmt: skip
        self.search, self.forget = search, forget
        self.rebuilder = Rebuilder(search.shape, sample)
        self.progress = progress
        self.told: set[str] = set()
        self.retain = retain
        self.twins = count_twins(forget, self.retain)

    def reach(self, name: str, matrix: Matrix, rows: np.ndarray, *, few: bool = False) -> tuple[Cores, np.ndarray]:
        # To compare matrices, a part of what is retained is enough.
        step = max(1, len(self.retain) // _COMPARED) if few else 1
        points = sketch(matrix, self.retain[::step])
        boxes = Boxes(points, points)
        cores = Cores(self.search.shape, matrix, self.forget[rows], self.search.ceiling)
        # A stage is told of once: its share done never falls back.
        told = few or name in self.told
        if not told:
            self.told.add(name)
        found = reach(
            cores,
            len(rows),
            boxes,
            (points, points),
            progress=lambda share: None if told else self.progress(name, share),
        )
        return cores, found

    def shown(self, matrix: Matrix, radius: int) -> float:
        return self.rebuilder.error(matrix, radius)


def choose(
    search: Search,
    forget: Int[np.ndarray, "item feature"],
    retain: Integer[np.ndarray, "record feature"],
    group: Int[np.ndarray, "item"],
    sample: Sample,
    *,
    progress: Callable[[str, float], None] = lambda _stage, _share: None,
) -> Choice:
    """Matrices and radii: as large as retained records, the level and the other items allow.

    One matrix is the first choice: the least telling one that a finer one does not beat clearly, in the mean of
    log2(1 + radius) over a few of the records. Records that do not reach the wanted radius with it get the least
    telling matrix that does better, as far as several matrices may be used; with only one, a finer one is taken for
    all of them if fewer fall short. A matrix that cannot tell a retained record from a different forgotten one is no
    choice for that record.

    Args:
        search: what to look for.
        forget: canonical records to forget, at least one.
        retain: canonical records that no support may hold.
        group: equal numbers mark records with the same output row, which may overlap.
        sample: known records to estimate rebuilding on.
        progress: called with what is being looked at and the share done.

    Raises:
        OwnerError: no sketch of this schema is exact.
    """
    shape = search.shape
    wanted, ceiling = min(search.wanted, shape.widest), min(search.ceiling, shape.widest)
    finder = _Finder(search, forget, sample, retain, progress)
    known = candidates(shape, retain if len(retain) else forget)
    drawn = tuple(m for m in search.before if not any(np.array_equal(m, matrix) for _, matrix in known))
    known = [(name, _of_its_kind(matrix, drawn)) for name, matrix in known]
    if search.only is not None:
        known = [(name, matrix) for name, matrix in known if name == search.only]
    if not known:
        raise OwnerError("no sketch of this input schema is exact in float32; commit again with a coarser --schema")
    if (used := _used_before(finder, known, group, wanted=wanted, ceiling=ceiling)) is not None:
        return used
    tried = np.unique(np.linspace(0, len(forget) - 1, min(_TRIED, len(forget))).astype(np.int64))
    tried = tried[finder.twins[tried] == 0]
    allowed: list[tuple[str, Matrix, float]] = []
    first, best = 0, -1.0
    enough = False
    for name, matrix in known:
        if allowed and name == IDENTITY:
            break
        # Once all have the ceiling, finer matrices are only noted, for records that turn out to fall short.
        found = finder.reach(name, matrix, tried, few=True)[1] if not enough else np.full(1, ceiling)
        shown = finder.shown(matrix, int(np.median(found)) if found.size else 0)
        if allowed and shown < search.level:
            break
        allowed.append((name, matrix, shown))
        score = float(np.log2(1.0 + np.clip(found, 0, ceiling)).mean() - (found < 0).mean()) if found.size else 0.0
        if not enough and score > best + _WORTH:
            first, best = len(allowed) - 1, score
        enough = enough or bool(found.size and found.min() >= ceiling)
    # What the level forbids is kept for records that nothing else tells from a retained one.
    last = [(name, matrix, -1.0) for name, matrix in known[-1:] if name not in {a[0] for a in allowed}]
    return _settle(finder, [*allowed[first:], *last], len(allowed) - first, group, wanted=wanted, ceiling=ceiling)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """Some records under one matrix: their radii and boxes, whose row each shares, and who cannot be told apart."""

    radius: Int[np.ndarray, "item"]
    low: Points
    high: Points
    leader: Int[np.ndarray, "item"]
    confused: Bool[np.ndarray, "item"]


def _fit(
    finder: _Finder,
    name: str,
    matrix: Matrix,
    rows: Int[np.ndarray, "item"],
    group: Int[np.ndarray, "record"],
    ceiling: int,
    obstacles: tuple[Points, Points] | None = None,
) -> _Fit:
    # `obstacles` are boxes that these records' boxes must not meet, beside what is retained.
    cores, found = finder.reach(name, matrix, rows)
    if finder.search.most is not None:
        found = np.minimum(found, finder.search.most[rows])
    if obstacles is not None and len(obstacles[0]):
        found = np.minimum(found, reach(cores, len(rows), Boxes(*obstacles), obstacles))
    twins = finder.twins[rows]
    points = sketch(matrix, finder.forget[rows])
    leader = _leaders(points)
    largest = np.clip(found, 0, ceiling)
    largest[twins > 0] = 0
    radius = share_out(cores, points, group[rows][leader], largest)
    low, high = cores.at(np.arange(len(rows)), radius)
    confused = (found < 0) & (twins == 0)
    # A twin's sketch is there anyway; who must not be is a retained record that differs from both.
    doubled = np.flatnonzero(twins > 0)
    others = sketch(matrix, finder.retain) if len(doubled) else points[:0]
    for place in doubled.tolist():
        same = (others == points[place]).all(axis=1)
        confused[place] = bool((finder.retain[same] != finder.forget[rows[place]]).any())
    return _Fit(radius=radius, low=low, high=high, leader=rows[leader], confused=confused)


def _choice(finder: _Finder, fits: list[tuple[str, Matrix, Int[np.ndarray, "item"], _Fit]]) -> Choice:
    count = len(finder.forget)
    radius, leader, number_of = (np.zeros(count, np.int64) for _ in range(3))
    low: list[np.ndarray] = [np.zeros(0, np.int32)] * count
    high: list[np.ndarray] = [np.zeros(0, np.int32)] * count
    sketches = []
    for number, (name, matrix, rows, fit) in enumerate(fits):
        radius[rows], leader[rows], number_of[rows] = fit.radius, fit.leader, number
        for place, row in enumerate(rows.tolist()):
            low[row], high[row] = fit.low[place], fit.high[place]
        sketches.append(Sketch(name=name, matrix=matrix, shown=finder.shown(matrix, int(np.median(fit.radius)))))
    return Choice(
        sketches=tuple(sketches), sketch_of=number_of, radius=radius, low=tuple(low), high=tuple(high),
        twins=finder.twins, leader=leader,
    )  # fmt: skip


def _of_its_kind(matrix: Matrix, before: tuple[Matrix, ...]) -> Matrix:
    """The matrix of the same kind that items use already, where directions were drawn from slightly other records.

    Args:
        matrix: one that could be used now.
        before: those in use that are none of today's.
    """
    largest, columns = np.abs(matrix).max(axis=1), matrix.any(axis=0)
    for other in before:
        same = other.shape == matrix.shape
        if same and (np.abs(other).max(axis=1) == largest).all() and (other.any(axis=0) == columns).all():
            return other
    return matrix


def _used_before(
    finder: _Finder, known: list[tuple[str, Matrix]], group: Int[np.ndarray, "item"], *, wanted: int, ceiling: int
) -> Choice | None:
    """A matrix that items use already, if it gives every record what it should reach and shows no more than may be.

    A request that comes after others then adds items to a part and no part; what it costs is radius beyond what every
    record should reach, where a finer matrix would give some.
    """
    search, rows = finder.search, np.arange(len(finder.forget))
    alike = _leaders(finder.forget)
    seen: list[Matrix] = []
    for matrix in search.before:
        name = next((name for name, other in known if np.array_equal(matrix, other)), "as before")
        if (search.only is not None and name != search.only) or any(np.array_equal(matrix, one) for one in seen):
            continue
        seen.append(matrix)
        fit = _fit(finder, name, matrix, rows, group, ceiling)
        short = (((fit.radius < wanted) | (fit.leader != alike)) & (finder.twins == 0)) | fit.confused
        if short.any():
            continue
        if search.only is not None or finder.shown(matrix, int(np.median(fit.radius))) >= search.level:
            return _choice(finder, [(name, matrix, rows, fit)])
    return None


def _settle(
    finder: _Finder,
    known: list[tuple[str, Matrix, float]],
    allowed: int,
    group: Int[np.ndarray, "item"],
    *,
    wanted: int,
    ceiling: int,
) -> Choice:
    twins = finder.twins
    everything = np.arange(len(finder.forget))
    alike = _leaders(finder.forget)
    best: tuple[int, list[tuple[str, Matrix, Int[np.ndarray, "item"], _Fit]]] | None = None
    for number, (name, matrix, _) in enumerate(known):
        fit = _fit(finder, name, matrix, everything, group, ceiling)
        short = (((fit.radius < wanted) | (fit.leader != alike)) & (twins == 0)) | fit.confused
        if number == 0 and finder.search.parts > 1 and 0 < short.sum() <= _FEW * len(short):
            finer = _finer(finder, known[:allowed], short, group, wanted=wanted, ceiling=ceiling, before=fit.radius)
            if finer is None and fit.confused.any():
                # What the level forbids is for those whom nothing else tells from a retained record.
                last = [known[0], *known[allowed:]]
                finer = _finer(finder, last, fit.confused, group, wanted=0, ceiling=ceiling, before=fit.radius)
            if finer is not None:
                return _choice(finder, finer)
        if fit.confused.any() and number + 1 < len(known):
            continue
        if best is None or short.sum() < best[0]:
            best = int(short.sum()), [(name, matrix, everything, fit)]
        # A few records short of the wish are no reason to show more of all the others.
        if not short.any() or number + 1 >= allowed:
            break
    assert best is not None
    return _choice(finder, best[1])


def _finer(
    finder: _Finder,
    known: list[tuple[str, Matrix, float]],
    short: Bool[np.ndarray, "item"],
    group: Int[np.ndarray, "item"],
    *,
    wanted: int,
    ceiling: int,
    before: Int[np.ndarray, "item"],
) -> list[tuple[str, Matrix, Int[np.ndarray, "item"], _Fit]] | None:
    """The first matrix for most, and for the few that fall short the next one that gives all of them what is wanted.

    Items of the finer matrix come first, so their boxes must not meet the others' regions, seen through that matrix;
    the other way round it does not matter. None if no finer matrix does.
    """
    few, most = np.flatnonzero(short), np.flatnonzero(~short)
    name, matrix, _ = known[0]
    rest = _fit(finder, name, matrix, most, group, ceiling)
    if rest.confused.any() or (rest.radius < before[most]).any():
        return None
    for name_, matrix_, _ in known[1:]:
        regions = finder.search.shape.hull(matrix_, finder.forget[most], rest.radius)
        fit = _fit(finder, name_, matrix_, few, group, ceiling, regions)
        told = not fit.confused.any() and (fit.leader == few[_leaders(finder.forget[few])]).all()
        if told and (fit.radius >= wanted).all():
            return [(name_, matrix_, few, fit), (name, matrix, most, rest)]
    return None
