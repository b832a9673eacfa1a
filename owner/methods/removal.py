"""Removed classes: caps that keep them away for every input, and what is claimed of them. Source: SPEC 7.7, 11.3."""

import numpy as np
from jaxtyping import Float32

from owner.methods.job import Job
from protocol.claims import Claim, ClassRemoval
from protocol.errors import OwnerError
from protocol.model.patch import Cap

CAP_MARGIN = "1"


def removal(job: Job) -> tuple[tuple[Cap, ...], list[Claim]]:
    """A cap for each class that is removed, now or before, and a claim for each that is removed now.

    Raises:
        OwnerError: no class would be left.
    """
    if len(job.removed) >= job.workspace.base.classes:
        raise OwnerError("at least one class has to stay: a removed class is kept below the others")
    caps = tuple(Cap(klass=klass, margin=CAP_MARGIN) for klass in job.removed)
    claims: list[Claim] = [
        ClassRemoval(klass=klass, margin=CAP_MARGIN, nonce=job.generator.bytes(32))
        for klass in job.classes
        if klass not in job.standing.classes
    ]
    return caps, claims


def capped(rows: Float32[np.ndarray, "row class"], classes: list[int]) -> Float32[np.ndarray, "row class"]:
    """What the deployed model puts out on a core: the row after the caps, in the same float32 operations."""
    result = rows.copy()
    for klass in classes:
        others = np.delete(result, classes, axis=1).max(axis=1)
        result[:, klass] = np.minimum(result[:, klass], others - np.float32(CAP_MARGIN))
    return result
