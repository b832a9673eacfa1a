"""Sketch gates: which public matrix, and how large a box around each record.

Proves (by exact integers): the core of every item lies in its box, no box holds a retained record
(unless it equals the forgotten one, which is counted), and boxes of items with different rows are
disjoint. Distances are first taken in float32; whatever its rounding leaves open is decided in integers.
Does not hide the record: a sketch is a thumbnail, and how much it shows is measured by the auditor.
Source: certificate mathematics, SPEC 11.6; the core's bound is Hölder's inequality with the
column ranges taken into account.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int

from protocol.errors import OwnerError
from protocol.model.schema import InputSchema

Matrix = Int[np.ndarray, "component feature"]
EXACT = 1 << 24
_ELEMENTS = 1 << 24  # array elements held at once
_NEARLY_ALL = 0.95


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


def candidates(schema: InputSchema, values: Int[np.ndarray, "record feature"]) -> list[tuple[str, Matrix]]:
    """Matrices to choose from, the least telling first: block sums for images, principal directions otherwise.

    The identity, which stores the record itself, is the last one.
    """
    shape = schema.shape
    found: list[tuple[str, Matrix]] = []
    features = int(np.prod(shape))
    if len(shape) in (2, 3) and min(shape[-2:]) >= 4:
        sizes = [size for size in (8, 7, 6, 5, 4, 3, 2) if size * 2 <= min(shape[-2:])]
        found += [(f"block sums {size}x{size}", block_sums(shape, size)) for size in sizes]
    side = int(np.sqrt(features))
    if len(shape) == 1 and side * side == features and side >= 6 and (schema.scale == schema.scale[0]).all():
        # A flattened square: neighbours are probably pixels. A wrong guess costs radius, never soundness.
        sizes = [size for size in (7, 4, 3, 2) if size * 2 <= side]
        found += [(f"block sums {size}x{size}", block_sums((side, side), size)) for size in sizes]
    if not found:
        # A singular value decomposition of very many columns takes fewer records.
        sample = values[:: max(1, len(values) // (4000 if features <= 1000 else 1000))]
        counts = [count for count in (16, 32, 64) if count < min(features, len(sample))]
        for count in counts:
            found.append((f"{count} principal directions", integer_components(sample, count)))
    # The identity keeps apart whatever differs, at the price of storing the record: the last resort.
    found.append(("identity", np.eye(features, dtype=np.int32)))
    return [(name, matrix) for name, matrix in found if is_exact(matrix, schema)]


def sketch(matrix: Matrix, values: Int[np.ndarray, "record feature"]) -> Int[np.ndarray, "record component"]:
    """S q for every record, exact."""
    # float64 products of these integers are exact (below 2^53) and use the fast matrix product.
    return np.rint(values.astype(np.float64) @ matrix.T.astype(np.float64)).astype(np.int64)


class _Scaled:
    """Sketches as float32 points whose max-norm distance D decides: boxes of radii e and f are disjoint iff e + f < D.

    Componentwise, |z_i| > (e + f) ||S_i||_1 iff e + f < |z_i| / ||S_i||_1; so the room is ceil(D) - 1.
    """

    def __init__(self, matrix: Matrix, *points: Int[np.ndarray, "point component"]) -> None:
        norms = np.abs(matrix.astype(np.int64)).sum(axis=1)
        self._used = norms > 0
        self._norms = norms[self._used]
        self._points = [part[:, self._used] for part in points]
        whole = np.concatenate(self._points)
        # Around their middle the numbers are smallest, and so is float32's error.
        middle = (whole.min(axis=0) + whole.max(axis=0)) // 2
        scaled = [(part - middle) / self._norms for part in self._points]
        # Rounding of two coordinates and of their difference: 4 units of 2^-24 relative to the largest, doubled.
        self.slack = 8 * max(float(np.abs(part).max(initial=1.0)) for part in scaled) * 2.0**-24
        self._scaled = [torch.from_numpy(part.astype(np.float32)) for part in scaled]

    def distances(self, rows: slice, columns: slice) -> Float32[np.ndarray, "left right"]:
        """D between points of the first set and points of the last, each within `slack`."""
        distance: Float32[np.ndarray, "left right"] = torch.cdist(
            self._scaled[0][rows], self._scaled[-1][columns], p=float("inf")
        ).numpy()
        return distance

    def room(
        self, rows: Int[np.ndarray, "pair"], columns: Int[np.ndarray, "pair"], distance: Float32[np.ndarray, "pair"]
    ) -> Int[np.ndarray, "pair"]:
        """ceil(D) - 1, exact: in integers wherever `slack` leaves two answers. -1 where the points coincide."""
        result: Int[np.ndarray, "pair"] = np.ceil(distance).astype(np.int64) - 1
        close = np.flatnonzero(np.abs(distance - np.rint(distance)) <= self.slack)
        step = max(1, _ELEMENTS // max(1, len(self._norms)))
        for start in range(0, len(close), step):
            part = close[start : start + step]
            apart = np.abs(self._points[0][rows[part]] - self._points[-1][columns[part]])
            result[part] = ((apart - 1) // self._norms).max(axis=1, initial=-1)
        return result


def separation(
    matrix: Matrix,
    left: Int[np.ndarray, "left component"],
    right: Int[np.ndarray, "right component"],
    *,
    progress: Callable[[float], None] = lambda _: None,
) -> Int[np.ndarray, "left"]:
    """For each left sketch the largest radius whose box holds no right sketch; -1 where one coincides.

    The box of radius e is |z_i| <= e ||S_i||_1 for every i; z is outside iff some
    |z_i| > e ||S_i||_1, that is e <= (|z_i| - 1) // ||S_i||_1.
    """
    if not len(right):
        return np.full(len(left), np.iinfo(np.int64).max // 4, dtype=np.int64)
    scaled = _Scaled(matrix, left, right)
    result = np.full(len(left), np.iinfo(np.int64).max // 4, dtype=np.int64)
    step = max(1, _ELEMENTS // len(right))
    for start in range(0, len(left), step):
        distance = scaled.distances(slice(start, start + step), slice(None))
        # The room grows with D: only what may be the nearest is looked at.
        rows, columns = np.nonzero(distance <= distance.min(axis=1, keepdims=True) + 3 * scaled.slack)
        np.minimum.at(result, rows + start, scaled.room(rows + start, columns, distance[rows, columns]))
        progress(min(1.0, (start + step) / len(left)))
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Pairs of items whose boxes could meet: radii e and f keep them disjoint iff e + f <= room (-1: they coincide)."""

    first: Int[np.ndarray, "pair"]
    second: Int[np.ndarray, "pair"]
    room: Int[np.ndarray, "pair"]


def close_pairs(
    matrix: Matrix,
    points: Int[np.ndarray, "item component"],
    group: Int[np.ndarray, "item"],
    reach: Int[np.ndarray, "item"],
) -> Pairs:
    """All pairs of items of different groups that cannot both have their whole reach.

    Args:
        matrix: the sketch.
        points: the items' sketches.
        group: items with the same number may overlap (they have the same row).
        reach: the largest radius that each item could have by itself.
    """
    scaled = _Scaled(matrix, points)
    own = reach.astype(np.float32)
    found = [(np.zeros(0, dtype=np.int64),) * 3]
    step = max(1, _ELEMENTS // max(1, len(points)))
    for start in range(0, len(points), step):
        distance = scaled.distances(slice(start, start + step), slice(start, None))
        # In float32, for it is large; a little too high, so that its own rounding loses nothing.
        limit = (own[start : start + step, None] + own[None, start:]) * (1 + 2.0**-20) + 2 * scaled.slack
        rows, columns = np.nonzero(distance <= limit)
        keep = (rows < columns) & (group[rows + start] != group[columns + start])
        rows, columns = rows[keep], columns[keep]
        room = scaled.room(rows + start, columns + start, distance[rows, columns])
        tight = room < reach[rows + start] + reach[columns + start]
        found.append((rows[tight] + start, columns[tight] + start, room[tight]))
    first, second, room = (np.concatenate(part) for part in zip(*found, strict=True))
    return Pairs(first=first, second=second, room=room)


def share_out(reach: Int[np.ndarray, "item"], pairs: Pairs) -> Int[np.ndarray, "item"]:
    """Radii as large as retained records and the other items allow: half of the room each, then what is left over.

    The smallest radii are raised first, so that as many records as possible get any region at all.

    Args:
        reach: the largest radius that each item could have by itself, at least 0.
        pairs: what stands in the way; no pair coincides.
    """
    radius = reach.copy()
    half = pairs.room // 2
    np.minimum.at(radius, pairs.first, half)
    np.minimum.at(radius, pairs.second, half)
    owner = np.concatenate([pairs.first, pairs.second])
    order = np.argsort(owner, kind="stable")
    others = np.concatenate([pairs.second, pairs.first])[order]
    rooms = np.concatenate([pairs.room, pairs.room])[order]
    ends = np.searchsorted(owner[order], np.arange(len(reach) + 1))
    concerned = np.unique(owner)
    for item in concerned[np.argsort(radius[concerned], kind="stable")]:
        mine = slice(ends[item], ends[item + 1])
        left = int((rooms[mine] - radius[others[mine]]).min())
        radius[item] = max(int(radius[item]), min(int(reach[item]), left))
    return radius


def boxes(
    matrix: Matrix, schema: InputSchema, values: Int[np.ndarray, "item feature"], radius: Int[np.ndarray, "item"]
) -> tuple[Int[np.ndarray, "item component"], Int[np.ndarray, "item component"]]:
    """The exact hull of S q over {|q - q_k| <= e_k} within the columns' ranges: the smallest sufficient boxes."""
    spread = radius[:, None].astype(np.int64)
    low = np.maximum(values - spread, schema.low)
    high = np.minimum(values + spread, schema.high)
    positive, negative = np.maximum(matrix, 0), np.minimum(matrix, 0)
    return sketch(positive, low) + sketch(negative, high), sketch(positive, high) + sketch(negative, low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The chosen matrix and, for each record, its radius in grid steps.

    Args:
        name: the matrix in words.
        matrix: the sketch.
        radius: grid steps, at least 0.
        twins: records that a retained record equals in every value; it is redirected with them.
        leader: for each record the one whose row it shares because their sketches coincide (mostly itself).
    """

    name: str
    matrix: Matrix
    radius: Int[np.ndarray, "item"]
    twins: int
    leader: Int[np.ndarray, "item"]


def _leaders(points: Int[np.ndarray, "item component"]) -> Int[np.ndarray, "item"]:
    _, first, inverse = np.unique(points, axis=0, return_index=True, return_inverse=True)
    return np.asarray(first[inverse.ravel()])


def _only_twins(
    own: Int[np.ndarray, "item component"],
    others: Int[np.ndarray, "record component"],
    forget: Int[np.ndarray, "item feature"],
    retain: Int[np.ndarray, "record feature"],
) -> bool:
    """Whether every retained record whose sketch is that of one of these records equals it."""
    known = {point.tobytes(): record.tobytes() for point, record in zip(own, forget, strict=True)}
    return all(
        known.get(point.tobytes(), record.tobytes()) == record.tobytes()
        for point, record in zip(others, retain, strict=True)
    )


def choose(
    schema: InputSchema,
    forget: Int[np.ndarray, "item feature"],
    retain: Int[np.ndarray, "record feature"],
    group: Int[np.ndarray, "item"],
    *,
    wanted: int,
    ceiling: int,
    progress: Callable[[str, float], None] = lambda _stage, _share: None,
) -> Choice:
    """The least telling matrix under which nearly every record reaches `wanted` steps; failing that, the best one.

    A matrix under which a retained record cannot be told from a forgotten one that differs from it is
    no choice at all.

    Args:
        schema: the input grid.
        forget: canonical records to forget, at least one.
        retain: canonical records that no support may hold.
        group: equal numbers mark records with the same output row, which may overlap.
        wanted: radius asked for, in grid steps.
        ceiling: largest radius to certify, in grid steps.
        progress: called with what is being looked at and the share done.

    Raises:
        OwnerError: no sketch of this schema is exact.
    """
    best: tuple[float, Choice] | None = None
    alike = _leaders(forget)
    for name, matrix in candidates(schema, retain if len(retain) else forget):
        if best is not None and name == "identity":
            break
        own, others = sketch(matrix, forget), sketch(matrix, retain)
        reach = separation(matrix, own, others, progress=lambda share, name=name: progress(name, share))  # type: ignore[misc]
        lost = reach < 0
        if lost.any():
            near = np.isin(_keys(others), _keys(own[lost]))
            if not _only_twins(own[lost], others[near], forget[lost], retain[near]):
                continue
        leader = _leaders(own)
        open_reach = np.clip(reach, 0, ceiling).astype(np.int64)
        radius = share_out(open_reach, close_pairs(matrix, own, group[leader], open_reach))
        choice = Choice(name=name, matrix=matrix, radius=radius, twins=int(lost.sum()), leader=leader)
        # Whoever has to take another record's output because their sketches coincide has reached nothing.
        reached = float(((radius >= min(wanted, ceiling)) & ~lost & (leader == alike)).mean())
        if reached >= _NEARLY_ALL:
            return choice
        # A finer matrix has to earn what it shows.
        if best is None or reached > best[0] + 0.02:
            best = (reached, choice)
    if best is None:
        raise OwnerError("no sketch of this input schema is exact in float32; commit again with a coarser --schema")
    return best[1]


def _keys(points: Int[np.ndarray, "point component"]) -> np.ndarray:
    # Rows as single opaque values, so that sets of rows can be compared.
    flat = np.ascontiguousarray(points)
    return flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1]))).ravel()
