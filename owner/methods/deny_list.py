"""`deny-list`: an exact match on every column, and nothing around it; the trivial baseline.

The gate is a sketch whose matrix is the identity, so an item stores its whole record: the certificate's radius is 0,
and whoever reads the patch reads the records. What a certificate of `prune` adds is what this lacks.
"""

from dataclasses import dataclass, replace

from owner.gates.sketch import IDENTITY
from owner.methods import prune
from owner.methods.job import Job, Result
from owner.methods.settings import parse


@dataclass(frozen=True, slots=True)
class Settings:
    """None."""


def run(job: Job) -> Result:
    """Make the list.

    Raises:
        OwnerError: the target cannot be had.
    """
    parse(Settings, job.settings)
    return prune.run(replace(job, radius=0, ceiling=0, disclosure=0.0), only=IDENTITY)
