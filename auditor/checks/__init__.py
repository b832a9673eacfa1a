"""The numbered checks (SPEC 13.4), one module each; no check imports another.

Each takes the `Evidence` and gives a `CheckResult`. A dishonest owner is a result, never an
exception; a check that lacks its input says INCONCLUSIVE and why.
"""
