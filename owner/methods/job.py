"""What every method is given, and what every method has to give back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from owner.compose import with_weights
from owner.targets import Target
from owner.workspace import Workspace
from protocol.claims import Claim
from protocol.device import Device
from protocol.messages.request import Request
from protocol.model.graph import Graph
from protocol.model.patch import Part, Patch, Weight

DISCLOSURE = 0.2
"""Default level: sketches that show more are used only where records cannot be told apart otherwise."""
Progress = Callable[[str, float], None]


def silent(_stage: str, _share: float) -> None:
    """A progress callback that shows nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What an earlier certificate's patch does and goes on doing: its parts come first.

    Args:
        parts: its parts, in their order.
        rows: the rows that its requests list one by one.
        classes: the classes that it removes.
        weights: the values that it gives constants of the base, where a method that trains goes on from them.
    """

    parts: tuple[Part, ...] = ()
    rows: tuple[int, ...] = ()
    classes: tuple[int, ...] = ()
    weights: tuple[Weight, ...] = ()

    @property
    def items(self) -> int:
        """How many items its parts have."""
        return sum(part.gate.items for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A task for a method.

    Args:
        workspace: the commitment folder.
        requests: each request with the data file's rows that it lists.
        target: what the output is to become.
        radius: radius asked for, in grid steps or flips; None lets the method choose.
        ceiling: largest radius to certify.
        flips: regions of flipped columns where the schema has numeric columns, too; else it decides.
        disclosure: least error of rebuilding a record from its sketch, relative to guessing its class mean.
        merge: whether records with the same output may share an item.
        gate: where items act: sketch, feature, linear-region, always, sketch+feature, or auto (a sketch).
        head: what they give: set (a row), shift (added to the base's output), affine (an affine map added).
        settings: the method's own settings, by name, as given (`settings.parse`).
        generator: the only source of randomness.
        progress: called with a stage's name and the share done.
        device: where networks are trained.
        standing: what an earlier certificate has settled; `requests` then list only what is new.
    """

    workspace: Workspace
    requests: tuple[tuple[Request, tuple[int, ...]], ...]
    target: Target
    radius: int | None
    ceiling: int
    generator: np.random.Generator
    progress: Progress = silent
    flips: bool = False
    disclosure: float = DISCLOSURE
    merge: bool = False
    gate: str = "auto"
    head: str = "set"
    settings: Mapping[str, str] = field(default_factory=dict)
    standing: Standing = Standing()
    device: Device = "cpu"

    def tensor(self, array: np.ndarray) -> Tensor:
        """A tensor of its own memory where networks are trained: what a commitment holds is read-only."""
        return torch.tensor(array, device=self.device)

    @property
    def start(self) -> Graph:
        """What a method that trains starts from: the base, with the weights that an earlier certificate gave it."""
        base = self.workspace.base
        if not self.standing.weights:
            return base
        return with_weights(base, Patch(features=base.features, classes=base.classes, weights=self.standing.weights))

    @property
    def rows(self) -> list[int]:
        """Rows to forget one by one (not those of a whole class), each once, in the data file's order."""
        return sorted({row for request, rows in self.requests if request.scope.klass is None for row in rows})

    @property
    def gone(self) -> Bool[np.ndarray, "record"]:
        """Which of the committed records are to be forgotten: the listed ones, and all members of removed classes."""
        gone: np.ndarray = np.isin(self.workspace.records.labels, self.classes)
        gone[self.rows] = True
        return gone

    @property
    def classes(self) -> list[int]:
        """Whole classes to remove."""
        return sorted({r.scope.klass for r, _ in self.requests if r.scope.klass is not None})

    @property
    def removed(self) -> list[int]:
        """All classes that the patch removes, now and before."""
        return sorted({*self.classes, *self.standing.classes})


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A method's answer.

    Args:
        patch: what is added to the base.
        claims: each record's redirection, or that it has none, once; coverage beside them.
        notes: for whoever runs the program.
        figures: by name.
        hints: a file of proof hints for these claims (SPEC 11.12), if they need one.
    """

    patch: Patch
    claims: tuple[Claim, ...]
    notes: tuple[str, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)
    hints: bytes | None = None
