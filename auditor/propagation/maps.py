"""Linear maps between activations in float64, each in three readings, and their transposes.

The readings of a map A: `signed` is A itself; `absolute` has |A| in place of every entry (magnitudes of
sums); `reach` has max(1, |factor|) for every factor (what partial products and lost subnormals can grow to).
Computes nothing in directed rounding: callers add `rounding.slack`, for which every result
must be a sum of products evaluated classically. torch's float64 convolution on the CPU is im2col or a direct loop.

Proves nothing. Assumes checked shapes (`protocol.model.check`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch.nn import functional

from auditor.propagation.rounding import at_least_one

Reading = Literal["signed", "absolute", "reach"]
Array = Float[np.ndarray, "..."]
Shape = tuple[int, ...]


def readings(signed: Array, reach: Array | None = None) -> Mapping[Reading, Array]:
    """A map's entries in its three readings; `reach` if it is more than the entries themselves tell."""
    entries = np.asarray(signed, np.float64)
    return {
        "signed": entries,
        "absolute": np.abs(entries),
        "reach": at_least_one(entries) if reach is None else np.asarray(reach, np.float64),
    }


class LinearMap(Protocol):
    """What a node does to one of its inputs, constants added apart.

    `mixing` says whether one output depends on several inputs.
    """

    @property
    def mixing(self) -> bool:
        """Whether one output value depends on several input values."""

    def forward(self, x: Float[np.ndarray, "record ..."], reading: Reading) -> Float[np.ndarray, "record ..."]:
        """The map in the given reading, applied to every record."""

    def backward(self, rows: Float[np.ndarray, "row ..."]) -> Float[np.ndarray, "row ..."]:
        """Coefficients of the inputs from coefficients of the outputs: the signed map's transpose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixMap:
    """The last axis times a matrix `[input, output]`."""

    weight: Mapping[Reading, Array]
    mixing: bool = True

    def forward(self, x: Array, reading: Reading) -> Array:
        """See `LinearMap`."""
        result: Array = x @ self.weight[reading]
        return result

    def backward(self, rows: Array) -> Array:
        """See `LinearMap`."""
        result: Array = rows @ self.weight["signed"].T
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleMap:
    """Every value times a constant, after broadcasting from `before` to `after` (shapes of one record)."""

    factor: Mapping[Reading, Array]
    before: Shape
    after: Shape
    mixing: bool = False

    def forward(self, x: Array, reading: Reading) -> Array:
        """See `LinearMap`."""
        result: Array = np.broadcast_to(x, (len(x), *self.after)) * self.factor[reading]
        return result

    def backward(self, rows: Array) -> Array:
        """See `LinearMap`."""
        scaled: Array = rows * self.factor["signed"]
        axes = tuple(axis for axis, size in enumerate(self.before, start=1) if size != self.after[axis - 1])
        return scaled.sum(axis=axes, keepdims=True) if axes else scaled


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveMap:
    """Values in another shape or order of axes (`order` of one record's axes from 1, applied before reshaping)."""

    before: Shape
    after: Shape
    order: tuple[int, ...] | None = None
    mixing: bool = False

    def forward(self, x: Array, reading: Reading) -> Array:
        """See `LinearMap`."""
        del reading
        moved = x if self.order is None else x.transpose(0, *self.order)
        return moved.reshape(len(x), *self.after)

    def backward(self, rows: Array) -> Array:
        """See `LinearMap`."""
        if self.order is None:
            return rows.reshape(len(rows), *self.before)
        return rows.transpose(0, *(int(axis) + 1 for axis in np.argsort(self.order)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvMap:
    """A two-dimensional convolution with a kernel `[output, input / groups, height, width]`."""

    kernel: Mapping[Reading, Array]
    before: Shape
    strides: tuple[int, int]
    pads: tuple[int, int]
    groups: int
    mixing: bool = True

    def forward(self, x: Array, reading: Reading) -> Array:
        """See `LinearMap`."""
        kernel = torch.from_numpy(self.kernel[reading])
        data = torch.from_numpy(np.ascontiguousarray(x))
        done = functional.conv2d(data, kernel, stride=self.strides, padding=self.pads, groups=self.groups)
        result: Array = done.numpy()
        return result

    def backward(self, rows: Array) -> Array:
        """See `LinearMap`."""
        kernel = self.kernel["signed"]
        # What is left over after the last full stride gets no coefficient.
        rest = [
            (size + 2 * pad - window) % stride
            for size, pad, window, stride in zip(
                self.before[1:], self.pads, kernel.shape[2:], self.strides, strict=True
            )
        ]
        done = functional.conv_transpose2d(
            torch.from_numpy(np.ascontiguousarray(rows)),
            torch.from_numpy(kernel),
            stride=self.strides,
            padding=self.pads,
            output_padding=rest,
            groups=self.groups,
        )
        result: Array = done.numpy()
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One map after the other."""

    maps: tuple[LinearMap, ...]
    mixing: bool = True

    def forward(self, x: Array, reading: Reading) -> Array:
        """See `LinearMap`."""
        for one in self.maps:
            x = one.forward(x, reading)
        return x

    def backward(self, rows: Array) -> Array:
        """See `LinearMap`."""
        for one in reversed(self.maps):
            rows = one.backward(rows)
        return rows


def windows(
    size: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, int], pads: tuple[int, int]
) -> Int64[np.ndarray, "height width window"]:
    """Flat places within one channel that a pooling window sees, -1 for padding.

    Args:
        size: height and width of the input.
        kernel: of the window.
        strides: of the window.
        pads: on either side, top and bottom or left and right.
    """
    places = np.arange(math.prod(size)).reshape(size)
    padded = np.pad(places, [(pad, pad) for pad in pads], constant_values=-1)
    seen = np.lib.stride_tricks.sliding_window_view(padded, kernel)[:: strides[0], :: strides[1]]
    return np.ascontiguousarray(seen.reshape(*seen.shape[:2], -1)).astype(np.int64)
