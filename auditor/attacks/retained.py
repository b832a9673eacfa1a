"""A10: retained records before and after the patch.

Proves: nothing; `auditor.comparisons.assess_retained` compares. A plan that names this attack asks for it.
Assumes: retained records that the owner opened for the challenge, which neither side chose.
Does not: have hyper-parameters of its own: attacks, margin and levels are the plan's.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Retained:
    """Ask whether an attack sees retained records better after the patch than before."""
