"""The claimed regions around records, in the three forms that proofs need: grid boxes, sketch hulls, float boxes.

Proves: what `bounds` and `propagation.region` prove; this only keeps the regions of one certificate together.
Assumes a parsed schema. Source: SPEC 11.2, 11.6, 11.9.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Integer

from auditor import bounds, flips
from auditor.propagation import region
from protocol.model.parts import SketchGate
from protocol.model.schema import InputSchema


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Regions of some records.

    Args:
        schema: the committed input schema.
        centre: the records on the grid.
        steps: grid steps that every column may move; one number a record, or one a column.
        flips: how many binary columns and one-hot groups of each record may change besides; None for none.
    """

    schema: InputSchema
    centre: Integer[np.ndarray, "record feature"]
    steps: Integer[np.ndarray, "record #feature"]
    flips: Integer[np.ndarray, " record"] | None = None

    @property
    def inside(self) -> Bool[np.ndarray, " record"]:
        """Which records are inside the columns' ranges; no gate acts on the others."""
        each = (self.centre >= self.schema.low) & (self.centre <= self.schema.high)
        found: Bool[np.ndarray, " record"] = np.logical_and.reduce(each, axis=1)
        return found

    def only(self, chosen: Integer[np.ndarray, " some"]) -> "Cores":
        """The regions of some of the records."""
        kept = None if self.flips is None else self.flips[chosen]
        return Cores(schema=self.schema, centre=self.centre[chosen], steps=self.steps[chosen], flips=kept)

    def proof(self, gate: SketchGate, item: Integer[np.ndarray, " record"]) -> bounds.CoreProof:
        """Whether each region is in its item's box, exactly."""
        low, high = self.schema.low, self.schema.high
        if self.flips is None or not self.flips.any():
            return bounds.prove_sketch_core(
                gate, centre=self.centre, radius=self.steps, item=item, column_low=low, column_high=high
            )
        steps = np.broadcast_to(self.steps, self.centre.shape).astype(np.int64)
        reach = flips.Reach(steps=steps, flips=self.flips.astype(np.int64))
        return flips.prove_core(gate, self.schema, centre=self.centre, reach=reach, item=item)

    def boxes(self) -> tuple[Float32[np.ndarray, "record ..."], Float32[np.ndarray, "record ..."]]:
        """Least and greatest inputs; of a record outside its columns, those of the nearest one inside."""
        steps = self.steps
        if self.flips is not None and self.flips.any():
            # Whatever may flip may have either value: a box holds more than the region, which only widens bounds.
            whole = np.array([kind != "grid" for kind in self.schema.kind])
            steps = np.where(whole & (self.flips > 0)[:, None], 1, self.steps)
        return region(self.schema, np.clip(self.centre, self.schema.low, self.schema.high), steps)
