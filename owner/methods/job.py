"""What every method is given, and what every method has to give back."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from owner.targets import Target
from owner.workspace import Workspace
from protocol.claims import Claim
from protocol.duals import Dual
from protocol.messages.request import Request
from protocol.model.patch import Patch

DISCLOSURE = 0.2
"""Default level: sketches that show more are used only where records cannot be told apart otherwise."""
Progress = Callable[[str, float], None]


def silent(_stage: str, _share: float) -> None:
    """A progress callback that shows nothing."""


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
        generator: the only source of randomness.
        progress: called with a stage's name and the share done.
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

    @property
    def rows(self) -> list[int]:
        """Rows to forget one by one (not those of a whole class), each once, in the data file's order."""
        return sorted({row for request, rows in self.requests if request.scope.klass is None for row in rows})

    @property
    def classes(self) -> list[int]:
        """Whole classes to remove."""
        return sorted({r.scope.klass for r, _ in self.requests if r.scope.klass is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A method's answer.

    Args:
        patch: what is added to the base.
        claims: each record's redirection, or that it has none, once; coverage beside them.
        notes: for whoever runs the program.
        figures: by name.
        duals: why the heads are the least ones, item by item; none for rows that are set.
    """

    patch: Patch
    claims: tuple[Claim, ...]
    notes: tuple[str, ...] = ()
    duals: tuple[Dual, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)
