"""A claim's region, and its radius in data units: what is printed beside the grid steps. Source: SPEC 11.2, 11.9."""

from decimal import ROUND_FLOOR, Decimal, localcontext

import numpy as np

from owner.gates.region import Shape
from protocol.claims import Region
from protocol.encoding import format_decimal
from protocol.model.schema import InputSchema


def data_radius(schema: InputSchema, steps: int, moving: np.ndarray | None = None) -> str:
    """Largest real distance per column that surely stays within `steps` grid steps, in data units, rounded down.

    (steps + 1/2 - tau) / max|s|, tau bounding the rounding of the float32 multiply and add.

    Args:
        schema: the input grid.
        steps: at least 0.
        moving: columns that have these steps; the others have none. All if None.
    """
    if moving is not None and not moving.all():
        sides = [(steps, moving), (0, ~moving)]
        return min((_data_radius(schema, n, columns) for n, columns in sides if columns.any()), key=Decimal)
    return _data_radius(schema, steps, np.ones(schema.features, dtype=bool))


def _data_radius(schema: InputSchema, steps: int, columns: np.ndarray) -> str:
    scale = float(np.abs(schema.scale[columns]).max())
    largest = float(np.maximum(np.abs(schema.low), np.abs(schema.high)).max() + np.abs(schema.offset).max() + 1)
    tau = 4 * largest * 2.0**-24
    with localcontext() as context:
        context.prec = 50
        exact = (Decimal(steps) + Decimal("0.5") - Decimal(tau)) / Decimal(scale)
        return format_decimal(max(exact, Decimal(0)).quantize(Decimal("1e-9"), rounding=ROUND_FLOOR))


def region(shape: Shape, radius: int) -> Region:
    """The region of this kind and radius, in steps or, where columns only flip, in flips."""
    schema = shape.schema
    if shape.kind == "linf":
        return Region(norm="linf", radius=radius, radius_data=data_radius(schema, radius))
    if shape.kind == "steps":
        data = data_radius(schema, radius, shape.numeric)
        return Region(norm="hamming", radius=0, radius_data=data, steps=radius)
    return Region(norm="hamming", radius=radius, radius_data=data_radius(schema, 0))
