"""Tests of the checks, one file each: CONSISTENT, REFUTED and INCONCLUSIVE."""
