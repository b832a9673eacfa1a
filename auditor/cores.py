"""The claimed regions around records, in the three forms that proofs need: grid boxes, sketch hulls, float boxes.

Proves: what `bounds` and `propagation.region` prove; this only keeps the regions of one certificate together.
Assumes a parsed schema. Source: SPEC 11.2, 11.6, 11.9.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Integer

from auditor import bounds
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
    """

    schema: InputSchema
    centre: Integer[np.ndarray, "record feature"]
    steps: Integer[np.ndarray, "record #feature"]

    @property
    def inside(self) -> Bool[np.ndarray, " record"]:
        """Which records are inside the columns' ranges; no gate acts on the others."""
        each = (self.centre >= self.schema.low) & (self.centre <= self.schema.high)
        found: Bool[np.ndarray, " record"] = np.logical_and.reduce(each, axis=1)
        return found

    def only(self, chosen: Integer[np.ndarray, " some"]) -> "Cores":
        """The regions of some of the records."""
        return Cores(schema=self.schema, centre=self.centre[chosen], steps=self.steps[chosen])

    def proof(self, gate: SketchGate, item: Integer[np.ndarray, " record"]) -> bounds.CoreProof:
        """Whether each region is in its item's box, exactly."""
        low, high = self.schema.low, self.schema.high
        return bounds.prove_sketch_core(
            gate, centre=self.centre, radius=self.steps, item=item, column_low=low, column_high=high
        )

    def boxes(self) -> tuple[Float32[np.ndarray, "record ..."], Float32[np.ndarray, "record ..."]]:
        """Least and greatest inputs; of a record outside its columns, those of the nearest one inside."""
        return region(self.schema, np.clip(self.centre, self.schema.low, self.schema.high), self.steps)
